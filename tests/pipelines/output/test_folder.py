"""An OUTPUT from opening to closing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.archive.caption import run_caption
from pipelines.archive.scan import run_scan
from pipelines.data.generations import Generation, generation_uri
from pipelines.output.folder import IN_A_JOB, Output, open_output, prepare_output
from pipelines.output.lease import Lease, LeaseHeld, LeaseLost
from pipelines.settings.archive import CaptionSettings, ScanSettings

SCAN = {"job": "scan", "chunk_seconds": 56.0}


def opened(place: Path, identity: dict[str, Any], **more: Any) -> Output:
    """An OUTPUT after a run that did nothing in it."""
    with open_output(str(place), identity, **more) as out:
        return out


def test_an_output_is_held_by_one_run_and_given_back_whatever_happens(tmp_path: Path) -> None:
    def run() -> None:
        with open_output(str(tmp_path), SCAN) as out:
            assert out.begun
            with pytest.raises(LeaseHeld, match="another run is writing into it"):
                opened(tmp_path, SCAN)
            out.write_run({"run_id": out.run_id})
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        run()
    second = opened(tmp_path, SCAN)
    assert not second.begun
    assert second.read_run() not in (None, {"run_id": second.run_id})
    assert [path.name for path in (tmp_path / "_state").iterdir()] == ["generations"]


def test_who_lost_the_lease_writes_no_record(tmp_path: Path) -> None:
    with open_output(str(tmp_path), SCAN) as out:
        other = Lease(str(tmp_path), "another")
        other.begin(out.lease.generation, out.lease.generation)
        with pytest.raises(LeaseLost):
            out.check()
        with pytest.raises(LeaseLost):
            out.write_run({"status": "complete"})
    assert not (tmp_path / "_run.json").exists()
    assert Path(other.uri).exists()
    other.release()


def test_what_fails_since_another_run_cleared_it_away_says_that(tmp_path: Path) -> None:
    def run() -> None:
        with open_output(str(tmp_path), SCAN) as out:
            newer = Generation(out.lease.generation.number + 1, "b")
            storage.write_bytes(generation_uri(str(tmp_path), newer.number), newer.to_bytes())
            raise FileNotFoundError("_state/data/store.json")

    with pytest.raises(LeaseLost, match="another run took this OUTPUT over"):
        run()
    with pytest.raises(FileNotFoundError), open_output(str(tmp_path / "other"), SCAN):
        raise FileNotFoundError("_state/data/store.json")


def test_only_who_began_an_output_can_undo_that(tmp_path: Path) -> None:
    longer = {**SCAN, "chunk_seconds": 60.0}
    with open_output(str(tmp_path), SCAN) as first:
        first.forget()
    with open_output(str(tmp_path), longer) as second:
        assert second.begun
    with open_output(str(tmp_path), longer) as third:
        third.forget()
    with pytest.raises(SettingsError, match=r"chunk_seconds was 60.*start anew with --overwrite$"):
        opened(tmp_path, SCAN)


def test_nothing_is_removed_before_everything_is_checked(tmp_path: Path) -> None:
    """A lease that another run holds and an OUTPUT of another job leave all as it is; then it begins anew."""
    with open_output(str(tmp_path), SCAN) as out:
        out.write_run({"job": "scan"})
    for name in ("manifest/part.parquet", "manifest/part.parquet.0123abcd.partial", "_run.json.0123abcd.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    other = Lease(str(tmp_path), "another")
    other.acquire()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LeaseHeld):
        opened(tmp_path, SCAN, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before
    other.release()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingsError, match="is an OUTPUT of `mats scan`"):
        opened(tmp_path, {"job": "caption"}, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before
    with open_output(str(tmp_path), {**SCAN, "chunk_seconds": 60.0}, results="manifest", overwrite=True) as out:
        assert out.begun
        assert sorted(path.name for path in tmp_path.iterdir()) == ["_state"]


@pytest.mark.parametrize("task", ["nonsense", "QA"])
def test_overwrite_removes_nothing_when_the_list_asks_what_cannot_be_asked(
    tmp_path: Path, tiny_model_dir: str, task: str
) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "list.csv").write_text(f"uri,task\na.wav,caption\na.wav,{task}\n")
    out = tmp_path / "out"
    opened(out, {"job": "caption"})
    (out / "answers").mkdir()
    (out / "answers" / "part.parquet").touch()
    settings = CaptionSettings(
        input=str(tmp_path / "list.csv"), output=str(out), model=tiny_model_dir, overwrite=True, task="caption"
    )
    with pytest.raises(SettingsError, match="nonsense" if task == "nonsense" else "question"):
        run_caption(settings)
    assert (out / "answers" / "part.parquet").exists()


@pytest.mark.processes
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_read_is_not_where_answers_go(tmp_path: Path, tiny_model_dir: str, overwrite: bool) -> None:
    manifest = tmp_path / "manifest"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").touch()
    run_scan(ScanSettings(input=str(tmp_path / "in"), output=str(manifest), model=tiny_model_dir))
    settings = CaptionSettings(
        input=str(manifest), output=f"{manifest}/../manifest/", model=tiny_model_dir, overwrite=overwrite
    )
    with pytest.raises(SettingsError, match=r"is INPUT too, which holds .*; choose another folder"):
        run_caption(settings)
    assert list((manifest / "manifest").glob("*.parquet"))


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (str(tmp_path / "file"), str(tmp_path / "file" / "below"), "", " "):
        with pytest.raises(SettingsError, match="output"):
            prepare_output(place)


def test_an_output_in_rays_copy_of_a_jobs_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mats submit caption s3://sounds/ out`: Ray removes its copy of the folder, and the answers would go with it."""
    copy = tmp_path / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv(IN_A_JOB, json.dumps({"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}, "metadata": {}}))
    for inside in ("out", "./a/../out", str(copy / "out"), (copy / "out").as_uri()):
        with pytest.raises(SettingsError, match="removes after it; give a URL"):
            prepare_output(inside)
    assert not list(copy.iterdir())
    prepare_output(str(tmp_path / "shared"))
    for nothing_travelled in ({}, {"runtime_env": {"env_vars": {}}}, {"runtime_env": None}):
        monkeypatch.setenv(IN_A_JOB, json.dumps(nothing_travelled))
        prepare_output("out")
