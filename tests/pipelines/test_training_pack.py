"""Packing corpora and embeddings: every record finds its vector, what cannot be used is named, nothing leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.train_settings import TrainSettings
from pipelines.training_check import check_settings
from pipelines.training_data import StoredSet, open_store
from pipelines.training_pack import ensure_store
from tests.training_world import DIM, embedding, make_world, records, settings, write_embeddings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def packed(chosen: TrainSettings, folder: Path) -> list[StoredSet]:
    return open_store(ensure_store(chosen, folder))


def test_every_record_has_the_vector_of_its_caption(world: Path, tmp_path: Path) -> None:
    one, two = packed(settings(world, tmp_path / "out"), tmp_path)
    assert (len(one.train) + len(one.validation), len(two.train) + len(two.validation)) == (60, 52)
    every = records()
    for number in (0, 1, 59):
        record = one.record(number)
        wanted = every[number]
        assert (record.output, record.instruction, record.tag) == (wanted["output"], wanted["instruction"], "[ a ]")
        assert np.abs(record.vector - embedding(wanted["caption"])).max() < 1e-3
    assert two.record(0).tag == ""


def test_no_caption_is_both_trained_on_and_held_out(world: Path, tmp_path: Path) -> None:
    data = [
        {"name": "one", "corpus": str(world / "one.jsonl")},
        {"name": "all", "corpus": [str(world / "one.jsonl"), str(world / "two.json")], "validation": 4},
    ]
    sets = packed(settings(world, tmp_path / "out", data=data), tmp_path)

    def vectors(each: StoredSet, rows: Any) -> set[bytes]:
        return {each.record(int(row)).vector.tobytes() for row in rows}

    held = vectors(sets[0], sets[0].validation) | vectors(sets[1], sets[1].validation)
    trained = vectors(sets[0], sets[0].train) | vectors(sets[1], sets[1].train)
    assert len(sets[0].validation) == 8
    assert len(sets[1].validation) >= 4
    assert not held & trained


def test_a_validation_corpus_of_its_own(world: Path, tmp_path: Path) -> None:
    data = [{"name": "one", "corpus": str(world / "one.jsonl"), "validation_corpus": str(world / "two.json")}]
    (one,) = packed(settings(world, tmp_path / "out", data=data), tmp_path)
    assert (len(one.train), len(one.validation)) == (60, 52)
    assert one.record(int(one.validation[0])).output == records()[60]["output"]


def test_packed_once_and_anew_when_a_file_changes(world: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(map(json.dumps, records()[:20])))
    chosen = settings(world, tmp_path / "out", data=[{"name": "one", "corpus": str(corpus)}])
    place = ensure_store(chosen, tmp_path / "store")
    assert ensure_store(chosen, tmp_path / "store") == place
    corpus.write_text("\n".join(map(json.dumps, records()[:30])))
    assert ensure_store(chosen, tmp_path / "store") != place


def test_unusable_records_are_counted_and_too_many_are_an_error(world: Path, tmp_path: Path) -> None:
    bad = ['{"caption": ', '{"caption": "a rain with dog"}', json.dumps({**records()[0], "task": "sing"})]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join([*map(json.dumps, records()), *bad]))
    data = [{"name": "mine", "corpus": str(corpus)}]
    (mine,) = packed(settings(world, tmp_path / "out", data=data, max_error_rate=0.05), tmp_path)
    assert mine.facts["problems"] == {"broken_line": 1, "missing_output": 1, "unknown_task": 1}
    with pytest.raises(SettingsError, match=r"data.mine: got .3 of 115 records .*corpus.jsonl line 113: broken_line"):
        packed(settings(world, tmp_path / "out", data=data, max_error_rate=0.01), tmp_path)


def test_captions_without_embeddings_are_named(world: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"caption": "a new sound", "output": "new", "task": "caption"}))
    with pytest.raises(SettingsError, match=r"no_embedding 1.*mats embed-text.*'a new sound'"):
        packed(settings(world, tmp_path / "out", data=[{"name": "new", "corpus": str(corpus)}]), tmp_path)


def test_clips_bring_their_records_with_them(world: Path, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    write_heard(heard, json.loads((world / "emb" / "_embeddings.json").read_text())["encoder_fingerprint"])
    chosen = settings(world, tmp_path / "out", data=[{"name": "clips", "audio": str(heard)}], max_error_rate=0.5)
    check_settings(chosen)
    (clips,) = packed(chosen, tmp_path)
    assert clips.facts["problems"] == {"no_sound": 1, "missing_output": 1}
    record = clips.record(0)
    assert (record.task, record.instruction, record.output) == ("QA", "What is it ?", "rain")
    wanted = 0.75 * np.eye(DIM)[0] + 0.25 * np.eye(DIM)[1]
    assert record.vector == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-6)


def write_heard(folder: Path, fingerprint: str) -> None:
    """Audio embeddings of three clips: one of two windows, one that failed, one without an output."""
    unit = np.eye(DIM, dtype=np.float32)
    windows = [
        {"start_s": 0.0, "weight": 3.0, "embedding": unit[0]},
        {"start_s": 5.0, "weight": 1.0, "embedding": unit[1]},
    ]
    rows = [
        {"output": "rain", "task": "QA", "question": "What is it ?", "error_code": None, "windows": windows},
        {"output": "dog", "task": None, "question": None, "error_code": "not_audio", "windows": None},
        {"output": None, "task": None, "question": None, "error_code": None, "windows": windows},
        {"output": "bell", "task": "caption", "question": None, "error_code": None, "windows": windows},
    ]  # fmt: skip
    (folder / "embeddings").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "embeddings" / "part-0.parquet")
    sidecar = {"encoder_fingerprint": fingerprint, "dim": DIM, "window_seconds": 5.0, "status": "complete"}
    (folder / "_embeddings.json").write_text(json.dumps(sidecar))


def wrong(world: Path, tmp_path: Path) -> dict[str, tuple[dict[str, Any], str]]:
    other = write_embeddings(tmp_path / "other", [r["caption"] for r in records()], "0123456789abcdef")
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "memory.json").write_text(json.dumps({"encoder_fingerprint": "fedcba", "fingerprint": "x"}))
    one = str(world / "one.jsonl")
    return {
        "another encoder": ({"embeddings": str(other)}, r"embeddings: got .*made with 0123456789ab.*mats embed-text"),
        "two encoders": (
            {"data": [{"name": "a", "corpus": one}, {"name": "b", "corpus": one, "embeddings": str(other)}]},
            "embeddings of one encoder",
        ),
        "a missing set": (
            {"data": [{"name": "gone", "corpus": str(world / "gone.jsonl")}]},
            r"data\.gone\.corpus: got",
        ),
        "no embeddings": ({"embeddings": str(world / "none")}, r"data\.one\.embeddings: got .*mats embed-text"),
        "embeddings of audio": ({"data": [{"name": "a", "audio": str(world / "emb")}]}, r"mats embed-audio"),
        "memory of another encoder": ({"memory": str(memory)}, r"memory: got .*built with fedcba.*mats build-memory"),
        "a missing LLM": ({"llm": str(world / "gone")}, r"llm: got"),
        "a column that is not ours": (
            {"data": [{"name": "a", "corpus": one, "columns": {"text": "caption"}}]},
            r"data\.a\.columns: got",
        ),
        "a logger that is not installed": ({"loggers": ["mlflow"]}, r"loggers: got .mlflow.*pip install"),
    }


def test_wrong_data_is_found_before_anything_is_loaded(world: Path, tmp_path: Path) -> None:
    for changes, said in wrong(world, tmp_path).values():
        with pytest.raises(SettingsError, match=said):
            check_settings(settings(world, tmp_path / "out", **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": []}, "data"),
        ({"data": [{"name": "a"}]}, "either a corpus or audio"),
        ({"data": [{"name": "a", "corpus": "x"}] * 2}, "a is there twice"),
        ({"data": [{"name": "a", "corpus": "x", "ratio": 0}]}, "ratio above 0"),
        ({"model": "m", "llm": "l"}, "either llm .* or model"),
        ({"encoder": None}, "encoder: the CLAP"),
        ({"adapter": None}, "training.train: mapper"),
        ({"workers": [2, 1]}, "workers"),
        ({"wordings": "odd"}, "wordings"),
        ({"training": {"steps": 0}}, "training.steps"),
        ({"training": {"learning_rate": float("nan")}}, "learning_rate"),
        ({"colour": "red"}, "colour: got"),
    ],
)
def test_settings_that_do_not_fit_together(world: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(world, tmp_path / "out", **changes)
