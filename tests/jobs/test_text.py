"""What `mats embed-text` says at its end."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.text import print_embedded
from mats_core.memory.faiss_index import ROWS_A_CLUSTER, default_clusters
from pipelines.settings.text import BuildMemorySettings
from pipelines.text.embed_text import EmbedTextResult


def result(status: str, bad: int, new: int) -> EmbedTextResult:
    run: dict[str, Any] = {
        "problems": {"broken_line": bad}, "files": 2, "records": 9, "captions": 4, "bad": bad, "records_new": new,
        "records_per_s": 50.0, "wall_s": 3.0,
    }  # fmt: skip
    return EmbedTextResult(status, "ftp://user:TOPSECRET@host/out", run)


def test_what_was_read_and_what_could_not_be(capsys: pytest.CaptureFixture[str]) -> None:
    print_embedded(result("complete", bad=2, new=9))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "records 9 in 2 files",
        "unusable 2: broken_line 2; lines in _corpora.json",
        "captions 4 distinct",
        "time 3 s",
        "rate 50 records/s once started",
        "output ftp://host/out",
    ]


def test_a_run_that_had_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    print_embedded(result("complete_before", bad=0, new=0))
    assert capsys.readouterr().out == "done already: 4 captions in ftp://host/out\n"


def test_the_help_says_how_many_clusters_a_small_memory_has() -> None:
    told = BuildMemorySettings.model_fields["clusters"].description or ""
    assert f"√rows, but at least {ROWS_A_CLUSTER} rows each" in told and default_clusters(64) == 1
