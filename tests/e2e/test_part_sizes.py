"""Parts have the rows asked for, however long the audio of a row is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from jobs.benchmarks.scale import Waits
from pipelines.settings.archive import RunSettings
from tests.e2e.stand_in import run_stand_in


@pytest.mark.usefixtures("shared_ray")
def test_a_part_has_the_rows_asked_for_of_long_recordings(tmp_path: Path) -> None:
    """Three recordings of more than five minutes are 18 rows of up to a minute; decoded, 32 MB of sound."""
    (tmp_path / "archive").mkdir()
    for number in range(3):
        sound = 0.1 * np.random.default_rng(number).standard_normal(8000 * 310)
        soundfile.write(tmp_path / "archive" / f"{number}.flac", sound, 8000)
    settings = RunSettings(
        input=str(tmp_path / "archive"), output=str(tmp_path / "out"), commit_rows=4, commit_seconds=1e6
    )
    result = run_stand_in(settings, Waits(row_s=0.0))
    assert (result.status, result.rows, result.seconds) == ("complete", 18, pytest.approx(930.0))
    parts = sorted((tmp_path / "out" / "answers").iterdir(), key=lambda path: path.name.split("-")[-1])
    assert [pq.read_metadata(part).num_rows for part in parts] == [4, 4, 4, 4, 2]
    rows = pq.read_table(tmp_path / "out" / "answers", columns=["row_id", "decoded_s"]).sort_by("row_id")
    assert rows["row_id"].to_pylist() == list(range(18))
    assert rows["decoded_s"].to_pylist() == [60.0, 60.0, 60.0, 60.0, 60.0, 10.0] * 3
