"""The record of a run: OUTPUT/_run.json."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy
import pytest

from mats_core.errors import SettingsError
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


def test_a_run_is_recorded_as_running_and_then_as_it_ended(tmp_path: Path) -> None:
    with open_output(str(tmp_path), {"job": "caption"}) as out:
        run: dict[str, Any] = {"job": "caption"}
        with out.recorded(run, 5.0, lambda: {"rows": 3}):
            there = read_run(str(tmp_path))
            assert there == run and (run["status"], run["run_id"], run["started"]) == ("running", out.run_id, utc(5))
        assert read_run(str(tmp_path)) == run
        assert (run["status"], run["rows"]) == ("complete", 3) and run["wall_s"] > 0 and "versions" in run
        with out.recorded(run, 5.0):
            run["status"] = "incomplete"
        assert run["status"] == "incomplete"
        with out.recorded(run, 5.0, lambda: {"rows": 2}):
            raise KeyboardInterrupt
        assert read_run(str(tmp_path)) == run and (run["status"], run["rows"]) == ("interrupted", 2)
        with pytest.raises(ZeroDivisionError), out.recorded(run, 5.0):
            raise ZeroDivisionError("by nothing")
        assert read_run(str(tmp_path)) == run and (run["status"], run["message"]) == ("failed", "by nothing")


@pytest.mark.parametrize("undo", [True, False])
def test_a_wrong_setting_undoes_the_beginning_where_that_is_asked_for(tmp_path: Path, undo: bool) -> None:
    given = str(tmp_path)
    with (
        pytest.raises(SettingsError),
        open_output(given, {"job": "caption", "rate": 1}) as out,
        out.recorded({"job": "caption"}, 5.0, undo=undo),
    ):
        raise SettingsError("rate", "it is 1", "say 2")
    told = read_run(given)
    assert told is not None and told["status"] == "failed"
    refused = nullcontext() if undo else pytest.raises(SettingsError, match="rate was 1, is 2")
    with refused, open_output(given, {"job": "caption", "rate": 2}):
        pass


def test_settings_that_differ_are_told_by_name_and_no_others(tmp_path: Path) -> None:
    was = {"job": "train", "training": {"steps": 60, "warmup": 100, "betas": [0.9, 0.999]}, "data": [{"corpus": "a"}]}
    now = {"job": "train", "training": {"steps": 60, "warmup": 5, "betas": [0.9, 0.99]}, "data": [{"corpus": "b"}]}
    with open_output(str(tmp_path), was):
        pass
    told = r"\(data.0.corpus was a, is b; training.betas.1 was 0.999, is 0.99; training.warmup was 100, is 5\)"
    with pytest.raises(SettingsError, match=told), open_output(str(tmp_path), now):
        pass


def test_of_an_output_of_another_job_the_jobs_are_told_and_no_settings(tmp_path: Path) -> None:
    with open_output(str(tmp_path), {"job": "embed-text", "batch_size": 128}):
        pass
    with (
        pytest.raises(SettingsError, match=r"another job \(job was embed-text, is adapt\); choose another OUTPUT$"),
        open_output(str(tmp_path), {"job": "adapt", "steps": 3}),
    ):
        pass
