"""Scan and decode together: every format's chunks lie at their times, and add up whatever the header says."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mats_core.audio.decode import decode
from mats_core.audio.signatures import AUDIO_EXTENSIONS
from pipelines.archive.decode_stage import DecodeStage
from pipelines.archive.headers import Scanner, decoders_worth
from pipelines.archive.work_list import WorkList
from pipelines.cluster.stages import StageContext
from pipelines.data.inputs import open_input
from pipelines.settings.archive import LimitSettings
from tests.recordings import KINDS, bursts, clicks, encode, melody

pytestmark = pytest.mark.processes  # decoding is a child's

CHUNK_S, RATE = 4.0, 16_000
CLICK_S = 6.25
TOLERANCE_S = {"joined.mp3": 0.35, "raw.aac": 0.1, "short.m4a": 0.03, "joined.ogg": 0.1}
"""Encoders pad to whole frames, and these headers are not there to tell; each of several joined files has its own."""
FILMS = ("film-mp4", "film-mkv", "film-mov")
"""With a track of pictures before the sound's."""
LATE = {"aac", "amr", "3gp", "wma", "nutaac", "mp4parts", "gxf"}
"""Formats that do not tell their encoder's delay; GXF tells times in fields of 20 ms."""


def decoded(folder: Path) -> dict[str, list[tuple[float, np.ndarray]]]:
    """File name → (start of the chunk in seconds, its samples int16 [T]) of every row."""
    work = WorkList(str(folder / "_work"))
    source = open_input(str(folder))
    with Scanner(CHUNK_S, LimitSettings()) as scanner:
        work.extend(source, scanner, {"task": "caption"})
    stage = DecodeStage(StageContext(work.folder, decoder_workers=2), RATE, LimitSettings())
    rows = stage.load(work.read(0, work.total))
    found: dict[str, list[tuple[float, np.ndarray]]] = {}
    for row in rows.to_pylist():
        assert row["error_code"] is None, row
        found.setdefault(Path(row["uri"]).name, []).append((row["start_s"], np.frombuffer(row["pcm"] or b"", "<i2")))
    return found


RATES = {
    "libopencore_amrnb": 8000,
    "g722": 16_000,
    "adpcm_swf": 44_100,
    "adpcm_ms": 48_000,
    "adpcm_argo": 48_000,
    "adpcm_ima_ssi": 48_000,
    "adpcm_ima_qt": 48_000,
}
"""Codecs that know one rate, and keep no click of one sample."""


@pytest.fixture(scope="module")
def clicked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[float, np.ndarray]]]:
    """A file in every format with a click in its second chunk, decoded."""
    folder = tmp_path_factory.mktemp("clicked")
    for kind in FILMS:
        data = encode(clicks(48_000, 9.0, (CLICK_S,)), 48_000, kind.removeprefix("film-"), pictures=True)
        (folder / f"{kind}.{kind.removeprefix('film-')}").write_bytes(data)
    for kind in KINDS:
        rate = RATES.get(KINDS[kind][1], 48_000)
        wave = (bursts if KINDS[kind][1] in RATES else clicks)(rate, 9.0, (CLICK_S,))
        ending = kind if f".{kind}" in AUDIO_EXTENSIONS else "wav"  # what it is its first bytes say
        (folder / f"{kind}.{ending}").write_bytes(encode(wave, rate, kind))
    return decoded(folder)


@pytest.mark.parametrize("kind", [*KINDS, *FILMS])
def test_a_click_keeps_its_time_in_every_format(clicked: dict[str, list[tuple[float, np.ndarray]]], kind: str) -> None:
    (chunks,) = [chunks for name, chunks in clicked.items() if name.startswith(f"{kind}.")]
    start, samples = chunks[1]
    assert start == CHUNK_S
    loud = np.abs(samples.astype(int))
    heard = start + int((loud > 0.4 * loud.max()).argmax()) / RATE
    assert abs(heard - CLICK_S) < (0.050 if kind in LATE else 0.010)


def liars() -> Iterator[tuple[str, bytes, float]]:
    """(name, file, true seconds) of files whose header lies, or says nothing, about their length."""
    wav = bytearray(encode(melody(16_000, 10.0), 16_000, "wav"))
    for name, size in (("stale.wav", 16_000 * 2 * 3), ("zero.wav", 0), ("endless.wav", 0xFFFFFFFF)):
        wav[4:8] = struct.pack("<I", min(size + 36, 0xFFFFFFFF))
        wav[40:44] = struct.pack("<I", size)
        yield name, bytes(wav), 10.0
    yield from stale_sizes()
    yield "joined.mp3", encode(melody(44_100, 2.0), 44_100, "mp3") * 5, 10.0
    yield "raw.aac", encode(melody(44_100, 10.0), 44_100, "aac"), 10.0
    flac = bytearray(encode(melody(16_000, 10.0), 16_000, "flac"))
    flac[21] |= 0x0F
    flac[22:26] = b"\xff\xff\xff\xff"  # STREAMINFO: 2^36 - 1 samples
    yield "days.flac", bytes(flac), 10.0
    for name, samples in (("short.flac", 16_000 * 3), ("nearly.flac", 16_000 * 10 - 1), ("zero.flac", 0)):
        flac[21:26] = bytes([flac[21] & 0xF0]) + struct.pack(">I", samples)
        yield name, bytes(flac), 10.0
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 48_000 * 13).astype(np.float32)
    large = bytearray(encode(noise, 48_000, "flac"))  # more than is read at once: probed by its ends
    large[21:26] = bytes([large[21] & 0xF0]) + struct.pack(">I", 48_000 * 3)
    yield "large.flac", bytes(large), 13.0
    for kind in ("flac", "ogg", "opus"):
        parts = [encode(melody(48_000, seconds), 48_000, kind) for seconds in (5.0, 2.0, 3.0)]
        yield f"joined.{kind}", b"".join(parts), 10.0
    yield "joined-large.flac", encode(noise, 48_000, "flac") * 2, 26.0
    m4a = bytearray(encode(melody(48_000, 10.0), 48_000, "m4a"))
    at = m4a.index(b"mdhd")
    m4a[at + 20 : at + 24] = struct.pack(">I", 48_000 * 3)  # three seconds, says the track
    yield "short.m4a", bytes(m4a), 10.0


def stale_sizes() -> Iterator[tuple[str, bytes, float]]:
    """Ten seconds whose every length in the header says three, as a recorder leaves them that is stopped."""
    size, stale = 16_000 * 2 * 10, 16_000 * 2 * 3
    for kind, lengths in {
        "aiff": [(22, ">I", 160_000, 48_000), (42, ">I", size + 8, stale + 8)],
        "au": [(8, ">I", size, stale)],
        "caf": [(4084, ">q", size + 4, stale + 4)],
        "rf64": [(28, "<Q", size, stale), (36, "<Q", 160_000, 48_000)],
    }.items():
        file = io.BytesIO()
        soundfile.write(file, melody(16_000, 10.0), 16_000, format=kind.upper(), subtype="PCM_16")
        data = bytearray(file.getvalue())
        for place, code, true, told in lengths:
            assert struct.unpack_from(code, data, place)[0] == true
            struct.pack_into(code, data, place, told)
        yield f"stale.{kind}", bytes(data), 10.0
    data[28:36] = bytes(8)
    yield "zero.rf64", bytes(data), 10.0


@pytest.fixture(scope="module")
def lies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[float, np.ndarray]]]:
    folder = tmp_path_factory.mktemp("lies")
    for name, data, _ in liars():
        (folder / name).write_bytes(data)
    found = decoded(folder)
    with (folder / "stale.wav").open("rb") as file:
        assert decode(file, sample_rate=RATE).decoded_s == 10.0
    return found


LIARS = {name: seconds for name, _, seconds in liars()}


@pytest.mark.parametrize("name", LIARS)
def test_a_file_whose_header_lies_comes_out_whole_and_nothing_twice(
    lies: dict[str, list[tuple[float, np.ndarray]]], name: str
) -> None:
    end = 0.0
    for start, samples in lies[name]:
        assert len(samples) == 0 or abs(start - end) < 1e-6  # each begins where the one before it ended
        end += len(samples) / RATE
    assert end == pytest.approx(LIARS[name], abs=TOLERANCE_S.get(name, 0.001))


@pytest.mark.parametrize(
    ("workers", "spent_s", "cpu_s", "expected"),
    [
        (4, 10.0, 40.0, 4),  # all at work all of the time
        (4, 10.0, 20.0, 8),  # each waits for half of it
        (4, 10.0, 5.0, 16),  # and no more than that, however long they wait
        (8, 10.0, 20.0, 16),
        (4, 0.0, 0.0, 16),  # too quick to be measured
    ],
)
def test_where_decoders_wait_for_a_store_there_are_more_of_them(
    workers: int, spent_s: float, cpu_s: float, expected: int
) -> None:
    assert decoders_worth(workers, spent_s, cpu_s, 16) == expected
