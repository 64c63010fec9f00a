"""What is told of an answer beside its words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mats_core.confidence.calibration import Calibration, Curve
from mats_core.confidence.scores import DIGITS, Asked, clap_scores, score_answers, signs_of

EAST, NORTH = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)


class Compass:
    """An encoder whose texts are directions; `asked` is what it was given, batch by batch."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def embed_text(self, texts: Any) -> torch.Tensor:
        self.asked.append(list(texts))
        if "broken" in texts:
            raise ValueError("no such direction")
        angles = {"east": 0.0, "north": math.pi / 2, "between": math.pi / 3}
        return torch.tensor([[math.cos(angles[t]), math.sin(angles[t])] for t in texts])


def asked(text: str = "east", sums: tuple[float, ...] = (-1.5, -3.5), **changes: Any) -> Asked:
    """An answer of three tokens about a sound that lies east."""
    given: dict[str, Any] = {"task": "caption", "question": "", "tokens": 3, "embedding": EAST, "seconds": 10.0}
    return Asked(text=text, logprob_sums=sums, **given | changes)


def test_an_answer_has_its_mean_log_probability_and_its_cosine_with_the_sound() -> None:
    encoder: Any = Compass()
    (scores,) = score_answers([asked("between")], encoder)
    assert scores.logprob == -0.5 and scores.clap_score == 0.5 and scores.confidence is None
    assert clap_scores([("north", EAST), ("north", NORTH)], encoder) == pytest.approx([0.0, 1.0], abs=1e-6)


def test_texts_are_embedded_once_and_one_that_fails_costs_itself_alone() -> None:
    encoder: Any = Compass()
    assert clap_scores([("east", EAST)] * 20 + [("broken", EAST), ("north", EAST)], encoder)[19:21] == [1.0, None]
    assert len(encoder.asked[0]) == 8 and sorted(set(encoder.asked[0])) == ["broken", "east", "north"]


def test_without_an_encoder_or_an_llm_there_is_nothing_to_tell() -> None:
    unasked, told = score_answers([asked(sums=()), asked()], None)
    assert (unasked.logprob, unasked.clap_score, unasked.confidence, unasked.signs) == (None, None, None, {})
    assert told.logprob == -0.5 and told.clap_score is None


def test_signs_are_what_they_say() -> None:
    answer = asked("A bell, a bell.", (-1.0, -1.0 - math.log(3.0)), question="Is it loud?", rms_dbfs=-20.0, moved=0.9)
    signs = signs_of(answer, 0.25)
    assert signs["share"] == pytest.approx(math.log(0.75)) and signs["logprob_sum"] == -1.0
    assert (signs["tokens"], signs["words"], signs["clap_score"], signs["moved"]) == (3.0, 4.0, 0.25, 0.9)
    assert signs["rms_dbfs"] == -20.0 and signs["seconds"] == pytest.approx(math.log(10.0))
    words = {name for name in signs if ":" in name}
    assert words == {"answer:a", "answer:bell", "question:is", "question:it", "question:loud"}


def test_confidence_is_the_calibrations() -> None:
    curve = Curve(signs=["logprob"], means=[-1.0], scales=[0.5], weights=[2.0], bias=0.0, answers=9, right=0.5)
    calibration = Calibration(model="m", tasks={"QA": curve})
    answers = [asked(task="QA"), asked()]
    assert [each.confidence for each in score_answers(answers, None, calibration)] == [
        round(1 / (1 + math.exp(-2.0)), DIGITS),
        None,
    ]
