"""What is told of an answer beside its words. Each is a function of its own answer and sound, never of the batch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mats_core.batches import in_batches

if TYPE_CHECKING:
    from mats_core.confidence.calibration import Calibration
    from mats_core.encoders.base import ClapEncoder

BEAMS = 4
"""Beams whose share of the probability is looked at, at most."""
DIGITS = 3
"""Decimals of a score: in float32 its last digits depend on what is computed beside it, and these hardly ever do."""
_TEXTS = 64
_WORD = re.compile(r"\w+")
_FEW = 8  # note: of fewer rows, matrix products take other kernels with other last digits


@dataclass(frozen=True)
class Asked:
    """An answer to be scored. tokens: that the LLM wrote, the end included; logprob_sums: of this answer and of other
    beams, best first, empty where no LLM wrote it; embedding: of the sound, before Santa, float32 [D] unit; seconds and
    rms_dbfs: the sound's, None where that is not known; moved: cosine of the embedding with what the mapper was given.
    """

    task: str
    question: str
    text: str
    tokens: int
    logprob_sums: Sequence[float]
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
    signs: dict[str, float | None] = field(default_factory=dict, repr=False)


def score_answers(
    answers: Sequence[Asked], encoder: ClapEncoder | None, calibration: Calibration | None = None
) -> list[Scores]:
    """What is told of each answer; nothing of what no LLM wrote. The texts are embedded together, each once."""
    similar = clap_scores([(each.text, each.embedding) for each in answers if each.logprob_sums], encoder)
    scores = iter(similar)
    found = []
    for each in answers:
        if not each.logprob_sums:
            found.append(Scores())
            continue
        clap_score = next(scores)
        signs = signs_of(each, clap_score)
        confidence = calibration.confidence(each.task, signs) if calibration is not None else None
        found.append(Scores(_rounded(signs["logprob"]), _rounded(clap_score), _rounded(confidence), signs))
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def clap_scores(pairs: Sequence[tuple[str, np.ndarray]], encoder: ClapEncoder | None) -> list[float | None]:
    """Cosine of each text with its sound's embedding [D]; None without an encoder, and where it fails on the text."""
    if encoder is None:
        return [None] * len(pairs)

    def embed(texts: Sequence[str]) -> list[np.ndarray]:
        filled = [*texts, *[texts[0]] * (_FEW - len(texts))]
        return list(encoder.embed_text(filled).float().cpu().numpy()[: len(texts)])

    texts = sorted({text for text, _ in pairs})
    vectors = dict(zip(texts, in_batches(texts, _TEXTS, embed), strict=True))
    return [
        None if isinstance(vectors[text], Exception) else float(np.dot(vectors[text], sound)) for text, sound in pairs
    ]


def signs_of(answer: Asked, clap_score: float | None) -> dict[str, float | None]:
    """What a calibration may weigh, by name; None for what is not known.

    logprob: as in `Scores`; logprob_sum: of the whole answer; share: log of the best beam's part of the probability of
    all beams; tokens, words: of the answer; clap_score; moved; rms_dbfs; seconds: log of the sound's length; and 1 for
    each word of the answer ("answer:bell") and of the question ("question:is"), for of some a model is less sure.
    """
    sums = np.array(answer.logprob_sums, np.float64)
    said = {"answer:" + word: 1.0 for word in _WORD.findall(answer.text.lower())}
    said |= {"question:" + word: 1.0 for word in _WORD.findall(answer.question.lower())}
    return {
        "logprob": float(sums[0]) / max(1, answer.tokens),
        "logprob_sum": float(sums[0]),
        "share": float(sums[0] - np.logaddexp.reduce(sums)),
        "tokens": float(answer.tokens),
        "words": float(len(answer.text.split())),
        "clap_score": clap_score,
        "moved": answer.moved,
        "rms_dbfs": answer.rms_dbfs,
        "seconds": math.log(max(answer.seconds, 0.1)),
        **said,
    }
