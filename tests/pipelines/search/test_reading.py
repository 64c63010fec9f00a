from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mats_core.errors import SettingsError
from pipelines.data import generations
from pipelines.output.folder import open_output
from pipelines.search.reading import read_windows, vectors_folder, windows_in
from tests.pipelines.search.made_up import WINDOW_S, chunk_rows, unit_vectors, windows_of, write_run


def _part(output: Path, folder: str) -> str:
    (info,) = generations.files(str(output / folder))
    return info.uri


def test_windows_come_with_their_times_in_the_file(tmp_path: Path) -> None:
    vectors = [unit_vectors(2), unit_vectors(0), unit_vectors(3, seed=1)]
    run = write_run(tmp_path / "run", chunk_rows(vectors, first=1))
    part = _part(run, "embeddings")
    ((rows, found),) = list(read_windows(part, "embeddings", WINDOW_S))
    assert windows_in(part, "embeddings") == 6  # an empty list counts as one
    np.testing.assert_allclose(found, np.concatenate(vectors), atol=1e-6)
    # chunk 1 begins at 60 s and is 9 s long, chunk 3 at 0 s and is 14 s long: the last window ends with the sound
    assert rows["windows"].to_pylist() == [
        [{"start_s": 60.0, "end_s": 65.0}, {"start_s": 65.0, "end_s": 69.0}],
        [],
        [{"start_s": 0.0, "end_s": 5.0}, {"start_s": 5.0, "end_s": 10.0}, {"start_s": 10.0, "end_s": 14.0}],
    ]
    assert "embedding" not in rows.schema.names and rows["format"].to_pylist() == ["wav", "flac", "wav"]


def test_answers_with_embeddings_are_a_window_a_chunk(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", chunk_rows([unit_vectors(2), unit_vectors(0)], answers=True), job="caption")
    assert vectors_folder(str(run)) == "answers"
    ((rows, found),) = list(read_windows(_part(run, "answers"), "answers", 0.0))
    assert rows["windows"].to_pylist() == [[{"start_s": 0.0, "end_s": 9.0}], []]
    assert found.shape == (1, 32) and np.linalg.norm(found[0]) == pytest.approx(1.0)


def test_a_run_without_embeddings_is_refused_by_name(tmp_path: Path) -> None:
    rows = chunk_rows(windows_of(unit_vectors(4)), answers=True).drop_columns(["embedding"])
    run = write_run(tmp_path / "run", rows, job="caption")
    with pytest.raises(SettingsError, match="answers without their embeddings") as caught:
        vectors_folder(f"{run}/")
    assert (
        caught.value.remedy
        == f"embed its sounds with `mats embed-audio INPUT {run}-embedded` and search {run}-embedded"
    )
    with open_output(str(run), {"job": "caption"}, results="answers") as out:
        out.write_run({"job": "caption", "settings": {"input": "my sounds", "model": "m"}})
    with pytest.raises(SettingsError, match=f"`mats embed-audio 'my sounds' {run}-embedded --model m`"):
        vectors_folder(str(run))
    with pytest.raises(SettingsError, match="no embeddings"):
        vectors_folder(str(tmp_path))


def test_vectors_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    vectors = unit_vectors(2)
    vectors[1, 3] = np.nan
    run = write_run(tmp_path / "run", chunk_rows([vectors]))
    with pytest.raises(SettingsError, match="NaN"):
        list(read_windows(_part(run, "embeddings"), "embeddings", WINDOW_S))
