"""From sound, or its embedding, and a request to an answer: what every way of asking shares."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from mats_core.errors import got_allowed
from mats_core.model.config import DecodingSettings, SantaSettings, checked
from mats_core.model.text import clean_answer

if TYPE_CHECKING:
    from mats_core.model.model import MatsModel


@dataclass(frozen=True)
class Request:
    """What is asked of one embedding. tag=None takes the task's own tag; an empty one leaves it out."""

    task: str = "caption"
    question: str | None = None
    tag: str | None = None


@dataclass
class Reply:
    """text: cleaned up; tokens: how many the LLM wrote, the end token included; neighbors: see `explain`."""

    text: str
    tokens: int
    neighbors: list[dict[str, Any]] | None = None


@dataclass
class Segment:
    """One window's answer, in seconds of the file."""

    start_s: float
    end_s: float
    text: str


@dataclass
class Answer:
    """One chunk's answer. embedding: float32 [D] unit, before Santa; decoded_s: seconds that could be read."""

    start_s: float
    duration_s: float
    text: str
    decoded_s: float
    embedding: np.ndarray = field(repr=False)
    segments: list[Segment] | None = None
    neighbors: list[dict[str, Any]] | None = field(default=None, repr=False)


def embed_windows(model: MatsModel, windows: Sequence[np.ndarray]) -> np.ndarray:
    """Windows [T], int16 or float32 in [-1, 1], at the encoder's rate → unit float32 [N, D], in the order given."""
    encoder = _encoder(model)
    if not len(windows):
        return np.zeros((0, encoder.dim), np.float32)
    padded = np.stack([encoder.pad(_as_float(np.asarray(window))) for window in windows])
    return encoder.embed_audio(torch.from_numpy(padded)).cpu().numpy()


def _as_float(window: np.ndarray) -> np.ndarray:
    if window.dtype == np.int16:
        return window.astype(np.float32) / 32768.0
    return window.astype(np.float32, copy=False)


def _encoder(model: MatsModel) -> Any:
    if model.encoder is None:
        raise got_allowed("model", "a model without an encoder", "embeddings as input, or a model with an encoder")
    return model.encoder


def answer_embeddings(
    model: MatsModel,
    embedding: Any,
    requests: Sequence[Request],
    decoding: DecodingSettings | dict[str, Any] | None = None,
    santa: SantaSettings | dict[str, Any] | None = None,
    explain: bool = False,
) -> list[Reply]:
    """Answers to embeddings [B, D] before Santa; a reply is a function of its own row alone.

    decoding and santa: over the model's own settings, a dict replacing only what it names; Santa is skipped where the
    model has no memory or `mix` is 0. explain=True lists the memory entries used (`SantaMemory.transfer`).
    Raises SettingsError for a request that the LLM has no room for.
    """
    audio = F.normalize(torch.as_tensor(embedding, dtype=torch.float32, device=model.device), dim=-1)
    if len(audio) != len(requests):
        raise ValueError(f"{len(audio)} embeddings for {len(requests)} requests")
    prompts = [model.prompt(request.task, request.question, request.tag) for request in requests]
    if not prompts:
        return []
    _check_room(model, prompts, model.config.decoding.updated(decoding))
    moved, neighbors = santa_transfer(model, audio, santa, explain)
    texts, ids = model.generate(moved, prompts, decoding, return_ids=True)
    style = model.config.answer_style
    return [
        Reply(clean_answer(text, style), len(row), near) for text, row, near in zip(texts, ids, neighbors, strict=True)
    ]


def _check_room(model: MatsModel, prompts: Sequence[str], decoding: DecodingSettings) -> None:
    """SettingsError where prompt and longest answer are more tokens than the LLM was made for."""
    longest = max(len(model.tokens.prompt(prompt)[0]) for prompt in set(prompts))
    if model.positions and longest + decoding.max_new_tokens > model.positions:
        room = f"at most {model.positions} together with max_new_tokens, {decoding.max_new_tokens}"
        raise got_allowed("question", f"a prompt of {longest} tokens", f"{room}: the LLM has no more positions")


def santa_transfer(
    model: MatsModel, audio: torch.Tensor, santa: SantaSettings | dict[str, Any] | None = None, explain: bool = False
) -> tuple[torch.Tensor, list[Any]]:
    """Unit embeddings [B, D] after Santa with the model's memory and each memory row's own noise."""
    chosen = model.config.santa
    if isinstance(santa, SantaSettings):
        chosen = santa
    elif santa:
        chosen = checked(SantaSettings, {**chosen.model_dump(), **santa}, "santa")
    if model.memory is None or chosen.mix == 0:
        return audio, [None] * len(audio)
    result = model.memory.transfer(
        audio,
        neighbors=chosen.neighbors,
        scale=chosen.scale,
        mix=chosen.mix,
        probe=chosen.probe,
        noise="keyed",
        noise_variance=chosen.noise_variance,
        seed=chosen.seed,
        explain=explain,
    )
    return result if explain else (result, [None] * len(audio))


@dataclass(frozen=True)
class Heard:
    """One chunk of a sound as the LLM will know it. embeddings: float32 [windows, D] unit, before Santa."""

    start_s: float
    seconds: float
    spans: list[tuple[float, float]]  # seconds of the file, a window each
    weights: list[float]
    embeddings: np.ndarray = field(repr=False)


def hear(model: MatsModel, source: Any, batch_size: int = 16) -> list[Heard]:
    """Decode and embed a sound, about a minute a chunk, to be asked with `answer_heard` as often as one likes.

    source: a path or URI, or (waveform float32 [T] mono in [-1, 1], its sample rate in Hz). Raises AudioError for what
    cannot be heard.
    """
    from mats_core.audio.file import AudioError
    from mats_core.audio.windows import windows

    encoder = _encoder(model)
    rate = encoder.sample_rate
    found: list[Heard] = []
    for start_s, samples in _chunks(source, rate, encoder.window_seconds):
        cut = windows(len(samples), rate, encoder.window_seconds)
        sounds = [samples[window.start : window.stop] for window in cut]
        vectors = [embed_windows(model, sounds[at : at + batch_size]) for at in range(0, len(sounds), batch_size)]
        seconds = len(samples) / rate
        spans = [
            (start_s + window.start / rate, start_s + min(window.start / rate + encoder.window_seconds, seconds))
            for window in cut
        ]
        found.append(Heard(start_s, seconds, spans, [window.weight for window in cut], np.concatenate(vectors)))
    if not found:
        raise AudioError("empty_audio", "there is no sound in it")
    return found


def answer_heard(
    model: MatsModel,
    heard: Sequence[Heard],
    task: str = "caption",
    question: str | None = None,
    tag: str | None = None,
    segments: bool = False,
    decoding: DecodingSettings | dict[str, Any] | None = None,
    santa: SantaSettings | dict[str, Any] | None = None,
    explain: bool = False,
    batch_size: int = 16,
) -> list[Answer]:
    """One answer a chunk of what `hear` gave; segments=True also answers every window. Raises SettingsError."""
    from mats_core.audio.windows import pool_windows

    model.validate_request(task, question, tag)
    request = Request(task, question, tag)
    found: list[Answer] = []
    for chunk in heard:
        asked = [pool_windows(chunk.embeddings, chunk.weights)]
        if segments:
            asked.extend(chunk.embeddings)
        replies: list[Reply] = []
        for at in range(0, len(asked), batch_size):
            part = np.stack(asked[at : at + batch_size])
            replies += answer_embeddings(model, part, [request] * len(part), decoding, santa, explain)
        parts = [Segment(start, end, reply.text) for (start, end), reply in zip(chunk.spans, replies[1:], strict=False)]
        found.append(
            Answer(
                chunk.start_s,
                chunk.seconds,
                replies[0].text,
                chunk.seconds,
                asked[0],
                parts if segments else None,
                replies[0].neighbors,
            )
        )
    return found


def answers(
    model: MatsModel,
    source: Any,
    task: str = "caption",
    question: str | None = None,
    tag: str | None = None,
    segments: bool = False,
    decoding: DecodingSettings | dict[str, Any] | None = None,
    santa: SantaSettings | dict[str, Any] | None = None,
    explain: bool = False,
    batch_size: int = 16,
) -> list[Answer]:
    """One answer a chunk of about a minute.

    source: a path or URI, or (waveform float32 [T] mono in [-1, 1], its sample rate in Hz). segments=True also answers
    every window. Raises AudioError for what cannot be heard, SettingsError for what cannot be asked.
    """
    model.validate_request(task, question, tag)
    heard = hear(model, source, batch_size)
    return answer_heard(model, heard, task, question, tag, segments, decoding, santa, explain, batch_size)


def _chunks(source: Any, rate: int, window_seconds: float) -> list[tuple[float, np.ndarray]]:
    """(start in seconds, samples int16 or float32 at `rate`) of each chunk that has sound in it."""
    from mats_core.audio import decode as audio
    from mats_core.audio.file import as_audio_error
    from mats_core.audio.windows import chunk_seconds, chunk_starts

    chunk_s = chunk_seconds(window_seconds)
    if isinstance(source, tuple):
        waveform, given_rate = source
        samples = _resampled(np.asarray(waveform), int(given_rate), rate)
        size = round(chunk_s * rate)
        starts = chunk_starts(len(samples) / rate, chunk_s)
        parts = [
            (start, samples[round(start * rate) : None if length is None else round(start * rate) + size])
            for start, length in starts
        ]
        return [(start, part) for start, part in parts if len(part)]
    if not isinstance(source, (str, bytes, os.PathLike)):
        raise got_allowed("source", type(source).__name__, "a path, a URI, or (waveform, sample_rate)")
    from mats_core import storage

    uri = storage.uri_from_path(os.fspath(source))
    found = []
    try:
        with storage.open_binary(uri) as file:
            info = audio.probe(file, uri)
            for start, length in chunk_starts(info.duration_s, chunk_s):
                file.seek(0)
                decoded = audio.decode(file, sample_rate=rate, start_s=start, duration_s=length, name=uri)
                if len(decoded.samples):
                    found.append((start, decoded.samples))
    except storage.StorageError as error:
        raise as_audio_error(error) from error
    return found


def _resampled(waveform: np.ndarray, given: int, rate: int) -> np.ndarray:
    """A waveform [T] at `rate`, as int16, as between the stages of a run: so both ways give the same answer."""
    if waveform.ndim != 1:
        raise got_allowed("source", f"a waveform of shape {list(waveform.shape)}", "mono samples [T]")
    if waveform.dtype == np.int16:
        waveform = waveform.astype(np.float32) / 32768.0
    waveform = np.nan_to_num(waveform.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if given != rate:
        import soxr

        waveform = soxr.resample(waveform, given, rate, quality="HQ")
    return np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)
