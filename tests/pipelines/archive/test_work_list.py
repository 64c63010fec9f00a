"""The work list: ids without gaps, whole entries, nothing asked twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mats_core.errors import SettingsError
from pipelines.archive import work_list
from pipelines.archive.decode_stage import DecodeStage
from pipelines.archive.headers import Scanner
from pipelines.archive.work_list import WorkList
from pipelines.cluster.stages import StageContext
from pipelines.data.inputs import Entry, Input, open_input
from pipelines.settings.archive import LimitSettings
from tests.recordings import encode, melody

OWN = pa.schema([("station", pa.int64())])


def source(*stations: int, kind: str = "list") -> Input:
    """Entries that are errors already, so that nothing is read."""
    entries = [
        Entry(f"/{s}.wav", f"{s}.wav", 1, "v", {}, {"station": s}, error=("not_found", "gone")) for s in stations
    ]
    return Input(kind, iter(entries), OWN)


def extend(work: WorkList, given: Input, task: str = "caption") -> tuple[int, int]:
    with Scanner(60.0, LimitSettings()) as scanner:
        counts, known = work.extend(given, scanner, {"task": task})
    return counts.files, known


def test_row_ids_count_up_over_runs_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_list, "FILE_ROWS", 2)
    folder = str(tmp_path / "work")
    assert extend(WorkList(folder, OWN), source(1, 2, 3, 4, 5)) == (5, 0)
    assert extend(WorkList(folder, OWN), source(4, 5, 6)) == (1, 2)
    work = WorkList(folder)
    assert work.total == 6
    assert sorted(path.name[5:17] for path in (tmp_path / "work").iterdir()) == [
        f"{first:012d}" for first in (0, 2, 4, 5)
    ]
    whole = work.read(0, 6)
    assert whole["row_id"].to_pylist() == list(range(6))
    assert whole["station"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert work.read(1, 5)["row_id"].to_pylist() == [1, 2, 3, 4]  # across three files


def test_a_list_may_name_an_entry_twice_and_stays_the_same_when_read_again(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert extend(WorkList(folder, OWN), source(1, 1, 2)) == (3, 0)
    assert extend(WorkList(folder, OWN), source(1, 1, 2)) == (0, 3)
    assert extend(WorkList(folder, OWN), source(2, 1, 1, 1)) == (1, 3)


def test_objects_without_a_field_are_kept_as_text(tmp_path: Path) -> None:
    rows = ['{"uri": "a.wav", "meta": {}, "deep": {"in": {}, "n": 1}}', '{"uri": "b.wav", "deep": {"n": 2}}']
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    given = open_input(str(tmp_path / "list.jsonl"))
    extend(WorkList(str(tmp_path / "work"), given.own_schema), given)
    kept = WorkList(str(tmp_path / "work")).read(0, 2).select(["meta", "deep"]).to_pylist()
    assert kept == [{"meta": "{}", "deep": {"in": "{}", "n": 1}}, {"meta": None, "deep": {"in": None, "n": 2}}]
    again = open_input(str(tmp_path / "list.jsonl"))
    assert extend(WorkList(str(tmp_path / "work"), again.own_schema), again) == (0, 2)


def test_another_question_is_another_row(tmp_path: Path) -> None:
    folder = str(tmp_path)
    extend(WorkList(folder, OWN), source(1), task="caption")
    assert extend(WorkList(folder, OWN), source(1), task="cla_label") == (1, 0)


@pytest.mark.parametrize(
    ("before", "now", "frozen"),
    [
        (None, "x", "string"),  # no value yet: it may become anything
        (None, 7, "string"),
        (None, None, "string"),
        ("x", None, "string"),
        ([], ["a"], "list<element: string>"),
        (7, None, "int64"),
        (7.5, 7, "double"),
        (True, None, "bool"),
    ],
)
def test_a_column_keeps_its_type_whatever_comes_later(tmp_path: Path, before: Any, now: Any, frozen: str) -> None:
    def read(*values: Any) -> tuple[int, int]:
        rows = [{"uri": f"{index}.wav", "note": value} for index, value in enumerate(values)]
        (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        given = open_input(str(tmp_path / "list.jsonl"))
        return extend(WorkList(str(tmp_path / "work"), given.own_schema), given)

    assert read(before) == (1, 0)
    assert read(before, now) == (1, 1)
    assert read(before, now) == (0, 2)
    work = WorkList(str(tmp_path / "work"))
    assert str(work.schema.field("note").type) == frozen
    kept = work.read(0, 2)["note"].to_pylist()
    assert kept == ([before, str(now)] if isinstance(now, int) and frozen == "string" else [before, now])


@pytest.mark.parametrize(("before", "now"), [(7, "x"), (7, 7.5), (True, "x"), ("x", ["y"]), (7, [7])])
def test_a_column_of_another_type_is_refused_by_name(tmp_path: Path, before: Any, now: Any) -> None:
    for value in (before, now):
        (tmp_path / "list.jsonl").write_text(json.dumps({"uri": "a.wav", "note": value}))
        given = open_input(str(tmp_path / "list.jsonl"))
        if value == before:
            extend(WorkList(str(tmp_path / "work"), given.own_schema), given)
    with pytest.raises(SettingsError, match=r"column `note` is .*, and was .*; .* or choose another OUTPUT"):
        WorkList(str(tmp_path / "work"), given.own_schema)


@pytest.mark.processes
def test_a_file_that_changes_after_the_scan_is_one_error_and_then_a_new_entry(tmp_path: Path) -> None:
    """Never the new sound under the old version."""

    def scanned() -> pa.Table:
        work = WorkList(str(tmp_path / "work"))
        extend(work, open_input(str(tmp_path / "sounds")))
        with_sound = DecodeStage(StageContext(work.folder), 8000, LimitSettings())
        return with_sound.load(work.read(0, work.total))

    (tmp_path / "sounds").mkdir()
    path = tmp_path / "sounds" / "a.wav"
    path.write_bytes(encode(melody(8000, 1.0), 8000, "wav"))
    assert scanned()["decoded_s"].to_pylist() == [1.0]
    path.write_bytes(encode(melody(8000, 2.0), 8000, "wav"))
    rows = scanned()
    assert rows["error_code"].to_pylist() == ["io_error", None]
    assert rows["error_message"].to_pylist() == ["was changed since it was listed; scan again", None]
    assert rows["decoded_s"].to_pylist() == [0.0, 2.0]
    assert len(set(rows["chunk_id"].to_pylist())) == 2


def test_other_own_columns_are_refused_with_their_names(tmp_path: Path) -> None:
    extend(WorkList(str(tmp_path), OWN), source(1))
    with pytest.raises(SettingsError, match="station"):
        WorkList(str(tmp_path), pa.schema([("city", pa.string())]))
