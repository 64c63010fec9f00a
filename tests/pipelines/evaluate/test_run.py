"""Evaluation from answers to page, gate and comparison; the answers are made up (stand_in.py)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import jobs.evaluate
from mats_core.errors import SettingsError
from pipelines.archive.run import RunResult
from pipelines.evaluate import answers as evaluate_answers
from pipelines.evaluate.compare import compare_answers
from pipelines.evaluate.datasets import load_evaluation_set
from pipelines.evaluate.history import ANSWERED, History
from pipelines.evaluate.run import run_evaluate
from pipelines.output.lease import Lease
from pipelines.settings.evaluate import EvaluateSettings
from tests.pipelines.evaluate.datasets.test_readers import write
from tests.pipelines.evaluate.stand_in import CLIPS, NAMES, StandIn, evaluate, install


@pytest.mark.processes
def test_two_nights_the_gate_and_what_changed(model: Any, data: str, tmp_path: Path) -> None:
    nightly = {"history": str(tmp_path / "history"), "against": "accepted", "accept": True}
    good = evaluate(data, tmp_path / "good", **nightly)
    assert (good.status, good.accepted, good.failed) == ("complete", True, 1 + 3)  # a question is asked in 3 orders
    assert len(model.heard) == len(set(model.heard)) == CLIPS  # every sound once, whatever is asked of it
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
    page = (tmp_path / "compare.html").read_text()
    assert page.count("data:audio/mpeg;base64,") == 3 and "95 % interval of it" in page
    told = {each.name: (each.difference, each.low, each.high, each.items) for each in found.metrics}
    by_gate = {f"{each.benchmark}/{each.metric}": each for each in bad.verdict.changes if each.metric != ANSWERED}
    assert len(by_gate) == len(told) > 4
    for name, each in by_gate.items():  # whose items are in the history, and here in the predictions
        assert told[name] == pytest.approx((each.difference, each.low, each.high, each.items)), name


ESC50 = ("dog", "rain", "dog", "wind")


def published(root: Path) -> str:
    """ESC-50 of four clips and five that are not there, AIR-Bench Chat and MMAU's test part of two questions each."""
    lines = [f"{i}.wav,1,0,{(*ESC50, *('dog',) * 5)[i]},True,1,A" for i in range(9)]
    chat = [
        {
            "path": f"{i}.wav", "question": "What?", "answer_gt": "Rain.", "meta_info": "It rains.",
            "task_name": "sound_QA", "dataset_name": "clotho", "uniq_id": i,
        }
        for i in range(2)
    ]  # fmt: skip
    mmau = [
        {
            "id": str(i), "audio_id": f"./test-audios/{i}.wav", "question": "What?", "choices": ["dog", "rain", "dog"],
            "answer": "", "task": "sound", "unheard-of": i,
        }
        for i in range(2)
    ]  # fmt: skip
    audio = [f"esc50/audio/{i}.wav" for i in range(4)]
    audio += [f"{name}/{i}.wav" for name in ("air_bench_chat/sound_QA_clotho", "mmau/test-audios") for i in range(2)]
    write(
        root,
        {
            "esc50/meta/esc50.csv": "\n".join(["filename,fold,target,category,esc10,src_file,take", *lines, ""]),
            "air_bench_chat/Chat_meta.json": json.dumps(chat),
            "mmau/mmau-test.json": json.dumps(mmau),
            **dict.fromkeys(audio, ""),
        },
    )
    return str(root)


def test_files_for_judges_and_what_is_left_out_and_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"esc50": "Dog", "air_bench_chat": "Rain, I think.", "mmau": "rain"}
    asked: list[dict[str, Any]] = []
    install(StandIn(lambda row: asked.append(row) or said[row["benchmark"]]), monkeypatch)
    data = published(tmp_path / "data")
    names = "esc50,air_bench_chat,mmau"
    settings = EvaluateSettings(benchmarks=names, data=[data], out=str(tmp_path / "out"), players=0, orders=1)
    done = run_evaluate(settings)
    assert {row["question"] for row in asked if row["benchmark"] == "esc50"} == {load_evaluation_set("esc50").question}

    chat = tmp_path / "out" / "judge" / "run" / "air_bench_chat" / "Chat_result_modelx.jsonl"
    lines = [json.loads(line) for line in chat.read_text().splitlines()]
    assert [(line["uniq_id"], line["response"]) for line in lines] == [(0, "Rain, I think."), (1, "Rain, I think.")]
    mmau = json.loads((tmp_path / "out" / "judge" / "run" / "mmau" / "mmau_predictions.json").read_text())
    original = json.loads((tmp_path / "data" / "mmau" / "mmau-test.json").read_text())
    assert mmau == [{**record, "model_prediction": "rain"} for record in original]

    page = (tmp_path / "out" / "report.html").read_text()
    for words in (
        '<a href="judge/run/air_bench_chat/Chat_result_modelx.jsonl">',
        '<a href="judge/run/mmau/mmau_predictions.json">',
        "<strong>5 left out</strong>: audio not found, such as 4.wav (audio/4.wav), 5.wav",
        "<strong>accuracy</strong> without 2 items: the publisher keeps the answer, such as 0, 1.",
        "asked: [single event] Identify the sounds in the audio clip",
        'title="rain → dog: 1 of 1"',  # a cell of the confusion
        "wind taken for dog (1)",
    ):
        assert words in page, words
    assert page.count("audio not found") == 1
    jobs.evaluate.print_evaluation(settings, done)
    shown = capsys.readouterr().out
    assert f"air_bench_chat: for its judge, {chat}" in shown
    assert "mmau: for its judge, " in shown


@pytest.mark.processes
def test_questions_that_get_no_answer_close_the_gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    silent = False
    install(StandIn(lambda row: None if silent else "Rain."), monkeypatch)
    given = {"benchmarks": "air_bench_chat", "history": str(tmp_path / "h"), "against": "accepted", "accept": True}
    data = published(tmp_path / "data")
    assert evaluate(data, tmp_path / "a", **given).accepted
    silent = True
    verdict = evaluate(data, tmp_path / "b", **given).verdict
    assert verdict is not None
    assert [(fall.metric, fall.new) for fall in verdict.falls] == [("answered", 0.0)]


@pytest.mark.processes
def test_a_metric_that_can_no_longer_be_computed_closes_the_gate(model: Any, data: str, tmp_path: Path) -> None:
    given = {"benchmarks": NAMES[0], "history": str(tmp_path / "h"), "against": "accepted", "accept": True}
    evaluate(data, tmp_path / "a", **given)
    fewer = load_evaluation_set(NAMES[0]).model_copy(update={"metrics": ["micro_f1"]})
    path = tmp_path / "fewer.yaml"
    path.write_text(fewer.model_dump_json())
    closed = evaluate(data, tmp_path / "b", **{**given, "benchmarks": str(path)})
    assert not closed.accepted
    assert closed.verdict is not None
    assert {each.metric for each in closed.verdict.not_comparable} == {"map", "macro_f1", "matched"}
    assert json.loads((tmp_path / "b" / "metrics.json").read_text())["gate"]["open"] is False
    assert "map cannot be compared with accepted run" in (tmp_path / "b" / "report.html").read_text()
    ungated = [f"{NAMES[0]}/{name}" for name in ("map", "macro_f1", "matched")]
    assert evaluate(data, tmp_path / "c", **{**given, "benchmarks": str(path), "ungated": ungated}).accepted


@pytest.mark.processes
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
        ({"benchmarks": "sounds_of_silence"}, 'benchmarks: "sounds_of_silence" is not a data set'),
        ({"out": ""}, "out: no folder was given"),
        ({"model": "nowhere"}, "model: there is no directory nowhere"),
        ({"against": "accepted"}, "history: none was given"),
        ({"accept": True}, "--against and --accept need"),
        ({"history": "h", "against": "x"}, "run: x is not a run of this history, which has none yet"),
        ({"history": "h", "against": "accepted", "axes": ["beams=1,2"]}, "against: the cells of a grid"),
        ({"history": "h", "accept": True, "axes": ["beams=1"]}, "accept: the cells of a grid are settings tried out"),
        (
            {"ungated": [f"{NAMES[0]}/mpa"]},
            f"not a metric of this run; give BENCHMARK/METRIC, one of {NAMES[0]}/map",
        ),
        ({"bridge": "ferry"}, 'bridge: "ferry" is no bridge; choose santa, none'),
        ({"history": "a-file"}, "cannot be written to"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(
    given: dict[str, Any], said: str, model: Any, data: str, tmp_path: Path
) -> None:
    (tmp_path / "a-file").touch()
    if "history" in given:
        given = {**given, "history": str(tmp_path / given["history"])}
    values = {"out": str(tmp_path / "out"), **given}
    with pytest.raises(SettingsError) as told:
        run_evaluate(EvaluateSettings(**{"benchmarks": NAMES[0], "limit": CLIPS, "data": [data], **values}))
    assert said in str(told.value)
    assert model.captioned == []


@pytest.mark.processes
def test_a_folder_of_another_model_or_other_settings_is_refused(model: Any, data: str, tmp_path: Path) -> None:
    """It says what differs, each on its own; what began before that was kept has the old words."""
    from pipelines.evaluate import run

    out, given = tmp_path / "out", {"benchmarks": NAMES[0], "limit": 4}
    evaluate(data, out, **given)
    read = run.read_model_facts

    def refused(**changes: Any) -> str:
        with pytest.raises(SettingsError, match="; choose another folder, or --overwrite") as told:
            evaluate(data, out, **{**given, **changes})
        return told.value.problem.partition("holds an evaluation ")[2]

    assert refused(limit=5) == "begun otherwise: --limit 4, now 5"
    assert refused(benchmarks=",".join(NAMES)) == f"begun otherwise: --benchmarks {NAMES[0]}, now {','.join(NAMES)}"
    assert refused(seed=3, axes=["beams=1,2"]) == "begun otherwise: --seed 0, now 3, --grid not given, now beams=1,2"
    with pytest.MonkeyPatch.context() as patch:
        other = dataclasses.replace(read("builtin"), fingerprint="f" * 64)
        patch.setattr(run, "read_model_facts", lambda *_: other)
        now = read("builtin").fingerprint[:12]
        model = f"model builtin (fingerprint {now}), now builtin (fingerprint {'f' * 12})"
        assert refused() == f"begun otherwise: {model}"
        patch.setattr(run, "_made_of", lambda *_: {})
        evaluate(data, out, **given, overwrite=True)
    assert refused() == "of another model, of other settings or of other items (their sounds, questions or tags)"


@pytest.mark.processes
def test_a_folder_of_other_items_is_refused_and_of_the_same_continued(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(StandIn(lambda row: "Dog"), monkeypatch)
    out, data = tmp_path / "out", published(tmp_path / "data")
    definition = tmp_path / "esc50.yaml"
    definition.write_text(load_evaluation_set("esc50").model_dump_json())
    given = {"benchmarks": str(definition), "limit": 3}
    first = evaluate(data, out, **given)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_answers, "run_caption", lambda *_: RunResult("interrupted", str(out), 3, 1))
        assert evaluate(data, out, **given).status == "interrupted"
    (tmp_path / "data" / "esc50" / "audio" / "3.wav").write_bytes(b"a fourth sound, which is not asked for")
    assert evaluate(data, out, **given).run_id == first.run_id
    moved = tmp_path / "moved"
    moved.symlink_to(data)
    with pytest.raises(SettingsError, match="holds an evaluation begun otherwise: other sounds of esc50;"):
        evaluate(str(moved), out, **given)
    definition.write_text(load_evaluation_set("esc50").model_copy(update={"question": "What?"}).model_dump_json())
    with pytest.raises(SettingsError, match="begun otherwise: other questions or tags of esc50;"):
        evaluate(data, out, **given)
    definition.write_text(load_evaluation_set("esc50").model_dump_json())
    (tmp_path / "data" / "esc50" / "audio" / "0.wav").write_bytes(b"another sound")
    with pytest.raises(SettingsError, match="begun otherwise: other contents of its sound files of esc50;"):
        evaluate(data, out, **given)
    assert evaluate(data, out, overwrite=True, **given).run_id != first.run_id


@pytest.mark.processes
def test_clips_written_by_the_first_run_are_the_same_for_the_second(model: Any, tmp_path: Path) -> None:
    data, given = str(tmp_path / "data"), {"benchmarks": NAMES[0]}
    assert evaluate(data, tmp_path / "out", **given).run_id == evaluate(data, tmp_path / "out", **given).run_id


@pytest.mark.processes
def test_overwrite_leaves_nothing_of_the_run_before(model: Any, data: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate(data, out, benchmarks=NAMES[0], axes=["beams=1,2"])
    (out / "judge" / "beams=1").mkdir(parents=True)
    (out / "notes.txt").touch()
    evaluate(data, out, benchmarks=NAMES[0], overwrite=True)
    assert [path.name for path in (out / "predictions").iterdir()] == ["run.parquet"]
    assert {path.name for path in out.iterdir()} == {
        *("_evaluation.json", "_state", "asked.parquet", "cells", "metrics.json", "notes.txt"),
        *("predictions", "report.html"),
    }


@pytest.mark.processes
def test_overwrite_waits_for_who_holds_the_folder(model: Any, data: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate(data, out, benchmarks=NAMES[0], limit=4)
    lease = Lease(str(out), "another")
    lease.acquire()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    try:
        with pytest.raises(SettingsError, match="another run is writing into it"):
            evaluate(data, out, benchmarks=NAMES[0], limit=5, overwrite=True)
        assert {path: path.read_bytes() for path in before} == before
    finally:
        lease.release()


@pytest.mark.parametrize("name", ["report.html", "asked/x.txt", "predictions/mine.parquet", "metrics.json"])
def test_a_folder_of_something_else_is_refused(model: Any, data: str, tmp_path: Path, name: str) -> None:
    write(tmp_path / "out", {name: "mine"})
    for overwrite in (False, True):
        with pytest.raises(SettingsError, match=r"out: no evaluation began in .*; choose a new folder, or one"):
            evaluate(data, tmp_path / "out", benchmarks=NAMES[0], overwrite=overwrite)
    assert [str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()] == [name]


@pytest.mark.processes
def test_a_run_with_too_many_errors_is_not_accepted(model: Any, data: str, tmp_path: Path) -> None:
    given = {"benchmarks": NAMES[0], "history": str(tmp_path / "h"), "accept": True}
    assert not evaluate(data, tmp_path / "a", max_error_rate=0.12, **given).accepted  # one of eight fails
    assert History(given["history"]).accepted() == []
    assert evaluate(data, tmp_path / "a", max_error_rate=0.125, **given).accepted
