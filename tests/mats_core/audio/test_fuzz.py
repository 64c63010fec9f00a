"""Damaged files, 500 of each format: each is answered or coded, and no process or limit gives way.

The damage is drawn from a seed, so a failure can be looked at again: `_mutant(kind, number)` makes the same bytes.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mats_core.audio.decode import Decoded
from mats_core.audio.file import AudioError, AudioInfo
from mats_core.audio.sandbox import DecodeRequest, IsolatedDecoder
from tests.recordings import encode, melody

pytestmark = pytest.mark.processes  # decoding is a child's

FORMATS = ("wav", "flac", "ogg", "mp3", "aiff", "m4a", "opus")
COUNT = 500
SECONDS = 0.3
CODES = {"not_audio", "empty_audio", "decode_failed", "too_large", "timeout", "refused"}
ORIGINALS = {kind: encode(melody(48000, SECONDS, channels=2), 48000, kind) for kind in FORMATS}
# Names that stand before a length in the formats at hand; the length is made absurd.
SIZED = (
    b"RIFF",
    b"fmt ",
    b"data",
    b"FORM",
    b"COMM",
    b"SSND",
    b"moov",
    b"trak",
    b"mdat",
    b"stsz",
    b"stco",
    b"stts",
    b"ftyp",
)
ABSURD = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0)


def _flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    reach = min(len(data), 256) if rng.random() < 0.5 else len(data)  # headers are where it hurts
    for _ in range(int(rng.integers(1, 20))):
        data[int(rng.integers(reach))] ^= 1 << int(rng.integers(8))


def _cut(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def _remove_middle(data: bytearray, rng: np.random.Generator) -> None:
    first, last = sorted(int(place) for place in rng.integers(len(data), size=2))
    del data[first:last]


def _swap_header(data: bytearray, rng: np.random.Generator) -> None:
    other = ORIGINALS[FORMATS[int(rng.integers(len(FORMATS)))]]
    size = int(rng.choice([4, 12, 44, 200, 1000]))
    data[:size] = other[:size]


def _declare_absurd_size(data: bytearray, rng: np.random.Generator) -> None:
    value = int(rng.choice(ABSURD))
    places = [data.find(name) for name in SIZED if name in data]
    if places and rng.random() < 0.6:
        place = int(rng.choice(places))
        place += -4 if data[4:8] == b"ftyp" and place >= 4 else 4  # mp4 has the length before the name
    else:
        place = int(rng.integers(max(1, min(len(data), 300) - 4)))
    data[place : place + 4] = struct.pack(str(rng.choice(["<I", ">I"])), value)


def _overwrite(data: bytearray, rng: np.random.Generator) -> None:
    first = int(rng.integers(len(data)))
    size = int(rng.integers(1, 500))
    data[first : first + size] = bytes(size) if rng.random() < 0.5 else rng.bytes(size)


def _repeat(data: bytearray, rng: np.random.Generator) -> None:
    first = int(rng.integers(len(data)))
    data[first:first] = data[: int(rng.integers(1, 2000))]


DAMAGE = (_flip_bits, _cut, _remove_middle, _swap_header, _declare_absurd_size, _overwrite, _repeat)


def _mend_ogg_checksums(data: bytearray) -> None:
    """An Ogg page whose checksum is wrong is thrown away whole; with it mended, the damage reaches the codec."""
    page = data.find(b"OggS")
    while page >= 0 and len(data) >= page + 27:
        segments = data[page + 26]
        size = 27 + segments + sum(data[page + 27 : page + 27 + segments])
        data[page + 22 : page + 26] = bytes(4)
        data[page + 22 : page + 26] = struct.pack("<I", _ogg_checksum(data[page : page + size]))
        page = data.find(b"OggS", page + 4)


def _ogg_checksum(page: bytes) -> int:
    checksum = 0
    for byte in page:
        checksum = (checksum << 8 & 0xFFFFFFFF) ^ OGG_TABLE[checksum >> 24 ^ byte]
    return checksum


def _ogg_table() -> list[int]:
    table = []
    for entry in range(256):
        entry <<= 24
        for _ in range(8):
            entry = (entry << 1 ^ (0x04C11DB7 if entry & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(entry)
    return table


OGG_TABLE = _ogg_table()


def _mutant(kind: str, number: int) -> bytes:
    rng = np.random.default_rng([FORMATS.index(kind), number])
    data = bytearray(ORIGINALS[kind])
    DAMAGE[number % len(DAMAGE)](data, rng)
    while data and rng.random() < 0.3:
        DAMAGE[int(rng.integers(len(DAMAGE)))](data, rng)
    if rng.random() < 0.7:
        _mend_ogg_checksums(data)
    return bytes(data)


def _peak_kib(pid: int) -> int:
    """The most memory a process has held so far."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


@pytest.fixture(scope="module")
def decoder():
    with IsolatedDecoder(2, 16000) as decoder:
        yield decoder


def test_mended_checksums_are_those_of_the_encoder():
    whole = bytearray(ORIGINALS["ogg"])
    _mend_ogg_checksums(whole)
    assert whole == ORIGINALS["ogg"]


def test_the_damage_is_the_same_every_time():
    assert _mutant("flac", 17) == _mutant("flac", 17)
    assert len({_mutant("wav", number) for number in range(100)}) > 90


@pytest.mark.parametrize("kind", FORMATS)
def test_every_damaged_file_is_answered_or_coded(kind: str, decoder: IsolatedDecoder, tmp_path: Path):
    requests = []
    for number in range(COUNT):
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(_mutant(kind, number))
        requests.append(DecodeRequest(str(path), start_s=0.1 if number % 5 == 0 else 0.0))
    answers = decoder.decode_many(requests)
    headers = decoder.probe_many([request.uri for request in requests])

    for answer in answers:
        if isinstance(answer, AudioError):
            assert answer.code in CODES
            assert answer.message
        else:
            assert answer.samples.dtype == np.int16
            assert answer.decoded_s == len(answer.samples) / 16000
    for header in headers:
        assert isinstance(header, AudioInfo) or header.code in CODES
    answered = sum(isinstance(answer, Decoded) for answer in answers)
    assert 0.05 * COUNT < answered < COUNT, "the damage is too mild or too great to say anything"
    stopped = [answer for answer in answers if isinstance(answer, AudioError) and answer.code == "timeout"]
    assert not stopped  # 20 s for a third of a second of sound: a decoder that does not end
    assert 0 < max(_peak_kib(child) for child in decoder.process_ids()) < 1 << 20


def test_the_fuzz_job_goes_on_where_it_stopped(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for kind in ("wav", "flac", "ogg"):
        (seeds / f"one.{kind}").write_bytes(ORIGINALS[kind])
    (seeds / "done").touch()
    states = []
    for files in (20, 50):
        command = [sys.executable, "-m", "tests.fuzz", "--state", str(tmp_path), "--files", str(files)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
        states.append(json.loads((tmp_path / "state.json").read_text()))
        found = sum(count for name, count in states[-1]["counts"].items() if name.startswith("found: "))
        assert done.returncode == (1 if found else 0), done.stderr
        codes = {name: count for name, count in states[-1]["counts"].items() if not name.startswith("found: ")}
        assert states[-1]["next"] == sum(codes.values()) == files
        assert codes["decoded"] > files / 5
        assert codes.keys() <= CODES | {"decoded"}
    assert not list((tmp_path / "work").iterdir())
