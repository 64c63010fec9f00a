"""A small archive of real audio files, as untidy as archives are, and the truth about every file.

The sounds are recipes of the embedded world. Formats, rates, channels, lengths and names vary as they do in
the wild, and a few files are broken on purpose. What each file holds is written to ``truth.jsonl``, which
belongs outside the archive.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import soundfile
import soxr

from mats_core.soundworld.kinds import SAMPLE_RATE
from mats_core.soundworld.language import recipe_caption
from mats_core.soundworld.recipe import SPLITS, Recipe, sample_recipe
from mats_core.soundworld.synth import render, render_scene
from mats_core.storage.uris import printable

# Front left, front right, centre, low frequencies, back left, back right.
SURROUND_GAINS = (0.8, 0.8, 1.0, 0.5, 0.6, 0.6)
STEREO_GAINS = (1.0, 0.7)
CHANGE_S = 20.0


@dataclass(frozen=True)
class Clip:
    """One good file: its name in the archive, how it is written, and how long it sounds (seconds)."""

    name: bytes
    encoding: str
    sample_rate: int
    channels: int
    seconds: float
    kinds: tuple[str, ...] | None = None  # draw from these kinds of sound only (at least three)
    cut: float = 1.0  # share of the bytes that are kept

    @property
    def is_scene(self) -> bool:
        """Long files are scenes whose sounds change; short ones are one clip."""
        return self.seconds >= 60


# How `soundfile` writes each encoding: (format, subtype). M4A is written by PyAV.
SOUNDFILE_ENCODINGS = {
    "wav16": ("WAV", "PCM_16"), "wav24": ("WAV", "PCM_24"), "wavfloat": ("WAV", "FLOAT"), "aiff": ("AIFF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "mp3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip

SUSTAINED = ("siren", "tone", "engine", "saw")

CLIPS: tuple[Clip, ...] = (
    # A tidy folder: one format after another, all rates.
    Clip(b"field/001.wav", "wav16", 8000, 1, 5.0),
    Clip(b"field/002.wav", "wav16", 16000, 1, 5.0),
    Clip(b"field/003.wav", "wav16", 44100, 2, 4.2),
    Clip(b"field/004.wav", "wav24", 48000, 1, 5.0),
    Clip(b"field/005.wav", "wav24", 44100, 2, 5.0),
    Clip(b"field/006.wav", "wavfloat", 22050, 1, 3.7),
    Clip(b"field/007.wav", "wavfloat", 48000, 2, 5.0),
    Clip(b"field/008.flac", "flac", 16000, 1, 5.0),
    Clip(b"field/009.flac", "flac", 44100, 2, 5.0),
    Clip(b"field/010.flac", "flac", 48000, 1, 2.9),
    Clip(b"field/011.ogg", "ogg", 44100, 1, 5.0),
    Clip(b"field/012.ogg", "ogg", 16000, 2, 5.0),
    Clip(b"field/013.mp3", "mp3", 44100, 2, 5.0),
    Clip(b"field/014.mp3", "mp3", 16000, 1, 5.0),
    Clip(b"field/015.aiff", "aiff", 44100, 1, 5.0),
    Clip(b"field/016.m4a", "m4a", 44100, 2, 5.0),
    # A phone's folder.
    Clip(b"phone/Recording 1.m4a", "m4a", 48000, 1, 5.0),
    Clip(b"phone/Recording 2.m4a", "m4a", 44100, 1, 4.5),
    Clip(b"phone/Recording 3.m4a", "m4a", 32000, 1, 5.0),
    Clip(b"phone/Recording 4.m4a", "m4a", 22050, 1, 3.1),
    Clip(b"phone/Recording 4 (copy).MP3", "mp3", 22050, 1, 5.0),
    Clip(b"phone/voice memo.wav", "wav16", 8000, 1, 5.0),
    # Music and signals.
    Clip(b"studio/take one.wav", "wav24", 48000, 2, 5.0, ("melody", "drum", "tone")),
    Clip(b"studio/take two.aiff", "aiff", 48000, 2, 5.0, ("melody", "drum", "bell")),
    Clip(b"studio/mixdown 5.1.wav", "wav24", 48000, 6, 5.0),
    Clip(b"studio/mixdown 5.1.flac", "flac", 48000, 6, 5.0),
    Clip(b"studio/effects/ambience 5.1.wav", "wavfloat", 44100, 6, 8.0),
    Clip(b"studio/effects/one hit.wav", "wav16", 44100, 1, 0.3, ("glass", "drum", "knock")),
    Clip(b"studio/effects/blip.flac", "flac", 48000, 1, 0.3, SUSTAINED),
    Clip(b"studio/effects/blip.ogg", "ogg", 48000, 1, 0.5, SUSTAINED),
    Clip(b"studio/effects/blip.mp3", "mp3", 44100, 1, 0.8, SUSTAINED),
    Clip(b"studio/effects/sting.aiff", "aiff", 22050, 1, 1.2),
    # Names that programs trip over.
    Clip(b"odd names/two  spaces and a trailing one .wav", "wav16", 16000, 1, 5.0),
    Clip(b'odd names/it\'s a "quoted" name.flac', "flac", 44100, 1, 5.0),
    Clip("odd names/Glöckchen über Tälern.ogg".encode(), "ogg", 44100, 2, 5.0),
    Clip("odd names/Gerät №5 – 東京.mp3".encode(), "mp3", 32000, 1, 5.0),
    Clip(b"odd names/first line\nsecond line.wav", "wav16", 22050, 1, 5.0),
    Clip(b"odd names/Ger\xe4usch.wav", "wav16", 16000, 1, 5.0),
    Clip(b"odd names/100% #1 & more?.wav", "wav16", 16000, 1, 5.0),
    Clip(b"odd names/<b>bold<b> & plain.flac", "flac", 16000, 1, 5.0),
    Clip(b"odd names/-rf.wav", "wav16", 16000, 1, 5.0),
    Clip(b"odd names/.hidden take.ogg", "ogg", 16000, 1, 5.0),
    Clip(b"odd names/deep/er/and/deeper/still.mp3", "mp3", 48000, 2, 5.0),
    # Longer than one window, shorter than one chunk.
    Clip(b"walks/bridge.wav", "wav16", 44100, 2, 12.0),
    Clip(b"walks/market.mp3", "mp3", 44100, 2, 23.0),
    Clip(b"walks/harbour.m4a", "m4a", 44100, 2, 17.5),
    Clip(b"walks/forest.ogg", "ogg", 48000, 1, 31.0),
    # Scenes: sounds change every 20 s, and each minute keeps to its own kinds.
    Clip(b"scenes/minute.flac", "flac", 16000, 1, 60.0),
    Clip(b"scenes/two minutes.m4a", "m4a", 32000, 1, 120.0),
    Clip(b"scenes/three minutes.mp3", "mp3", 22050, 1, 180.0),
    Clip(b"scenes/three minutes.ogg", "ogg", 16000, 2, 180.0),
    # Broken half-way: answered for what is there.
    Clip(b"worn tapes/cut in the middle.flac", "flac", 44100, 1, 10.0, ("rain", "wind", "engine"), 0.5),
)

# Files with nothing to hear: (name, content, error code of the answer).
BAD_FILES: tuple[tuple[bytes, str, str], ...] = (
    (b"worn tapes/zero bytes.wav", "nothing", "empty_audio"),
    (b"worn tapes/notes.wav", "text", "not_audio"),
    (b"worn tapes/header without samples.wav", "header", "empty_audio"),
    (b"worn tapes/dangling link.wav", "link", "not_found"),
)


def encode(waveform: np.ndarray, sample_rate: int, channels: int, encoding: str) -> bytes:
    """A file's bytes.

    waveform: float32 [T] mono at 16 kHz; resampled, and spread over the channels at different levels.
    sample_rate: of the file, in Hz.
    channels: 1, 2 or 6 (5.1).
    encoding: a key of ``SOUNDFILE_ENCODINGS``, or ``m4a`` (AAC).
    """
    if sample_rate != SAMPLE_RATE:
        waveform = soxr.resample(waveform, SAMPLE_RATE, sample_rate)
    gains = {1: (1.0,), 2: STEREO_GAINS, 6: SURROUND_GAINS}[channels]
    frames = np.clip(waveform[:, None] * np.asarray(gains, dtype=np.float32), -1.0, 1.0)
    if encoding == "m4a":
        return _encode_aac(frames, sample_rate)
    file = io.BytesIO()
    container, subtype = SOUNDFILE_ENCODINGS[encoding]
    with soundfile.SoundFile(file, "w", sample_rate, channels, subtype, format=container) as out:
        for start in range(0, len(frames), sample_rate):  # libsndfile's Vorbis encoder crashes on minutes at once
            out.write(frames[start : start + sample_rate])
    return file.getvalue()


def _encode_aac(frames: np.ndarray, sample_rate: int) -> bytes:
    """AAC in MP4 from float32 [T, channels]."""
    layout = {1: "mono", 2: "stereo"}[frames.shape[1]]
    file = io.BytesIO()
    with av.open(file, "w", format="ipod") as container:
        stream: Any = container.add_stream("aac", rate=sample_rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(frames.T), format="fltp", layout=layout)
        frame.sample_rate = sample_rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return file.getvalue()


def write_archive(folder: str | os.PathLike[str], seed: int = 0) -> list[dict[str, Any]]:
    """Write the archive into ``folder`` and return the truth, one dictionary a file.

    Keys: ``path`` (relative, "/" between folders, percent-encoded where it is not UTF-8), ``seconds`` (of
    what can be heard), ``caption`` and ``labels`` of the whole file, ``minutes`` (of scenes: ``start_s``,
    ``end_s``, ``caption``, ``labels`` of each minute; else empty), ``error_code`` (of files that cannot be
    answered, else None), ``complete`` (False where the file breaks off). The same seed gives the same sounds.
    Raises OSError: the folder cannot be written.
    """
    root = os.fsencode(os.path.abspath(folder))
    truth = []
    for index, clip in enumerate(CLIPS):
        waveform, row = _sound(clip, [SPLITS["demo"], seed + 1, index])
        data = encode(waveform, clip.sample_rate, clip.channels, clip.encoding)
        _write(root, clip.name, data[: int(len(data) * clip.cut)])
        truth.append(row)
    contents = {
        "nothing": b"",
        "text": b"Recorded on the bridge, Tuesday. Battery ran out before the bells.\n" * 8,
        "header": encode(np.zeros(0, dtype=np.float32), SAMPLE_RATE, 1, "wav16"),
        "link": None,
    }
    for name, content, code in BAD_FILES:
        _write(root, name, contents[content])
        truth.append(_truth(name, 0.0, error_code=code))
    return sorted(truth, key=lambda row: str(row["path"]))


def write_truth(truth: list[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write truth rows as JSON lines."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in truth)


def _truth(name: bytes, seconds: float, **facts: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"caption": None, "labels": [], "minutes": [], "error_code": None, "complete": True}
    return {"path": printable(name), "seconds": seconds, **empty, **facts}


def _sound(clip: Clip, seed: list[int]) -> tuple[np.ndarray, dict[str, Any]]:
    """The clip's waveform (float32 [T], 16 kHz) and its row of truth."""
    if clip.is_scene:
        minutes, per_minute = round(clip.seconds / 60), round(60 / CHANGE_S)
        waveform, recipes = render_scene(int(np.random.default_rng(seed).integers(2**31)), minutes, CHANGE_S)
        rows = []
        for minute in range(minutes):
            stretches = recipes[minute * per_minute : (minute + 1) * per_minute]
            told = " ".join(recipe_caption(recipe) for recipe in stretches)
            span = {"start_s": 60.0 * minute, "end_s": 60.0 * (minute + 1)}
            rows.append({**span, "caption": told, "labels": _distinct(stretches)})
        caption = f"A scene of {minutes} minute{'s' if minutes > 1 else ''} whose sounds change."
        return waveform, _truth(clip.name, clip.seconds, caption=caption, labels=_distinct(recipes), minutes=rows)
    kinds = list(clip.kinds) if clip.kinds else None
    recipe = sample_recipe(seed, clip.seconds, kinds)
    while clip.cut < 1 and recipe.layout != "single":  # one sound, so that the part left is as true as the whole
        seed = [*seed[:-1], seed[-1] + 1000]
        recipe = sample_recipe(seed, clip.seconds, kinds)
    facts = {"caption": recipe_caption(recipe), "labels": _distinct([recipe]), "complete": clip.cut == 1}
    return render(recipe), _truth(clip.name, clip.seconds * clip.cut, **facts)


def _distinct(recipes: list[Recipe]) -> list[str]:
    """Labels of some recipes, each once, in order of first mention."""
    return list(dict.fromkeys(label for recipe in recipes for label in recipe.labels()))


def _write(root: bytes, name: bytes, data: bytes | None) -> None:
    """A file, or without data a link to nothing."""
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    if data is None:
        os.symlink(b"moved to another disk.wav", path)
        return
    with open(path, "wb") as file:
        file.write(data)
