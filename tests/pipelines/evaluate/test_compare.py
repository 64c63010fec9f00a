"""What two runs are called and measured by, beside how their answers differ."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.evaluate.compare import figures, model_of


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
    assert figures(str(evaluation)) == {"clotho_v2/cider_d": 0.5, "clotho_v2/spider": None}
    (captions / "_run.json").write_text("no json")
    assert (model_of(str(captions)), figures(str(captions))) == ("", {})
