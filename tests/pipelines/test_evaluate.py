"""Evaluation from answers to page, gate and comparison; the answers are made up (evaluate_stand_in.py)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines import evaluate_answers, ray_runtime
from pipelines.benchmarks import load_benchmark, read
from pipelines.compare import compare_answers
from pipelines.evaluate import Evaluation, run_evaluate
from pipelines.evaluate_scores import modality_gap
from pipelines.evaluate_settings import EvaluateSettings
from pipelines.history import History
from tests.pipelines.evaluate_stand_in import StandIn

CLIPS = 8
NAMES = ("soundworld_labels", "soundworld_choice")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="module")
def truth(data: str) -> dict[tuple[str, str], Any]:
    return {(name, item.item_id): item for name in NAMES for item in read(load_benchmark(name), data, CLIPS).items}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, truth: dict[tuple[str, str], Any]) -> StandIn:
    """Knows everything, but for one sound it cannot read; a stand-in's `good` is the share of clips it knows."""

    def say(row: dict[str, Any]) -> str | None:
        item = truth[row["benchmark"], row["item"]]
        number = int(row["item"].rsplit("-", 1)[1])
        if number == CLIPS - 1:
            return None
        if number >= model.good * CLIPS or row["bridge"] == "none":
            return next((choice for choice in item.choices if choice != item.answer), "thunder")
        return item.answer or ", ".join(item.labels)

    model = StandIn(say)
    model.good = 1.0  # type: ignore[attr-defined]
    there = ray_runtime.Resources(2, 0, 1, own=False)
    monkeypatch.setattr(evaluate_answers, "run_caption", model.caption)
    monkeypatch.setattr(evaluate_answers, "run_embed_audio", model.embed_audio)
    monkeypatch.setattr(ray_runtime, "ray_session", contextlib.contextmanager(lambda *_: iter([there])))
    return model


def evaluate(data: str, out: Path, **given: Any) -> Evaluation:
    values = {"benchmarks": ",".join(NAMES), "limit": CLIPS, "data": [data], "players": 2}
    return run_evaluate(EvaluateSettings(**{**values, "out": str(out), **given}))


def test_two_nights_the_gate_and_what_changed(model: Any, data: str, tmp_path: Path) -> None:
    nightly = {"history": str(tmp_path / "history"), "against": "accepted", "accept": True}
    good = evaluate(data, tmp_path / "good", **nightly)
    assert (good.status, good.accepted, good.failed) == ("complete", True, 1 + 3)  # a question is asked in 3 orders
    assert len(model.heard) == len(set(model.heard))  # every sound once, whatever is asked of it
    labels, choice = good.cells[0].results
    assert labels.scores.metrics["micro_f1"].value == choice.scores.metrics["accuracy"].value == 1.0
    assert labels.scores.metrics["micro_f1"].n == CLIPS - 1
    assert set(labels.baselines) == {"majority", "zero-shot CLAP", "shuffled answers"}
    assert labels.gap is not None
    written = json.loads((tmp_path / "good" / "metrics.json").read_text())
    (cell,) = written["cells"]
    assert cell["benchmarks"]["soundworld_choice"]["metrics"]["accuracy"]["value"] == 1.0
    assert cell["benchmarks"]["soundworld_labels"]["answered"] == CLIPS - 1
    rows = pq.read_table(tmp_path / "good" / "predictions" / "run.parquet").to_pylist()
    assert len(rows) == CLIPS + 3 * CLIPS
    assert {row["error"] for row in rows if row["text"] is None} == {"decode_failed: broken"}

    model.good = 0.4
    bad = evaluate(data, tmp_path / "bad", **nightly)
    assert bad.verdict is not None
    assert not bad.verdict.open
    assert not bad.accepted
    fallen = {(change.benchmark, change.metric) for change in bad.verdict.falls}
    assert {("soundworld_labels", "micro_f1"), ("soundworld_choice", "accuracy")} <= fallen
    assert History(nightly["history"]).accepted() == [good.run_id]
    page = (tmp_path / "bad" / "report.html").read_text()
    for words in ("The gate is closed", "soundworld_choice accuracy: 0.", "By class", "Modality gap", "Worst", "Best"):
        assert words in page, words
    assert good.run_id[:8] in page  # the earlier run has a column
    assert page.count("data:audio/mpeg;base64,") == 2 * 2
    assert "<script src" not in page
    assert "<link" not in page

    found = compare_answers(str(tmp_path / "good"), str(tmp_path / "bad"), str(tmp_path / "compare.html"), top=3)
    assert (found.rows, found.same + found.changed) == (4 * CLIPS, 4 * CLIPS)
    distances = pq.read_table(tmp_path / "compare.parquet")["distance"].to_pylist()
    assert distances == sorted(distances, reverse=True)
    assert len(distances) == found.changed > 0
    assert all(distance > 0 for distance in distances)
    assert (tmp_path / "compare.html").read_text().count("data:audio/mpeg;base64,") == 3


def test_a_grid_hears_once_and_ranks_its_cells(model: Any, data: str, tmp_path: Path) -> None:
    done = evaluate(data, tmp_path / "grid", benchmarks=NAMES[0], axes=["santa.mix=0.2,0.4", "bridge=none,santa"])
    assert len(model.heard) == CLIPS
    assert [(each.santa_mix, each.bridge) for each in model.captioned] == [
        (mix, way) for mix in (0.2, 0.4) for way in ("none", "santa")
    ]
    f1 = [cell.results[0].scores.metrics["micro_f1"].value for cell in done.cells]
    assert f1[1] == f1[3] == 1.0
    assert f1[0] == f1[2] < 0.5
    page = (tmp_path / "grid" / "report.html").read_text()
    assert "what follows below is the cell santa.mix=0.2,bridge=santa" in page
    assert len(list((tmp_path / "grid" / "predictions").iterdir())) == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"benchmarks": "sounds_of_silence"}, "benchmarks: got"),
        ({"out": ""}, "out: got"),
        ({"model": "nowhere"}, "model: got"),
        ({"against": "accepted"}, "history: got"),
        ({"accept": True}, "--against and --accept need"),
        ({"history": "h", "against": "x"}, 'run: got "x"'),
        ({"history": "h", "against": "accepted", "axes": ["beams=1,2"]}, "a run without a grid"),
        ({"bridge": "ferry"}, 'bridge: got "ferry"'),
    ],
)
def test_what_cannot_work_is_said_before_any_work(
    given: dict[str, Any], said: str, model: Any, data: str, tmp_path: Path
) -> None:
    if "history" in given:
        given = {**given, "history": str(tmp_path / "history")}
    values = {"out": str(tmp_path / "out"), **given}
    with pytest.raises(SettingsError) as told:
        run_evaluate(EvaluateSettings(**{"benchmarks": NAMES[0], "limit": CLIPS, "data": [data], **values}))
    assert said in str(told.value)
    assert model.captioned == []


def test_a_folder_of_another_model_or_other_settings_is_refused(model: Any, data: str, tmp_path: Path) -> None:
    evaluate(data, tmp_path / "out", benchmarks=NAMES[0], limit=4)
    with pytest.raises(SettingsError, match="another folder, or --overwrite"):
        evaluate(data, tmp_path / "out", benchmarks=NAMES[0], limit=5)


@pytest.mark.parametrize(
    ("references", "expected"), [((), "The sound of rain., The sound of wind."), (("It rains.",), "It rains.")]
)
def test_the_gap_is_to_the_true_caption_or_the_labels_where_there_is_none(
    references: tuple[str, ...], expected: str
) -> None:
    """Sounds [1, 0] beside texts [0, 1], moved half-way: cosines 0 and 1/√2, and the distances that go with them."""
    spoken = {"rain": "The sound of rain.", "wind": "The sound of wind."}
    labels = SimpleNamespace(names=list(spoken), texts=list(spoken.values()))
    item = SimpleNamespace(references=references, labels=("rain", "wind"), answer="", question="")
    reply = SimpleNamespace(embedding=np.array([1.0, 0.0], np.float32))
    task = SimpleNamespace(reading=SimpleNamespace(labels=labels), items=[item] * 3)
    asked: list[str] = []

    def embed_text(texts: list[str]) -> Any:
        asked.extend(texts)
        return np.array([[0.0, 1.0]] * len(texts), np.float32)

    gap = modality_gap(
        SimpleNamespace(task=task, replies=[reply] * 3),  # type: ignore[arg-type]
        SimpleNamespace(embed_text=embed_text),  # type: ignore[arg-type]
        lambda audio: np.full_like(audio, 0.5**0.5),
    )
    assert asked == [expected] * 3
    assert gap is not None
    assert gap.cosine == pytest.approx({"audio": 0.0, "moved": 0.5**0.5})
    assert gap.distance == pytest.approx({"audio": 2**0.5, "moved": (2 - 2**0.5) ** 0.5})
