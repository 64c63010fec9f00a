"""Corpora in every format, and what of them cannot be used: counted by file, with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.data.corpus import FileReport, caption_id, check_error_rate, corpus_files, normalize_caption, read_corpus

RECORDS = [
    {"caption": "A dog barks.", "instruction": "", "output": "a dog", "task": "caption"},
    {"caption": "A  dog\tbarks. ", "instruction": "What is it?", "output": "a dog", "task": "audio_qa"},
    {"caption": "Cafe\u0301 noise", "output": "people", "task": "cla_label", "source": "mine", "tag": "[x]"},
]


def read(path: Path, **options: Any) -> tuple[list[dict[str, str]], FileReport]:
    report = FileReport(str(path))
    return list(read_corpus(str(path), report, **options)), report


def write(folder: Path, kind: str) -> Path:
    """RECORDS in one format."""
    path = folder / f"some.{kind.split('-')[0]}"
    if kind == "json-list":
        path.write_text(json.dumps(RECORDS, indent=2))
    elif kind == "json-annotation":
        path.write_text(json.dumps({"info": {"annotation": 1}, "annotation": RECORDS, "more": [1]}))
    elif kind == "jsonl":
        path.write_text("\ufeff" + "\n\n".join(json.dumps(record) for record in RECORDS))
    elif kind == "csv":
        names = ("caption", "instruction", "output", "task", "source", "tag")
        rows = [",".join(f'"{record.get(name, "")}"' for name in names) for record in RECORDS]
        path.write_text("\n".join([",".join(names), *rows]))
    else:
        names = ("caption", "instruction", "output", "task", "source", "tag")
        pq.write_table(pa.table({name: [record.get(name) for record in RECORDS] for name in names}), path)
    return path


@pytest.mark.parametrize("kind", ["json-list", "json-annotation", "jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_records(tmp_path: Path, kind: str) -> None:
    records, report = read(write(tmp_path, kind))
    assert (report.records, report.bad) == (3, 0)
    dog, question, noise = sorted(
        records, key=lambda record: ("caption", "audio_qa", "cla_label").index(record["task"])
    )
    assert dog["caption"] == question["caption"] == "A dog barks."
    assert dog["caption_id"] == question["caption_id"] != noise["caption_id"]
    assert (question["instruction"], question["output"], question["source"]) == ("What is it?", "a dog", "some")
    assert (noise["caption"], noise["source"], noise["tag"]) == ("Caf\u00e9 noise", "mine", "[x]")


def test_a_caption_is_its_normal_form() -> None:
    assert normalize_caption("  Cafe\u0301 \n noise\u00a0here ") == "Caf\u00e9 noise here"
    assert caption_id(" a  b") == caption_id("a b") != caption_id("A b")
    assert len(caption_id("x")) == 32


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_the_captions_of_a_long_sound_are_a_line_each(tmp_path: Path, kind: str) -> None:
    """In any format that has lists; they are another caption than the same words in one line, or in another order."""
    windows = [[" A dog\n barks. ", "Rain falls.", "  "], ["A dog barks. Rain falls."], ["Rain falls.", "A dog barks."]]
    rows = [{"caption": each, "output": "a dog in the rain"} for each in windows]
    path = tmp_path / f"some.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    records, report = read(path)
    assert [each["caption"] for each in records] == [
        "A dog barks.\nRain falls.", "A dog barks. Rain falls.", "Rain falls.\nA dog barks."
    ]  # fmt: skip
    assert report.bad == 0 and len({each["caption_id"] for each in records}) == 3
    assert records[1]["caption_id"] == caption_id("A dog barks. Rain falls.")


@pytest.mark.parametrize("name", ["instruction", "tag"])
def test_the_place_of_the_sound_is_the_prompts_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps({"caption": "a dog", "output": "y", name: "is <SpeechHere> it?"}))
    records, report = read(tmp_path / "bad.jsonl")
    assert records == [] and report.problems == {"reserved_text": 1}


def test_a_list_that_holds_no_text_is_a_bad_record(tmp_path: Path) -> None:
    captions: list[Any] = [[], [" "], ["a dog", 3], ["a dog", None], ["a", "\ud800"], {"a": "dog"}]
    (tmp_path / "bad.jsonl").write_text("\n".join(json.dumps({"caption": each, "output": "y"}) for each in captions))
    records, report = read(tmp_path / "bad.jsonl")
    codes = ["missing_caption"] * 2 + ["wrong_type"] * 2 + ["not_text", "wrong_type"]
    assert records == [] and [each["code"] for each in report.lines] == codes


def test_bad_lines_are_counted_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    good = {"caption": "x", "output": "y"}
    lines: list[Any] = [
        json.dumps({**good, "id": 7}),
        "{not json",
        "3",
        json.dumps({"output": "y"}),
        json.dumps({"caption": " \t", "output": "y"}),
        json.dumps({"caption": "x"}),
        json.dumps({**good, "task": "sing"}),
        json.dumps({**good, "task": "audio_qa"}),
        json.dumps({**good, "output": ["a", "b"]}),
        json.dumps({**good, "id": 7}),
        '{"caption": "\\ud800", "output": "y"}',
        json.dumps({**good, "id": 8}),
    ]
    path.write_bytes(b"\n".join(line.encode() for line in lines) + b'\n{"caption": "\xff", "output": "y"}\n')
    records, report = read(path)
    assert len(records) == 2
    assert (report.records, report.bad) == (13, 11)
    assert [(each["line"], each["code"]) for each in report.lines] == [
        (2, "broken_line"),
        (3, "not_an_object"),
        (4, "missing_caption"),
        (5, "missing_caption"),
        (6, "missing_output"),
        (7, "unknown_task"),
        (8, "missing_instruction"),
        (9, "wrong_type"),
        (10, "duplicate_id"),
        (11, "not_text"),
        (13, "not_text"),
    ]
    assert report.as_dict()["problems"]["missing_caption"] == 2
    captions_only, report = read(path, complete=False)
    assert len(captions_only) == 4  # lines 6 and 8 have a caption and say nothing of an output or a question
    assert {each["line"] for each in report.lines} == {2, 3, 4, 5, 7, 9, 10, 11, 13}


def test_ids_are_compared_as_text_within_a_file(tmp_path: Path) -> None:
    for name in ("one.jsonl", "two.jsonl"):
        lines = [{"caption": "x", "output": "y", "id": 1}, {"caption": "x", "output": "y", "id": "1"}]
        (tmp_path / name).write_text("\n".join(map(json.dumps, lines)))
        records, report = read(tmp_path / name)
        assert (len(records), report.problems) == (1, {"duplicate_id": 1})


def test_parquet_columns_of_other_types_are_bad_records(tmp_path: Path) -> None:
    pq.write_table(pa.table({"caption": ["a", "b"], "output": [1, None]}), tmp_path / "some.parquet")
    _, report = read(tmp_path / "some.parquet")
    assert [(each["line"], each["code"]) for each in report.lines] == [(1, "wrong_type"), (2, "missing_output")]


def test_column_mapping_and_default_task(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text("text,answer,id\nA dog,yes,1\nA cat,no,1\n")
    names = {"caption": "text", "output": "answer"}
    records, _ = read(path, columns={**names, "id": ""}, task="cla_label")
    assert [(r["caption"], r["output"], r["task"]) for r in records] == [
        ("A dog", "yes", "cla_label"),
        ("A cat", "no", "cla_label"),
    ]
    assert read(path, columns=names)[1].problems == {"duplicate_id": 1}
    with pytest.raises(
        SettingsError, match=r"no column `caption`, but text, answer, id; .* --columns caption=NAME, or in YAML"
    ):
        read(path)
    with pytest.raises(SettingsError, match="our fields are"):
        read(path, columns={"cap": "text"})


def test_files_of_folders_globs_and_names(tmp_path: Path) -> None:
    for name in ("a.json", "b/c.jsonl", "b/_corpora.json", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("[]")
    assert [f.path for f in corpus_files(str(tmp_path))] == ["a.json", "b/c.jsonl"]
    assert len(corpus_files([str(tmp_path), str(tmp_path / "a.json"), f"{tmp_path}/*.json"])) == 2
    for wrong in ("notes.txt", "nowhere.json", "*.csv"):
        with pytest.raises(SettingsError, match="corpora"):
            corpus_files(str(tmp_path / wrong), "corpora")


def test_memory_urls_are_read_too() -> None:
    from mats_core import storage

    storage.write_bytes("memory://corpus-test/some.jsonl", json.dumps(RECORDS[0]).encode())
    (info,) = corpus_files("memory://corpus-test")
    report = FileReport(info.uri)
    assert next(read_corpus(info.uri, report))["source"] == "some"


def test_too_many_bad_records_name_the_worst_file() -> None:
    fine, bad = FileReport("fine.jsonl", records=97), FileReport("bad.jsonl", records=3)
    bad.add(2, "missing_caption", "it has output")
    check_error_rate([fine, bad], 0.01)
    bad.add(3, "broken_line")
    with pytest.raises(
        SettingsError, match=r"2 of 100 .*bad.jsonl, first in line 2: missing_caption \(it has output\)"
    ):
        check_error_rate([fine, bad], 0.01)


def test_the_columns_of_a_csv_without_captions_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text("Caption;Output\nA dog;yes\n")
    with pytest.raises(SettingsError, match="no column `caption`, but Caption, Output;"):
        read(path)
