"""`mats scan`: manifests that grow, and one writer at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from mats_core.errors import SettingsError
from pipelines.archive.caption import run_caption
from pipelines.archive.dry_run import run_dry
from pipelines.archive.embed_audio import run_embed_audio
from pipelines.archive.scan import run_scan
from pipelines.output.lease import Lease, LeaseHeld
from pipelines.settings.archive import ScanSettings


def tone(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * 8000)) / 8000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * time), 8000)


def test_results_do_not_go_among_the_sounds(tmp_path: Path, tiny_model_dir: str) -> None:
    tone(tmp_path / "few" / "a.wav", 1.0)
    given = {"input": tmp_path / "few", "output": f"{tmp_path}/few/", "model": tiny_model_dir}
    for run in (run_scan, run_caption, run_dry, run_embed_audio):
        with pytest.raises(SettingsError, match=r"few/? is INPUT too, which holds sounds; choose another folder"):
            run(**given)
    assert [path.name for path in (tmp_path / "few").iterdir()] == ["a.wav"]


@pytest.mark.processes
def test_a_manifest_grows_by_what_is_new_or_changed(tmp_path: Path, tiny_model_dir: str) -> None:
    archive, out = tmp_path / "archive", tmp_path / "manifest"
    tone(archive / "short.wav", 2.0)
    tone(archive / "long.flac", 130.0)
    (archive / "text.wav").write_text("hello")
    settings = ScanSettings(input=str(archive), output=str(out), model=tiny_model_dir)
    first = run_scan(settings)
    assert (first.added.files, first.added.chunks, first.total_rows) == (3, 5, 5)
    assert first.added.errors == {"not_audio": 1}
    assert first.added.formats == {"flac": 1, "wav": 1}
    rows = pq.read_table(out / "manifest").to_pylist()
    assert [row["start_s"] for row in rows if row["format"] == "flac"] == [0.0, 60.0, 120.0]
    assert {row["duration_source"] for row in rows if row["format"]} == {"header"}
    before = {path.name: path.read_bytes() for path in (out / "manifest").iterdir()}

    tone(archive / "new.wav", 1.0)
    tone(archive / "short.wav", 3.0)
    again = run_scan(settings)
    assert (again.added.files, again.known_files, again.total_rows) == (2, 2, 7)
    assert {name: (out / "manifest" / name).read_bytes() for name in before} == before
    assert run_scan(settings).added.files == 0


@pytest.mark.processes
def test_ids_do_not_depend_on_where_the_archive_lies(tmp_path: Path, tiny_model_dir: str) -> None:
    import shutil

    tone(tmp_path / "here" / "sub" / "a.wav", 1.0)
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copy2)
    found = []
    for name in ("here", "there"):
        out = tmp_path / f"manifest-{name}"
        run_scan(ScanSettings(input=str(tmp_path / name), output=str(out), model=tiny_model_dir))
        found.append(pq.read_table(out / "manifest")["chunk_id"].to_pylist())
    assert found[0] == found[1]


@pytest.mark.processes
def test_one_scan_writes_a_manifest_at_a_time_and_none_into_another_jobs_output(tmp_path: Path) -> None:
    tone(tmp_path / "in" / "a.wav", 1)
    out = tmp_path / "out"
    other = Lease(str(out), "another")
    other.acquire()
    settings = ScanSettings(input=str(tmp_path / "in"), output=str(out), overwrite=True)
    with pytest.raises(LeaseHeld):
        run_scan(settings)
    other.release()
    assert run_scan(settings).total_rows == 1
    shutil.rmtree(out / "_state")  # as an older version leaves it
    (out / "_state").mkdir()
    (out / "_state" / "identity.json").write_text('{"job": "caption"}')
    with pytest.raises(SettingsError, match="job was caption, is scan"):
        run_scan(ScanSettings(input=str(tmp_path / "in"), output=str(out)))


@pytest.mark.processes
def test_a_manifest_that_is_damaged_or_not_ours_is_named(tmp_path: Path) -> None:
    tone(tmp_path / "in" / "a.wav", 1)
    out = tmp_path / "out"
    settings = ScanSettings(input=str(tmp_path / "in"), output=str(out))
    (out / "manifest").mkdir(parents=True)
    (out / "manifest" / "mine.parquet").write_bytes(b"mine")
    with pytest.raises(SettingsError, match="has a folder `manifest` with files that no run has made"):
        run_scan(settings)
    (out / "manifest" / "mine.parquet").unlink()
    run_scan(settings)
    (part,) = (out / "manifest").iterdir()
    (out / "manifest" / "mine.parquet").write_bytes(b"mine")
    with pytest.raises(SettingsError, match=r"mine\.parquet is no file that a scan wrote; move it away"):
        run_scan(settings)
    (out / "manifest" / "mine.parquet").unlink()
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(SettingsError, match=r"rows-0+-[0-9a-f]+\.parquet is damaged .*; begin anew with --overwrite"):
        run_scan(settings)
