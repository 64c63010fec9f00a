"""What is told of an answer beside its words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mats_core import load_model
from mats_core.confidence.calibration import Calibration, Curve
from mats_core.confidence.scores import (
    CLAP_WEIGHT,
    DIGITS,
    Asked,
    Beam,
    best_beams,
    embed_texts,
    score_answers,
    signs_of,
)

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


def asked(*beams: Beam, **changes: Any) -> Asked:
    """An answer about a sound that lies east; without beams, one of three tokens and another beam."""
    beams = beams or (Beam("east", 3, -1.5), Beam("north", 3, -3.5))
    given: dict[str, Any] = {"task": "caption", "question": "", "embedding": EAST, "seconds": 10.0}
    return Asked(**{"text": beams[0].text, "beams": beams, **given, **changes})


def test_an_answer_has_its_mean_log_probability_and_its_cosine_with_the_sound() -> None:
    encoder: Any = Compass()
    beam = Beam("between", 3, -1.5)
    east, north = score_answers([asked(beam), asked(beam, embedding=NORTH)], encoder)
    assert east.logprob == -0.5 and east.clap_score == 0.5 and east.confidence is None
    assert north.clap_score == round(math.sqrt(0.75), DIGITS)


def test_texts_are_embedded_once_and_one_that_fails_costs_itself_alone() -> None:
    encoder: Any = Compass()
    vectors = embed_texts(["east"] * 20 + ["broken", "north"], encoder)
    assert sorted(vectors) == ["east", "north"] and vectors["north"] == pytest.approx(NORTH, abs=1e-6)
    assert len(encoder.asked[0]) == 8 and sorted(set(encoder.asked[0])) == ["broken", "east", "north"]


def test_scores_do_not_depend_on_what_is_scored_beside_them() -> None:
    model = load_model("builtin", device="cpu", dtype="float32")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, model.config.embedding_dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = ["rain", "a siren", "two birds sing", "an engine hums low", "a bell rings, then someone knocks", "applause"]
    texts = [f"{words[at % 6]} and {words[at // 6 % 6]}." for at in range(40)]
    several = [asked(Beam(text, 5, -2.0), embedding=vector) for text, vector in zip(texts, vectors, strict=True)]
    together = score_answers(several, model.encoder)
    assert len({each.clap_score for each in together}) > 20
    for size in (1, 3, 11):
        parts = [each for at in range(0, 40, size) for each in score_answers(several[at : at + size], model.encoder)]
        assert parts == together


def test_without_an_encoder_or_an_llm_there_is_nothing_to_tell() -> None:
    unasked, told = score_answers([asked(beams=(), text="Silence."), asked()], None)
    assert (unasked.logprob, unasked.clap_score, unasked.confidence, unasked.signs) == (None, None, None, None)
    assert told.logprob == -0.5 and told.clap_score is None


def test_signs_are_what_they_say() -> None:
    beams = (Beam("A bell, rain.", 4, -1.0), Beam("Rain, a bell.", 4, -1.0), Beam("A bell.", 2, -1.0 + math.log(2.0)))
    signs = signs_of(
        asked(*beams, question="Is it loud?", rms_dbfs=-20.0, moved=0.9), {"A bell, rain.": EAST, "Is it loud?": NORTH}
    )
    values = signs.values
    assert values["logprob"] == -0.25 and values["logprob_sum"] == -1.0
    assert values["share"] == pytest.approx(math.log(0.25))
    assert values["alike"] == pytest.approx(0.25 + 0.25 + 0.5 * 2 / 3)  # {a, bell} of {a, bell, rain}
    assert values["same"] == pytest.approx(math.log(0.5))
    assert (values["tokens"], values["words"], values["clap_score"], values["moved"]) == (4.0, 3.0, 1.0, 0.9)
    assert values["clap_question"] == 0.0 and sorted(signs.vectors) == ["answer", "question", "sound"]
    assert values["rms_dbfs"] == -20.0 and values["seconds"] == pytest.approx(math.log(10.0))
    words = {name for name in values if ":" in name}
    assert words == {"answer:a", "answer:bell", "answer:rain", "question:is", "question:it", "question:loud"}


def test_confidence_is_the_calibrations() -> None:
    curve = Curve(signs=["logprob"], means=[-1.0], scales=[0.5], weights=[2.0], bias=0.0, answers=9, right=0.5)
    calibration = Calibration(model="m", tasks={"QA": curve})
    told = [each.confidence for each in score_answers([asked(task="QA"), asked()], None, calibration)]
    assert told == [round(1 / (1 + math.exp(-2.0)), DIGITS), None]


def test_the_best_beam_is_the_one_that_llm_and_clap_like_together() -> None:
    encoder: Any = Compass()
    north, between = Beam("north", 2, -1.0), Beam("between", 2, -1.0 - 2 * (CLAP_WEIGHT / 2 - 0.1))
    assert best_beams([([north, between], EAST), ([north, between], NORTH), ([north], EAST), ([], EAST)], encoder) == [
        *(1, 0, 0, 0),
    ]
    worse = Beam("between", 2, -1.0 - 2 * (CLAP_WEIGHT / 2 + 0.1))
    assert best_beams([([north, worse], EAST), ([north, Beam("broken", 2, 0.0)], EAST)], encoder) == [0, 0]
    assert best_beams([([north, between], EAST)], None) == [0]
