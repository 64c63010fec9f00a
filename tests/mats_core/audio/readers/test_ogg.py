"""Ogg: streams one behind the other, pages that lie or break off, and every second of them at its place."""

from __future__ import annotations

import io
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mats_core.audio.decode import decode, probe
from mats_core.audio.file import AudioError, SourceFile
from mats_core.audio.readers.ogg import repair_ogg
from tests.mats_core.audio.test_fuzz import _mend_ogg_checksums
from tests.recordings import encode

RATE = 16000


def tones(rate: int, first: int, stop: int, channels: int = 1) -> npt.NDArray[np.float32]:
    """Float32 [T, channels]: second k is a tone of 300 + 40 (k % 150) Hz, for k in [first, stop)."""
    time = np.arange(rate) / rate
    seconds = [0.4 * np.sin(2 * np.pi * (300 + 40 * (k % 150)) * time) for k in range(first, stop)]
    return np.repeat(np.concatenate(seconds)[:, None], channels, axis=1).astype(np.float32)


def heard(samples: npt.NDArray[np.int16]) -> list[int]:
    """Which second's tone is heard in each whole second, by the greatest of its frequencies."""
    whole = samples[: len(samples) // RATE * RATE].reshape(-1, RATE)
    return [round((int(np.abs(np.fft.rfft(second)).argmax()) - 300) / 40) for second in whole]


def link(kind: str, first: int, stop: int, rate: int = 48000, channels: int = 1) -> bytes:
    return encode(tones(rate, first, stop, channels), rate, kind)


def with_serial(data: bytes, serial: int) -> bytes:
    """The same stream under another number."""
    changed, page = bytearray(data), data.find(b"OggS")
    while page >= 0:
        changed[page + 14 : page + 18] = struct.pack("<I", serial)
        size = 27 + data[page + 26] + sum(data[page + 27 : page + 27 + data[page + 26]])
        page = data.find(b"OggS", page + size)
    _mend_ogg_checksums(changed)
    return bytes(changed)


CHAINS = {
    "mono, then stereo": ("opus", 48000, 1), "another rate": ("ogg", 22050, 1), "rate and channels": ("ogg", 8000, 2),
    "another codec": ("ogg", 44100, 2),
}  # fmt: skip
START = link("opus", 0, 4)


@pytest.mark.parametrize("what", CHAINS)
def test_a_chain_is_heard_from_first_to_last_whatever_changes(what: str) -> None:
    kind, rate, channels = CHAINS[what]
    first = link("ogg" if "rate" in what else "opus", 0, 4)
    data = first + link(kind, 4, 9, rate, 2 if what.endswith("stereo") else channels) + link("opus", 9, 12)
    info = probe(io.BytesIO(data))
    assert info.duration_s == pytest.approx(12, abs=0.02)
    decoded = decode(io.BytesIO(data), sample_rate=RATE)
    assert heard(decoded.samples) == list(range(12))[: int(decoded.decoded_s)]
    assert decoded.decoded_s == pytest.approx(12, abs=0.02)
    assert decoded.complete
    for start in (3, 5, 9, 10):
        late = decode(io.BytesIO(data), sample_rate=RATE, start_s=start, duration_s=2)
        assert heard(late.samples) == [start, start + 1]


@pytest.mark.parametrize("count", [2, 12])
def test_streams_of_one_serial_number_are_several_all_the_same(count: int) -> None:
    data = b"".join(with_serial(link("opus", 2 * k, 2 * k + 2), 7) for k in range(count))
    assert probe(io.BytesIO(data)).duration_s == pytest.approx(2 * count, abs=0.02)
    assert heard(decode(io.BytesIO(data), sample_rate=RATE).samples) == list(range(2 * count))


@pytest.mark.parametrize("serials", [(1, 2), (7, 7)])
def test_a_large_chain_is_found_by_looking_into_it(serials: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (48000 * 20, 2)).astype(np.float32)
    loud = b"".join(4 * with_serial(encode(noise, 48000, "opus"), serial) for serial in serials)
    assert len(loud) > 1 << 20
    assert probe(io.BytesIO(loud)).duration_s == pytest.approx(160, abs=0.1)


def test_an_ordinary_large_file_is_looked_into_at_its_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mats_core.audio.readers.ogg._SMALL", 1 << 16)
    one = encode(np.random.default_rng(0).uniform(-0.5, 0.5, (48000 * 30, 2)).astype(np.float32), 48000, "opus")
    assert len(one) > 1 << 18
    file = SourceFile(io.BytesIO(one))
    reads: list[int] = []
    head = file.head
    file.head = lambda count, offset=0: (reads.append(count), head(count, offset))[1]  # type: ignore[method-assign]
    repair_ogg(file)
    assert (file.links, file.joined, file.cut, len(reads)) == ([], False, False, 2)


def test_a_stream_that_no_decoder_knows_does_not_end_the_chain() -> None:
    page = with_serial(START[: 27 + 1 + 19], 99)
    unknown = bytearray(page + page)
    unknown[28:36] = b"Unknown\0"
    unknown[len(page) + 5] = 4
    _mend_ogg_checksums(unknown)
    decoded = decode(io.BytesIO(START + bytes(unknown) + link("ogg", 4, 6)), sample_rate=RATE)
    assert heard(decoded.samples) == list(range(6))
    assert not decoded.complete


# --- the end -------------------------------------------------------------------------------------------------


def last_page(data: bytes) -> int:
    return data.rindex(b"OggS")


@pytest.mark.parametrize("kind", ["ogg", "opus"])
@pytest.mark.parametrize("granule", [48000 * 3600, (1 << 63) - 1, 0, 48000 * 8])
def test_the_time_of_the_last_page_is_not_believed_where_its_packets_do_not_reach(kind: str, granule: int) -> None:
    data = bytearray(link(kind, 0, 6))
    place = last_page(data)
    data[place + 6 : place + 14] = struct.pack("<q", granule)
    _mend_ogg_checksums(data)
    decoded = decode(io.BytesIO(bytes(data)), sample_rate=RATE)
    assert decoded.decoded_s == pytest.approx(6, abs=0.1)
    assert heard(decoded.samples)[:5] == list(range(5))
    info = probe(io.BytesIO(bytes(data)))
    assert info.duration_source == "unknown" or info.duration_s == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize("kind", ["ogg", "opus"])
@pytest.mark.parametrize("behind", [b"TAG" + bytes(125), bytes(3000), b"APETAGEX" + bytes(900), b"OggS\0\0" + bytes(9)])
def test_what_stands_behind_the_last_page_is_no_sound(kind: str, behind: bytes) -> None:
    whole = decode(io.BytesIO(link(kind, 0, 3)), sample_rate=RATE)
    data = link(kind, 0, 3) + behind
    decoded = decode(io.BytesIO(data), sample_rate=RATE)
    assert np.array_equal(decoded.samples, whole.samples)
    assert probe(io.BytesIO(data)).duration_s == pytest.approx(3, abs=0.01)
    assert decoded.complete == (not behind.startswith(b"OggS"))


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_a_cut_file_is_as_long_as_its_whole_pages(kind: str) -> None:
    data = encode(np.random.default_rng(0).uniform(-0.3, 0.3, 48000 * 8).astype(np.float32), 48000, kind)
    for share in (0.4, 0.6, 0.9):
        cut = data[: int(len(data) * share)]
        decoded = decode(io.BytesIO(cut), sample_rate=RATE)
        assert probe(io.BytesIO(cut)).duration_s == pytest.approx(decoded.decoded_s, abs=0.1)
        assert not decoded.complete


def test_an_end_within_a_packet_is_kept() -> None:
    for kind in ("ogg", "opus"):
        data = encode(tones(48000, 0, 3)[: 48000 * 2 + 12345], 48000, kind)
        exact = (48000 * 2 + 12345) / 48000
        assert probe(io.BytesIO(data)).duration_s == pytest.approx(exact, abs=1e-4)
        assert decode(io.BytesIO(data), sample_rate=48000).decoded_s == pytest.approx(exact, abs=0.003)


# --- side by side --------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="FFmpeg's program makes the film; it is not installed")
@pytest.mark.processes
def test_of_a_film_in_ogg_the_sound_is_heard(tmp_path: Path) -> None:
    source, film = tmp_path / "source.wav", tmp_path / "film.ogv"
    source.write_bytes(encode(tones(48000, 0, 8), 48000, "wav"))
    pictures = ["-f", "lavfi", "-i", "testsrc=size=64x64:rate=10:duration=8", "-c:v", "libtheora"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, *pictures, "-c:a", "libvorbis", film], check=True)
    with film.open("rb") as file:
        assert probe(file).duration_s == pytest.approx(8, abs=0.1)
        assert heard(decode(file, sample_rate=RATE).samples)[:8] == list(range(8))


# --- damage --------------------------------------------------------------------------------------------------


def test_whatever_the_pages_say_there_is_an_answer_or_an_error_with_a_code() -> None:
    data = START + link("ogg", 4, 5)
    pages = [match.start() for match in re.finditer(b"OggS", data)]
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place : place + 8] = rng.bytes(int(rng.integers(1, 9)))
        page = int(rng.choice(pages))
        damaged[page + 4 + int(rng.integers(0, 40))] = int(rng.integers(0, 256))
        try:
            repair_ogg(SourceFile(io.BytesIO(bytes(damaged[: int(rng.integers(1, len(data)))]))))
        except AudioError:
            pytest.fail("no page is an error by itself")
