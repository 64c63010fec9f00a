"""Confidence in an evaluation: its metrics, its pictures, the gate on it, and what of it a comparison weighs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data import parquet
from pipelines.evaluate.compare import compare_answers
from tests.pipelines.evaluate.stand_in import CLIPS, evaluate
from tests.pipelines.export.made_up import answer_rows

pytestmark = pytest.mark.processes
NAMES = ("auroc", "ece", "risk_area")


def number_of(row: dict[str, Any]) -> int:
    return int(row["item"].rsplit("-", 1)[1])


def test_confidence_has_metrics_pictures_and_a_gate(model: Any, data: str, tmp_path: Path) -> None:
    nightly = {"history": str(tmp_path / "history"), "against": "accepted", "accept": True}
    model.good = 0.5  # the first four clips are answered right
    model.sure = lambda row: 0.95 - 0.01 * number_of(row) if number_of(row) < CLIPS // 2 else 0.3
    good = evaluate(data, tmp_path / "good", **nightly)
    labels, choice = good.cells[0].results
    for result in (labels, choice):
        assert [result.scores.metrics[name].value is not None for name in NAMES] == [True] * 3
        assert result.scores.metrics["auroc"].value == 1.0
        assert result.scores.metrics["auroc"].n == CLIPS - 1  # one sound cannot be read
        assert result.right[:4] == [True] * 4 and not any(result.right[4:])
    written = json.loads((tmp_path / "good" / "metrics.json").read_text())["cells"][0]["benchmarks"]
    told = written["soundworld_labels"]["details"]["confidence"]
    assert told["kept"]["0.95"] == {"share": pytest.approx(4 / 7), "confidence": pytest.approx(0.92)}
    assert [count for _, _, count in told["bins"]] == [3, 4]
    rows = pq.read_table(tmp_path / "good" / "predictions" / "run.parquet").to_pylist()
    first = [row for row in rows if row["benchmark"] == "soundworld_choice" and row["order"] == 0]
    assert [row["confidence"] for row in first[:5]] == pytest.approx([0.95, 0.94, 0.93, 0.92, 0.3])
    assert [row["correct"] for row in first] == [True] * 4 + [False] * 3 + [None]
    assert {row["judged_by"] for row in first} == {"the true one is named"}
    page = (tmp_path / "good" / "report.html").read_text()
    for words in ("Reliability", "Risk and coverage", "95 % right: keep 57 %", "names no wrong sound"):
        assert words in page, words

    known, model.sure = model.sure, lambda row: 1.0 - known(row)  # the same answers, and sure of the wrong ones
    bad = evaluate(data, tmp_path / "bad", **nightly)
    assert bad.verdict is not None and not bad.verdict.open and not bad.accepted
    assert {(each.benchmark, each.metric) for each in bad.verdict.falls} == {
        (name, metric) for name in ("soundworld_labels", "soundworld_choice") for metric in NAMES
    }
    model.sure = None  # a model whose calibration is gone
    gone = evaluate(data, tmp_path / "gone", **nightly)
    assert gone.verdict is not None and not gone.verdict.open
    assert {each.metric for each in gone.verdict.not_comparable} == set(NAMES)
    ungated = [f"{name}/{metric}" for name in ("soundworld_labels", "soundworld_choice") for metric in NAMES]
    left = evaluate(data, tmp_path / "left", **nightly, ungated=ungated)
    assert left.verdict is not None and left.verdict.open
    assert "Reliability" not in (tmp_path / "left" / "report.html").read_text()


def test_what_confidence_would_have_told_is_named_where_there_is_none(
    model: Any, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs.evaluate import print_evaluation
    from pipelines.archive.caption import OTHERWISE
    from pipelines.settings.evaluate import EvaluateSettings

    monkeypatch.setattr("pipelines.evaluate.run.read_run", lambda _: {"calibration_unused": OTHERWISE})
    done = evaluate(data, tmp_path / "out", benchmarks="soundworld_labels", bridge="none")
    (result,) = done.cells[0].results
    assert [each.name for each in result.scores.unavailable] == list(NAMES)
    print_evaluation(EvaluateSettings(out=str(tmp_path / "out")), done)
    said = f"auroc, ece, risk_area: not computed, answers have no confidence: {OTHERWISE}"
    assert said in capsys.readouterr().out.splitlines()
    assert "answers have no confidence" in (tmp_path / "out" / "report.html").read_text()
    model.sure = lambda row: 0.5
    (sure,) = evaluate(data, tmp_path / "sure", benchmarks="soundworld_labels").cells[0].results
    assert sure.scores.unavailable == []


def test_captions_of_the_embedded_world_are_right_by_their_sounds(model: Any, data: str, tmp_path: Path) -> None:
    model.say = lambda row: "Rain falls." if number_of(row) % 2 else "A saw buzzes while a cat meows and a bell tolls."
    model.sure = lambda row: 0.5
    done = evaluate(data, tmp_path / "out", benchmarks="soundworld", limit=6)
    (result,) = done.cells[0].results
    assert set(result.right) == {True, False}
    for item, right, answer in zip(result.data.items, result.right, result.answers, strict=True):
        named = {"rain"} if answer.texts[0] == "Rain falls." else {"saw", "cat", "bell"}
        assert right == (named <= set(item.labels) and 2 * len(named) >= len(item.labels))


def run(place: Path, texts: list[str], confidence: list[float | None] | None) -> str:
    rows = answer_rows([f"/nowhere/{n}.wav" for n in range(len(texts))], list(texts))
    if confidence is not None:
        rows = rows.append_column("confidence", pa.array(confidence, pa.float32()))
    parquet.write(str(place / "answers" / "part-0.parquet"), rows)
    return str(place)


def test_changes_weigh_by_the_confidence_of_the_surer_answer(tmp_path: Path) -> None:
    before = ["A dog barks.", "A dog barks.", "A dog barks.", "Rain falls."]
    after = ["A siren wails.", "A siren wails.", "A siren wails.", "Rain falls."]
    a = run(tmp_path / "a", before, [0.2, 0.9, None, 0.5])
    b = run(tmp_path / "b", after, [0.3, 0.1, None, 0.7])
    found = compare_answers(a, b, str(tmp_path / "page.html"))
    rows = pq.read_table(tmp_path / "page.parquet").to_pylist()
    assert [row["chunk_id"] for row in rows] == ["id-2", "id-1", "id-0"]
    distance = rows[0]["distance"]
    assert [row["weight"] for row in rows] == pytest.approx([distance, 0.9 * distance, 0.3 * distance])
    assert list(rows[0])[-3:] == ["confidence_a", "confidence_b", "weight"]
    assert found.sure is not None
    assert found.sure == (pytest.approx(1.6 / 3), pytest.approx(1.1 / 3), 3)
    page = (tmp_path / "page.html").read_text()
    assert "90 %" in page and "36.7 %" in page and "confidence of the surer answer" in page
    compare_answers(a, b, str(tmp_path / "page.html"))  # over its own table

    plain = run(tmp_path / "plain", after, None)  # one of the two has confidence, and sorts by it
    half = compare_answers(a, plain, str(tmp_path / "half.html"))
    assert half.sure is None and half.weighed
    rows = pq.read_table(tmp_path / "half.parquet").to_pylist()
    assert [row["weight"] for row in rows] == pytest.approx([distance, 0.9 * distance, 0.2 * distance])
    assert "confidence of the surer answer" in (tmp_path / "half.html").read_text()


def test_runs_without_confidence_are_compared_as_before(tmp_path: Path) -> None:
    a = run(tmp_path / "a", ["A dog barks.", "Rain falls."], None)
    b = run(tmp_path / "b", ["A loud dog barks.", "A siren wails."], None)
    found = compare_answers(a, b, str(tmp_path / "page.html"))
    rows = pq.read_table(tmp_path / "page.parquet").to_pylist()
    assert not found.weighed and "surer answer" not in (tmp_path / "page.html").read_text()
    assert found.sure is None and [row["weight"] for row in rows] == [row["distance"] for row in rows]
    assert rows[0]["distance"] > rows[1]["distance"]
    older = pq.read_table(tmp_path / "page.parquet").drop_columns(["confidence_a", "confidence_b", "weight"])
    pq.write_table(older, tmp_path / "page.parquet")
    compare_answers(a, b, str(tmp_path / "page.html"))  # over the table of an earlier version
    assert "Confidence" not in (tmp_path / "page.html").read_text()
