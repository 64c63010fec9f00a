"""Options: their order, what an answer chose, accuracy over orders, AIR-Bench's file, trivial baselines, CLAP alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mats_core.scoring import Item, LabelSet, baselines, choices, score
from mats_core.scoring.chat import air_bench_lines
from tests.mats_core.scoring.test_labels import LABELS, clip, embed

OPTIONS = ("Bird songs", "Rainfall", "A dog", "Traffic noise")


def question(name: str, answer: str = "Rainfall", category: str = "sound") -> Item:
    return Item(name, f"{name}.wav", "QA", "What is heard?", choices=OPTIONS, answer=answer, category=category)


def test_an_order_is_a_function_of_seed_and_item() -> None:
    assert choices.order(OPTIONS, 3, "a") == choices.order(OPTIONS, 3, "a")
    assert sorted(choices.order(OPTIONS, 3, "a")) == sorted(OPTIONS)
    orders = {tuple(choices.order(OPTIONS, seed, "a")) for seed in range(40)}
    assert len(orders) > 10
    first = [choices.order(OPTIONS, 0, str(i)).index("Rainfall") for i in range(400)]
    assert np.bincount(first) == pytest.approx([100] * 4, abs=30)


def test_the_question_as_put() -> None:
    assert choices.ask("What? ", ["x", "y"]) == "What? Choose one of the following options: (A) x (B) y"


@pytest.mark.parametrize(
    ("answer", "place", "how"),
    [
        ("Rainfall", 1, "exact"),
        ("rainfall.", 1, "exact"),
        ("RAINFALL", 1, "normalised"),
        ("I hear the dog", 2, "named"),
        ("(C)", 2, "letter"),
        ("d", 3, "letter"),
        ("B. It rains", 1, "letter"),
        ("The answer is (D) Traffic noise", 3, "letter"),
        ("I hear bird songs", 0, "named"),
        ("A dog", 2, "exact"),
        ("Bird songs and wind", 0, "named"),
        ("rainfall and traffic noise", None, "none"),
        ("(Z)", None, "none"),
        ("", None, "none"),
    ],
)
def test_what_an_answer_chose(answer: str, place: int | None, how: str) -> None:
    assert choices.match(answer, OPTIONS) == (place, how)


KEYS = ("A major", "C# minor", "C minor", "E minor")


@pytest.mark.parametrize(
    ("answer", "shown", "place"),
    [
        ("It is in D major.", KEYS, None),
        ("major", KEYS, None),
        ("It is in A major.", KEYS, 0),
        ("C♯ Minor", KEYS, 1),
        ("It is C minor", KEYS, 2),
        ("D# major", ("D major", "D# Major"), 1),
        ("D#", ("C major", "D major", "E major", "F major"), None),
        ("B", ("C", "D", "E"), None),
        ("(B)", ("C", "D", "E"), 1),
        ("string", ("A string", "D string"), None),
        ("", ("?", "犬"), None),
        ("猫", ("?", "犬"), None),
        ("犬", ("?", "犬"), 1),
        ("a dog", ("Dog", "dog!"), None),
    ],
)
def test_an_option_is_not_taken_for_another(answer: str, shown: tuple[str, ...], place: int | None) -> None:
    assert choices.match(answer, shown)[0] == place


def test_the_nearest_option_by_clap() -> None:
    assert choices.match("a hound", ["rain", "dog"], embed) == (1, "nearest")


def test_accuracy_over_orders_and_categories() -> None:
    items = [question("a"), question("b", category="music"), question("c", "A dog"), question("d")]
    answers = [["Rainfall", "Rainfall"], ["Rainfall", "Bird songs"], ["Rainfall", None], [None, None]]
    scores = score("choice", items, answers)
    metric = scores.metrics["accuracy"]
    assert metric.values == (1.0, 0.5, 0.0, None) and metric.value == pytest.approx(0.5) and metric.n == 3
    assert metric.left_out == (("d", "no answer"),)
    assert scores.details["orders"] == pytest.approx([2 / 3, 1 / 2])
    assert scores.details["spread"]["high"] - scores.details["spread"]["low"] == pytest.approx(1 / 6)
    rows = scores.details["per_category"]
    assert (rows["music"]["value"], rows["sound"]["value"]) == (0.5, 0.5) and rows["sound"]["n"] == 2


def test_letters_are_read_in_the_order_shown() -> None:
    items = [question(str(i)) for i in range(20)]
    letters = ["ABCD"[choices.order(OPTIONS, 5, item.item_id).index("Rainfall")] for item in items]
    assert score("choice", items, letters, seed=5).metrics["accuracy"].value == 1.0
    always_a = score("choice", items, ["A"] * 20, seed=5)
    assert always_a.details["first_option"] == 1.0 and always_a.metrics["accuracy"].value < 0.6


def test_withheld_answers_leave_every_item_out() -> None:
    scores = score("choice", [question("a", answer="")], ["Rainfall"])
    assert scores.metrics["accuracy"].value is None
    assert scores.metrics["accuracy"].left_out == (("a", "the publisher keeps the answer"),)
    assert scores.metrics["matched"].value == 1.0
    records = [("b", {"id": "b"}), ("a", {"id": "a", "answer": ""})]
    lines = json.loads(choices.mmau_records(records, [question("a", "")], ["(A)"], seed=2))
    assert lines == [
        {"id": "b", "model_prediction": ""},
        {"id": "a", "answer": "", "model_prediction": choices.order(OPTIONS, 2, "a")[0]},
    ]


def test_air_bench_takes_what_its_own_script_writes() -> None:
    extra = {
        "meta_info": "A dog barks.", "question": "What?", "answer_gt": "A dog.", "path": "1.wav",
        "task_name": "sound_QA", "dataset_name": "clotho", "uniq_id": 7,
    }  # fmt: skip
    items = [Item("7", "1.wav", "QA", "What?", extra=extra), Item("8", "2.wav", "QA", "Why?", extra=extra)]
    lines = air_bench_lines(items, ["Ein Hund – é", None]).splitlines()
    assert [json.loads(line) for line in lines] == [{**extra, "response": "Ein Hund – é"}]
    assert "é" in lines[0]
    for silent in (" ", None):
        metric = score("chat", items, ["x", silent]).metrics["answered"]
        assert (metric.values, metric.left_out) == ((1.0, 0.0), ())
    assert score("chat", items, [None, None]).metrics["answered"].value == 0.0
    with pytest.raises(ValueError, match="not from Chat_meta"):
        air_bench_lines([Item("9", "3.wav", "QA")], ["x"])


def test_majority_is_the_most_frequent() -> None:
    items = [clip("a", "rain"), clip("b", "rain"), clip("c", "siren")]
    assert baselines.majority("label", items) == ["rain"] * 3
    several = [clip("a", "rain", "siren"), clip("b", "rain"), clip("c", "dog_bark")]
    assert baselines.majority("labels", several) == ["rain"] * 3
    yes = [Item(str(i), "", "QA", choices=("no", "yes"), answer="yes" if i else "no") for i in range(5)]
    answers = baselines.majority("choice", yes, orders=2)
    assert answers == [["yes", "yes"]] * 5
    texts = [("a dog barks",), ("a dog barks loudly",), ("rain",)]
    captions = [Item(str(i), "", "caption", references=t) for i, t in enumerate(texts)]
    assert baselines.majority("caption", captions) == ["a dog barks"] * 3


def test_majority_of_different_options_is_chance() -> None:
    items = [
        Item(str(i), "", "QA", choices=tuple(f"{i}{c}" for c in "abcd"), answer=f"{i}a") for i in range(400)
    ]  # fmt: skip
    value = score("choice", items, baselines.majority("choice", items)).metrics["accuracy"].value
    assert value == pytest.approx(0.25, abs=0.08)


def test_shuffled_answers_go_to_another_clip() -> None:
    items = [clip(str(i), "rain") for i in range(50)]
    answers = [f"answer {i}" for i in range(50)]
    moved = baselines.shuffled("label", items, answers)
    assert sorted(moved) == sorted(answers) and all(m != a for m, a in zip(moved, answers, strict=True))
    options = [question(str(i)) for i in range(200)]
    right = [[choices.order(OPTIONS, 0, item.item_id).index("Rainfall")] for item in options]
    letters = [["ABCD"[place] for place in row] for row in right]
    chance = score("choice", options, baselines.shuffled("choice", options, letters)).metrics["accuracy"].value
    assert chance == pytest.approx(0.25, abs=0.12)


def test_clap_alone() -> None:
    items = [clip("a", "dog_bark"), clip("b", "rain"), clip("c", "siren"), clip("d", "siren")]
    audio = np.array([[1, 0, 0], [0.1, 0.9, 0], [1, 0, 0], [np.nan, 0, 0]])
    scores = baselines.zero_shot("label", items, audio, LABELS, embed)
    assert scores.metrics["accuracy"].value == pytest.approx(2 / 3)
    assert scores.metrics["accuracy"].left_out == (("d", "no answer"),)
    several = baselines.zero_shot("labels", items[:3], np.eye(3), LABELS, embed)
    assert several.metrics["map"].value == pytest.approx(1.0)
    asked = [Item("a", "", "QA", choices=("rain", "dog"), answer="dog")]
    assert (
        baselines.zero_shot("choice", asked, np.array([[1.0, 0, 0]]), LabelSet(), embed).metrics["accuracy"].value == 1
    )
    with pytest.raises(ValueError, match="does not apply"):
        baselines.zero_shot("caption", items, audio, LABELS, embed)
