"""Labels: how an answer is matched, accuracy and F1 by hand, mAP by CLAP's text similarity."""

from __future__ import annotations

import numpy as np
import pytest

from mats_core.errors import SettingsError
from mats_core.scoring import Item, LabelSet, score
from mats_core.scoring.labels import label_f1, split_answer
from mats_core.scoring.matching import loose_forms, match_labels, normalise, without_article

WORDS = ("dog", "bark", "rain", "water", "siren", "alarm")


def embed(texts: list[str]) -> np.ndarray:
    """A text space worked by hand: one axis each for dogs, water and warnings."""
    axes = {"dog": 0, "bark": 0, "hound": 0, "rain": 1, "water": 1, "drizzle": 1, "siren": 2, "alarm": 2}
    table = np.full((len(texts), 3), 0.01)
    for row, text in zip(table, texts, strict=True):
        for word in normalise(text).split():
            if word in axes:
                row[axes[word]] += 1.0
    return table / np.linalg.norm(table, axis=1, keepdims=True)


LABELS = LabelSet(("dog_bark", "rain", "siren"), ("dog bark", "rain", "siren"))


def clip(name: str, *labels: str, category: str = "") -> Item:
    return Item(name, f"{name}.wav", "cla_label", labels=labels, category=category)


def test_normalise() -> None:
    assert normalise("  The Dog_Bark!") == "the dog bark"
    assert normalise("Rock & Roll") == "rock and roll"
    assert normalise("Café – Straße") == "cafe strasse"
    assert normalise("C♯ minor, C#") == "c# minor c#"
    assert [normalise(text) for text in ("собака!", "犬", "हिन्दी", "ガ", "?")] == ["собака", "犬", "हिन्दी", "ガ", ""]


def test_an_article_is_taken_off_only_where_it_is_one() -> None:
    stay = ["a major", "a flat minor", "a", "a b a", "a and c", "theme", "a#"]
    assert [without_article(form) for form in stay] == stay
    gone = ["a dog", "an engine", "the rain", "a flat surface", "a minor accident"]
    assert [without_article(form) for form in gone] == ["dog", "engine", "rain", "flat surface", "minor accident"]
    assert loose_forms(["A string", "D string"])[1] == ["a string", "d string"]


def test_a_form_that_two_labels_share_or_that_is_empty_is_nobodys() -> None:
    labels = LabelSet(("Dog", "dog!", "the cat", "?", "犬"))
    found = match_labels(["DOG", "Dog", "A cat.", "", "!", "犬。"], labels)
    assert [match.index for match in found] == [None, 0, 2, None, None, 4]


@pytest.mark.parametrize(
    ("answer", "place", "how"),
    [
        ("dog_bark", 0, "exact"),
        ("dog bark.", 0, "exact"),
        ("Dog bark", 0, "exact"),
        ("RAIN", 1, "normalised"),
        ("A Dog-Bark!", 0, "normalised"),
        ("Rain", 1, "exact"),
        ("a hound", 0, "nearest"),
        ("drizzle", 1, "nearest"),
        ("", None, "none"),
    ],
)
def test_matching_in_turn(answer: str, place: int | None, how: str) -> None:
    match = match_labels([answer], LABELS, embed)[0]
    assert (match.index, match.how) == (place, how)


def test_a_label_stands_in_clap_with_its_own_text() -> None:
    labels = LabelSet(("a", "b"), ("a", "b"), ("The sound of a siren.", "The sound of rain."))
    assert match_labels(["drizzle"], labels, embed)[0].index == 1
    items, answers = [clip("1", "a"), clip("2", "b")], ["An alarm", "Water"]
    scores = score("labels", items, answers, labels=labels, embed_text=embed, metrics=["map"])
    assert scores.metrics["map"].value == 1.0


def test_without_clap_nothing_is_nearest() -> None:
    assert match_labels(["a hound"], LABELS)[0].index is None


def test_one_label_by_hand() -> None:
    items = [clip("a", "dog_bark"), clip("b", "rain"), clip("c", "siren"), clip("d", "rain"), clip("e", "siren")]
    answers = ["Dog_bark", "RAIN", "a hound", "drizzle", None]
    scores = score("label", items, answers, labels=LABELS, embed_text=embed)
    assert scores.metrics["accuracy"].value == pytest.approx(3 / 4)
    assert scores.metrics["accuracy_exact"].value == pytest.approx(1 / 4)
    assert scores.metrics["accuracy_normalised"].value == pytest.approx(2 / 4)
    assert scores.metrics["matched"].value == pytest.approx(2 / 4)
    # dog: 1 hit, 2 said, 1 true → 2/3; rain: 2, 2, 2 → 1; siren: 0, 0, 1 → 0.
    assert scores.metrics["macro_f1"].value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores.details["match"] == {"exact": 0.25, "normalised": 0.25, "nearest": 0.5, "none": 0.0}
    assert scores.details["confusion"] == {
        "dog_bark": {"dog_bark": 1},
        "rain": {"rain": 2},
        "siren": {"dog_bark": 1},
    }
    assert scores.metrics["accuracy"].left_out == (("e", "no answer"),)
    assert scores.details["matched"] == ["dog_bark", "rain", "dog_bark", "rain", None]
    alone = score("label", items, answers, labels=LABELS)
    assert alone.metrics["accuracy"].value == pytest.approx(2 / 4) and "no CLAP" in alone.metrics["accuracy"].note


def test_accuracy_by_category() -> None:
    items = [clip("a", "rain", category="x"), clip("b", "rain", category="y"), clip("c", "rain", category="y")]
    table = score("label", items, ["rain", "rain", "siren"], labels=LABELS).details["per_category"]
    assert {name: (row["value"], row["n"]) for name, row in table.items()} == {"x": (1.0, 1), "y": (0.5, 2)}


def test_several_labels_by_hand() -> None:
    items = [clip("a", "dog_bark", "rain"), clip("b", "siren"), clip("c", "rain")]
    answers = ["Dog bark, siren", "alarm; drizzle", "rain."]
    scores = score("labels", items, answers, labels=LABELS, embed_text=embed)
    # hits 1 + 1 + 1, said 2 + 2 + 1, true 2 + 1 + 1.
    assert scores.metrics["micro_f1"].value == pytest.approx(2 * 3 / (5 + 4))
    assert scores.metrics["micro_f1"].values == pytest.approx((0.5, 2 / 3, 1.0))
    # dog 1·2/(1+1) = 1; rain: true a, c, said b, c → 1/2; siren: true b, said a, b → 2/3.
    assert scores.metrics["macro_f1"].value == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)
    assert scores.metrics["matched"].value == pytest.approx((1 + 0 + 1) / 3)


def test_map_ranks_clips_by_the_similarity_of_their_answers() -> None:
    items = [clip("a", "dog_bark"), clip("b", "rain"), clip("c", "rain")]
    # For rain: "water" (c) is nearest, then "bark drizzle" (a, wrong), then "siren" (b, right): AP (1 + 2/3) / 2.
    scores = score("labels", items, ["bark drizzle", "siren", "water"], labels=LABELS, embed_text=embed)
    assert scores.metrics["map"].value == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)
    blind = score("labels", items, ["bark", "siren", "water"], labels=LABELS)
    assert "map" not in blind.metrics and [u.name for u in blind.unavailable] == ["map"]


def test_labels_with_commas_stay_whole() -> None:
    labels = LabelSet(("Air horn, truck horn", "Train"))
    assert split_answer("train; air horn, truck horn, wind.", labels) == ["Air horn, truck horn", "train", "wind"]
    assert split_answer("Repair horn, truck horny", labels) == ["Repair horn", "truck horny"]


def test_a_label_outside_the_set_is_left_out_and_named() -> None:
    scores = score("label", [clip("a", "rain"), clip("b", "cow")], ["rain", "cow"], labels=LABELS)
    assert scores.metrics["accuracy"].n == 1
    assert scores.metrics["accuracy"].left_out == (("b", "label not in the label set: cow"),)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(SettingsError, match="2"):
        score("label", [clip("a", "rain")], ["rain", "rain"])
    with pytest.raises(SettingsError, match="accurcy"):
        score("label", [clip("a", "rain")], ["rain"], metrics=["accurcy"])
    with pytest.raises(SettingsError, match="kind"):
        score("sound", [clip("a", "rain")], ["rain"])  # type: ignore[arg-type]


def test_label_f1_by_hand() -> None:
    # dog: 1 hit of 2 guesses and 1 truth; rain: 1 hit, 1 guess, 2 truths; cat: only guessed; bell: only true.
    scores = label_f1([{"dog", "rain"}, {"dog", "cat"}], [{"dog", "rain"}, {"rain", "bell"}])
    assert scores.precision == pytest.approx(2 / 4)
    assert scores.recall == pytest.approx(2 / 4)
    assert scores.micro == pytest.approx(0.5)
    assert scores.per_label == pytest.approx({"bell": 0.0, "cat": 0.0, "dog": 2 / 3, "rain": 2 / 3})
    assert scores.macro == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)  # cat does not occur


def test_label_f1_of_nothing_is_zero_and_uneven_lists_are_refused() -> None:
    assert label_f1([set()], [{"dog"}]).micro == 0.0
    with pytest.raises(ValueError, match="1 predictions for 2"):
        label_f1([{"dog"}], [{"dog"}, {"cat"}])
