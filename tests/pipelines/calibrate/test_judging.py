"""What was judged: a person's table, predictions of `mats evaluate`, or a data set that a metric judges."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from mats_core.scoring import Item, LabelSet, Scores
from mats_core.scoring.sureness import LABELS_RIGHT
from pipelines.calibrate.judging import Question, is_table, of_data_set, read_questions
from pipelines.evaluate.answers import ItemAnswer
from pipelines.evaluate.datasets import LoadedSet, load_evaluation_set
from pipelines.evaluate.records import PREDICTIONS_SCHEMA
from pipelines.evaluate.records import predictions as written
from pipelines.evaluate.scores import SetResult
from pipelines.settings.evaluate import CalibrateSettings


def no_text(texts: list[str]) -> np.ndarray:
    """An encoder that finds nothing alike."""
    return np.eye(64, dtype=np.float32)[: len(texts)]


def read(data: str, **settings: Any) -> tuple[list[Question], str]:
    return read_questions(data, CalibrateSettings(model="builtin", data=data, **settings))


@pytest.mark.parametrize("column", ["correct", "right"])
def test_a_persons_table(tmp_path: Path, column: str) -> None:
    table = tmp_path / "judged.csv"
    table.write_text(
        f"uri;task;question;start_s;end_s;only_channel;{column};text\n"
        "a.wav;;Is there rain?;;;;ja;yes\nb.wav;cla_label;;60;;;FALSE;\n'-c.wav;;;7,5;12,25;1;;\n"
    )
    (first, second, third), judged_by = read(str(table))
    assert (first.uri, first.task, first.question, first.right, first.text, first.stretch) == (
        *("a.wav", "QA", "Is there rain?", True, "yes", (None, None, None)),
    )
    assert (second.task, second.right, second.stretch, second.text) == ("cla_label", False, (60.0, None, None), None)
    assert (third.uri, third.right, third.stretch) == ("-c.wav", None, (7.5, 12.25, 1))
    assert judged_by == "a person" and is_table(str(table)) and not is_table("soundworld")
    assert [each.right for each in read(str(table), blank="wrong")[0]] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("uri,correct\na.wav,perhaps\n", '"perhaps" in row 2 is no judgement'),
        ("uri,correct\na.wav,x\nb.wav,\n", "--blank wrong, or --blank skip"),
        ("uri,correct\n,yes\n", "row 2 names no file"),
        ("uri,correct,start_s\na.wav,yes,soon\n", "row 2 says 'soon' in `start_s`"),
        ("uri,correct,start_s,end_s\na.wav,yes,9,9\n", "ends at 9 s and begins at 9 s"),
        ("uri,correct,only_channel\na.wav,yes,left\n", "row 2 says 'left' in `only_channel`"),
        ("uri,correct,only_channel\na.wav,yes,-1\n", "row 2 says '-1' in `only_channel`"),
        ("uri,correct,choices\na.wav,yes,['dog' 'cat']\n", "row 2 holds its options as text"),
        ("uri,task\na.wav,caption\n", "neither a column `correct` nor is it predictions"),
        ("file,correct\na.wav,yes\n", "no column uri"),
    ],
)
def test_a_table_that_judges_nothing_is_refused(tmp_path: Path, text: str, told: str) -> None:
    table = tmp_path / "judged.csv"
    table.write_text(text)
    with pytest.raises(SettingsError, match=told) as error:
        read(str(table))
    assert error.value.setting == "data"


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


def test_predictions_are_judged_as_they_were_or_by_another_metric(tmp_path: Path) -> None:
    told = "cider_d is at least 0.5"
    place = predictions(
        tmp_path / "captions", uri=["a", "b", "c", "d"], task=["caption"] * 4, text=["x", "y", "z", None],
        order=[0, 0, 0, 0], correct=[True, False, None, None], judged_by=[told, told, told, told],
        metrics=[metrics(cider_d=0.7, bleu_1=0.1), metrics(cider_d=0.4, bleu_1=0.9), metrics(cider_d=None), []],
    )  # fmt: skip
    found, judged_by = read(place)
    assert [(each.uri, each.right, each.text) for each in found] == [
        ("a", True, "x"),
        ("b", False, "y"),
        ("c", None, "z"),
    ]
    assert judged_by == told
    found, judged_by = read(place, at_least=0.3)
    assert [each.right for each in found] == [True, True, None] and judged_by == "cider_d is at least 0.3"
    found, judged_by = read(place, metric="bleu_1")
    assert [each.right for each in found] == [False, True, None] and judged_by == "bleu_1 is at least 0.5"
    with pytest.raises(SettingsError, match=r"no spice.*bleu_1, cider_d"):
        read(place, metric="spice")


def test_predictions_of_several_data_sets_say_what_is_right_in_each(tmp_path: Path) -> None:
    place = predictions(
        tmp_path / "both", uri=["a", "b"], task=["caption", "cla_label"], text=["x", "y"], order=[0, 0],
        correct=[True, False], judged_by=["cider_d is at least 0.5", "the true one is named"],
        metrics=[metrics(cider_d=0.7), metrics(accuracy=0.0)],
    )  # fmt: skip
    found, judged_by = read(place)
    assert [each.right for each in found] == [True, False]
    assert judged_by == "cider_d is at least 0.5; the true one is named"
    found, judged_by = read(place, metric="accuracy")
    assert [each.right for each in found] == [None, False] and judged_by == "accuracy is at least 1"


def test_predictions_of_options_are_asked_as_they_were_shown_once(tmp_path: Path) -> None:
    place = predictions(
        tmp_path / "choice", uri=["a", "a"], task=["QA", "QA"], question=["Which?", "Which?"], order=[0, 1],
        choices=[["dog", "cat"], ["cat", "dog"]], text=["dog", "cat"], correct=[True, None],
        judged_by=["the true one is named", None], metrics=[metrics(accuracy=0.5), []],
    )  # fmt: skip
    (only,), told = read(place)
    assert only.question == "Which? Choose one of the following options: (A) dog (B) cat"
    assert only.right is True and told == "the true one is named"


def test_predictions_of_a_stretch_are_of_it(tmp_path: Path) -> None:
    place = predictions(
        tmp_path / "run", uri=["a", "a"], text=["x", "y"], correct=[True, True], metrics=[[], []],
        start_s=[7.5, None], end_s=[12.25, None], only_channel=[None, 1], seconds=[4.0, 60.0],
        judged_by=["so it is"] * 2,
    )  # fmt: skip
    assert [each.stretch for each in read(place)[0]] == [(7.5, 12.25, None), (None, None, 1)]


@pytest.mark.parametrize(
    ("place", "stretch"),
    [
        ({"start_s": 0.0}, (None, None, None)),
        ({"start_s": 7.5, "end_s": 12.25, "only_channel": 1}, (7.5, 12.25, 1)),
        ({"end_s": 30.0}, (None, 30.0, None)),
        ({"start_s": 90.0}, (90.0, 94.5, None)),  # of what was heard
    ],
)
def test_what_an_evaluation_writes_says_what_was_asked(
    tmp_path: Path, place: dict[str, Any], stretch: tuple[Any, ...]
) -> None:
    data = data_set("soundworld")
    data.items = [dataclasses.replace(item, **place) for item in data.items]
    answers = [ItemAnswer(["x"], seconds=4.5) for _ in data.items]
    done = SetResult(data, answers, Scores(), {}, right=[True, False], judged_by="so it is")
    pq.write_table(written([done], "model", "run", 0), tmp_path / "run.parquet")
    assert [each.stretch for each in read(str(tmp_path / "run.parquet"))[0]] == [stretch] * 2


def test_a_copy_of_predictions_tells_what_is_right_in_jsonl_and_not_as_text(tmp_path: Path) -> None:
    place = predictions(
        tmp_path / "run", uri=["a", "b"], text=["x", "y"], order=[0, 0], correct=[True, False],
        judged_by=["so it is"] * 2, metrics=[metrics(accuracy=1.0), metrics(accuracy=0.0)],
    )  # fmt: skip
    copy = pq.read_table(Path(place) / "run.parquet").to_pandas()
    copy.to_json(tmp_path / "copy.jsonl", orient="records", lines=True)
    assert [each.right for each in read(str(tmp_path / "copy.jsonl"))[0]] == [True, False]
    assert [each.right for each in read(str(tmp_path / "copy.jsonl"), metric="accuracy")[0]] == [True, False]
    copy.to_csv(tmp_path / "copy.csv", index=False)
    copy.to_csv(tmp_path / "copy.csv.gz", index=False)
    copy.to_excel(tmp_path / "copy.xlsx", index=False)
    for name in ("copy.csv", "copy.csv.gz", "copy.xlsx"):
        with pytest.raises(SettingsError, match=r"copy of predictions as text.*Parquet file itself"):
            read(str(tmp_path / name))
    copy.assign(right=["no", ""]).to_csv(tmp_path / "by_ear.csv", index=False)
    found, judged_by = read(str(tmp_path / "by_ear.csv"))
    assert [each.right for each in found] == [False, None] and judged_by == "a person"


def test_the_cells_of_a_grid_are_not_answers_of_one_model(tmp_path: Path) -> None:
    place = predictions(tmp_path / "grid", uri=["a"], text=["x"], correct=[True], judged_by=["so it is"])
    run = Path(place) / "run.parquet"
    for cell in ("beams=1", "beams=4"):
        (Path(place) / f"{cell}.parquet").write_bytes(run.read_bytes())
    run.unlink()
    with pytest.raises(SettingsError, match=r"2 files of predictions \(beams=1.parquet, beams=4.parquet\)"):
        read(place)
    ((only,), told) = read(str(Path(place) / "beams=4.parquet"))
    assert (only.uri, only.right, told) == ("a", True, "so it is")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="no Parquet files"):
        read(str(tmp_path / "empty"))


def test_a_persons_judgement_of_predictions_goes_before_theirs(tmp_path: Path) -> None:
    columns = {"uri": ["a", "b"], "text": ["x", "y"], "correct": [True, True], "right": [False, None], "order": [0, 0]}
    pq.write_table(pa.table({**columns, "metrics": [[], []]}), tmp_path / "run.parquet")
    found, judged_by = read(str(tmp_path / "run.parquet"))
    assert [each.right for each in found] == [False, None] and judged_by == "a person"


def test_predictions_that_do_not_say_what_is_right_are_refused(tmp_path: Path) -> None:
    rows = [{"uri": "a", "text": "x", "order": 0, "metrics": metrics(accuracy=1.0)}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "old.parquet")
    with pytest.raises(SettingsError, match=r"evaluate again, or say by which --metric"):
        read(str(tmp_path / "old.parquet"))
    assert [each.right for each in read(str(tmp_path / "old.parquet"), metric="accuracy")[0]] == [True]


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
    settings = CalibrateSettings(model="builtin", data="x")
    asked, judge = of_data_set(data_set("soundworld"), settings)
    assert [each.uri for each in asked] == ["0.wav", "1.wav"]
    assert judge(["It is raining.", "Rain falls."], no_text) == ([True, False], LABELS_RIGHT)
    assert judge(["Rain.", None], no_text) == ([True, None], LABELS_RIGHT)
    _, judge = of_data_set(data_set("soundworld_labels"), settings)
    assert judge(["rain", "bell, dog"], no_text) == ([True, False], LABELS_RIGHT)
    asked, judge = of_data_set(data_set("soundworld_choice"), settings)
    assert "Choose one of the following options" in (asked[0].question or "")
    assert judge(["yes", "yes"], no_text) == ([True, False], "the true one is named")
    _, judge = of_data_set(
        data_set("soundworld_choice"), CalibrateSettings(model="builtin", data="x", metric="accuracy", at_least=0.0)
    )
    assert judge(["yes", "yes"], no_text) == ([True, True], "accuracy is at least 0")


@pytest.mark.parametrize(
    ("place", "stretch"),
    [
        ({}, (None, None, None)),
        ({"start_s": 0.0}, (None, None, None)),
        ({"start_s": 7.5, "end_s": 12.25}, (7.5, 12.25, None)),
        ({"end_s": 30.0}, (None, 30.0, None)),
        ({"start_s": 90.0}, (90.0, float("inf"), None)),
        ({"start_s": 90.0, "only_channel": 1}, (90.0, float("inf"), 1)),
        ({"only_channel": 0}, (None, None, 0)),
    ],
)
def test_an_items_stretch_is_asked(place: dict[str, Any], stretch: tuple[Any, ...]) -> None:
    data = data_set("soundworld")
    data.items = [dataclasses.replace(item, **place) for item in data.items]
    asked, _ = of_data_set(data, CalibrateSettings(model="builtin", data="x"))
    assert [each.stretch for each in asked] == [stretch] * 2


def test_answers_that_no_metric_judges_are_refused() -> None:
    with pytest.raises(SettingsError, match="no metric judges the answers of soundworld"):
        of_data_set(data_set("soundworld", kind="chat", reader="table"), CalibrateSettings(model="builtin", data="x"))
    with pytest.raises(SettingsError, match="no metric accuracy"):
        of_data_set(data_set("soundworld"), CalibrateSettings(model="builtin", data="x", metric="accuracy"))
