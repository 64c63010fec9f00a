"""The demo, shortened: what it leaves behind, and what it refuses to touch."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.demo import demo
from mats_core.errors import SettingsError
from mats_core.soundworld import archive
from mats_core.storage.uris import local_path, printable

KEPT = (
    b"field/001.wav",
    b"phone/Recording 1.m4a",
    b"studio/effects/blip.ogg",
    b"odd names/first line\nsecond line.wav",
    b"odd names/Ger\xe4usch.wav",
    b"scenes/two minutes.m4a",
    b"worn tapes/cut in the middle.flac",
)


@pytest.mark.e2e
@pytest.mark.usefixtures("shared_ray")
def test_the_demo_leaves_answers_a_run_and_a_page(
    tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(archive, "CLIPS", tuple(clip for clip in archive.CLIPS if clip.name in KEPT))
    folder = tmp_path / "demo"
    assert demo(str(folder), 0, tiny_model_dir) == 0

    rows = pq.read_table(folder / "out" / "answers").to_pylist()
    root = str(folder / "archive").encode() + b"/"
    found: dict[str, list[dict]] = {}
    for row in rows:
        path = local_path(row["uri"])
        assert path is not None
        found.setdefault(printable(path.removeprefix(root)), []).append(row)
    truth = {row["path"]: row for row in map(json.loads, (folder / "truth.jsonl").read_text().splitlines())}
    assert set(found) == set(truth)
    for path, parts in found.items():
        assert {part["error_code"] for part in parts} == {truth[path]["error_code"]}, path
        assert all(part["text"] for part in parts if part["error_code"] is None), path
    assert [part["start_s"] for part in found["scenes/two minutes.m4a"]] == [0.0, 60.0]
    (cut,) = found["worn tapes/cut in the middle.flac"]
    assert cut["complete"] is False and cut["decoded_s"] > 1.0 < cut["lost_s"]

    state = json.loads((folder / "out" / "_run.json").read_text())
    assert state["status"] == "complete"
    assert state["errors"] == {"empty_audio": 2, "not_audio": 1, "not_found": 1}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<article") == len(truth)
    assert page.count("data:audio/mpeg") == len([row for row in rows if row["error_code"] is None])
    assert len(page) < 10_000_000
    shown = capsys.readouterr().out
    assert "Ger%E4usch" in shown
    assert "not_audio" in shown


def test_the_demo_touches_no_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "dear.wav").write_bytes(b"RIFF")
    (tmp_path / "truth.jsonl").touch()  # a name that `mats report --truth` suggests
    with pytest.raises(SettingsError, match="folder"):
        demo(str(tmp_path), 0, "builtin")
    assert (tmp_path / "archive" / "dear.wav").read_bytes() == b"RIFF"


def test_a_folder_that_cannot_be_written_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="folder"):
        demo(str(tmp_path / "file" / "demo"), 0, "builtin")
