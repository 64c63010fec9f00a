from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mats_core.errors import SettingsError
from pipelines.data import generations
from pipelines.output.folder import open_output
from pipelines.search import build
from pipelines.search.build import Found, bring_up
from pipelines.search.index import Index
from pipelines.search.shards import Source, centred
from tests.pipelines.search.made_up import WINDOW_S, chunk_rows, unit_vectors, windows_of, write_run


def _up(run: Path) -> Found:
    return bring_up(str(run), Source(str(run / "embeddings"), "embeddings", WINDOW_S))


def _files(run: Path) -> set[str]:
    return {path.name for path in (run / "_state" / "index").iterdir()}


def _rows(run: Path) -> set[int]:
    return set(Index(str(run), _up(run).standing).rows["row_id"].to_pylist())


def test_a_continued_run_adds_what_came_and_no_more_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_room", lambda standing: 8)
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(8)), first=0))
    first = _up(run).standing
    assert (first.trained_on, len(first.shards)) == (8, 1)
    again = _up(run).standing
    assert again == first
    write_run(run, chunk_rows(windows_of(unit_vectors(8, seed=1)), first=4))
    second = _up(run).standing
    assert second.shards[0] == first.shards[0] and len(second.shards) == 2  # the first is not touched
    assert _rows(run) == set(range(8))


def test_a_shard_that_is_not_full_is_filled_anew(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(8)), first=0))
    _up(run)
    write_run(run, chunk_rows(windows_of(unit_vectors(8, seed=1)), first=4))
    standing = _up(run).standing
    assert [len(shard.parts) for shard in standing.shards] == [2]
    ends = {f"{standing.shards[0].name}.{end}" for end in ("faiss", "arrow")}
    assert _files(run) == {standing.start, *ends}  # what is out of date is removed


def test_parts_that_are_gone_go_from_the_index_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_room", lambda standing: 4)
    parts = [chunk_rows(windows_of(unit_vectors(4, seed=seed)), first=2 * seed) for seed in range(3)]
    run = write_run(tmp_path / "run", *parts)
    assert _rows(run) == {0, 1, 2, 3, 4, 5}
    gone = sorted((run / "embeddings").iterdir())[1]
    with open_output(str(run), {"job": "embed-audio"}, results="embeddings") as out:  # as --retry-errors does
        out.drop({f"embeddings/{gone.name}": str(gone)})
    assert _rows(run) == {0, 1, 4, 5}


def test_a_run_that_grew_much_gets_new_clusters(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(40)), first=0))
    assert _up(run).standing.clusters == 1
    write_run(run, chunk_rows(windows_of(unit_vectors(400, seed=1)), first=20))
    grown = _up(run).standing
    assert grown.trained_on == 440 and grown.clusters == 11


def test_overwrite_begins_without_an_index(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(8))))
    _up(run)
    with open_output(str(run), {"job": "embed-audio"}, results="embeddings", overwrite=True):
        pass
    assert generations.told(str(run), "_index.json") is None
    assert not (run / "_state" / "index").exists() and not (run / "_index.json").exists()


def test_a_run_that_another_holds_is_searched_as_it_stands_and_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(8)), first=0))
    _up(run)
    with open_output(str(run), {"job": "embed-audio"}, results="embeddings") as out:
        late = f"embeddings/part-000000000004-{out.run_id}-00000.parquet"
        out.put_table(late, chunk_rows(windows_of(unit_vectors(4, seed=2)), first=4))
        found = _up(run)
        assert found.lacking == (late.removeprefix("embeddings/"),) and "another run" in found.why
        assert Index(str(run), found.standing).windows == 8
    assert _up(run).lacking == () and _rows(run) == {0, 1, 2, 3, 4, 5}


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(8))))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build._Build, "_settle", killed)
        with pytest.raises(KeyboardInterrupt):
            _up(run)
    left = _files(run)
    assert len(left) == 3  # the clusters and a shard
    assert _files(run) == left and _up(run).standing.shards[0].windows == 8  # what was told of is not made again
    with open_output(str(run), None, written=()) as out:
        out.put(f"_state/index/part-0-{out.run_id}.faiss", lambda uri: Path(uri).write_bytes(b""))  # killed before that
    write_run(run, chunk_rows(windows_of(unit_vectors(2, seed=1)), first=4))
    assert _rows(run) == {0, 1, 2, 3, 4} and not any(name.startswith("part-0-") for name in _files(run))


def test_no_sound_at_all_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", chunk_rows([unit_vectors(0)]))
    with pytest.raises(SettingsError, match="no window of a sound"):
        _up(run)


def test_the_mean_of_all_sounds_is_taken_out(tmp_path: Path) -> None:
    vectors = unit_vectors(60)
    run = write_run(tmp_path / "run", chunk_rows(windows_of(vectors)))
    index = Index(str(run), _up(run).standing)
    np.testing.assert_allclose(index.mean, vectors.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(index.vectors(np.arange(60)), centred(vectors, vectors.mean(axis=0)), atol=2e-3)


@pytest.mark.processes
def test_the_shards_of_a_ray_are_those_built_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [chunk_rows(windows_of(unit_vectors(40, seed=seed)), first=20 * seed) for seed in range(3)]
    runs = [write_run(tmp_path / name, *parts) for name in ("here", "ray")]
    vectors = []
    for run, most in zip(runs, (build.HERE_BYTES, 0), strict=True):
        monkeypatch.setattr(build, "HERE_BYTES", most)
        vectors.append(Index(str(run), _up(run).standing).vectors(np.arange(120)))
    np.testing.assert_array_equal(*vectors)
