"""Answers are read back item by item, and never joined over two versions of a sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.data.schemas import PLACES
from pipelines.evaluate import page
from pipelines.evaluate.answers import read_answers
from pipelines.evaluate.datasets import load_evaluation_set, load_items
from pipelines.output.corrections import Corrections
from tests.pipelines.evaluate.stand_in import CLIPS, NAMES, StandIn, evaluate, install
from tests.pipelines.export.made_up import tone


@pytest.mark.processes
@pytest.mark.parametrize("column", ["uri", "version", "start_s"])
def test_answers_to_two_versions_of_a_sound_are_not_joined(model: Any, data: str, tmp_path: Path, column: str) -> None:
    evaluate(data, tmp_path / "out", benchmarks=NAMES[0])
    part = tmp_path / "out" / "cells" / "run" / "answers" / "part-0.parquet"
    rows = pq.read_table(part).to_pylist()
    rows.append({**rows[0], "start_s": 60.0} | {column: 0.0 if column == "start_s" else "other"})
    schema = pq.read_table(part).schema
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), part.with_name("part-1.parquet"))
    part.unlink()
    data_sets = [load_items(load_evaluation_set(NAMES[0]), data, CLIPS)]
    with pytest.raises(
        SettingsError, match=f"2 answers to {rows[0]['item']} of {NAMES[0]}, whose sound changed between them"
    ):
        read_answers(str(part.parents[1]), data_sets)
    rows[-1] = {**rows[0], "start_s": 60.0}
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), part.with_name("part-1.parquet"))
    assert len(read_answers(str(part.parents[1]), data_sets)[NAMES[0]]) == CLIPS


def put_right(place: Path, rows: list[tuple[str, str]]) -> str:
    """The OUTPUT of a run over a file of two minutes, of whose second minute answers were put right."""
    tone(place / "long.wav", 120.0)
    said = Corrections(str(place / "out"))
    for number, (task, text) in enumerate(rows):
        of = {"row_id": number, "uri": str(place / "long.wav"), "start_s": 60.0, "decoded_s": 60.0, "task": task}
        said.correct({**of, "text": "Thunder."}, 0, "Ann", {"text": text})
    return str(place / "out")


@pytest.mark.processes
@pytest.mark.parametrize("embedded", [False, True])
def test_what_was_put_right_is_asked_of_its_stretch_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, embedded: bool
) -> None:
    """With stored embeddings where several things are asked of one stretch, and without."""
    model = install(StandIn(lambda row: "Rain." if row["start_s"] == 60.0 else "A dog."), monkeypatch)
    truths = [("caption", "Rain."), ("cla_label", "Rain")] if embedded else [("caption", "Rain.")]
    names = "corrections,corrections_labels" if embedded else "corrections"
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(page, "add_media", lambda cases, *_: shown.extend(cases))
    done = evaluate(put_right(tmp_path, truths), tmp_path / "eval", benchmarks=names)
    for result in done.cells[0].results:
        assert [answer.texts for answer in result.answers] == [["Rain."]]
    assert len(model.heard) == embedded, "one stretch, heard once"
    listed = pq.read_table(tmp_path / "eval" / ("sounds.parquet" if embedded else "asked.parquet"))
    assert {each.name: each.type for each in listed.schema if each.name in PLACES} == {
        name: kind for name, (kind, _) in PLACES.items()
    }
    assert (listed["start_s"].to_pylist(), listed["end_s"].to_pylist()) == ([60.0], [120.0])
    told = pq.read_table(tmp_path / "eval" / "predictions" / "run.parquet").to_pylist()
    assert {(row["start_s"], row["end_s"], row["only_channel"]) for row in told} == {(60.0, 120.0, None)}
    assert shown and all(case["parts"][0]["start"] == 60.0 for case in shown), "the page plays it too"


@pytest.mark.processes
def test_two_stretches_of_a_file_are_two_sounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = install(StandIn(lambda row: f"From {row['start_s']:g}."), monkeypatch)
    run = put_right(tmp_path, [("caption", "Rain."), ("cla_label", "rain")])
    first = {"row_id": 7, "uri": str(tmp_path / "long.wav"), "start_s": 0.0, "decoded_s": 60.0, "task": "caption"}
    Corrections(run).correct({**first, "text": "A dog."}, 0, "Ann", {"mark": "right"})
    done = evaluate(run, tmp_path / "eval", benchmarks="corrections,corrections_labels")
    captions, labels = done.cells[0].results
    assert [answer.texts for answer in captions.answers] == [["From 60."], ["From 0."]]
    assert [answer.texts for answer in labels.answers] == [["From 60."]]
    assert len(model.heard) == 2


@pytest.mark.processes
@pytest.mark.parametrize("embedded", [False, True])
def test_each_channel_that_was_put_right_is_asked_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, embedded: bool
) -> None:
    model = install(StandIn(lambda row: f"Of channel {row.get('only_channel')}."), monkeypatch)
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(page, "add_media", lambda cases, *_: shown.extend(cases))
    run = put_right(tmp_path, [("caption", "Rain."), *([("cla_label", "rain")] if embedded else [])])
    for channel in (0, 1):
        row = {"row_id": 7 + channel, "uri": str(tmp_path / "long.wav"), "start_s": 60.0, "decoded_s": 60.0}
        of = {"task": "caption", "text": "A dog.", "only_channel": channel}
        Corrections(run).correct({**row, **of}, 0, "Ann", {"mark": "right"})
    names = "corrections" + ",corrections_labels" * embedded
    done = evaluate(run, tmp_path / "eval", benchmarks=names, players=8)
    listed = pq.read_table(tmp_path / "eval" / ("sounds.parquet" if embedded else "asked.parquet"))
    assert listed["only_channel"].to_pylist() == [None, 0, 1]
    told = pq.read_table(tmp_path / "eval" / "predictions" / "run.parquet")
    assert told["only_channel"].to_pylist() == [None, 0, 1, *([None] if embedded else [])]
    played = {case["item"].item_id: part["only_channel"] for case in shown for part in case["parts"]}
    assert played == {"0": None, "7": 0, "8": 1, **({"1": None} if embedded else {})}
    if embedded:
        assert len(model.heard) == 3
    else:
        texts = [answer.texts for answer in done.cells[0].results[0].answers]
        assert texts == [["Of channel None."], ["Of channel 0."], ["Of channel 1."]]
