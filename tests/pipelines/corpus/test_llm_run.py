"""`mats corpus --writer MODEL` on a Ray: every record once, the same whatever the workers, and who wrote what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.cluster.progress import Progress
from pipelines.corpus import blocks
from pipelines.corpus.run import CorpusResult, run_corpus
from pipelines.settings.corpus import CorpusSettings
from tests.pipelines.corpus.published import write
from tests.tiny import make_chain_llm, make_tiny_llm

CLIPS = 120


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Clips of ESC-50, every other one a dog: three parts where an LLM writes."""
    rows = [f"1-{n}-A-0.wav,1,0,{'dog' if n % 2 else 'rain'},True,{n},A\n" for n in range(CLIPS)]
    table = f"filename,fold,target,category,esc10,src_file,take\n{''.join(rows)}"
    return write(tmp_path_factory.mktemp("published"), {"esc50/meta/esc50.csv": table})


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An LLM that writes "A dog is heard." whatever it is asked."""
    return str(make_chain_llm(tmp_path_factory.mktemp("llm"), "a dog in this clip ."))


def run(root: str, out: Path, llm: str, progress: Any = None, **changes: Any) -> CorpusResult:
    settings = CorpusSettings(names=["esc50"], data=root, out=str(out), writer=llm, device="cpu", **changes)
    return run_corpus(settings, progress)


def rows_of(out: Path) -> list[dict[str, str]]:
    parts = sorted((out / "records" / "esc50").glob("*.parquet"), key=lambda path: path.name)
    return [row for path in parts for row in pq.read_table(path).to_pylist()]


def test_an_llm_writes_what_it_can_and_templates_the_rest(root: str, llm: str, shared_ray: str, tmp_path: Path) -> None:
    whole = run(root, tmp_path / "whole", llm, workers=2)
    rows = rows_of(tmp_path / "whole")
    assert whole.status == "complete" and len(rows) == CLIPS * 14 == len({row["id"] for row in rows})
    told = json.loads((tmp_path / "whole" / "_corpus.json").read_text())["sets"]["esc50"]
    dogs = [row for row in rows if row["written_by"] == "llm"]
    assert told["written_by"]["llm"] == len(dogs) > 500
    assert {row["caption"] for row in dogs} == {"A dog in this clip."}
    assert told["written_by"]["template: names not all"] > 500 and sum(told["written_by"].values()) == len(rows)
    assert len(list((tmp_path / "whole" / "records" / "esc50").iterdir())) == 4

    stopped = tmp_path / "stopped"

    def stop(progress: Progress) -> None:
        if progress.stage == "run" and progress.done:
            raise KeyboardInterrupt

    assert run(root, stopped, llm, stop, workers=1).status == "interrupted"
    assert 0 < len(rows_of(stopped)) < len(rows)
    assert run(root, stopped, llm, workers=1).status == "complete"
    assert rows_of(stopped) == rows

    with pytest.raises(SettingsError, match="writer"):
        run(root, stopped, str(make_tiny_llm(tmp_path / "other")), workers=1)


def test_what_is_no_llm_is_refused_before_anything_is_written(root: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        run(root, tmp_path / "out", str(tmp_path / "nothing"))
    assert refused.value.setting == "writer" and not (tmp_path / "out").exists()


def test_a_part_that_an_llm_writes_is_small() -> None:
    assert blocks.clips_a_block("esc50", blocks.LLM_BLOCK_RECORDS) * 14 == pytest.approx(512, rel=0.05)
