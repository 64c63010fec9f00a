"""`--dry-run`: the figures of a run, measured on a sample, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from pipelines.archive.caption import caption_job
from pipelines.archive.dry_run import Card, run_dry
from pipelines.archive.headers import Scanner
from pipelines.archive.work_list import WorkList
from pipelines.settings.archive import CaptionSettings
from pipelines.settings.base import build
from pipelines.settings.evaluate import EvaluateSettings
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
    assert found.wall_s is not None and found.wall_s > 15
    assert found.gpu_hours is None
    assert found.needs is not None and (found.needs.llm_dtype, found.needs.answer_tokens) == ("float32", 2)
    assert found.cards == []
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


@pytest.mark.processes
def test_a_model_that_no_gpu_here_has_room_for_is_not_measured(
    tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tones(tmp_path / "archive", 2, 2.0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda place: "Small")
    monkeypatch.setattr("mats_core.device.card_memory", lambda place: (10**8, 10**9))
    found = run_dry(
        CaptionSettings(input=str(tmp_path / "archive"), output=str(tmp_path / "out"), model=tiny_model_dir)
    )
    assert found.cards == [Card("Small", 10**8, 10**9, 0)]
    assert found.needs is not None and found.needs.llm_dtype == "bfloat16"
    assert (found.rows, found.sample_rows, found.wall_s) == (2, 0, None)


def test_number_types_that_change_answers_belong_to_an_output(tmp_path: Path, tiny_model_dir: str) -> None:
    write_tones(tmp_path / "archive", 1, 1.0)
    given = {"input": str(tmp_path / "archive"), "output": str(tmp_path / "out"), "model": tiny_model_dir}
    usual, _ = caption_job(CaptionSettings(**given))
    assert "number_types" not in usual.identity  # an OUTPUT begun before there was a choice is gone on with
    chosen, _ = caption_job(CaptionSettings(**given, llm_dtype="int8", mapper_dtype="bfloat16"))
    assert chosen.identity == {**usual.identity, "number_types": {"llm_dtype": "int8", "mapper_dtype": "bfloat16"}}
    spec = chosen.stages[-1].arguments[0]
    assert (spec.llm_dtype, spec.mapper_dtype, spec.encoder_dtype) == ("int8", "bfloat16", "float32")
    with pytest.raises(SettingsError, match="llm_dtype"):
        build(CaptionSettings, {**given, "llm_dtype": "int3"})
    shared = EvaluateSettings(llm_dtype="float16").caption_settings(**given)
    assert shared.llm_dtype == "float16"
