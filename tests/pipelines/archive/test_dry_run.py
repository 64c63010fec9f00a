"""`--dry-run`: the figures of a run, measured on a sample, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.archive.caption import caption_job
from pipelines.archive.dry_run import run_dry
from pipelines.archive.headers import Scanner
from pipelines.archive.work_list import WorkList
from pipelines.settings.archive import CaptionSettings
from tests.e2e.conftest import write_tones


@pytest.mark.processes
def test_a_dry_run_counts_measures_and_writes_nothing(tmp_path: Path, tiny_model_dir: str) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    write_tones(archive, 5, 2.0)
    (archive / "text.wav").write_text("hello")
    settings = CaptionSettings(
        input=str(archive), output=str(out), model=tiny_model_dir, device="cpu", dry_run=True, max_new_tokens=2
    )
    found = run_dry(settings)
    assert (found.seen.files, found.known_files, found.rows, found.done) == (6, 0, 6, 0)
    assert found.seen.errors == {"not_audio": 1}
    assert found.sample_rows == 5
    assert found.per_row_s is not None and all(seconds > 0 for seconds in found.per_row_s.values())
    assert abs(found.sample_audio_s - found.seen.seconds) < 0.01
    assert found.wall_s is not None and found.wall_s > 30
    assert found.gpu_hours is None
    assert not out.exists()

    job, source = caption_job(settings)  # a run that has scanned and answered nothing yet
    work = WorkList(str(out / "_state" / "work_list"), source.own_schema)
    with Scanner(job.chunk_s, settings) as scanner:
        work.extend(source, scanner, job.defaults)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    write_tones(archive / "new", 1, 1.0, seed=3)
    found = run_dry(settings)
    assert (found.seen.files, found.known_files, found.rows) == (1, 6, 7)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
