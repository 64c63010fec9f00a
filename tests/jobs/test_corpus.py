"""`mats corpus --list` and what a run tells at its end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.text import app, print_corpus
from pipelines.corpus.definition import list_corpus_sets, load_corpus_set
from pipelines.corpus.reading import Tally
from pipelines.corpus.run import CorpusResult
from tests.pipelines.corpus.published import write

run = CliRunner()


def test_the_list_tells_of_every_set_what_one_must_know() -> None:
    told = run.invoke(app, ["corpus", "--list"])
    assert told.exit_code == 0
    for definition in map(load_corpus_set, list_corpus_sets()):
        assert f"{definition.name}: {definition.title}, {definition.counted('records')}\n" in told.output
        for words in (definition.source, definition.licence, definition.split, definition.note):
            assert words in told.output


def test_the_list_tells_which_counts_are_near() -> None:
    told = run.invoke(app, ["corpus", "openaqa", "openmic", "audiocaps", "--list"]).output
    assert ", about 3,700,000 records\n" in told and ": about 3,700,000 clips, questions" in told
    assert ", about 14,915 records\n" in told and ": 14,915 clips, labels" in told
    assert ", 49,838 records\n" in told and ": 49,838 clips, captions" in told


def test_the_list_tells_what_is_there(tmp_path: Path) -> None:
    root = write(tmp_path, {"audiocaps/train.csv": ""})
    told = run.invoke(app, ["corpus", "audiocaps", "vggsound", "--list", "--data", root]).output
    assert "here     ready" in told and "here     no folder vggsound/. Get it: https://www.robots" in told
    assert "esc50" not in told


def test_a_wrong_name_ends_with_code_2() -> None:
    told = run.invoke(app, ["corpus", "esc5O", "--data", "x", "--out", "y"])
    assert told.exit_code == 2 and "choose one of audiocaps," in told.stderr


def test_what_was_left_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally(10, 6, 12, Counter(clotho_v2=2, esc50=1), empty=1)
    print_corpus(CorpusResult("dry_run", "", {"fsd50k": tally}, {"fsd50k": ["urbansound8k"]}))
    told = " ".join(capsys.readouterr().out.split())
    assert "12 records of 6 clips; left out: 2 that clotho_v2 asks, 1 that esc50 asks, 1 without labels" in told
    assert "not compared with urbansound8k" in told
