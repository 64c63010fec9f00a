"""Which job and settings an OUTPUT belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from pipelines.archive.caption import run_caption
from pipelines.data.generations import newest
from pipelines.output.folder import open_output
from pipelines.output.record import check_identity
from pipelines.settings.archive import CaptionSettings


def test_an_output_keeps_its_settings_and_says_what_differs(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for begun in (True, False):
        with open_output(out, {"model": "m1", "task": "caption"}) as held:
            assert held.begun is begun
    before = {"model": "m1", "task": "caption"}
    assert newest(out).identity == before  # type: ignore[union-attr]
    with pytest.raises(SettingsError, match="task was caption, is QA"):
        check_identity(out, before, {"model": "m1", "task": "QA"})
    with pytest.raises(SettingsError, match=r"choose another OUTPUT$"):  # not one of another job
        check_identity(out, before, {"model": "m1", "task": "caption", "job": "scan"})


@pytest.mark.processes
def test_settings_found_wrong_by_the_scan_can_be_put_right(tmp_path: Path, tiny_model_dir: str) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "list.csv").write_text(f"uri,task\n{tmp_path}/a.wav,caption\n{tmp_path}/a.wav,QA\n")
    settings = CaptionSettings(input=str(tmp_path / "list.csv"), output=str(tmp_path / "out"), model=tiny_model_dir)
    with pytest.raises(SettingsError, match="question"):
        run_caption(settings)
    assert not list(tmp_path.rglob("*.parquet"))
    with open_output(settings.output, {"question": "Is there a siren?"}) as held:
        assert held.begun
