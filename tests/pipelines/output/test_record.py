"""The record of a run: OUTPUT/_run.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

from pipelines.output.folder import open_output
from pipelines.output.record import read_run, utc, versions


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_run(str(tmp_path)) is None
    with open_output(str(tmp_path), {"job": "caption"}) as out:
        out.write_run({"job": "caption", "rows": 3, "place": Path("/a")})
    assert read_run(str(tmp_path)) == {"job": "caption", "rows": 3, "place": "/a"}
    assert json.loads((tmp_path / "_run.json").read_text()) == read_run(str(tmp_path))
    (tmp_path / "_run.json").write_text("{torn")  # a copy for others, which is put right
    assert read_run(str(tmp_path)) == {"job": "caption", "rows": 3, "place": "/a"}
    with open_output(str(tmp_path), {"job": "caption"}) as out:
        assert out.read_run() == json.loads((tmp_path / "_run.json").read_text()) == read_run(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{torn", "[1, 2]"])
def test_a_record_that_says_nothing_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "_run.json").write_text(text)
    assert read_run(str(tmp_path)) is None


def test_versions_are_of_what_could_change_a_result() -> None:
    found = versions()
    assert found["numpy"] == numpy.__version__
    assert {"python", "machine", "torch", "ray"} <= set(found)


def test_moments_are_written_in_utc() -> None:
    assert utc(0) == "1970-01-01T00:00:00Z"
    assert utc(1_000_000_000.9) == "2001-09-09T01:46:40Z"
