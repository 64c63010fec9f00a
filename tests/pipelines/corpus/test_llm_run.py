"""`mats corpus --writer MODEL` on a Ray: every record once, the same whatever the workers, and who wrote what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.cluster.progress import Progress
from pipelines.corpus import blocks
from pipelines.corpus.reading import find_asked
from pipelines.corpus.run import CorpusResult, run_corpus
from pipelines.settings.corpus import CorpusSettings
from tests.pipelines.corpus.published import write
from tests.tiny import make_chain_llm, make_tiny_llm

CLIPS = 80


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Clips of ESC-50, every other one a dog: three parts where an LLM writes."""
    return published(tmp_path_factory.mktemp("published"), CLIPS)


def published(folder: Path, clips: int) -> str:
    rows = [f"1-{n}-A-0.wav,1,0,{'dog' if n % 2 else 'rain'},True,{n},A\n" for n in range(clips)]
    table = f"filename,fold,target,category,esc10,src_file,take\n{''.join(rows)}"
    return write(folder, {"esc50/meta/esc50.csv": table})


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


@pytest.mark.long
def test_an_llm_writes_what_it_can_and_templates_the_rest(root: str, llm: str, shared_ray: str, tmp_path: Path) -> None:
    whole = run(root, tmp_path / "whole", llm, workers=2)
    rows = rows_of(tmp_path / "whole")
    assert whole.status == "complete" and len(rows) == CLIPS * 14 == len({row["id"] for row in rows})
    told = json.loads((tmp_path / "whole" / "_corpus.json").read_text())["sets"]["esc50"]
    dogs = [row for row in rows if row["written_by"] == "llm"]
    assert told["written_by"]["llm"] == len(dogs) > 300
    assert {row["caption"] for row in dogs} == {"A dog in this clip."}
    assert told["written_by"]["template: names not all"] > 300 and sum(told["written_by"].values()) == len(rows)
    assert len(list((tmp_path / "whole" / "records" / "esc50").iterdir())) == 3

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


def test_a_block_is_the_same_whoever_writes_it_and_tells_who_wrote(llm: str, tmp_path: Path) -> None:
    """Without Ray: one actor writes all blocks, two write them the other way round."""
    root = published(tmp_path / "published", 6)
    tables = list(blocks.read_sets(pa.table({"set": ["esc50"]}), root, find_asked(root), {}, records=28))
    assert len(tables) == 3

    def written(out: Path, actors: int) -> list[dict[str, str]]:
        writers = [blocks.BlockWriter(llm, "cpu", str(out), 0, "") for _ in range(actors)]
        order = tables[::-1] if actors > 1 else tables
        found = [writers[at % actors](table).to_pylist()[0] for at, table in enumerate(order)]
        assert sum(row["records"] for row in found) == 6 * 14 and {row["set"] for row in found} == {"esc50"}
        return rows_of(out)

    rows = written(tmp_path / "one", 1)
    assert rows == written(tmp_path / "two", 2)
    parts = [str(path) for path in sorted((tmp_path / "one" / "records" / "esc50").iterdir())]
    by = blocks.written_by(parts)
    assert by["llm"] > 20 and by["template: names not all"] > 20 and sum(by.values()) == len(rows)
    threes = blocks.variety(parts[0])
    assert 0 < threes["distinct"] < threes["of"]


def test_an_llm_that_cannot_be_loaded_is_told_of_by_the_first_block(tmp_path: Path) -> None:
    writer = blocks.BlockWriter(str(tmp_path / "nothing"), "cpu", str(tmp_path), 0, "")
    with pytest.raises(SettingsError):
        writer(pa.table({"set": ["esc50"]}))


def test_what_is_no_llm_is_refused_before_anything_is_written(root: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        run(root, tmp_path / "out", str(tmp_path / "nothing"))
    assert refused.value.setting == "writer" and not (tmp_path / "out").exists()


def test_a_part_that_an_llm_writes_is_small() -> None:
    assert blocks.clips_a_block("esc50", blocks.LLM_BLOCK_RECORDS) * 14 == pytest.approx(512, rel=0.05)
