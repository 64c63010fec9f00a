"""The formats of a corpus, record by record with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mats_core.errors import SettingsError
from pipelines.data import json_stream
from pipelines.data.corpus import FileReport, check_error_rate, read_corpus


def read(path: Path, **options: Any) -> tuple[list[dict[str, str]], FileReport]:
    report = FileReport(str(path))
    return list(read_corpus(str(path), report, **options)), report


def test_csv_tells_the_line_a_record_begins_in(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_bytes(b'caption,output\n"two\nlines",x\na,b,c\n,x\ncaf\xe9,x\nlast,x\n')
    records, report = read(path)
    assert [record["caption"] for record in records] == ["two lines", "last"]
    assert [(each["line"], each["code"]) for each in report.lines] == [
        (4, "broken_line"),
        (5, "missing_caption"),
        (6, "not_text"),
    ]


def test_csv_may_separate_its_fields_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text(" caption ; output\nRain, and wind;yes\n")
    assert [(record["caption"], record["output"]) for record in read(path)[0]] == [("Rain, and wind", "yes")]


def test_a_stray_quote_in_csv_counts_for_every_line_it_swallows(tmp_path: Path) -> None:
    lines = [f"caption {n},out {n}" for n in range(1, 1001)]
    lines[499] = '"' + lines[499]
    path = tmp_path / "some.csv"
    path.write_text("\n".join(["caption,output", *lines]))
    records, report = read(path)
    assert (len(records), report.records, report.bad) == (499, 1000, 501)
    assert [each["line"] for each in report.lines] == list(range(501, 1002))
    assert report.lines[1]["detail"] == "inside the row that begins in line 501"
    with pytest.raises(SettingsError, match=r"501 of 1000 .* first in line 501: broken_line"):
        check_error_rate([report], 0.01)

    lines[700] += '"'  # closed by another one: the row has too few fields
    path.write_text("\n".join(["caption,output", *lines]))
    assert (read(path)[1].records, read(path)[1].bad) == (1000, 202)

    path.write_text("\n".join(["caption", *(line.partition(",")[0] for line in lines[:700]), 'end"', "last"]))
    records, report = read(path, complete=False)  # one column: nothing but its length tells such a row
    assert (records[-1]["caption"], report.records, report.bad) == ("last", 702, 202)


def test_a_cell_of_many_lines_is_read(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text('caption,output\na,"' + "\n".join("line" for _ in range(100)) + '"\nb,x\n')
    records, report = read(path)
    assert [record["caption"] for record in records] == ["a", "b"]
    assert records[0]["output"].count("\n") == 99
    assert report.bad == 0


def test_a_json_list_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that straddle the pieces, numbers among them, and their lines."""
    path = tmp_path / "some.json"
    records = [{"caption": f"caption {n} \u00e9", "output": "x" * (n % 7), "n": n} for n in range(2000)]
    path.write_text("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n, 12345]")
    monkeypatch.setattr(json_stream, "PIECE", 37)
    found, report = read(path)
    assert [record["caption"] for record in found] == [r["caption"] for r in records if r["output"]]
    assert report.problems == {"missing_output": 286, "not_an_object": 1}
    assert report.lines[0]["line"] == 2  # record 0 is in the second line
    assert report.lines[-1] == {"line": 2002, "code": "not_an_object", "detail": "int"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("12", "begins with"),
        ('{"data": []}', 'no list "annotation"'),
        ('[{"caption": "a"},\n{"caption" "b"}]', "line 2"),
        ('[{"caption": "a"},\n{"cap', "line 2"),
        ('[{"caption": "a"}\n{"caption": "b"}]', "line 2: expected"),
        ('[{"caption": "a"},\n]', "line 2: a comma before"),
        ('[{"caption": "a"}]\n garbage', "line 2: 'g' after the end"),
        ('[{"caption": "a"}]\n[{"caption": "b"}]', "line 2: '\\[' after the end"),
        ('{"annotation": [{"caption": "a"}]\n', "line 2: it ends where ',' should come"),
        ('{"annotation": [{"caption": "a"}],\n"annotation": []}', 'line 2: .*a second "annotation"'),
        ('{"annotation": [{"caption": "a"}], "more": 1}\n}', "line 2: '}' after the end"),
        ("{1: []}", "expected a name, found 1"),
    ],
)
def test_a_broken_json_list_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said) as refused:
        read(path)
    assert str(path) in str(refused.value)
