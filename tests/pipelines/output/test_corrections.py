from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.output.corrections import (
    ADDED,
    Conflict,
    Corrections,
    copy_corrections,
    corrected,
    corrected_records,
    read_corrections,
)


def row(row_id: int = 3, **facts: Any) -> dict[str, Any]:
    """A row of answers."""
    base = {"row_id": row_id, "chunk_id": f"c{row_id}", "uri": f"/a/{row_id}.wav", "start_s": 0.0, "decoded_s": 5.0,
            "task": "caption", "question": None, "text": "A dog.", "run_id": "r", "model_fingerprint": "m"}  # fmt: skip
    return base | facts


def test_each_is_a_file_and_the_newest_counts(tmp_path: Path) -> None:
    said = Corrections(str(tmp_path))
    said.correct(row(), 0, "Ann", {"mark": "wrong"})
    said.correct(row(), 1, "Bob", {"text": "  A cat.\x00 ", "labels": ["cat", "cat", " "]})
    files = sorted(path.name for path in (tmp_path / "corrections").iterdir())
    assert files == ["000000000003-000001.parquet", "000000000003-000002.parquet"]
    (stored,) = pq.read_table(tmp_path / "corrections" / files[1]).to_pylist()
    told = ("version", "text", "labels", "mark", "by", "answer", "uri", "duration_s", "run_id")
    assert [stored[name] for name in told] == [2, "A cat.", ["cat"], None, "Bob", "A dog.", "/a/3.wav", 5.0, "r"]
    again = Corrections(str(tmp_path))
    newest = again.newest(3)
    assert newest is not None and (newest.text, newest.mark, newest.by) == ("A cat.", None, "Bob")
    assert [each.by for each in again.history(3)] == ["Ann", "Bob"]
    assert again.newest(4) is None and list(again.standing()) == [3]


def test_undo_goes_back_step_by_step_and_is_kept(tmp_path: Path) -> None:
    said = Corrections(str(tmp_path))
    said.correct(row(), 0, "Ann", {"text": "One."})
    said.correct(row(), 1, "Ann", {"text": "Two."})
    assert said.undo(row(), 2, "Bob").text == "One."
    assert said.undo(row(), 3, "Bob").text is None
    assert said.standing() == {} and len(said.history(3)) == 4
    with pytest.raises(ValueError, match="nothing to undo"):
        said.undo(row(), 4, "Bob")
    said.correct(row(), 4, "Ann", {"mark": "right"})
    assert said.undo(row(), 5, "Ann").mark is None


def test_the_runs_own_text_is_no_correction(tmp_path: Path) -> None:
    said = Corrections(str(tmp_path))
    assert said.correct(row(), 0, "Ann", {"text": "A dog.", "mark": "right"}).text is None


@pytest.mark.parametrize(
    ("by", "change", "why"),
    [
        ("", {"mark": "right"}, "who says it"),
        ("Ann", {"mark": "maybe"}, "right, wrong"),
        ("Ann", {"text": "x" * 10_001}, "10000 characters"),
        ("Ann", {"labels": ["x"] * 3 + [f"{n}" for n in range(60)]}, "50 labels"),
        ("Ann", {"labels": [3]}, "a label is text"),
        ("Ann", {"uri": "/etc/passwd"}, "uri"),
    ],
)
def test_what_nobody_can_say_is_refused(tmp_path: Path, by: str, change: dict[str, Any], why: str) -> None:
    said = Corrections(str(tmp_path))
    with pytest.raises(ValueError, match=why):
        said.correct(row(), 0, by, change)
    assert not (tmp_path / "corrections").exists()


def test_of_two_who_saw_the_same_one_is_told(tmp_path: Path) -> None:
    ann, bob = Corrections(str(tmp_path)), Corrections(str(tmp_path))
    ann.correct(row(), 0, "Ann", {"text": "A cat."})
    with pytest.raises(Conflict) as told:
        bob.correct(row(), 0, "Bob", {"text": "A cow."})
    assert told.value.now is not None and told.value.now.text == "A cat."
    assert bob.correct(row(), 1, "Bob", {"text": "A cow."}).version == 2
    with pytest.raises(Conflict):
        ann.undo(row(), 1, "Ann")
    assert ann.refresh() == [] and ann.newest(3).text == "A cow."  # type: ignore[union-attr]


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    """Eight writers of a row, each with a reader of its own, until each has written: versions 1 to 8, none twice."""

    def write(number: int) -> int:
        said = Corrections(str(tmp_path))
        while True:
            now = said.newest(3)
            try:
                return said.correct(row(), now.version if now else 0, f"w{number}", {"text": f"{number}"}).version
            except Conflict:
                said.refresh()

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(write, range(8))) == list(range(1, 9))
    assert {each.by for each in Corrections(str(tmp_path)).history(3)} == {f"w{number}" for number in range(8)}


@pytest.mark.processes
def test_two_processes_write_at_once(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from pipelines.output.corrections import Conflict, Corrections
        from tests.pipelines.output.test_corrections import row
        said, done, lost = Corrections(sys.argv[1]), 0, 0
        print("ready", flush=True)
        sys.stdin.readline()
        while done < 20:
            now = said.newest(3)
            try:
                said.correct(row(), now.version if now else 0, sys.argv[2], {"text": f"{sys.argv[2]}{done}"})
                done += 1
            except Conflict:
                lost += 1
                said.refresh()
        print(lost)
        """
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("ann", "bob")
    ]
    for each in both:
        assert each.stdout is not None and each.stdout.readline() == "ready\n"
    for each in both:
        each.stdin.write("\n")  # type: ignore[union-attr]
        each.stdin.flush()  # type: ignore[union-attr]
    assert [each.wait(60) for each in both] == [0, 0]
    history = Corrections(str(tmp_path)).history(3)
    assert [each.version for each in history] == list(range(1, 41))
    assert [each.by for each in history].count("ann") == 20


def test_rows_show_what_was_said_of_them_and_not_of_others(tmp_path: Path) -> None:
    said = Corrections(str(tmp_path))
    said.correct(row(3), 0, "Ann", {"text": "A cat.", "labels": ["cat"]})
    said.correct(row(4), 0, "Ann", {"mark": "right"})
    said.correct(row(5), 0, "Ann", {"text": "Never."})
    rows = [row(2), row(3), row(4), row(5, chunk_id="another sound")]
    found = corrected(pa.Table.from_pylist(rows), read_corrections(str(tmp_path))).to_pylist()
    assert [each["text"] for each in found] == ["A dog.", "A cat.", "A dog.", "A dog."]
    told = [
        [each[name] for name in ("corrected_from", "corrected_mark", "corrected_labels", "corrected_by")]
        for each in found
    ]
    assert told == [[None] * 4, ["A dog.", None, ["cat"], "Ann"], [None, "right", None, "Ann"], [None] * 4]
    assert found[1]["corrected_at"].endswith("Z") and found[0]["corrected_at"] is None
    elsewhere = corrected(pa.Table.from_pylist([row(2)]), read_corrections(str(tmp_path)))
    assert elsewhere.schema.names[-len(ADDED) :] == list(ADDED), "parts of a run have the same columns"
    assert elsewhere["text"].to_pylist() == ["A dog."] and elsewhere["corrected_by"].to_pylist() == [None]
    plain = pa.Table.from_pylist(rows)
    assert corrected(plain, {}) is plain and not set(ADDED) & set(plain.schema.names)


def test_another_question_at_the_same_row_is_not_corrected(tmp_path: Path) -> None:
    said = Corrections(str(tmp_path))
    said.correct(row(3, task="QA", question="Rain?", text="yes"), 0, "Ann", {"text": "no"})
    asked = pa.Table.from_pylist([row(3, task="QA", question="Wind?", text="yes")])
    assert corrected(asked, read_corrections(str(tmp_path)))["text"].to_pylist() == ["yes"]


def test_of_a_row_without_an_id_the_channel_counts_too_and_older_corrections_tell_none(tmp_path: Path) -> None:
    said = Corrections(str(tmp_path))
    left = row(chunk_id=None, only_channel=0)
    made = said.correct(left, 0, "Ann", {"mark": "right"})
    assert made.only_channel == 0 and made.belongs_to(left)
    assert not made.belongs_to({**left, "only_channel": None}) and not made.belongs_to({**left, "only_channel": 1})
    (file,) = (tmp_path / "corrections").iterdir()
    pq.write_table(pq.read_table(file).drop_columns(["only_channel"]), file)
    (older,) = read_corrections(str(tmp_path)).values()
    assert older == dataclasses.replace(made, only_channel=None)
    with_id = dataclasses.replace(older, chunk_id="c3")
    assert with_id.belongs_to({**left, "chunk_id": "c3"}) and not with_id.belongs_to({**left, "chunk_id": "c4"})


@pytest.mark.parametrize("channel", [0, 1, None])
def test_a_table_shows_what_was_said_of_its_channel(tmp_path: Path, channel: int | None) -> None:
    Corrections(str(tmp_path)).correct(row(chunk_id=None, only_channel=0), 0, "Ann", {"text": "A cat."})
    rows = pa.table({name: [value] for name, value in row(only_channel=channel).items()})
    told = corrected(rows, read_corrections(str(tmp_path)))["text"].to_pylist()
    assert told == ["A cat." if channel == 0 else "A dog."]


def test_a_mark_is_of_its_text_and_of_who_gave_it(tmp_path: Path) -> None:
    """What Ann called right, Bob replaced: he did not call his own text so. Labels of the sound stay."""
    said = Corrections(str(tmp_path))
    said.correct(row(), 0, "Ann", {"mark": "right", "labels": ["dog"]})
    made = said.correct(row(), 1, "Bob", {"text": "A zebra."})
    assert (made.text, made.mark, made.labels, made.by) == ("A zebra.", None, ["dog"], "Bob")
    assert said.correct(row(), 2, "Bob", {"mark": "right"}).mark == "right"
    assert said.correct(row(), 3, "Cy", {"labels": ["zebra"]}).mark == "right"
    assert said.correct(row(), 4, "Cy", {"text": "A horse.", "mark": "right"}).mark == "right"
    assert said.correct(row(), 5, "Di", {"text": "A dog."}).mark is None, "back to the run's own"
    assert said.undo(row(), 6, "Di").mark == "right"


def test_another_sound_in_the_same_row_starts_anew(tmp_path: Path) -> None:
    """--overwrite leaves corrections: row 3 may be another chunk, whose mark takes no text of the old one along."""
    said = Corrections(str(tmp_path))
    said.correct(row(), 0, "Ann", {"text": "A cat.", "labels": ["cat"]})
    other = row(chunk_id="other", uri="/a/other.wav", text="Rain.")
    with pytest.raises(ValueError, match="nothing to undo"):
        said.undo(other, 1, "Bob")
    with pytest.raises(Conflict):
        said.correct(other, 0, "Bob", {"mark": "right"})
    made = said.correct(other, 1, "Bob", {"mark": "right"})
    assert (made.text, made.labels, made.mark, made.chunk_id) == (None, None, "right", "other")
    assert [each.by for each in said.about(other)] == ["Bob"] and said.about(row()) == []
    assert [each["output"] for each in corrected_records(str(tmp_path))] == ["Rain."]
    back = said.undo(other, 2, "Bob")
    assert (back.text, back.mark) == (None, None)
    with pytest.raises(ValueError, match="nothing to undo"):
        said.undo(other, 3, "Bob")


def test_what_is_known_to_be_right_becomes_records(tmp_path: Path) -> None:
    said = Corrections(str(tmp_path))
    said.correct(row(1), 0, "Ann", {"text": "A cat."})
    said.correct(row(2), 0, "Ann", {"mark": "right"})
    said.correct(row(3), 0, "Ann", {"mark": "wrong"})
    asked = {"uri": "/a/1.wav", "chunk_id": "c1", "task": "QA", "question": "Is there a dog?", "text": "yes"}
    said.correct(row(4, **asked), 0, "Ann", {"text": "no", "mark": "wrong"})
    said.correct(row(5, **{**asked, "uri": "/b.wav"}), 0, "Ann", {"text": "no"})
    records = corrected_records(str(tmp_path))
    plain = [(each["caption"], each["task"], each["instruction"], each["output"]) for each in records]
    assert plain == [
        ("A cat.", "caption", "", "A cat."),
        ("A dog.", "caption", "", "A dog."),
        ("A cat.", "QA", "Is there a dog?", "no"),  # of the sound whose caption is known; the other is not
    ]


@pytest.mark.parametrize("other", [{"only_channel": 1}, {"decoded_s": 2.5}])
def test_a_caption_is_of_its_channel_and_of_its_stretch(tmp_path: Path, other: dict[str, Any]) -> None:
    """What it says of one of them is no caption of another that begins at the same moment of the file."""
    heard = {"uri": "/a.wav", "only_channel": 0}
    asked = {"task": "QA", "question": "Is there a dog?", "text": "yes"}
    said = Corrections(str(tmp_path))
    for number, facts in enumerate((heard, heard | asked, heard | asked | other)):
        said.correct(row(number, **facts), 0, "Ann", {"mark": "right"})
    told = [(each["caption"], each["task"]) for each in corrected_records(str(tmp_path))]
    assert told == [("A dog.", "caption"), ("A dog.", "QA")]


def test_what_was_said_goes_along_with_its_rows(tmp_path: Path) -> None:
    said = Corrections(str(tmp_path / "a"))
    said.correct(row(), 0, "Ann", {"text": "A cat."})
    assert copy_corrections(str(tmp_path / "a"), str(tmp_path / "b")) == 1
    said.correct(row(), 1, "Ann", {"mark": "right"})
    assert copy_corrections(str(tmp_path / "a"), str(tmp_path / "b")) == 1
    assert read_corrections(str(tmp_path / "b"))[3] == said.newest(3)
    assert copy_corrections(str(tmp_path / "none"), str(tmp_path / "b")) == 0


def test_a_damaged_file_is_named_and_what_is_no_correction_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "corrections").mkdir()
    (tmp_path / "corrections" / "notes.txt").write_text("mine")
    assert read_corrections(str(tmp_path)) == {}
    (tmp_path / "corrections" / "000000000001-000001.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(SettingsError, match=r"000000000001-000001.parquet is no whole correction"):
        read_corrections(str(tmp_path))
