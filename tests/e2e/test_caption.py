"""`mats caption` as a user types it: an untidy folder, continuing, refusing, embeddings, lists."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.archive.caption import run_caption
from pipelines.archive.embed_audio import run_embed_audio
from pipelines.settings.archive import CaptionSettings, EmbedSettings
from tests.e2e.conftest import read_answers, without, write_tones

Mats = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def untidy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good files of several kinds, and one of each bad kind."""
    folder = tmp_path_factory.mktemp("untidy archive")
    write_tones(folder / "some tones", 4, 2.0)
    noise = 0.1 * np.random.default_rng(0).standard_normal((70 * 8000, 2))
    soundfile.write(folder / "long.flac", noise, 8000)
    whole = (folder / "long.flac").read_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    (folder / "straße\n'x'.ogg").write_bytes(b"")
    soundfile.write(folder / "straße\n'x'.ogg", noise[:8000], 8000)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("hello")
    (folder / "link.wav").symlink_to("nowhere.wav")
    return folder


def test_an_untidy_folder_from_first_run_to_refusal(
    mats: Mats, untidy: Path, tmp_path: Path, tiny_model_dir: str
) -> None:
    out = tmp_path / "out"
    command = ["caption", str(untidy), str(out), "--model", tiny_model_dir]
    done = mats(*command)
    assert done.returncode == 0, done.stderr
    assert "11 of 11" in done.stdout
    rows = read_answers(out)
    assert [row["row_id"] for row in rows] == list(range(11))
    codes = {Path(row["uri"]).name: row["error_code"] for row in rows if row["error_code"]}
    assert codes == {"empty.wav": "empty_audio", "text.wav": "not_audio", "link.wav": "not_found"}
    assert all(row["error_message"] for row in rows if row["error_code"])
    assert all(row["text"] for row in rows if row["error_code"] is None and row["decoded_s"] > 0)
    cut = [row for row in rows if row["uri"].endswith("cut.flac")]
    assert 20 < sum(row["decoded_s"] for row in cut) < 50 < sum(row["decoded_s"] + row["lost_s"] for row in cut)
    assert [row["complete"] for row in cut] == [False]
    run = json.loads((out / "_run.json").read_text())
    assert run["generation"] == "beam loop"
    assert (run["status"], run["rows_done"]) == ("complete", 11)
    assert run["errors"] == {"empty_audio": 1, "not_audio": 1, "not_found": 1}
    assert sorted(path.name for path in (out / "_state").iterdir()) == ["generations", "work_list"]

    again = mats(*command)  # nothing to do: said without Ray or a model
    assert again.returncode == 0
    assert "done already: 11 clips" in again.stdout
    assert "starting Ray" not in again.stderr
    assert json.loads((out / "_run.json").read_text()) == run

    other = CliRunner().invoke(app, [*command, "--beams", "1"])  # refused before anything starts
    assert other.exit_code == 2
    assert "decoding.beams was 4, is 1" in other.stderr

    failed = CliRunner().invoke(app, [*command, "--max-error-rate", "0.1"])
    assert failed.exit_code == 3
    assert "27.3% of rows failed" in failed.stderr


def test_new_and_changed_files_are_added_and_overwrite_begins_anew(tmp_path: Path, tiny_model_dir: str) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    write_tones(archive, 3, 1.0)
    settings = CaptionSettings(input=str(archive), output=str(out), model=tiny_model_dir)
    assert run_caption(settings).new_rows == 3
    before = read_answers(out)
    write_tones(archive / "later", 1, 1.0, seed=9)
    soundfile.write(archive / "0001.wav", np.zeros(4000), 8000)
    result = run_caption(settings)
    assert (result.rows, result.new_rows, result.status) == (5, 2, "complete")
    rows = read_answers(out)
    assert rows[:3] == before
    assert [Path(row["uri"]).name for row in rows[3:]] == ["0001.wav", "0000.wav"]
    moved = archive.rename(tmp_path / "moved")
    again = run_caption(settings.model_copy(update={"input": str(moved)}))
    assert (again.status, again.begun_with) == ("complete_before", str(archive))
    moved.rename(archive)
    assert run_caption(settings).begun_with == ""
    anew = run_caption(settings.model_copy(update={"overwrite": True}))
    assert (anew.rows, anew.new_rows) == (4, 4)


@pytest.mark.usefixtures("shared_ray")
def test_nothing_depends_on_batches_actors_order_or_the_way(tmp_path: Path, tiny_model_dir: str) -> None:
    """One and two actors, other batches, a shuffled list, stored embeddings: the same answers."""
    files, tones = 60, tmp_path / "tones"  # more than are done without Ray
    write_tones(tones, files, 3.0)
    common = {"model": tiny_model_dir, "with_embedding": True, "segments": True}
    run_caption(CaptionSettings(input=str(tones), output=str(tmp_path / "one"), actors=1, batch_size=32, **common))
    expected = {row["uri"]: row for row in read_answers(tmp_path / "one")}
    assert len(expected) == files

    names = sorted(str(path) for path in tones.iterdir())
    np.random.default_rng(3).shuffle(names)
    shuffled = pa.table({"uri": names, "position": range(len(names))})
    pq.write_table(shuffled, tmp_path / "list.parquet")
    run_embed_audio(EmbedSettings(input=str(tones), output=str(tmp_path / "embedded"), model=tiny_model_dir))
    sidecar = json.loads((tmp_path / "embedded" / "_embeddings.json").read_text())
    assert (sidecar["dim"], sidecar["window_seconds"], sidecar["rows"]) == (32, 5.0, files)
    others = {
        "list": CaptionSettings(
            input=str(tmp_path / "list.parquet"), output=str(tmp_path / "list"), actors=2, batch_size=7, **common
        ),
        "embeddings": CaptionSettings(
            input=str(tmp_path / "embedded"), output=str(tmp_path / "embeddings"), batch_size=1, actors=1, **common
        ),
    }
    for name, settings in others.items():
        run_caption(settings)
        rows = read_answers(tmp_path / name)
        assert len(rows) == files
        for row in rows:
            there = expected[row["uri"]]
            assert row["text"] == there["text"], (name, row["uri"])
            assert [s["text"] for s in row["segments"]] == [s["text"] for s in there["segments"]]
            np.testing.assert_allclose(row["embedding"], there["embedding"], atol=1e-5)
    positions = {row["uri"]: row["position"] for row in read_answers(tmp_path / "list")}
    assert [positions[name] for name in names] == list(range(files))


def test_a_list_asks_its_own_questions(tones: Path, tmp_path: Path, tiny_model_dir: str) -> None:
    shutil.copy(tones / "0000.wav", tmp_path / "a b.wav")
    (tmp_path / "list.csv").write_text(
        "uri,task,question,tag,take\n"
        "a b.wav,,,,1\n"
        "a b.wav,QA,what is first ?,,2\n"
        "a b.wav,cla_label,,[sound event],3\n"
        f"{tones}/0001.wav,,,,4\n"
        "gone.wav,,,,5\n"
    )
    settings = CaptionSettings(input=str(tmp_path / "list.csv"), output=str(tmp_path / "out"), model=tiny_model_dir)
    run_caption(settings)
    rows = read_answers(tmp_path / "out")
    assert [row["take"] for row in rows] == list("12345")  # CSV has no types
    assert [row["task"] for row in rows] == ["caption", "QA", "cla_label", "caption", "caption"]
    assert rows[1]["question"] == "what is first ?"
    assert rows[2]["tag"] == "[sound event]"
    assert len({row["text"] for row in rows[:3]}) > 1
    assert rows[4]["error_code"] == "not_found"
    assert rows[0]["chunk_id"] == rows[1]["chunk_id"] != rows[3]["chunk_id"]


def test_ask_answers_here_as_json(mats: Mats, untidy: Path, tiny_model_dir: str) -> None:
    done = mats("ask", str(untidy / "long.flac"), str(untidy / "text.wav"), "--model", tiny_model_dir, "--json")
    assert done.returncode == 1  # one of the two could not be answered
    good, bad = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["start_s"] for answer in good["answers"]] == [0.0, 60.0]
    assert bad["error_code"] == "not_audio"


def test_scan_prints_what_there_is(mats: Mats, untidy: Path, tmp_path: Path, tiny_model_dir: str) -> None:
    done = mats("scan", str(untidy), str(tmp_path / "manifest"), "--model", tiny_model_dir)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("10 files new (0 known), 11 chunks")
    assert "errors: empty_audio 1, not_audio 1, not_found 1" in done.stdout
    assert without([{"a": 1, "b": 2}], "b") == [{"a": 1}]
