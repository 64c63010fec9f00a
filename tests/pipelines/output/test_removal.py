"""What a run removes from its OUTPUT, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from pipelines.output.folder import find_partials, open_output
from pipelines.output.record import check_identity


def run(output: Path, job: str, overwrite: bool = False, results: str = "") -> None:
    """A run that does nothing."""
    with open_output(str(output), {"job": job}, results=results, overwrite=overwrite):
        pass


def test_emptying_an_output_leaves_what_is_not_ours(tmp_path: Path) -> None:
    run(tmp_path, "caption")
    (tmp_path / "answers" / "format=wav").mkdir(parents=True)
    (tmp_path / "answers" / "format=wav" / "part.parquet").touch()
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(SettingsError, match="is an OUTPUT of `mats caption`, not of `mats scan`"):
        run(tmp_path, "scan", overwrite=True)
    run(tmp_path, "caption", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_state", "holiday.jpg"]


def test_emptying_refuses_what_no_run_has_made(tmp_path: Path) -> None:
    """A folder `answers` of the user's own, with or without a run beside it."""
    recordings = tmp_path / "answers"
    recordings.mkdir()
    (recordings / "part.parquet").touch()
    with pytest.raises(SettingsError, match=r"^overwrite: no run has made the `answers` in .*; move it away, or"):
        run(tmp_path, "caption", overwrite=True)
    with pytest.raises(SettingsError, match="has a folder `answers` with files that no run has made"):
        run(tmp_path, "caption", results="answers")
    assert check_identity(str(tmp_path), None, {"job": "caption"}, "embeddings")
    run(tmp_path, "caption")
    (recordings / "take1.wav").touch()
    with pytest.raises(SettingsError, match=r"holds answers/take1\.wav, which is no result; move this file away"):
        run(tmp_path, "caption", overwrite=True)
    assert sorted(path.name for path in recordings.iterdir()) == ["part.parquet", "take1.wav"]


def test_emptying_that_is_killed_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there counts no more when the first file goes; the next run ends the removal."""
    from mats_core import storage
    from pipelines.data import generations

    run(tmp_path, "embed-audio")
    for name in ("_run.json", "_embeddings.json", "embeddings/a.parquet", "_state/work_list/rows.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")

    def killed(uri: str) -> None:
        if not uri.rpartition("/")[2].startswith(("trial-", "lease")):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove_tree", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "embed-audio", overwrite=True)
    assert generations.files(str(tmp_path / "embeddings")) == []
    assert generations.files(str(tmp_path / "_state" / "work_list")) == []
    assert generations.told(str(tmp_path), "_embeddings.json") is None


def test_only_our_own_unfinished_files_are_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    ours = [
        "_run.json.0123abcd.partial",
        "_state/lease.0123abcd.partial",
        "_state/shards-0123456789ab/shard-0.faiss",
        ".metrics.json.0123abcd.partial",
        "answers/part-1.parquet.0123abcd.partial",
        "answers/.part-2.parquet.0123abcd.partial",
        "answers/format=wav/growing-000000000003.partial",
        "answers/format=wav/.growing-000000000003-0123456789ab.partial",
        "answers/format=wav/growing-000000000003-0123456789ab.partial",
    ]
    theirs = ["mine.partial", "film.0123abcd.partial", "below/take.parquet.0123abcd.partial", "answers/x.partial"]
    for name in [*ours, *theirs]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    elsewhere.mkdir()
    (elsewhere / "part-1.parquet.0123abcd.partial").touch()
    (out / "answers" / "link").symlink_to(elsewhere)
    (out / "_state" / "data" / "key.partial").mkdir(parents=True)
    assert len(find_partials(str(out))) == len(ours) + 1
    run(out, "caption")
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.partial")}
    assert left == {*theirs} and len(list(elsewhere.iterdir())) == 1
    assert not list((out / "_state").glob("shards*"))
