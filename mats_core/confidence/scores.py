"""What is told of an answer beside its words. Each is a function of its own answer and sound, never of the batch."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mats_core.batches import in_batches
from mats_core.confidence.calibration import Signs

if TYPE_CHECKING:
    from mats_core.confidence.calibration import Calibration
    from mats_core.encoders.base import ClapEncoder

BEAMS = 4
"""Beams whose share of the probability is looked at, at most."""
CLAP_WEIGHT = 4.0
"""What a step of CLAP's cosine weighs beside one of mean log-probability, chosen on validation clips."""
DIGITS = 3
"""Decimals of a score: in float32 its last digits depend on what is computed beside it, and these hardly ever do."""
_ENCODING = threading.Lock()  # note: a fast tokenizer that truncates fails in two threads at once
_TEXTS = 64
_WORD = re.compile(r"\w+")
_FEW = 8  # note: of fewer rows, matrix products take other kernels with other last digits


@dataclass(frozen=True)
class Beam:
    """What one beam wrote: its text, its tokens, the end included, and the sum of their log-probabilities."""

    text: str
    tokens: int
    logprob_sum: float


@dataclass(frozen=True)
class Asked:
    """An answer to be scored. beams: what wrote it and the others, best first, none where no LLM wrote it; embedding:
    of the sound, before Santa, float32 [D] unit; seconds and rms_dbfs: the sound's, None where that is not known;
    moved: cosine of the embedding with what the mapper was given.
    """

    task: str
    question: str
    text: str
    beams: Sequence[Beam]
    embedding: np.ndarray
    seconds: float
    rms_dbfs: float | None = None
    moved: float | None = None


@dataclass(frozen=True)
class Scores:
    """logprob: mean log-probability a token; clap_score: cosine of the answer with the sound, None without an encoder;
    confidence: the chance that the answer is right, None without a calibration; signs: what a calibration weighs."""

    logprob: float | None = None
    clap_score: float | None = None
    confidence: float | None = None
    signs: Signs | None = field(default=None, repr=False, compare=False)


def score_answers(
    answers: Sequence[Asked], encoder: ClapEncoder | None, calibration: Calibration | None = None
) -> list[Scores]:
    """What is told of each answer; nothing of what no LLM wrote. The texts are embedded together, each once."""
    texts = [text for each in answers if each.beams for text in (each.text, each.question) if text]
    vectors = embed_texts(texts, encoder)
    found = []
    for each in answers:
        if not each.beams:
            found.append(Scores())
            continue
        signs = signs_of(each, vectors)
        confidence = calibration.confidence(each.task, signs) if calibration is not None else None
        told = signs.values["logprob"], signs.values["clap_score"], confidence
        found.append(Scores(_rounded(told[0]), _rounded(told[1]), _rounded(told[2]), signs))
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def best_beams(choices: Sequence[tuple[Sequence[Beam], np.ndarray]], encoder: ClapEncoder | None) -> list[int]:
    """Of each sound's beams the one with the largest mean log-probability a token + CLAP_WEIGHT · cosine of its text
    with the sound [D]; the first where nothing can be compared."""
    vectors = embed_texts([beam.text for beams, _ in choices if len(beams) > 1 for beam in beams], encoder)
    found = []
    for beams, sound in choices:
        known = [vectors.get(beam.text) for beam in beams]
        if len(beams) < 2 or any(vector is None for vector in known):
            found.append(0)
            continue
        sure = np.array([beam.logprob_sum / max(1, beam.tokens) for beam in beams])
        alike = np.array(known) @ sound  # [B]
        found.append(int(np.argmax(np.round(sure + CLAP_WEIGHT * alike, DIGITS))))
    return found


def embed_texts(texts: Sequence[str], encoder: ClapEncoder | None) -> dict[str, np.ndarray]:
    """Text → its embedding [D], of those that the encoder does not fail on; nothing without an encoder."""
    if encoder is None:
        return {}

    def embed(texts: Sequence[str]) -> list[np.ndarray]:
        filled = [*texts, *[texts[0]] * (_FEW - len(texts))]
        with _ENCODING:
            return list(encoder.embed_text(filled).float().cpu().numpy()[: len(texts)])

    each = sorted(set(texts))
    found = zip(each, in_batches(each, _TEXTS, embed), strict=True)
    return {text: vector for text, vector in found if not isinstance(vector, Exception)}


def signs_of(answer: Asked, vectors: Mapping[str, np.ndarray]) -> Signs:
    """What a calibration may weigh. vectors: embeddings [D] of texts, its answer and its question among them.

    logprob: as in `Scores`; logprob_sum: of the whole answer; share: log of the best beam's part of the probability of
    all beams; alike: how many words the beams have in common with the best, by their probability; same: log of the
    part of those that have the same words; tokens, words: of the answer; clap_score; clap_question: the question's
    cosine with the sound; moved; rms_dbfs; seconds: log of the sound's length; and 1 for each word of the answer
    ("answer:bell") and of the question ("question:is"), for of some a model is less sure.
    """
    sums = np.array([beam.logprob_sum for beam in answer.beams], np.float64)
    parts = np.exp(sums - np.logaddexp.reduce(sums))  # [B], of all beams' probability
    said = [set(_WORD.findall(beam.text.lower())) for beam in answer.beams]
    common = [len(words & said[0]) / max(1, len(words | said[0])) for words in said]
    values: dict[str, float | None] = {
        "logprob": float(sums[0]) / max(1, answer.beams[0].tokens),
        "logprob_sum": float(sums[0]),
        "share": float(np.log(parts[0])),
        "alike": float(parts @ np.array(common)),
        "same": float(np.log(sum(part for part, words in zip(parts, said, strict=True) if words == said[0]))),
        "tokens": float(answer.beams[0].tokens),
        "words": float(len(answer.text.split())),
        "clap_score": _cosine(vectors.get(answer.text), answer.embedding),
        "clap_question": _cosine(vectors.get(answer.question), answer.embedding),
        "moved": answer.moved,
        "rms_dbfs": answer.rms_dbfs,
        "seconds": math.log(max(answer.seconds, 0.1)),
    }
    values |= {"answer:" + word: 1.0 for word in _WORD.findall(answer.text.lower())}
    values |= {"question:" + word: 1.0 for word in _WORD.findall(answer.question.lower())}
    known = {"answer": vectors.get(answer.text), "question": vectors.get(answer.question), "sound": answer.embedding}
    return Signs(values, {name: vector for name, vector in known.items() if vector is not None})


def _cosine(text: np.ndarray | None, sound: np.ndarray) -> float | None:
    return None if text is None else float(np.dot(text, sound))
