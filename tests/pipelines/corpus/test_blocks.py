"""Blocks of clips: how a set is cut, and what their parts are called."""

from __future__ import annotations

import pytest

from pipelines.corpus.blocks import BLOCK_RECORDS, clips_a_block, number_of_part, part_name
from pipelines.corpus.definition import list_corpus_sets, load_corpus_set


@pytest.mark.parametrize("name", list_corpus_sets())
def test_a_block_makes_about_as_many_records_of_any_set(name: str) -> None:
    """Clips of which many records are made come in smaller blocks."""
    definition = load_corpus_set(name)
    assert clips_a_block(name) * definition.records / definition.clips == pytest.approx(BLOCK_RECORDS, rel=0.01)


def test_the_name_of_a_part_tells_its_block() -> None:
    assert part_name(12, "abc") == "part-00012-abc.parquet"
    assert number_of_part("part-00012-abc.parquet") == 12 and number_of_part(part_name(7)) == 7
    assert number_of_part("part-x.parquet") is None
