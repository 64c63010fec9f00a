"""Asking about sound. Every way of asking comes through here: `mats ask`, the pipelines and Python give one answer.

    samples ──embed_clips──▶ Clip ──ask_clips──▶ Answer

An answer is a function of its own sound, request, model and settings: never of the batch it was computed in.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch

from mats_core.encoders.base import as_float
from mats_core.errors import SettingsError

if TYPE_CHECKING:
    from mats_core.audio.decode import Decoded
    from mats_core.encoders.base import ClapEncoder

Item = TypeVar("Item")


@dataclass(frozen=True)
class Request:
    """What is asked of one embedding. tag=None takes the task's own tag; an empty one leaves it out."""

    task: str = "caption"
    question: str | None = None
    tag: str | None = None


@dataclass
class Reply:
    """What the LLM wrote about one embedding.

    text: cleaned up; tokens: how many ids it wrote, the end token included; neighbors: the memory entries that were
    used, each a dict of row, caption, source, weight and score, where `explain` asked for them.
    """

    text: str
    tokens: int
    neighbors: list[dict[str, Any]] | None = None


@dataclass
class Segment:
    """The answer about one window; start and end in seconds of the file."""

    start_s: float
    end_s: float
    text: str


@dataclass
class Answer:
    """The answer about one chunk of a sound.

    start_s: where the chunk begins in its file; duration_s and decoded_s: seconds of it that could be read;
    embedding: float32 [D] unit, before Santa; segments: one a window, where asked for; neighbors: as in `Reply`;
    tokens: ids the LLM wrote for the text and all segments; complete: whether all of the sound could be decoded, and
    lost_s: the seconds that could not, as far as known.
    """

    start_s: float
    duration_s: float
    text: str
    decoded_s: float
    embedding: np.ndarray = field(repr=False)
    segments: list[Segment] | None = None
    neighbors: list[dict[str, Any]] | None = field(default=None, repr=False)
    tokens: int = 0
    complete: bool = True
    lost_s: float = 0.0


@dataclass(frozen=True)
class Clip:
    """A chunk of sound as CLAP hears it, to be asked as often as one likes.

    embeddings: float32 [W, D], a unit vector for each window, before Santa; weights: float32 [W], the seconds that
    each window stands for; starts: float64 [W], where each begins, in seconds of the clip; seconds: how long the clip
    is; window_s: how long a window is; start_s: where the clip begins in its file; complete and lost_s: see `Answer`.
    """

    embeddings: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    starts: np.ndarray = field(repr=False)
    seconds: float
    window_s: float
    start_s: float = 0.0
    complete: bool = True
    lost_s: float = 0.0

    @property
    def pooled(self) -> np.ndarray:
        """The clip's own embedding: the weighted mean of its windows, float32 [D] unit."""
        from mats_core.audio.windows import pool_windows

        return pool_windows(self.embeddings, self.weights)

    def segment(self, window: int, text: str) -> Segment:
        """The answer about one window, with its times in the file."""
        start = float(self.starts[window])
        return Segment(self.start_s + start, self.start_s + min(start + self.window_s, self.seconds), text)


class AskedModel(Protocol):
    """What asking needs of a model. `MatsModel` has it: it knows this module, and is not known to it."""

    encoder: ClapEncoder | None

    def validate_request(self, task: str, question: str | None = None, tag: str | None = None) -> None:
        """SettingsError for a request that cannot be answered."""

    def stack_windows(self, windows: Sequence[np.ndarray]) -> torch.Tensor:
        """Windows [T] → [W, window samples], padded; safe in a thread."""

    def embed_windows(self, windows: Sequence[np.ndarray] | torch.Tensor) -> np.ndarray:
        """Windows [T], or what `stack_windows` made of them → unit embeddings float32 [W, D]."""

    def answer_embeddings(self, *args: Any, **settings: Any) -> list[Reply]:
        """Embeddings [B, D] before Santa and a request each → replies."""


def embed_clips(
    model: AskedModel, sounds: Sequence[tuple[float, np.ndarray]], batch_size: int = 16
) -> list[Clip | Exception]:
    """A Clip of each sound, or the exception that the model ended with on it: one sound never costs the others.

    sounds: (start in its file in seconds, samples [T], int16 or float32 in [-1, 1], mono at the encoder's rate), T at
    least 1. The windows of all sounds go through the encoder `batch_size` at a time; where a batch fails, each window
    of it goes alone. Raises SettingsError where the model has no encoder.
    """
    from mats_core.audio.windows import windows

    encoder = model_encoder(model)
    rate, window_s = encoder.sample_rate, encoder.window_seconds
    cuts = [windows(len(samples), rate, window_s) for _, samples in sounds]
    pieces = [samples[w.start : w.stop] for (_, samples), cut in zip(sounds, cuts, strict=True) for w in cut]
    vectors = iter(in_batches(pieces, batch_size, model.embed_windows, model.stack_windows))
    found: list[Clip | Exception] = []
    for (start_s, samples), cut in zip(sounds, cuts, strict=True):
        own = [next(vectors) for _ in cut]
        error = next((each for each in own if isinstance(each, Exception)), None)
        if error is not None:
            found.append(error)
            continue
        weights = np.array([window.weight for window in cut], np.float32)
        starts = np.array([window.start / rate for window in cut])
        stacked = np.stack(own).astype(np.float32, copy=False)
        found.append(Clip(stacked, weights, starts, len(samples) / rate, window_s, start_s))
    return found


def ask_clips(
    model: AskedModel,
    clips: Sequence[Clip],
    requests: Sequence[Request],
    *,
    segments: bool = False,
    batch_size: int | None = 16,
    **settings: Any,
) -> list[Answer | Exception]:
    """The answer to each clip's request, or the exception that the model ended with on it.

    segments=True asks every window as well. settings: decoding, santa, bridge, explain as `MatsModel.answer_embeddings`
    has them. `batch_size` clips and windows are asked at a time (None: as the model has room for): the next is begun
    where one is answered. Where that fails, the halves are tried, down to each alone, and what fails alone takes the
    place of its clip's answer.
    """
    asked: list[tuple[np.ndarray, Request]] = []  # of each clip: the whole, then its windows
    for clip, request in zip(clips, requests, strict=True):
        asked.append((clip.pooled, request))
        if segments:
            asked.extend((vector, request) for vector in clip.embeddings)

    def answer(batch: Sequence[tuple[np.ndarray, Request]]) -> list[Reply]:
        vectors = torch.from_numpy(np.stack([vector for vector, _ in batch]))  # [B, D]
        return model.answer_embeddings(vectors, [request for _, request in batch], slots=batch_size, **settings)

    replies = iter(zip(asked, in_batches(asked, max(1, len(asked)), answer), strict=True))
    found: list[Answer | Exception] = []
    for clip in clips:
        (pooled, _), whole = next(replies)
        parts = [next(replies)[1] for _ in range(len(clip.embeddings) if segments else 0)]
        error = next((each for each in (whole, *parts) if isinstance(each, Exception)), None)
        if error is not None:
            found.append(error)
            continue
        said = [clip.segment(at, reply.text) for at, reply in enumerate(parts)] if segments else None
        tokens = sum(reply.tokens for reply in (whole, *parts))
        start, seconds = clip.start_s, clip.seconds
        facts = (said, whole.neighbors, tokens, clip.complete, clip.lost_s)
        found.append(Answer(start, seconds, whole.text, seconds, pooled, *facts))
    return found


def in_batches(
    items: Sequence[Item],
    size: int,
    run: Callable[[Any], Iterable[Any]],
    prepare: Callable[[Sequence[Item]], Any] = lambda batch: batch,
) -> list[Any]:
    """What `run` makes of the items, `size` at a time; where it fails, of halves, down to each alone, an exception in
    its place.

    prepare: what is done to a batch before `run` gets it, in a thread, while `run` is at the batch before.
    """
    found: list[Any] = []
    batches = [items[at : at + size] for at in range(0, len(items), size)] if items else []
    with ThreadPoolExecutor(1) as thread:
        following = [thread.submit(prepare, batch) for batch in batches[:1]]
        for at, batch in enumerate(batches):
            prepared = following.pop()
            following.extend(thread.submit(prepare, each) for each in batches[at + 1 : at + 2])
            try:
                found.extend(run(prepared.result()))
                continue
            except Exception as error:
                if len(batch) == 1:
                    found.append(error)
                    continue
            # note: not inside the handler, where the error would hold on to the memory of what failed
            found.extend(in_batches(batch, math.ceil(len(batch) / 2), run, prepare))
    return found


def embed_sound(model: AskedModel, source: Any, batch_size: int = 16) -> list[Clip]:
    """Decode and embed a sound, about a minute a clip, to be asked with `ask_about` as often as one likes.

    source: a path or URI, or (waveform float32 [T] mono in [-1, 1], its sample rate in Hz). Raises AudioError for what
    cannot be decoded, SettingsError where the model has no encoder.
    """
    from mats_core.audio.file import AudioError

    encoder = model_encoder(model)
    sounds = _chunks(source, encoder.sample_rate, encoder.window_seconds)
    if not sounds:
        raise AudioError("empty_audio", "there is no sound in it")
    clips = raised(embed_clips(model, [(start, heard.samples) for start, heard in sounds], batch_size))
    return [
        replace(clip, complete=heard.complete, lost_s=heard.lost_s)
        for clip, (_, heard) in zip(clips, sounds, strict=True)
    ]


def ask_about(
    model: AskedModel, clips: Sequence[Clip], request: Request, segments: bool = False, **settings: Any
) -> list[Answer]:
    """One request to every clip of a sound: an answer each, in order. settings: see `ask_clips`.

    Raises SettingsError for what cannot be asked.
    """
    model.validate_request(request.task, request.question, request.tag)
    return raised(ask_clips(model, clips, [request] * len(clips), segments=segments, **settings))


def raised(found: Sequence[Item | Exception]) -> list[Item]:
    """The results, or the first exception among them raised."""
    for each in found:
        if isinstance(each, Exception):
            raise each
    return [each for each in found if not isinstance(each, Exception)]


def model_encoder(model: AskedModel) -> ClapEncoder:
    """The model's encoder; SettingsError where it has none."""
    if model.encoder is None:
        raise SettingsError("model", "it has no encoder", "give embeddings as input, or choose a model with an encoder")
    return model.encoder


def _chunks(source: Any, rate: int, window_seconds: float) -> list[tuple[float, Decoded]]:
    """(start in seconds, its sound at `rate`) of each chunk that has sound in it."""
    from mats_core.audio.decode import Decoded
    from mats_core.audio.sandbox import DecodeRequest, warm_decoder
    from mats_core.audio.windows import chunk_seconds, chunk_starts

    chunk_s = chunk_seconds(window_seconds)
    if isinstance(source, tuple):
        waveform, given_rate = source
        samples = _resampled(np.asarray(waveform), int(given_rate), rate)
        size = round(chunk_s * rate)
        chunks = []
        for start, length in chunk_starts(len(samples) / rate, chunk_s):
            first = round(start * rate)
            chunks.append((start, samples[first : None if length is None else first + size]))
        return [(start, Decoded(chunk, len(chunk) / rate, True)) for start, chunk in chunks if len(chunk)]
    if not isinstance(source, (str, bytes, os.PathLike)):
        kind = type(source).__name__
        raise SettingsError("source", f"it is of type {kind}", "give a path, a URI, or (waveform, sample_rate)")
    from mats_core.storage.uris import to_uri

    uri = to_uri(source)
    decoder = warm_decoder()  # a file may end the process it is decoded in
    (info,) = raised(decoder.probe_many([uri]))
    asked = [DecodeRequest(uri, start, length) for start, length in chunk_starts(info.duration_s, chunk_s)]
    found: list[tuple[float, Decoded]] = []
    for request, decoded in zip(asked, raised(decoder.decode_many(asked, rate)), strict=True):
        if len(decoded.samples):
            found.append((request.start_s, decoded))
        elif found:  # the header promised more than there is
            found[-1] = (found[-1][0], replace(found[-1][1], complete=False))
    return found


def _resampled(waveform: np.ndarray, given: int, rate: int) -> np.ndarray:
    """A waveform [T] at `rate`, as int16, as between the stages of a run: so both ways give the same answer."""
    if waveform.ndim != 1:
        raise SettingsError("source", f"a waveform of shape {list(waveform.shape)} is not mono", "give samples [T]")
    waveform = np.nan_to_num(as_float(waveform), nan=0.0, posinf=0.0, neginf=0.0)
    if given != rate:
        import soxr

        waveform = soxr.resample(waveform, given, rate, quality="HQ")
    return np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)
