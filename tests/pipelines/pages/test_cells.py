from __future__ import annotations

import pytest

from pipelines.pages.cells import of_cell, plain_cell


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n=1", "＝1", "＠x"])
def test_what_a_spreadsheet_takes_for_a_formula_is_a_text(text: str) -> None:
    assert plain_cell(text) == f"'{text}"


def test_other_values_stay_as_they_are() -> None:
    for value in ("a dog = a dog", "", None, -1.5, 3, True, "Glöckchen", "two\nlines"):
        assert plain_cell(value) == value


def test_what_no_sheet_holds_is_replaced() -> None:
    assert plain_cell("a\x00b\x1f\ud800") == "a�b��"
    assert len(plain_cell("x" * 40_000)) == 32_767


@pytest.mark.parametrize("text", ["=1+1", "-a.wav", "'quoted", "'", "plain", " +x", "@you", "it's", ""])
def test_a_cell_is_read_as_it_was_before(text: str) -> None:
    assert of_cell(plain_cell(text)) == text


def test_what_is_no_text_is_read_as_it_is() -> None:
    assert [of_cell(value) for value in (None, 3, 0.5, True)] == [None, 3, 0.5, True]
