"""`mats sample`: from a run to a file, through a person's hands, to the share that is right."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mats_core.errors import SettingsError
from pipelines import run_sample
from pipelines.calibrate.judging import read_questions
from pipelines.data import parquet
from pipelines.sample import run as sampling
from pipelines.sample.draw import allotted, drawn_of, strata_of
from pipelines.sample.estimate import stratified
from pipelines.settings.evaluate import CalibrateSettings
from tests.pipelines.export.made_up import HOSTILE, answer_rows

FIRST = ("uri", "start_s", "end_s", "task", "question", "text", "correct", "confidence", "stratum", "stratum_rows")
Lines = list[dict[str, Any]]


def make_run(place: Path, count: int = 1000, confident: bool = True, seed: int = 0) -> tuple[str, np.ndarray]:
    """A run whose answers are right with the chance that their confidence says; which are."""
    rng = np.random.default_rng(seed)
    sure = rng.beta(5, 1.5, count)
    tasks = np.where(np.arange(count) % 4 == 0, "QA", "caption").tolist()
    rows = answer_rows([f"/sounds/{n}.wav" for n in range(count)], [f"answer {n}" for n in range(count)])
    rows = rows.set_column(rows.schema.get_field_index("task"), "task", pa.array(tasks))
    if confident:
        rows = rows.append_column("confidence", pa.array(sure, pa.float32()))
    parquet.write(str(place / "answers" / "part-0.parquet"), rows.slice(0, count // 3))
    parquet.write(str(place / "answers" / "part-1.parquet"), rows.slice(count // 3))
    return str(place), rng.random(count) < sure


def read(path: Path) -> Lines:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    from openpyxl import load_workbook

    names, *rows = load_workbook(path).active.iter_rows(values_only=True)  # type: ignore[union-attr]
    return [dict(zip(map(str, names), row, strict=True)) for row in rows]


def write(path: Path, rows: Lines) -> None:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        from openpyxl import Workbook

        book = Workbook()
        assert book.active is not None
        for line in (list(rows[0]), *([*row.values()] for row in rows)):
            book.active.append(line)
        book.save(path)


def judge(path: Path, right: np.ndarray, words: tuple[Any, Any] = ("yes", "no")) -> None:
    rows = read(path)
    for row in rows:
        row["correct"] = words[0] if right[int(row["row_id"])] else words[1]
    write(path, rows)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "xlsx"])
def test_draw_judge_and_estimate(tmp_path: Path, ending: str) -> None:
    run, right = make_run(tmp_path / "run")
    file = tmp_path / f"sample.{ending}"
    drawn = run_sample(run=run, n=200, out=file, seed=3)
    assert (drawn.drawn, drawn.rows, drawn.strata, drawn.by_confidence) == (200, 1000, 20, True)
    rows = read(file)
    assert tuple(rows[0])[:10] == FIRST and all(row["correct"] in ("", None) for row in rows)
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(1000, abs=0.01)
    for row in rows:
        assert row["text"] == f"answer {row['row_id']}"
        assert (float(row["start_s"]), float(row["end_s"])) == (0.0, 2.0)
    judge(file, right, ("x", "0"))
    found = run_sample(run=run, judge=file)
    assert found.judged is not None and found.says is not None
    assert found.judged.low <= right.mean() <= found.judged.high
    assert found.judged.high - found.judged.low < 0.13
    assert set(found.parts) == {"QA", "caption"} and found.notes == []
    for task, share in found.parts.items():
        truth = right[np.arange(1000) % 4 == 0].mean() if task == "QA" else right[np.arange(1000) % 4 > 0].mean()
        assert share.low <= truth <= share.high
    assert abs(found.says - right.mean()) < 0.05
    least = found.threshold
    assert least is not None and least.share.value >= 0.95
    confidence = parquet.read(f"{run}/answers/part-1.parquet")["confidence"].to_numpy()
    assert least.kept == pytest.approx((confidence >= least.confidence).mean(), abs=0.05)


def test_the_same_seed_draws_the_same_clips_in_the_same_order(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path / "run")
    files = [tmp_path / f"{name}.csv" for name in "abc"]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        run_sample(run=run, n=50, out=file, seed=seed)
    a, b, c = (file.read_bytes() for file in files)
    assert a == b != c
    order = [row["stratum"] for row in read(files[0])]
    assert order != sorted(order)
    with pytest.raises(SettingsError, match="may hold judgements"):
        run_sample(run=run, n=50, out=files[0])
    run_sample(run=run, n=50, out=files[0], seed=2, overwrite=True)
    assert files[0].read_bytes() == c


def test_without_confidence_it_is_a_plain_draw_of_each_task(tmp_path: Path) -> None:
    run, right = make_run(tmp_path / "run", confident=False)
    out = tmp_path / "s.csv"
    assert not run_sample(run=run, n=100, out=out).by_confidence
    assert {row["confidence"] for row in read(out)} == {""}
    judge(out, right)
    found = run_sample(run=run, judge=out)
    assert found.says is None and found.threshold is None
    by_hand: dict[str, list[bool]] = {"QA": [], "caption": []}
    for row in read(out):
        by_hand["QA" if int(row["row_id"]) % 4 == 0 else "caption"].append(row["correct"] == "yes")
    for task, share in found.parts.items():
        assert share.value == pytest.approx(np.mean(by_hand[task]))
    assert found.judged is not None
    assert found.judged.value == pytest.approx(0.25 * found.parts["QA"].value + 0.75 * found.parts["caption"].value)


@pytest.mark.parametrize("confident", [False, True])
def test_intervals_of_many_draws_hold_the_truth_in_95_of_100(confident: bool) -> None:
    """Of one archive whose answers are all known, 600 draws of 100 clips."""
    rng = np.random.default_rng(9)
    sure = rng.beta(5, 1.5, 1000)
    right = rng.random(1000) < sure
    tasks = np.where(np.arange(1000) % 4 == 0, "QA", "caption").tolist()
    known = pa.array(sure if confident else [None] * 1000, pa.float32())
    strata = strata_of(pa.table({"row_id": range(1000), "task": tasks, "confidence": known}), 100)
    counts, held = allotted(strata, 100), 0
    for seed in range(600):
        drawn = drawn_of(strata, counts, seed)
        found = stratified([(len(s.rows), right[ids].tolist()) for s, ids in zip(strata, drawn, strict=True)])
        assert found is not None
        held += found.low <= right.mean() <= found.high
    assert 0.92 <= held / 600 <= 0.98


@pytest.mark.parametrize("ending", ["csv", "jsonl", "xlsx"])
def test_hostile_names_and_answers_survive_and_are_no_formula(tmp_path: Path, ending: str) -> None:
    uris = [
        '/a/"quoted", and\ncut.wav',
        "=cmd|' /C calc'!A0",
        "@SUM(A1).wav",
        "/é/東京 %FF.wav",
        "-1.wav",
        "+2.wav",
    ]
    rows = answer_rows(uris, [*HOSTILE[:5], "-5 dB, +3"])
    parquet.write(str(tmp_path / "run" / "answers" / "part-0.parquet"), rows)
    file = tmp_path / f"s.{ending}"
    run_sample(run=str(tmp_path / "run"), n=6, out=file)
    found = {int(row["row_id"]): row for row in read(file)}
    for at, uri in enumerate(uris):
        assert found[at]["uri"].removeprefix("'") == uri
        if ending != "jsonl":
            assert not str(found[at]["uri"]).startswith(("=", "@", "+", "-"))
            assert not str(found[at]["text"]).startswith(("=", "@", "+", "-"))
    judge(file, np.array([True, False, True, True, False, True]))
    result = run_sample(run=str(tmp_path / "run"), judge=file)
    assert result.judged is not None and result.notes == []
    assert result.judged.value == result.judged.low == pytest.approx(4 / 6)  # all of them were judged


def test_what_is_not_judged_is_left_out_of_its_stratum_and_told(tmp_path: Path) -> None:
    run, right = make_run(tmp_path / "run")
    file = tmp_path / "s.csv"
    run_sample(run=run, n=200, out=file)
    judge(file, right)
    rows = read(file)
    for row in rows[:60]:
        row["correct"] = ""
    write(file, rows)
    found = run_sample(run=run, judge=file)
    assert found.notes == ["60 of 200 clips not judged"]
    assert found.judged is not None and (found.judged.judged, found.judged.rows) == (140, 1000)
    for row in rows:
        row["correct"] = ""
    write(file, rows)
    with pytest.raises(SettingsError, match="nothing is judged"):
        run_sample(run=run, judge=file)


def test_another_run_and_changed_answers_are_noticed(tmp_path: Path) -> None:
    run, right = make_run(tmp_path / "run")
    file = tmp_path / "s.csv"
    run_sample(run=run, n=40, out=file)
    judge(file, right)
    rows = read(file)
    rows[0]["text"] = "another"
    write(file, [*rows, rows[1]])
    found = run_sample(run=run, judge=file)
    assert found.notes == ["2 judged rows left out: the run has another answer there, or none, or they repeat"]
    other = answer_rows([f"/s/{n}.wav" for n in range(1000)], [f"other {n}" for n in range(1000)])
    parquet.write(str(tmp_path / "other" / "answers" / "part-0.parquet"), other)
    with pytest.raises(SettingsError, match="are not those of this run"):
        run_sample(run=str(tmp_path / "other"), judge=file)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "xlsx"])
def test_figures_of_a_filtered_draw_are_of_the_answers_it_was_drawn_from(tmp_path: Path, ending: str) -> None:
    """Of all questions, which are sure of themselves, and all are judged: every figure is known."""
    rows = answer_rows([f"/s/{n}.wav" for n in range(400)], [f"answer {n}" for n in range(400)])
    asked = np.arange(400) % 4 == 0
    sure = np.where(asked, 0.6 + np.arange(400) / 1000, 0.1)
    tasks = pa.array(np.where(asked, "QA", "caption").tolist())
    rows = rows.set_column(rows.schema.get_field_index("task"), "task", tasks)
    rows = rows.append_column("confidence", pa.array(sure, pa.float32()))
    parquet.write(str(tmp_path / "run" / "answers" / "part-0.parquet"), rows)
    file = tmp_path / f"s.{ending}"
    run_sample(run=str(tmp_path / "run"), n=100, out=file, where="task = 'QA'")
    judge(file, np.arange(400) >= 40)
    found = run_sample(run=str(tmp_path / "run"), judge=file, target=1 - 1e-6)
    assert found.judged is not None and (found.judged.value, found.judged.rows) == (pytest.approx(0.9), 100)
    assert found.says == pytest.approx(sure[asked].mean())
    least = found.threshold
    assert least is not None and least.confidence == pytest.approx(0.64) and least.kept == pytest.approx(0.9)
    assert found.notes == ["the clips were drawn from 100 answers, and the run has 400: all figures are of the former"]


def test_the_confidences_that_are_tried_are_no_more_than_most_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, right = make_run(tmp_path / "run", 100)
    run_sample(run=run, n=100, out=tmp_path / "s.csv")
    judge(tmp_path / "s.csv", right)
    tried: list[int] = []
    share_of = sampling._File.share_of
    monkeypatch.setattr(sampling._File, "share_of", lambda file, some: tried.append(len(some)) or share_of(file, some))
    monkeypatch.setattr(sampling, "MOST_TRIED", 40)
    monkeypatch.setattr(sampling, "LEAST_ABOVE", 0)
    run_sample(run=run, judge=tmp_path / "s.csv")
    assert 20 < len(tried) <= 40


def test_answers_that_were_held_back_are_estimated_apart(tmp_path: Path) -> None:
    rows = answer_rows([f"/s/{n}.wav" for n in range(100)], ["a"] * 100)
    sure = np.linspace(0, 1, 100)
    text = [f"t{n}" if n >= 40 else None for n in range(100)]
    unsure = pa.array([None if n >= 40 else f"t{n}" for n in range(100)], pa.string())
    rows = rows.set_column(rows.schema.get_field_index("text"), "text", pa.array(text))
    rows = rows.append_column("confidence", pa.array(sure, pa.float32())).append_column("text_unsure", unsure)
    parquet.write(str(tmp_path / "run" / "answers" / "part-0.parquet"), rows)
    file = tmp_path / "s.jsonl"
    run_sample(run=str(tmp_path / "run"), n=100, out=file)
    assert {row["text"] for row in read(file)} == {f"t{n}" for n in range(100)}
    judge(file, np.arange(100) >= 30)
    found = run_sample(run=str(tmp_path / "run"), judge=file, target=0.9)
    assert found.parts["given"].value == pytest.approx(1.0)
    assert found.parts["held back"].value == pytest.approx(0.25)
    least = found.threshold
    assert least is not None
    # from row 23 on, 70 of 77 are right; one row more, and it is fewer than 0.9
    assert (round(least.confidence * 99), least.kept, least.share.value) == (23, 0.77, pytest.approx(70 / 77))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "neither --out nor --judge"),
        ({"out": "a.csv", "judge": "b.csv"}, "--judge writes no clips"),
        ({"out": "a.txt"}, "is none of .csv, .jsonl, .xlsx"),
        ({"out": "a.csv", "run": "absent"}, "holds no answers"),
        ({"out": "RUN/a.csv"}, "lies in the run"),
        ({"out": "a.csv", "where": "row_id < 0"}, "holds no answer of these"),
        ({"judge": "b.csv", "where": "row_id < 9"}, "leave out --where, or draw with it"),
        ({"out": "a.csv", "n": 1}, "too few"),
    ],
)
def test_what_cannot_work_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, why: str) -> None:
    monkeypatch.chdir(tmp_path)
    run, _ = make_run(tmp_path / "run", 40)
    named = {name: value.replace("RUN", run) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(SettingsError, match=why):
        run_sample(**{"run": run, **named})
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "xlsx"])
def test_a_judged_sample_is_what_a_calibration_is_fitted_on(tmp_path: Path, ending: str) -> None:
    run, right = make_run(tmp_path / "run")
    file = tmp_path / f"s.{ending}"
    run_sample(run=run, n=30, out=file)
    judge(file, right, ("✓", "nein"))
    rows = read(file)
    rows[7]["correct"], rows[8]["correct"] = "", "?"
    write(file, rows)
    found, how = read_questions(str(file), CalibrateSettings(model="builtin", data=str(file)))
    assert how == "a person" and len(found) == 30
    for at, each in enumerate(found):
        number = int(str(each.text).split()[1])
        assert (each.right, each.uri) == (None if at in (7, 8) else right[number], f"/sounds/{number}.wav")
        assert each.stretch == (0.0, 2.0, None)
        assert each.task == ("QA" if number % 4 == 0 else "caption")


def test_a_clip_of_one_channel_is_drawn_and_judged_as_such(tmp_path: Path) -> None:
    rows = answer_rows([f"/sounds/{n}.wav" for n in range(4)], [f"answer {n}" for n in range(4)])
    rows = rows.append_column("only_channel", pa.array([0, 1, None, 1], pa.int64()))
    parquet.write(str(tmp_path / "run" / "answers" / "part-0.parquet"), rows)
    for ending in ("csv", "jsonl", "xlsx"):
        file = tmp_path / f"s.{ending}"
        run_sample(run=str(tmp_path / "run"), n=4, out=file)
        judge(file, np.array([True, False, True, False]))
        found, _ = read_questions(str(file), CalibrateSettings(model="builtin", data=str(file)))
        assert {each.uri: each.stretch.channel for each in found} == {
            "/sounds/0.wav": 0, "/sounds/1.wav": 1, "/sounds/2.wav": None, "/sounds/3.wav": 1,
        }  # fmt: skip
