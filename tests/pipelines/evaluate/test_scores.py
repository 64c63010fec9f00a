"""What is right, and the modality gap on vectors one can check by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mats_core.scoring import Item, Kind, LabelSet, Scores, score
from mats_core.scoring.sureness import LABELS_RIGHT
from pipelines.evaluate.answers import ItemAnswer
from pipelines.evaluate.datasets import LoadedSet, load_evaluation_set
from pipelines.evaluate.datasets.definition import EvaluationSet
from pipelines.evaluate.scores import SetResult, modality_gap, right_of, score_answers, truths


@pytest.mark.parametrize(
    ("references", "expected"), [((), "The sound of rain., The sound of wind."), (("It rains.",), "It rains.")]
)
def test_the_gap_is_to_the_true_caption_or_the_labels_where_there_is_none(
    references: tuple[str, ...], expected: str
) -> None:
    """Sounds [1, 0] beside texts [0, 1], moved half-way: cosines 0 and 1/√2, and the distances that go with them."""
    spoken = {"rain": "The sound of rain.", "wind": "The sound of wind."}
    labels = LabelSet(tuple(spoken), tuple(spoken), tuple(spoken.values()))
    item = Item(item_id="a", uri="a.wav", task="caption", references=references, labels=("rain", "wind"))
    data = LoadedSet(load_evaluation_set("esc50"), [item] * 3, labels=labels)
    answers = [ItemAnswer(embedding=np.array([1.0, 0.0], np.float32))] * 3
    asked: list[str] = []

    def embed_text(texts: list[str]) -> Any:
        asked.extend(texts)
        return np.array([[0.0, 1.0]] * len(texts), np.float32)

    result = SetResult(data, answers, Scores(), {})
    gap = modality_gap(result, embed_text, lambda audio: np.full_like(audio, 0.5**0.5))
    assert asked == [expected] * 3
    assert gap is not None
    assert gap.cosine == pytest.approx({"audio": 0.0, "moved": 0.5**0.5})
    assert gap.distance == pytest.approx({"audio": 2**0.5, "moved": (2 - 2**0.5) ** 0.5})


@pytest.mark.parametrize("kind", ["caption", "label", "labels", "choice", "chat"])
def test_where_nothing_was_answered_first_nothing_is_right_or_wrong(kind: Kind) -> None:
    metrics = {"caption": ["cider_d"], "labels": ["micro_f1"], "chat": ["answered"]}
    captions = ("a dog barks in the yard", "rain falls on a roof", "a siren wails far away")
    own = {
        "label": {"labels": ("dog",)},
        "labels": {"labels": ("dog",)},
        "choice": {"choices": ("dog", "rain"), "answer": "dog"},
    }
    facts: list[dict[str, Any]] = [own.get(kind, {"references": (text,)}) for text in captions]
    items = [Item(str(n), f"{n}.wav", "caption", "What?", **each) for n, each in enumerate(facts)]
    values = {"name": "mine", "kind": kind, "reader": "table", "metrics": metrics.get(kind, ["accuracy"])}
    said = "dog" if kind in own else captions[0]
    answers = [ItemAnswer([said, said]), ItemAnswer([None, said], error="broken"), ItemAnswer(error="broken")]
    data = LoadedSet(EvaluationSet.model_construct(**values), items, LabelSet(("dog", "rain")))
    encoder = SimpleNamespace(dim=2, embed_text=lambda texts: np.eye(2, dtype=np.float32)[[len(t) % 2 for t in texts]])
    right = score_answers(data, answers, encoder, 0, {"no baseline": Scores()}).right  # type: ignore[arg-type]
    assert right == [None if kind == "chat" else True, None, None]


def test_what_is_right_is_of_the_kind_that_was_asked_for() -> None:
    item = Item(
        "a", "a.wav", "QA", references=("It rains.",), labels=("rain", "wind"), choices=("yes", "no"), answer="yes"
    )
    kinds = {"caption": ["It rains."], "chat": ["It rains."], "label": ["rain", "wind"], "labels": ["rain", "wind"]}
    assert {kind: truths(item, kind) for kind in kinds} == kinds  # type: ignore[arg-type]
    assert truths(item, "choice") == ["yes"]


def test_what_is_right_is_told_by_sounds_by_kind_or_by_a_metric() -> None:
    item = Item("a", "a.wav", "caption", references=("It rains.",), labels=("rain", "wind"))
    world = LoadedSet(load_evaluation_set("soundworld"), [item] * 4, labels=LabelSet(("rain", "wind", "bell")))
    said = ["Rain falls.", "A bell tolls.", "", None]
    assert right_of(world, said, Scores()) == ([True, False, False, None], LABELS_RIGHT)
    scores = score("caption", [item] * 4, said, metrics=["bleu_1"])
    values = scores.metrics["bleu_1"].values
    expected = [None if text is None else bool((value or 0.0) >= 0.2) for text, value in zip(said, values, strict=True)]
    assert right_of(world, said, scores, "bleu_1", 0.2) == (expected, "bleu_1 is at least 0.2")
    single = LoadedSet(load_evaluation_set("esc50"), [Item("a", "a.wav", "cla_label", labels=("rain",))] * 3)
    scores = score("label", single.items, ["rain", "wind", None], labels=["rain", "wind"], metrics=["accuracy"])
    assert right_of(single, ["rain", "wind", None], scores) == ([True, False, None], "the true one is named")
