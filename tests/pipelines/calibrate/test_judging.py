"""What was judged: a person's table, predictions of `mats evaluate`, or a data set that a metric judges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from mats_core.scoring import Item, LabelSet
from pipelines.calibrate.judging import KINDS_RULE, LABELS_RULE, is_table, of_data_set, read_judged, right_labels
from pipelines.evaluate.datasets import LoadedSet, load_evaluation_set
from pipelines.evaluate.records import PREDICTIONS_SCHEMA
from pipelines.settings.evaluate import CalibrateSettings


def no_text(texts: list[str]) -> np.ndarray:
    """An encoder that finds nothing alike."""
    return np.eye(64, dtype=np.float32)[: len(texts)]


def test_a_persons_table(tmp_path: Path) -> None:
    table = tmp_path / "judged.csv"
    table.write_text(
        "uri,task,question,start_s,right,text\na.wav,,Is there rain?,,yes,yes\nb.wav,cla_label,,60,FALSE,\n"
    )
    (first, second), judged_by = read_judged(str(table))
    assert (first.uri, first.task, first.question, first.right, first.text, first.start_s) == (
        *("a.wav", "QA", "Is there rain?", True, "yes", None),
    )
    assert (second.task, second.right, second.start_s, second.text) == ("cla_label", False, 60.0, None)
    assert judged_by == "a person" and is_table(str(table)) and not is_table("soundworld")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("uri,right\na.wav,perhaps\n", "row 1 says 'perhaps' about a.wav"),
        ("uri,right\na.wav,\n", "row 1 says '' about a.wav"),
        ("uri,task\na.wav,caption\n", "neither a column `right` nor the metrics"),
        ("file,right\na.wav,yes\n", "no column `uri`"),
    ],
)
def test_a_table_that_judges_nothing_is_refused(tmp_path: Path, text: str, told: str) -> None:
    table = tmp_path / "judged.csv"
    table.write_text(text)
    with pytest.raises(SettingsError, match=told):
        read_judged(str(table))


def predictions(folder: Path, **columns: list[Any]) -> str:
    """A folder of predictions with these columns; the others are null."""
    count = len(next(iter(columns.values())))
    rows = [{name: values[at] for name, values in columns.items()} for at in range(count)]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=PREDICTIONS_SCHEMA), folder / "run.parquet")
    return str(folder)


def metrics(**values: float | None) -> list[dict[str, Any]]:
    """As a row of predictions holds them."""
    return [{"name": name, "value": value} for name, value in values.items()]


def test_predictions_are_judged_by_their_metric(tmp_path: Path) -> None:
    place = predictions(
        tmp_path / "captions", uri=["a", "b", "c", "d"], task=["caption"] * 4, text=["x", "y", "z", None],
        order=[0, 0, 0, 0],
        metrics=[metrics(cider_d=0.7, bleu_1=0.1), metrics(cider_d=0.4, bleu_1=0.9), metrics(cider_d=None), []],
    )  # fmt: skip
    found, told = read_judged(place)
    assert [(each.uri, each.right, each.text) for each in found] == [("a", True, "x"), ("b", False, "y")]
    assert told == "cider_d of at least 0.5"
    found, told = read_judged(place, "cider_d", 0.3)
    assert [each.right for each in found] == [True, True] and told == "cider_d of at least 0.3"
    with pytest.raises(SettingsError, match="no spice"):
        read_judged(place, "spice")


def test_predictions_of_options_are_asked_as_they_were_shown_once(tmp_path: Path) -> None:
    place = predictions(
        tmp_path / "choice", uri=["a", "a"], task=["QA", "QA"], question=["Which?", "Which?"], order=[0, 1],
        choices=[["dog", "cat"], ["cat", "dog"]], text=["dog", "cat"], metrics=[metrics(accuracy=0.5), []],
    )  # fmt: skip
    (only,), told = read_judged(place)
    assert only.question == "Which? Choose one of the following options: (A) dog (B) cat"
    assert only.right is False and told == "accuracy of at least 1"


@pytest.mark.parametrize(
    ("matched", "truth", "right"),
    [
        ("rain", ["rain", "dog"], True),
        ("rain", ["rain", "dog", "bell"], False),
        ("rain, cat", ["rain", "dog"], False),
        (None, ["rain"], False),
        ("Wind, strong", ["Wind, strong", "dog"], True),
    ],
)
def test_labels_are_right_where_none_is_wrong_and_half_are_there(
    matched: str | None, truth: list[str], right: bool
) -> None:
    assert right_labels(matched, truth) is right


def data_set(name: str, **changes: Any) -> LoadedSet:
    """A data set of the embedded world with two items, without its files."""
    definition = load_evaluation_set(name)
    facts: list[dict[str, Any]] = [
        {"references": ("Rain falls.",), "labels": ("rain",), "choices": ("yes", "no"), "answer": "yes"},
        {"references": ("A bell.",), "labels": ("bell",), "choices": ("yes", "no"), "answer": "no"},
    ]
    items = [Item(str(at), f"{at}.wav", definition.task, "What?", **each) for at, each in enumerate(facts)]
    return LoadedSet(definition.model_copy(update=changes), items, labels=LabelSet(("rain", "bell", "dog")))


def test_data_sets_are_judged_by_kinds_labels_or_choices() -> None:
    settings = CalibrateSettings(data="x")
    asked, judge, told = of_data_set(data_set("soundworld"), settings, no_text)
    assert [each.uri for each in asked] == ["0.wav", "1.wav"] and told == KINDS_RULE
    assert judge(["It is raining.", "Rain falls."]) == [True, False] and judge(["Rain.", None]) == [True, None]
    _, judge, told = of_data_set(data_set("soundworld_labels"), settings, no_text)
    assert judge(["rain", "bell, dog"]) == [True, False] and told == LABELS_RULE
    asked, judge, told = of_data_set(data_set("soundworld_choice"), settings, no_text)
    assert "Choose one of the following options" in (asked[0].question or "")
    assert judge(["yes", "yes"]) == [True, False] and told == "accuracy of at least 1"


def test_an_item_that_is_a_stretch_of_its_sound_asks_about_that_stretch() -> None:
    data = data_set("soundworld")
    data.items[1] = replace(data.items[1], start_s=60.0, end_s=120.0)
    asked, _, _ = of_data_set(data, CalibrateSettings(data="x"), no_text)
    assert [each.start_s for each in asked] == [None, 60.0]


def test_answers_that_no_metric_judges_are_refused() -> None:
    with pytest.raises(SettingsError, match="no metric judges the answers of soundworld"):
        of_data_set(data_set("soundworld", kind="chat", reader="table"), CalibrateSettings(data="x"), no_text)
    with pytest.raises(SettingsError, match="no metric accuracy"):
        of_data_set(data_set("soundworld"), CalibrateSettings(data="x", metric="accuracy"), no_text)
