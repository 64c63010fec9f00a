"""What a run removes from its OUTPUT, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from pipelines.output.folder import empty_output, remove_partials
from pipelines.output.record import check_identity


def test_emptying_an_output_leaves_what_is_not_ours(tmp_path: Path) -> None:
    check_identity(str(tmp_path), {"job": "caption"})
    (tmp_path / "answers" / "format=wav").mkdir(parents=True)
    (tmp_path / "answers" / "format=wav" / "part.parquet").touch()
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(SettingsError, match="is an OUTPUT of `mats caption`, not of `mats scan`"):
        empty_output(str(tmp_path), "scan")
    empty_output(str(tmp_path), "caption")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_state", "holiday.jpg"]
    empty_output(str(tmp_path), "scan")  # nothing left: nothing to object to


def test_emptying_refuses_what_no_run_has_made(tmp_path: Path) -> None:
    """A folder `answers` of the user's own, with or without a run beside it."""
    recordings = tmp_path / "answers"
    recordings.mkdir()
    (recordings / "part.parquet").touch()
    with pytest.raises(SettingsError, match=r"^overwrite: no run has made the `answers` in .*; move it away, or"):
        empty_output(str(tmp_path), "caption")
    with pytest.raises(SettingsError, match="has a folder `answers` with files that no run has made"):
        check_identity(str(tmp_path), {"job": "caption"}, "answers")
    check_identity(str(tmp_path), {"job": "caption"}, "embeddings")
    (recordings / "take1.wav").touch()
    with pytest.raises(SettingsError, match=r"holds answers/take1\.wav, which is no result; move this file away"):
        empty_output(str(tmp_path), "caption")
    assert sorted(path.name for path in recordings.iterdir()) == ["part.parquet", "take1.wav"]


def test_emptying_that_is_killed_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_identity(str(tmp_path), {"job": "embed-audio"})
    for name in ("_run.json", "_embeddings.json", "embeddings/a.parquet", "_state/work_list/rows.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    removed: list[str] = []
    monkeypatch.setattr("mats_core.storage.remove_tree", lambda uri: removed.append(Path(uri).name))
    empty_output(str(tmp_path), "embed-audio")
    assert removed == ["_run.json", "_embeddings.json", "embeddings", "work_list", "identity.json"]


def test_only_our_own_unfinished_files_are_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    ours = [
        "_run.json.0123abcd.partial",
        "_state/lease.0123abcd.partial",
        "answers/part-1.parquet.0123abcd.partial",
        "answers/format=wav/growing-000000000003.partial",
    ]
    theirs = ["mine.partial", "film.0123abcd.partial", "below/take.parquet.0123abcd.partial", "answers/x.partial"]
    for name in [*ours, *theirs]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    elsewhere.mkdir()
    (elsewhere / "part-1.parquet.0123abcd.partial").touch()
    (out / "answers" / "link").symlink_to(elsewhere)
    (out / "_state" / "data" / "key.partial").mkdir(parents=True)
    remove_partials(str(out))
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.partial")}
    assert left == {*theirs} and len(list(elsewhere.iterdir())) == 1
