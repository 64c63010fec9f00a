"""Files that are gone since the last run are counted, and left out of reports where one asks for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.archive.caption import run_caption
from pipelines.evaluate.compare import compare_answers
from pipelines.pages.report import write_report
from pipelines.settings.archive import CaptionSettings
from tests.pipelines.pages.made_up import tone, wav


@pytest.mark.e2e
@pytest.mark.processes
def test_files_that_are_gone_are_counted_and_may_be_left_out(tmp_path: Path, tiny_model_dir: str) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for number in range(4):
        wav(folder / f"{number}.wav", tone(200.0 + 100 * number, 1.0))

    def again(**given: Any) -> tuple[str, int, int]:
        """How the run ended, what it counts as gone, and how many files its report has."""
        settings = CaptionSettings(input=str(folder), output=str(out), model=tiny_model_dir, **given)
        result = run_caption(settings)
        report = write_report(out, tmp_path / "report.html", max_media_bytes=0)
        assert len({*result.to_arrow()["uri"].to_pylist()}) == report.totals.files, "in Python as on the page"
        return result.status, result.run["gone"], report.totals.files

    assert again() == ("complete", 0, 4)
    (folder / "1.wav").rename(tmp_path / "1.wav")
    (folder / "2.wav").unlink()
    assert again() == ("complete_before", 2, 4)
    assert again(prune=True) == ("complete_before", 2, 2)
    assert again() == ("complete_before", 2, 2), "it stays as it was asked for"
    same = compare_answers(out, out, tmp_path / "compare.html", model=tiny_model_dir, device="cpu")
    assert (same.rows, same.same) == (2, 2), "nor is it compared"
    (tmp_path / "1.wav").rename(folder / "1.wav")
    assert again() == ("complete_before", 1, 3), "a file that is back is there again"
    wav(folder / "3.wav", tone(900.0, 2.0))
    assert again(prune=True)[:2] == ("complete", 1), "one that was changed is not gone"
