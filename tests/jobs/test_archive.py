"""How `mats caption` and its kin end: what is printed, and the exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.archive import finish, print_estimate, scan
from mats_core.errors import SettingsError
from mats_core.model.needs import read_needs
from pipelines.archive.dry_run import Card, Estimate
from pipelines.archive.run import RunResult
from pipelines.archive.scan import ScanCounts
from pipelines.settings.archive import CaptionSettings, EmbedSettings, ScanSettings
from pipelines.settings.base import build

SETTINGS = CaptionSettings(input="ftp://user:TOPSECRET@host/in", output="out", max_error_rate=0.2)
RUN = {"rows_done": 3, "rows_before": 0, "start_s": 1.0, "steady": {}}


def result(status: str, **more: Any) -> RunResult:
    return RunResult(status, "out", 4, 4, run=RUN, **more)


@pytest.mark.parametrize(
    ("status", "errors", "code", "said"),
    [
        ("complete", {}, 0, ""),
        ("complete_before", {}, 0, ""),
        ("incomplete", {}, 1, "mats: 1 clip is missing; run again\n"),
        ("complete", {"not_audio": 1}, 3, "mats: 25.0% of rows failed; --max-error-rate allows 20.0%\n"),
    ],
)
def test_exit_codes(
    status: str, errors: dict[str, int], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finish(result(status, errors=errors), SETTINGS, "caption", "clips") == code
    assert capsys.readouterr().err == said


def test_where_every_row_failed_the_first_message_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where any share of errors is allowed, which is the default."""
    (tmp_path / "answers").mkdir()
    failed = {"uri": ["a\nb.gsm", "c.mp3"], "error_code": ["decode_failed", "not_found"], "error_message": ["why", ""]}
    pq.write_table(pa.table(failed), tmp_path / "answers" / "part-1.parquet")
    ended = RunResult("complete", str(tmp_path), 2, 2, {"decode_failed": 1, "not_found": 1}, run=RUN)
    assert finish(ended, CaptionSettings(input="in", output=str(tmp_path)), "caption", "clips") == 3
    assert capsys.readouterr().err.startswith("mats: all 2 clips failed; the first: a")
    alone = RunResult("complete", str(tmp_path), 1, 1, {"decode_failed": 1}, run=RUN)
    assert finish(alone, CaptionSettings(input="in", output=str(tmp_path)), "caption", "clips") == 3
    assert capsys.readouterr().err.startswith("mats: the only clip failed; the first: a")


def test_a_finished_run_names_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(result("complete"), SETTINGS, "caption", "clips") == 0
    assert capsys.readouterr().out.endswith("next    mats report out\n")
    assert finish(result("complete"), SETTINGS, "embed-audio", "clips") == 0
    assert capsys.readouterr().out.endswith("next    mats caption out ANSWERS\n")


@pytest.mark.processes
def test_a_scan_names_the_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"text")
    out = tmp_path / "a manifest"
    assert scan(ScanSettings(input=str(tmp_path / "in"), output=str(out))) == 0
    assert capsys.readouterr().out.endswith(f"next: mats caption '{out}' ANSWERS\n")


def test_an_unknown_task_is_told_with_the_other_errors() -> None:
    with pytest.raises(SettingsError) as caught:
        build(CaptionSettings, {"input": "in", "output": "out", "task": "sing", "beams": "many"})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["task", "beams"]
    assert '"sing" is not a task; choose caption, ' in str(caught.value)


def test_every_setting_stands_below_a_heading() -> None:
    """What `--help` shows first of each command is what is used most."""
    for kind in (CaptionSettings, EmbedSettings, ScanSettings):
        named = [name for names in kind.GROUPS.values() for name in names]
        assert set(kind.model_fields) <= {*named, "input", "output"} and len(named) == len(set(named)), kind
    assert CaptionSettings.GROUPS["What to answer"][:3] == ("task", "question", "model")


def test_a_task_may_be_written_in_any_case() -> None:
    assert [CaptionSettings(input="i", output="o", task=each).task for each in ("qa", "Caption", "CLA_LABEL")] == [
        "QA", "caption", "cla_label",
    ]  # fmt: skip


def test_an_interrupted_run_says_what_is_kept_and_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(result("interrupted"), SETTINGS, "caption", "clips") == 130
    said = capsys.readouterr().err
    assert said.startswith("mats: interrupted; 3 of 4 clips are kept. To continue, give the same command again")
    assert said.endswith("mats caption ftp://host/in out …\n") and "TOPSECRET" not in said


def test_another_input_than_the_one_it_was_begun_with_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(result("complete_before", begun_with="/old"), SETTINGS, "caption", "clips") == 0
    said = capsys.readouterr()
    assert said.err.startswith("mats: OUTPUT was begun with INPUT /old;") and "done already: 4 clips in out" in said.out


def test_an_estimate_tells_what_there_is_and_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    seen = ScanCounts(files=2, chunks=5, bytes=3_000_000, seconds=280.0, formats={"wav": 2}, errors={})
    measured = {"sample_rows": 4, "sample_audio_s": 200.0, "per_row_s": {"decode": 0.1, "model": 0.25}}
    times = {"cores": 2, "wall_s": 44.0, "core_hours": 0.01}
    assert print_estimate(Estimate(seen, 3, rows=5, done=1, **measured, **times)) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:5] == [
        "files 2 new, 3 known to OUTPUT",
        "audio 0.08 h in 5 chunks, 3.0 MB",
        "formats wav 2",
        "errors none",
        "to do 5 clips, 1 are done",
    ]
    told = " ".join(lines[5:])
    assert "sample 4 clips, 3 min 20 s of audio: decode 100 ms and model 250 ms a clip" in told
    assert "time about 44 s on this machine (2 cores, 1 model processes)" in told
    assert told.endswith("core hours 0.01 GPU hours not measured: no GPU here")
    seen.skipped.update({".txt": 12, ".pdf": 3, "": 1})
    print_estimate(Estimate(seen, 0, rows=5, done=0))
    said = capsys.readouterr().out
    assert "unknown: no clip that could be measured" in said
    assert "skipped  12 .txt, 3 .pdf, 1 without an ending" in said


def test_a_dry_run_says_what_the_model_takes_and_whether_the_gpus_have_it(
    capsys: pytest.CaptureFixture[str], tiny_model_dir: str
) -> None:
    needs = read_needs(tiny_model_dir, llm_dtype="bfloat16")
    print_estimate(Estimate(ScanCounts(), 0, rows=5, done=0, needs=needs))
    said = capsys.readouterr().out
    assert "GB (LLM 0.0 in bfloat16, encoder 0.0, mapper 0.0," in said
    assert f"none here; a card needs {needs.total / 1e9:.1f} GB free" in said
    cards = [Card("Large", 70 * 10**9, 80 * 10**9, 128), Card("Small", 10**9, 2 * 10**9, 0)]
    print_estimate(Estimate(ScanCounts(), 0, rows=5, done=0, needs=needs, cards=cards))
    said = capsys.readouterr().out
    assert "Large, 70.0 GB free of 80.0: fits, 128 answers at once" in said
    assert "Small, 1.0 GB free of 2.0: too small" in said
    assert "unknown: the model does not fit" in said
