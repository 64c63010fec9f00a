"""What two runs are called and measured by, beside how their answers differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.evaluate import compare
from pipelines.evaluate.compare import CAPTION_KEY, EVALUATION_KEY, apart, compare_answers, model_of
from pipelines.evaluate.differences import figures


def test_a_run_is_told_by_its_model_and_its_figures(tmp_path: Path) -> None:
    evaluation, captions = tmp_path / "evaluation", tmp_path / "captions"
    for folder in (evaluation, captions):
        folder.mkdir()
    sets = {"clotho_v2": {"metrics": {"cider_d": {"value": 0.5}, "spider": {"value": None}}}}
    record = {"model": "s3://me:TOP@b/m", "model_fingerprint": "0123456789", "cells": [{"benchmarks": sets}]}
    (evaluation / "metrics.json").write_text(json.dumps(record))
    identity = {"model": "abcdefghijk"}
    (captions / "_run.json").write_text(json.dumps({"settings": {"model": "builtin"}, "identity": identity}))
    assert model_of(str(evaluation)) == "s3://b/m 01234567"
    assert model_of(str(captions)) == "builtin abcdefgh"
    assert {name: each["value"] for name, each in figures(str(evaluation)).items()} == {
        "clotho_v2/cider_d": 0.5, "clotho_v2/spider": None,
    }  # fmt: skip
    (captions / "_run.json").write_text("no json")
    assert (model_of(str(captions)), figures(str(captions))) == ("", {})


def test_what_two_runs_of_one_model_were_asked_differently_is_told(tmp_path: Path) -> None:
    """Not where they lie or how many processes they had; what only one of them knows is another version's."""
    for name, bridge, torch in (("a", "santa", "2.12"), ("b", "none", "2.13")):
        settings = {"model": "builtin", "out": name, "actors": len(name), "seed": 0, "bridge": bridge, f"new_{name}": 1}
        said = {"settings": settings, "versions": {"torch": torch, "numpy": "1"}}
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(said))
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert apart(a, b) == [("bridge", "santa", "none"), ("torch", "2.12", "2.13")]
    assert apart(a, a) == apart(a, str(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("key", [CAPTION_KEY, EVALUATION_KEY])
def test_the_page_plays_the_channel_that_was_asked_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: tuple[str, ...]
) -> None:
    folder = "answers" if key == CAPTION_KEY else "predictions"
    for run, text in (("old", "Rain."), ("new", "A dog.")):
        rows = [
            {**dict.fromkeys(key, str(at)), "uri": "/a.wav", "text": text, "start_s": 60.0, "only_channel": channel}
            for at, channel in enumerate((0, 1, None))
        ]
        (tmp_path / run / folder).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / run / folder / "part-0.parquet")
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(compare, "add_media", lambda cases, *_: shown.extend(cases))
    compare_answers(tmp_path / "old", tmp_path / "new", tmp_path / "page.html", device="cpu")
    parts = {case["key"][0]: case["parts"] for case in shown}
    assert parts == {
        str(at): [{"start": 60.0, "length": None, "only_channel": channel}] for at, channel in enumerate((0, 1, None))
    }


@pytest.mark.parametrize("place", ["", "model"])
def test_a_model_and_a_training_are_called_what_they_are(tmp_path: Path, place: str) -> None:
    (tmp_path / place / "memory").mkdir(parents=True)
    (tmp_path / place / "mats.json").write_text("{}")
    with pytest.raises(SettingsError, match="is a model, and what is compared is answers; let both models answer"):
        compare._answers(str(tmp_path), "RUN_A")
