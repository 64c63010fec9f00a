"""An answer a file or a window, of sounds in the rows of Parquet files: stopped, killed, and finished all the same."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from mats_core.errors import SettingsError
from pipelines.archive.caption import run_caption
from pipelines.archive.dry_run import run_dry
from pipelines.archive.embed_audio import run_embed_audio
from pipelines.settings.archive import CaptionSettings, EmbedSettings
from tests.e2e.conftest import read_answers, without
from tests.e2e.test_resume import start, wait_for_parts

SOUNDS = 96


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Parquet files of 48 sounds each, of which one is longer than a minute, and one is none."""
    folder = tmp_path_factory.mktemp("shards")
    draw = np.random.default_rng(3)
    for part in range(2):
        rows = []
        for number in range(SOUNDS // 2):
            seconds = 131.0 if number == 5 else float(draw.uniform(0.5, 12.0))
            time = np.arange(round(8000 * seconds)) / 8000
            file = io.BytesIO()
            soundfile.write(file, 0.3 * np.sin(2 * np.pi * draw.uniform(100, 3000) * time), 8000, format="FLAC")
            content = b"no sound" if number == 7 else file.getvalue()
            rows.append({"audio": {"bytes": content, "path": f"{number}.flac"}, "shard": part, "number": number})
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{part}.parquet", row_group_size=20)
    return folder


@pytest.mark.long
def test_files_out_of_parquet_rows_stopped_killed_and_finished(
    shared_ray: str, shards: Path, tmp_path: Path, tiny_model_dir: str
) -> None:
    out = tmp_path / "out"
    command = ["caption", str(shards), str(out), "--model", tiny_model_dir, "--commit-rows", "4", "--actors", "1"]
    command += ["--per", "file", "--deterministic", "--beams", "6", "--address", shared_ray]
    first = start(*command)
    wait_for_parts(out, 0, first)
    if first.poll() is None:
        os.kill(first.pid, signal.SIGTERM)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    kept = len(read_answers(out))
    assert 0 < kept < SOUNDS
    second = start(*command)
    wait_for_parts(out, len(list((out / "answers").iterdir())), second)
    second.kill()
    second.communicate()
    given = {"input": str(shards), "model": tiny_model_dir, "beams": 6, "per": "file"}
    finished = run_caption(CaptionSettings(output=str(out), commit_rows=4, **given))
    assert finished.status == "complete"
    rows = read_answers(out)
    assert [row["row_id"] for row in rows] == list(range(SOUNDS))
    assert [(row["shard"], row["number"]) for row in rows] == [(p, n) for p in (0, 1) for n in range(SOUNDS // 2)]
    assert [row["error_code"] for row in rows if row["number"] == 7] == ["not_audio"] * 2
    assert [round(row["decoded_s"]) for row in rows if row["number"] == 5] == [131, 131]
    run_caption(CaptionSettings(output=str(tmp_path / "undisturbed"), **given))
    assert without(rows, "run_id") == without(read_answers(tmp_path / "undisturbed"), "run_id")


@pytest.mark.long
@pytest.mark.parametrize("per", ["minute", "file", "window"])
def test_embeddings_are_asked_as_the_audio_is(shards: Path, tmp_path: Path, tiny_model_dir: str, per: str) -> None:
    table = pq.read_table(shards / "0.parquet").slice(0, 12)
    pq.write_table(table, tmp_path / "few.parquet")
    given = {"model": tiny_model_dir, "per": per, "with_embedding": True}
    audio = CaptionSettings(input=str(tmp_path / "few.parquet"), output=str(tmp_path / "audio"), **given)
    estimate = run_dry(audio.model_copy(update={"dry_run": True}))
    found = run_caption(audio)
    assert estimate.rows == found.rows and (found.rows == 12 if per == "file" else found.rows > 12)
    heard = EmbedSettings(input=str(tmp_path / "few.parquet"), output=str(tmp_path / "heard"), model=tiny_model_dir)
    run_embed_audio(heard)
    run_caption(CaptionSettings(input=str(tmp_path / "heard"), output=str(tmp_path / "asked"), **given))
    one, other = read_answers(tmp_path / "audio"), read_answers(tmp_path / "asked")
    names = ("uri", "start_s", "text", "complete", "error_code", "number", "decoded_s")
    assert [[row[name] for name in names] for row in one] == [[row[name] for name in names] for row in other]
    for row, again in zip(one, other, strict=True):
        assert (row["embedding"] is None) == (again["embedding"] is None)
        if row["embedding"] is not None:
            apart = np.abs(np.array(row["embedding"]) - np.array(again["embedding"])).max()
            assert apart < (5e-3 if per == "window" else 1e-5)  # a resampler that begins elsewhere rounds otherwise


@pytest.mark.long
def test_another_per_is_another_output_and_pruned_rows_of_embeddings_are_not_asked(
    tmp_path: Path, tiny_model_dir: str
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for name in "abc":
        soundfile.write(archive / f"{name}.wav", 0.2 * np.random.default_rng(1).standard_normal(16000), 16000)
    given = {"input": str(archive), "model": tiny_model_dir}
    run_caption(CaptionSettings(output=str(tmp_path / "out"), **given))
    with pytest.raises(SettingsError, match="per"):
        run_caption(CaptionSettings(output=str(tmp_path / "out"), per="file", **given))
    heard = str(tmp_path / "heard")
    run_embed_audio(EmbedSettings(output=heard, **given))
    (archive / "b.wav").unlink()
    run_embed_audio(EmbedSettings(output=heard, prune=True, **given))
    assert json.loads((tmp_path / "heard" / "_run.json").read_text())["pruned"] == [[1, 1]]
    for per in ("minute", "file"):
        out = tmp_path / per
        run_caption(CaptionSettings(input=heard, output=str(out), model=tiny_model_dir, per=per))
        assert [Path(row["uri"]).name for row in read_answers(out)] == ["a.wav", "c.wav"]
