"""Against what the `ffmpeg` program hears: every container and codec that Debian's FFmpeg writes, whole and damaged.

Every second of a file has a tone of its own, so that what is lost, doubled or moved shows. A file is heard as a run
hears it: its header is read, and it is decoded in rows. Right is what `ffmpeg` hears of it, in place by the time
stamps; where damage spoilt those, what it hears one behind the other. Where it loses or moves sound that was left
whole, every tone at its own second is right as well.

    python -m pytest tests/mats_core/audio/test_against_ffmpeg.py -m ""      # all; a table a container is printed
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from mats_core.audio.file import AudioError
from mats_core.audio.sandbox import DecodeRequest, IsolatedDecoder
from mats_core.audio.windows import chunk_starts
from tests.mats_core.audio.pairs import CONTAINERS, PROMISELESS, RATES, RULES, STEREO, UNCHECKED

RATE, SECONDS, ROW_S, FRAME_S = 16_000, 20, 6.0, 0.05
NEAR_S = 0.1

QUICK_PAIRS = [
    *(
        "wav:pcm_s16le",
        "wav:adpcm_ms",
        "aiff:pcm_s16be",
        "flac:flac",
        "ogg:libvorbis",
        "opus:libopus",
        "mp3:libmp3lame",
    ),
    *("adts:aac", "ipod:aac", "matroska:ac3", "webm:libopus", "avi:libmp3lame", "asf:wmav2", "mpeg:mp2", "mpegts:aac"),
]


def _noise(count: int) -> bytes:
    return np.random.default_rng(count).bytes(count)


def _flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    for at in np.random.default_rng(7).integers(len(data) * 3 // 10, len(data) // 2, 6):
        changed[at] ^= 0x55
    return bytes(changed)


def _zeroed(data: bytes) -> bytes:
    at, count = len(data) * 4 // 10, max(300, len(data) // 50)
    return data[:at] + bytes(count) + data[at + count :]


_ID3 = b"ID3\x04\0\0\0\0\x0f\x50TIT2\0\0\0\x05\0\0\x03tone" + bytes(0xF * 128 + 0x50 - 15)
_APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(16)
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda data: data,
    "cut": lambda data: data[: len(data) * 7 // 10],
    "zeroed": _zeroed,
    "flipped": _flipped,
    "noise in": lambda data: data[: len(data) * 45 // 100] + _noise(3000) + data[len(data) * 45 // 100 :],
    "bytes out": lambda data: data[: len(data) * 45 // 100] + data[len(data) * 45 // 100 + 2000 :],
    "tag before": lambda data: _ID3 + data,
    "tags behind": lambda data: data + _APE + b"TAG" + bytes(125),
    "zeros behind": lambda data: data + bytes(50_000),
    "twice": lambda data: data + data,
}
MISSING = shutil.which("ffmpeg") is None
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(MISSING, reason="ffmpeg is not installed (Debian, Ubuntu: apt install ffmpeg)"),
]


@cache
def _tones(rate: int) -> bytes:
    """`SECONDS` of sound as int16, each second a tone of its own: 300, 420, … Hz."""
    time = np.arange(rate * SECONDS)
    hertz = 300 + 120 * (time // rate)
    return (16_000 * np.sin(2 * np.pi * hertz * (time % rate) / rate)).astype("<i2").tobytes()


def _ffmpeg(*arguments: str, given: bytes = b"") -> bytes:
    command = ["ffmpeg", "-nostdin" if not given else "-y", "-v", "quiet", *arguments]
    try:
        return subprocess.run(command, input=given, capture_output=True, timeout=60).stdout
    except subprocess.TimeoutExpired:  # it fills a gap of hours, by a damaged time stamp
        return b""


def _written(container: str, codec: str, path: Path) -> bytes:
    """A file of the tones; empty where this FFmpeg does not write it."""
    rate = RATES.get(codec) or RATES.get(container, 48_000)
    options = ["-ac", "2"] if codec in STEREO else []
    options += ["-b:a", "24k"] if codec == "nellymoser" else []
    sound = ["-f", "s16le", "-ar", str(rate), "-ac", "1", "-i", "pipe:0"]
    _ffmpeg(*sound, *options, "-c:a", codec, "-strict", "-2", "-f", container, "-y", str(path), given=_tones(rate))
    return path.read_bytes() if path.is_file() else b""


def _right(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What `ffmpeg` hears, in place by the time stamps and one behind the other: int16 [T] each."""
    behind = path.with_suffix(".behind")
    sound = ["-t", "90", "-ac", "1", "-ar", str(RATE), "-f", "s16le"]  # damaged time stamps may tell hours
    in_place, one_behind = ("async=1:min_hard_comp=0.03:first_pts=0", "async=0")
    track = ["-map", "0:a:0", "-af"]
    heard = _ffmpeg(
        *("-i", str(path), *track, f"aresample={in_place}", *sound, "-"),
        *(*track, f"aresample={one_behind}", *sound, "-y", str(behind)),
    )
    if not heard:
        _ffmpeg("-i", str(path), *track, f"aresample={one_behind}", *sound, "-y", str(behind))
    found = np.frombuffer(heard, "<i2"), np.frombuffer(behind.read_bytes() if behind.is_file() else b"", "<i2")
    behind.unlink(missing_ok=True)
    return found


def _plain(path: Path) -> np.ndarray:
    """What the FFmpeg in PyAV hears, packet by packet and one behind the other, where it is not ours: int16 [T]."""
    found = [np.zeros(0, np.int16)]
    try:
        with av.open(str(path)) as container:
            track, resampler = container.streams.audio[0], av.AudioResampler("s16", "mono", RATE)
            for packet in container.demux(track):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    continue
                found += [each.to_ndarray()[0] for frame in frames for each in resampler.resample(frame)]
    except (av.error.FFmpegError, IndexError):
        pass
    return np.concatenate(found)


class _Heard(NamedTuple):
    """What a run hears in rows of `ROW_S`: int16 [T], the first error, and what its rows tell."""

    samples: np.ndarray
    error: str = ""
    complete: bool = True
    lost_s: float = 0.0


def _heard(decoder: IsolatedDecoder, path: Path) -> _Heard:
    [info] = decoder.probe_many([str(path)])
    if isinstance(info, AudioError):
        return _Heard(np.zeros(0, np.int16), info.code)
    rows = [DecodeRequest(str(path), start, length) for start, length in chunk_starts(info.duration_s, ROW_S)]
    if info.duration_s is not None:
        assert len(rows) <= 60, f"{len(rows)} rows are promised"
    parts, error, complete, lost_s = [np.zeros(0, np.int16)], "", True, 0.0
    for row, answer in zip(rows, decoder.decode_many(rows), strict=True):
        if isinstance(answer, AudioError):
            error = error or answer.code
            continue
        missing = 0 if row.duration_s is None else round(row.duration_s * RATE) - len(answer.samples)
        parts += [answer.samples, np.zeros(missing if row is not rows[-2:][0] else 0, np.int16)]
        complete, lost_s = complete and answer.complete, lost_s + answer.lost_s
        if row.duration_s is None and len(answer.samples) > 1.5 * ROW_S * RATE and len(rows) > 1:
            error = error or "long row"
    return _Heard(np.concatenate(parts), error, complete, lost_s)


def _places(sound: np.ndarray, share: float = 0.8) -> dict[int, tuple[float, float, int]]:
    """Tone → (first, last second, frames) in which it is heard alone, with that share of a frame's power, for four
    frames or more at a time: noise that damage decodes to is loudest anywhere."""
    size = round(FRAME_S * RATE)
    frames = sound[: len(sound) // size * size].reshape(-1, size) * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    peak = power[:, 5:-5].argmax(axis=1) + 5
    near = sum(power[np.arange(len(power)), peak + offset] for offset in (-1, 0, 1))
    clear = (near > (size * 60) ** 2) & (near > share * power.sum(axis=1))
    tone = np.round((peak / FRAME_S - 300) / 120).astype(int)
    found = {}
    for number in range(SECONDS):
        there = clear & (tone == number)
        runs = np.split(np.flatnonzero(there), np.flatnonzero(np.diff(np.flatnonzero(there)) > 1) + 1)
        at = np.concatenate([run for run in runs if len(run) >= 4] or [np.zeros(0, int)])
        if len(at):
            found[number] = (at[0] * FRAME_S, at[-1] * FRAME_S, len(at))
    return found


def _difference(heard: np.ndarray, right: np.ndarray) -> str:
    """What is wrong, in words; empty where nothing is."""
    said = []
    if abs(len(heard) - len(right)) > NEAR_S * RATE:
        said.append(f"{len(heard) / RATE:.2f} s, right {len(right) / RATE:.2f}")
    ours, theirs = _places(heard), _places(right)
    # note: in damage a frame's share may be a little more in one decoder, and a little less in another one
    nearly_ours, nearly_theirs = _places(heard, 0.5), _places(right, 0.5)
    for tone, (first, last, frames) in theirs.items():
        if frames < 6:  # hardly there: noise of the damage
            continue
        if tone not in ours:
            said += [f"tone {tone} lost"] if not _within(theirs[tone], nearly_ours.get(tone)) else []
            continue
        off = max(abs(ours[tone][0] - first), abs(ours[tone][1] - last)) > NEAR_S + FRAME_S / 10
        if off and not (_within(theirs[tone], nearly_ours.get(tone)) and _within(ours[tone], nearly_theirs.get(tone))):
            said.append(f"tone {tone} at {ours[tone][0]:.2f}-{ours[tone][1]:.2f}, right {first:.2f}-{last:.2f}")
        elif abs(ours[tone][2] - frames) > 2 + NEAR_S / FRAME_S:
            said.append(f"tone {tone} for {ours[tone][2]} frames, right {frames}")
    said += [f"tone {tone} not right" for tone in set(ours) - set(theirs) if ours[tone][2] >= 6]
    return ", ".join(said[:3])


def _within(place: tuple[float, float, int], other: tuple[float, float, int] | None) -> bool:
    """Whether the first and last second of a tone lie in those of another hearing of it."""
    return other is not None and other[0] - NEAR_S <= place[0] and place[1] <= other[1] + NEAR_S


def _is_better(heard: np.ndarray, theirs: list[np.ndarray], damage: str, lost_s: float) -> bool:
    """Whether every second of the file is heard where it was written, no less of it than `ffmpeg` hears there, and what
    is missing at the end is told."""
    ours, times = _places(heard), 2 if damage == "twice" else 1
    shortest = min(len(each) / RATE for each in theirs)
    if not min(shortest, times * SECONDS) - NEAR_S - lost_s <= len(heard) / RATE <= times * SECONDS + 0.5:
        return False
    for tone, (first, last, frames) in ours.items():
        where = (first - tone, last - tone - (times - 1) * SECONDS)
        if frames >= 6 and not (where[0] >= -NEAR_S - FRAME_S and where[1] <= 1 + NEAR_S):
            return False
    places = [_places(each) for each in theirs]
    return all(
        ours.get(tone, (0, 0, 0))[2] + 3 >= min(each.get(tone, (0, 0, 0))[2] for each in places)
        for tone in range(SECONDS)
    )


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(1, RATE) as decoder:
        yield decoder


_NO_SOUND = ("tag before", "tags behind", "zeros behind")


def _judged(decoder: IsolatedDecoder, path: Path, pair: str, damage: str, size: int, whole: list[np.ndarray]) -> str:
    """What is wrong with what a run hears of a file at `path`, damaged; empty where it is what `ffmpeg` hears, the name
    of a rule in brackets where that makes it right. `size`: its bytes, and `whole`: what `ffmpeg` hears in both ways,
    without damage."""
    heard, (in_place, behind) = _heard(decoder, path), _right(path)
    wrong = ", ".join(filter(None, (heard.error, _difference(heard.samples, in_place))))
    if max(len(behind), len(heard.samples)) < NEAR_S * RATE:
        return ""
    if wrong and not heard.error:
        rule = "" if damage != "whole" and not _difference(heard.samples, behind) else None
        rule = rule if rule is not None else _rule(heard, path, damage, size, whole, [in_place, behind])
        words = RULES.get(rule, {}).get(damage, "").split()
        if rule and not {pair, pair.partition(":")[0], "*:" + pair.partition(":")[2]} & {*words}:
            return f"{wrong} (as by {rule})"
        wrong = wrong if rule is None else f"[{rule}]" if rule else ""
    untrue = "" if heard.error or wrong[:1] not in ("", "[") else _untrue(heard, pair, damage, whole[0])
    return untrue or wrong


def _rule(
    run: _Heard, path: Path, damage: str, size: int, whole: list[np.ndarray], theirs: list[np.ndarray]
) -> str | None:
    """The rule by which it is right; None where there is none."""
    heard, lost_s = run.samples, run.lost_s
    times = {**dict.fromkeys(_NO_SOUND, 1), "twice": 2}.get(damage)
    if times and not all(_difference(heard, np.tile(each, times)) for each in whole):
        return "as if whole"
    if damage == "noise in" and len(heard) > len(theirs[0]) and _goes_on(heard, path, size):
        return "pushed out"
    if _is_better(heard, theirs, damage, lost_s):
        return "every second"
    plain = _plain(path)
    newer = not _difference(heard[: len(plain)], plain) or _is_better(heard, [plain], damage, lost_s)
    return "newer FFmpeg" if newer and len(plain) and damage != "whole" else None


def _untrue(heard: _Heard, pair: str, damage: str, whole: np.ndarray) -> str:
    """What a run tells wrongly of what is missing; of damage that no decoder can see, nothing is asked."""
    container, _, codec = pair.partition(":")
    ours, right = _places(heard.samples), _places(whole)
    missing = sum(max(0, right[tone][2] - ours.get(tone, (0, 0, 0))[2]) for tone in right) * FRAME_S
    if damage in (*_NO_SOUND, "whole", "twice"):
        if damage == "twice" and len(heard.samples) < 1.5 * SECONDS * RATE:  # the second is not heard, and told
            return f"lost_s {heard.lost_s} of two" if heard.complete or abs(heard.lost_s - SECONDS) > 2 else ""
        return "" if heard.complete else f"complete is false, lost_s {heard.lost_s}"
    promised = not {container, pair} & {*PROMISELESS.split()}
    seen = promised if damage == "cut" else not UNCHECKED.match(codec)
    if seen and missing > 0.7 and heard.complete:
        return f"complete is true where {missing:.2f} s are missing"
    return f"lost_s {heard.lost_s:.1f} where {missing:.1f} s are missing" if heard.lost_s > missing + 4 else ""


def _goes_on(heard: np.ndarray, path: Path, size: int) -> bool:
    """Whether the sound is what `ffmpeg` hears of the first `size` bytes of a file, and more of its end."""
    first = path.with_suffix(".first")
    first.write_bytes(path.read_bytes()[:size])
    for right in _right(first):
        more = _places(heard[len(right) :])
        if len(heard) > len(right) > 0 and not _difference(heard[: len(right)], right):
            return min(more, default=SECONDS) >= max(_places(right), default=0)
    return False


def _compare(decoder, tmp_path: Path, container: str, codec: str, damages: list[str]) -> dict[str, str]:
    """Damage → what `_judged` says; nothing of a pair that this FFmpeg does not write, or does not hear whole."""
    data = _written(container, codec, tmp_path / "written")
    whole = [*_right(tmp_path / "written")]
    if not data or abs(len(whole[0]) / RATE - SECONDS) > 0.3:
        return {}
    found = {}
    path = tmp_path / "sound"  # note: no ending, by which FFmpeg would guess
    for name in damages:
        path.write_bytes(DAMAGES[name](data))
        found[name] = _judged(decoder, path, f"{container}:{codec}", name, len(data), whole)
    return found


@pytest.mark.parametrize("pair", QUICK_PAIRS)
def test_what_is_heard_and_where(decoder, tmp_path, pair):
    container, _, codec = pair.partition(":")
    found = _compare(decoder, tmp_path, container, codec, list(DAMAGES))
    assert len(found) == len(DAMAGES)
    assert not {name: wrong for name, wrong in found.items() if wrong and not wrong.startswith("[")}


@pytest.mark.long
@pytest.mark.parametrize("container", sorted(CONTAINERS))
def test_every_pair(decoder, tmp_path, container, capsys):
    table, wrong = [], []
    for codec in CONTAINERS[container].split():
        found = _compare(decoder, tmp_path, container, codec, list(DAMAGES))
        (tmp_path / "written").unlink(missing_ok=True)
        marks = [f"{name} {(said if said.startswith('[') else 'NO') if said else 'ok'}" for name, said in found.items()]
        table.append(f"{container:>9} {codec:<16} {' '.join(marks) or 'no oracle'}")
        wrong += [f"{container} {codec} {name}: {said}" for name, said in found.items() if said and said[0] != "["]
    with capsys.disabled():
        print("", *table, *wrong, sep="\n")
    assert not wrong
