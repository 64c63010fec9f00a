"""Sets as data."""

from __future__ import annotations

import pytest

from mats_core.errors import SettingsError
from pipelines.corpus.definition import list_corpus_sets, load_corpus_set


@pytest.mark.parametrize("name", list_corpus_sets())
def test_every_set_is_named_after_its_file(name: str) -> None:
    assert load_corpus_set(name).name == name


def test_a_set_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(SettingsError, match="esc50"):
        load_corpus_set("esc5O")
