"""Asking about sound. Every way of asking comes through here: `mats ask`, the pipelines and Python give one answer.

    samples ──hearing.clips──▶ Clip ──ask_clips──▶ Answer

An answer is a function of its own sound, request, model and settings: never of the batch it was computed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, Union, overload

import numpy as np
import torch

from mats_core.batches import in_batches, raised
from mats_core.confidence.scores import BEAMS, Asked, Beam, Scores, best_beams, score_answers
from mats_core.model.hearing.clips import Clip, HearingModel, Sound, embed_sound
from mats_core.model.hearing.grouping import regrouped
from mats_core.model.prompts import joined_tags

if TYPE_CHECKING:
    from mats_core.audio.levels import Levels
    from mats_core.confidence.calibration import Calibration, Signs
    from mats_core.generation.settings import DecodingSettings
    from mats_core.memory.bridges import Bridge, SantaSettings

Item = TypeVar("Item")
Decoding: TypeAlias = Union["DecodingSettings", dict[str, Any], None]
Santa: TypeAlias = Union["SantaSettings", dict[str, Any], None]
SILENCE = {"caption": "Silence.", "music_caption": "Silence.", "cla_label": "silence"}
"""Task → what is answered of a sound in which there is nothing to hear. A question is the model's to answer."""


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
    used, each a dict of row, caption, source, weight and score, where `explain` asked for them; beams: what wrote this
    answer, and others, best first; moved: cosine of the embedding with what the mapper was given.
    """

    text: str
    tokens: int
    neighbors: list[dict[str, Any]] | None = None
    beams: tuple[Beam, ...] = field(default=(), repr=False, compare=False)  # their last digits depend on the batch
    moved: float | None = field(default=None, compare=False)


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
    lost_s: the seconds that could not, as far as known; silent: whether there is nothing to hear in it; levels: how
    loud it is, where it was decoded here; logprob, clap_score, confidence, signs: see `Scores`; of the text, not of the
    segments, and None where the model was not asked.
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
    silent: bool = False
    levels: Levels | None = field(default=None, repr=False)
    logprob: float | None = None
    clap_score: float | None = None
    confidence: float | None = None
    signs: Signs | None = field(default=None, repr=False, compare=False)


class AskedModel(HearingModel, Protocol):
    """What asking needs of a model. `MatsModel` has it: it knows this module, and is not known to it."""

    config: Any
    calibration: Calibration | None

    def validate_request(self, task: str, question: str | None = None, tag: str | None = None) -> None:
        """SettingsError for a request that cannot be answered."""

    def answer_embeddings(
        self,
        embedding: Any,
        requests: Sequence[Request],
        decoding: Decoding = None,
        santa: Santa = None,
        explain: bool = False,
        bridge: Bridge | None = None,
        slots: int | None = None,
        keep: int = 1,
    ) -> list[Reply]:
        """Embeddings [B, D] before Santa and a request each → replies."""


class Answering:
    """What a program asks a model with: `answer` and `answers`. calibration: of its confidence, where it has one."""

    calibration: Calibration | None = None

    @overload
    def answers(
        self: AskedModel, source: list[Any], task: str | None = None, question: str | None = None,
        tag: str | None = None, segments: bool = False, decoding: Decoding = None, santa: Santa = None,
        explain: bool = False, batch_size: int = 16, *, sample_rate: int | None = None, per: str = "minute",
    ) -> list[list[Answer]]: ...  # fmt: skip

    @overload
    def answers(
        self: AskedModel, source: Sound, task: str | None = None, question: str | None = None, tag: str | None = None,
        segments: bool = False, decoding: Decoding = None, santa: Santa = None, explain: bool = False,
        batch_size: int = 16, *, sample_rate: int | None = None, per: str = "minute",
    ) -> list[Answer]: ...  # fmt: skip
    def answers(
        self: AskedModel,
        source: Any,
        task: str | None = None,
        question: str | None = None,
        tag: str | None = None,
        segments: bool = False,
        decoding: Decoding = None,
        santa: Santa = None,
        explain: bool = False,
        batch_size: int = 16,
        *,
        sample_rate: int | None = None,
        per: str = "minute",
    ) -> Any:
        """One answer a chunk of about a minute (per: or "file", "window"); for a list of sounds, such a list for each.

        source: a path or URI, an open file (read from where it stands), (waveform, its sample rate in Hz), or a
        waveform alone whose rate `sample_rate` says; or a list of these. A waveform is an array or tensor [T], or
        [C, T] or [T, C], whose channels are averaged: float32 in [-1, 1], or whole numbers as int16. task: caption,
        cla_label, music_caption or QA; by default QA where there is a question, and caption else. tag: in the prompt,
        in place of the task's own. segments=True also answers every window. decoding: settings such as {"beams": 1};
        santa, explain: see `answer_embeddings`. batch_size: windows heard, and answers written, at once; no answer
        depends on it.

        Raises AudioError for what cannot be decoded, SettingsError for what cannot be asked. Many files, of which some
        may be broken, are a job for `pipelines.run_caption`.
        """
        request = Request(task or ("QA" if question and question.strip() else "caption"), question, tag)
        self.validate_request(request.task, question, tag)
        sounds = source if isinstance(source, list) else [source]
        heard = [regrouped(embed_sound(self, each, batch_size, sample_rate), per) for each in sounds]
        clips = [clip for each in heard for clip in each]
        found = iter(
            ask_about(
                self, clips, request, segments, decoding=decoding, santa=santa, explain=explain, batch_size=batch_size
            )
        )
        several = [[next(found) for _ in each] for each in heard]
        return several if isinstance(source, list) else several[0]

    @overload
    def answer(
        self: AskedModel, source: list[Any], task: str | None = None, question: str | None = None,
        tag: str | None = None, *, decoding: Decoding = None, santa: Santa = None, batch_size: int = 16,
        sample_rate: int | None = None,
    ) -> list[str]: ...  # fmt: skip

    @overload
    def answer(
        self: AskedModel, source: Sound, task: str | None = None, question: str | None = None, tag: str | None = None,
        *, decoding: Decoding = None, santa: Santa = None, batch_size: int = 16, sample_rate: int | None = None,
    ) -> str: ...  # fmt: skip
    def answer(
        self: AskedModel,
        source: Any,
        task: str | None = None,
        question: str | None = None,
        tag: str | None = None,
        *,
        decoding: Decoding = None,
        santa: Santa = None,
        batch_size: int = 16,
        sample_rate: int | None = None,
    ) -> Any:
        """What is said of a sound: its chunks' answers, one a line; of a list of sounds, a list. See `answers`."""
        several: list[Any] = source if isinstance(source, list) else [source]
        found = Answering.answers(
            self, several, task, question, tag, decoding=decoding, santa=santa, batch_size=batch_size,
            sample_rate=sample_rate,
        )  # fmt: skip
        told = ["\n".join(answer.text for answer in answers) for answers in found]
        return told if isinstance(source, list) else told[0]


def ask_clips(
    model: AskedModel,
    clips: Sequence[Clip],
    requests: Sequence[Request],
    *,
    segments: bool = False,
    batch_size: int | None = 16,
    decoding: Decoding = None,
    santa: Santa = None,
    explain: bool = False,
    bridge: Bridge | None = None,
    answer_silence: bool = False,
    score: bool = True,
    rerank: int = 0,
) -> list[Answer | Exception]:
    """The answer to each clip's request, or the exception that the model ended with on it.

    segments=True asks every window as well. What is silent is answered so (SILENCE), for the model would name a sound
    all the same; answer_silence=True has the model answer, as it always does a question. decoding, santa, bridge,
    explain: as `MatsModel.answer_embeddings` has them. `batch_size` clips and windows are asked at a time (None: as the
    model has room for): the next is begun where one is answered. Where that fails, the halves are tried, down to each
    alone, and what fails alone takes the place of its clip's answer. score: tell how sure it is (`Scores`), which
    takes a hundredth of the time; its confidence where all is asked as when it was calibrated. rerank: take the best of
    so many beams by `best_beam` (0: as beam search has it), but for questions, whose answers CLAP cannot hear.
    """
    asked: list[tuple[np.ndarray, Request]] = []
    places: list[list[Reply | None]] = []  # of each clip: the whole, then its windows; None: the next that was asked
    for clip, request in zip(clips, requests, strict=True):
        silence = None if answer_silence else SILENCE.get(request.task)
        whole = [(clip.pooled, clip.silent)]
        parts = list(zip(clip.embeddings, clip.weights == 0, strict=True)) if segments else []
        quiet = [silent and silence is not None for _, silent in (*whole, *parts)]
        made = (as_heard(model, clip, request), *[request] * len(parts))
        asked += [(vector, of) for (vector, _), of, said in zip((*whole, *parts), made, quiet, strict=True) if not said]
        places.append([Reply(silence or "", 0) if said else None for said in quiet])

    def answer(batch: Sequence[tuple[np.ndarray, Request]]) -> list[Reply]:
        vectors = torch.from_numpy(np.stack([vector for vector, _ in batch]))  # [B, D]
        requests = [request for _, request in batch]
        replies = model.answer_embeddings(
            vectors, requests, decoding=decoding, santa=santa, explain=explain, bridge=bridge, slots=batch_size,
            keep=max(BEAMS if score else 1, rerank),
        )  # fmt: skip
        heard = zip(replies, batch, strict=True)
        ways = [(reply.beams[: 1 if each.task == "QA" else rerank], vector) for reply, (vector, each) in heard]
        best = best_beams(ways, model.encoder) if rerank else [0] * len(replies)
        return [_taken(reply, at) for reply, at in zip(replies, best, strict=True)]

    replies = iter(in_batches(asked, max(1, len(asked)), answer))
    calibration = model.calibration if _as_calibrated(model, decoding, santa, bridge, rerank) else None
    owns = [[next(replies) if each is None else each for each in known] for known in places]
    judged = iter(_scores(model, clips, requests, owns, calibration) if score else [Scores()] * len(clips))
    found: list[Answer | Exception] = []
    for clip, own in zip(clips, owns, strict=True):
        scores = next(judged)
        error = next((each for each in own if isinstance(each, Exception)), None)
        if error is not None:
            found.append(error)
            continue
        said = [Segment(*at, part.text) for at, part in zip(clip.times, own[1:], strict=True)] if segments else None
        tokens = sum(reply.tokens for reply in own)
        start, seconds = clip.start_s, clip.seconds
        facts = (said, own[0].neighbors, tokens, clip.complete, clip.lost_s, clip.silent, clip.levels)
        found.append(Answer(start, seconds, own[0].text, seconds, clip.pooled, *facts, **vars(scores)))
    return found


def as_heard(model: AskedModel, clip: Clip, request: Request) -> Request:
    """The request as it is made of this clip: with the model's tag of long sounds, where it has one and they are."""
    if not model.config.long_tag or request.tag is not None or not clip.long:
        return request
    return replace(request, tag=joined_tags(model.config.long_tag, model.config.tasks[request.task].tag))


def _taken(reply: Reply, at: int) -> Reply:
    """The reply with one of its beams in the place of the first."""
    if not at:
        return reply
    beams = (reply.beams[at], *reply.beams[:at], *reply.beams[at + 1 :])
    return replace(reply, text=beams[0].text, beams=beams)


def _as_calibrated(model: AskedModel, decoding: Decoding, santa: Santa, bridge: Bridge | None, rerank: int) -> bool:
    """Whether the model is asked as when it was calibrated: with other settings its scores mean something else."""
    if model.calibration is None or model.calibration.rerank != rerank:
        return False
    usual: Any = model.config
    own = usual.decoding.updated(decoding) == usual.decoding and usual.santa.updated(santa) == usual.santa
    return own and (bridge is None or bridge.settings.kind == "santa")


def _scores(
    model: AskedModel,
    clips: Sequence[Clip],
    requests: Sequence[Request],
    owns: Sequence[Sequence[Reply | Exception]],
    calibration: Calibration | None,
) -> list[Scores]:
    """What is told of each clip's answer, the first of its replies."""
    asked = []
    for clip, request, own in zip(clips, requests, owns, strict=True):
        reply = own[0] if isinstance(own[0], Reply) else Reply("", 0)
        level = clip.levels.rms_dbfs if clip.levels is not None else None
        question = (request.question or "").strip()
        if question == model.config.tasks[request.task].instruction:
            question = ""  # the prompt is the one without a question, and so are its signs
        heard = (clip.pooled, clip.seconds, level, reply.moved)
        asked.append(Asked(request.task, question, reply.text, reply.beams, *heard))
    return score_answers(asked, model.encoder, calibration)


def ask_about(
    model: AskedModel,
    clips: Sequence[Clip],
    request: Request,
    segments: bool = False,
    *,
    decoding: Decoding = None,
    santa: Santa = None,
    explain: bool = False,
    batch_size: int | None = 16,
    score: bool = True,
) -> list[Answer]:
    """One request to every clip of a sound: an answer each, in order. See `ask_clips`.

    Raises SettingsError for what cannot be asked.
    """
    model.validate_request(request.task, request.question, request.tag)
    requests = [request] * len(clips)
    answers = ask_clips(
        model, clips, requests, segments=segments, batch_size=batch_size, decoding=decoding, santa=santa,
        explain=explain, score=score,
    )  # fmt: skip
    return raised(answers)
