"""Workers of embed-text and build-memory, without Ray: buckets, parts, a full disk, which rows are chosen."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.memory import faiss_index as ivf
from mats_core.memory.santa import SantaMemory
from mats_core.storage import StorageError
from pipelines.data.corpus import caption_id
from pipelines.data.embeddings import read_facts
from pipelines.settings.text import BuildMemorySettings
from pipelines.text.build_memory import _Builder, run_build_memory
from pipelines.text.caption_buckets import (
    Caption,
    EmbedBucket,
    TextSpec,
    bucket_of,
    bucket_of_part,
    distinct,
    embedding_table,
    part_name,
    read_corpora,
)
from pipelines.text.memory_shards import Choice, Piece, chosen, draws, fill_shard, read_piece, unit_rows


class Lengths:
    """An encoder whose vector says how long the text is; it remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def embed_text(self, texts: list[str]) -> torch.Tensor:
        self.batches.append(texts)
        return torch.tensor([[len(text) / 64, 1.0] for text in texts])


def rows_of(texts: list[str], source: str = "a") -> pa.Table:
    """Rows of one bucket, as the reading tasks send them."""
    columns = {"bucket": [3] * len(texts), "caption_id": [caption_id(text) for text in texts], "caption": texts}
    return pa.table({**columns, "sources": [[source]] * len(texts), "count": [1] * len(texts)})


def test_buckets_are_even_and_named_after_their_parts() -> None:
    counts = np.bincount([bucket_of(caption_id(str(n)), 8) for n in range(8000)], minlength=8)
    assert counts.min() > 880 and counts.max() < 1120  # 1000 on average, a deviation of 30
    assert bucket_of_part(part_name(12)) == 12


def test_a_bucket_is_sorted_by_length_for_the_encoder_and_by_id_in_its_part(tmp_path: Path) -> None:
    encoder = Lengths()
    texts = ["x" * length for length in (9, 2, 30, 4, 17)]
    stage = EmbedBucket(
        TextSpec(parts=str(tmp_path), encoder="", dim=2, batch_size=2, load=lambda uri, device: encoder)
    )
    told = stage(pa.concat_tables([rows_of(texts), rows_of(texts[:2], "b")])).to_pylist()[0]
    assert (told["bucket"], told["captions"], told["records"]) == (3, 5, 7)
    assert [[len(text) for text in batch] for batch in encoder.batches] == [[2, 4], [9, 17], [30]]
    table = pq.read_table(tmp_path / "part-00003.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 2)
    assert table["caption_id"].to_pylist() == sorted(caption_id(text) for text in texts)
    for row in table.to_pylist():
        assert row["embedding"][0] == len(row["caption"]) / 64
        assert (row["sources"], row["count"]) == ((["a", "b"], 2) if row["caption"] in texts[:2] else (["a"], 1))


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    class Broken(Lengths):
        def embed_text(self, texts: list[str]) -> torch.Tensor:
            return torch.full((len(texts), 2), float("nan"))

    stage = EmbedBucket(TextSpec(parts=str(tmp_path), encoder="", dim=2, load=lambda uri, device: Broken()))
    with pytest.raises(ValueError, match="NaN"):
        stage(rows_of(["a"]))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    stage = EmbedBucket(TextSpec(parts=str(tmp_path), encoder="", dim=2, load=lambda uri, device: Lengths()))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(storage.StorageError, match="No space left on device"):
        stage(rows_of(["a"]))
    assert list(tmp_path.iterdir()) == []


def test_reading_leaves_out_what_is_done_and_counts_it(tmp_path: Path) -> None:
    corpus = tmp_path / "some.jsonl"
    corpus.write_text("\n".join(json.dumps({"caption": f"caption {n // 2}"}) for n in range(40)) + "\n[\n")
    files = pa.table({"uri": [str(corpus)], "number": [0]})
    every = pa.concat_tables(read_corpora(files, {}, 4, [], str(tmp_path / "told")))
    left = pa.concat_tables(read_corpora(files, {}, 4, [0, 2], str(tmp_path / "told")))
    assert len(every) == 20 and sum(every["count"].to_pylist()) == 40
    assert set(left["bucket"].to_pylist()) == {1, 3}
    report = json.loads((tmp_path / "told" / "0.json").read_text())
    assert (report["records"], report["problems"]) == (41, {"broken_line": 1})
    assert report["done"] == 40 - sum(left["count"].to_pylist())
    assert len(distinct(pa.concat_tables([every, every]))) == 20


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """100 embeddings [100, 4] in row groups of 30; even ones of source a, all of source b."""
    captions = [(caption_id(str(n)), Caption(f"c{n}", {"a", "b"} if n % 2 == 0 else {"b"}, 1)) for n in range(100)]
    vectors = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float16)
    (tmp_path / "embeddings").mkdir()
    pq.write_table(
        embedding_table(captions, vectors), tmp_path / "embeddings" / "part-00000.parquet", row_group_size=30
    )
    (tmp_path / "_embeddings.json").write_text(
        json.dumps({"encoder_fingerprint": "e" * 64, "dim": 4, "rows": 100, "status": "complete"})
    )
    return tmp_path


@pytest.mark.parametrize(("start", "stop"), [(0, 100), (29, 31), (30, 60), (95, 100), (10, 95)])
def test_a_piece_is_exactly_its_rows(table: Path, start: int, stop: int) -> None:
    piece = Piece(str(table / "embeddings" / "part-00000.parquet"), start, stop)
    found = pa.concat_tables(read_piece(piece, ["caption"]))["caption"].to_pylist()
    assert found == [f"c{n}" for n in range(start, stop)]


def test_rows_are_chosen_by_source_and_draw(table: Path) -> None:
    rows = pq.read_table(table / "embeddings")
    assert [c[1:] for c in chosen(rows, Choice(("a",), 0))["caption"].to_pylist()] == [str(n) for n in range(0, 100, 2)]
    assert len(chosen(rows, Choice(("b", "c"), 0))) == 100
    ids = rows["caption_id"].to_pylist()
    threshold = int(np.sort(draws(ids, 5, "cap"))[24])
    some = chosen(rows, Choice(None, 5, threshold))
    assert len(some) == 25
    assert chosen(rows.slice(50), Choice(None, 5, threshold)).num_rows < 25  # a row's draw is its own
    assert chosen(rows, Choice(None, 6, threshold))["caption"] != some["caption"]


def test_unit_rows_and_what_they_refuse() -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.array([3, 4, 0, 2], np.float16)), 2)
    np.testing.assert_allclose(unit_rows(column.slice(1)), [[0, 1]])
    np.testing.assert_allclose(unit_rows(column)[0], [0.6, 0.8], atol=1e-6)
    with pytest.raises(ValueError, match="NaN"):
        unit_rows(pa.FixedSizeListArray.from_arrays(pa.array(np.array([np.nan, 4], np.float16)), 2))


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        ({}, {"clusters": 101}, "clusters: got 101; allowed: 1 to 100"),
        ({}, {"clusters": 11, "cap": 10}, "clusters: got 11; allowed: 1 to 10"),
        ({}, {"encoder": "builtin"}, "was made with encoder eeeeeeeeeeee"),
        ({"status": "running"}, {}, r"is not finished \(running\); run .mats embed-text. again to finish it$"),
        ({"window_seconds": 5}, {}, "embeddings of audio"),
        (None, {}, "holds no embeddings that can be read .*; give the OUTPUT of .mats embed-text.$"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused_before_ray(
    table: Path, change: dict[str, Any] | None, settings: dict[str, Any], said: str
) -> None:
    sidecar = table / "_embeddings.json"
    if change is None:
        sidecar.unlink()
    else:
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **change}))
    with pytest.raises(SettingsError, match=said):
        run_build_memory(BuildMemorySettings(embeddings=str(table), output=str(table / "out"), **settings))
    assert not (table / "out").exists()


def build(table: Path, output: str, seed: int = 0) -> dict[str, Any]:
    """What `mats build-memory` does to a table of one part, with no Ray."""
    piece = Piece(str(table / "embeddings" / "part-00000.parquet"), 0, 100)
    chosen_by = BuildMemorySettings(embeddings=str(table), output=output, clusters=4, seed=seed, storage="float32")
    builder = _Builder(chosen_by, read_facts(str(table), "text", "embeddings"), [piece], lambda _: None)
    sample = unit_rows(pq.read_table(piece.uri)["embedding"])
    empty = ivf.empty_index(ivf.train_centroids(sample, 4, seed), "float32", sample)
    work = pa.table({"number": [0], "first": [0], "pieces": [json.dumps([asdict(piece)])]})
    folder = storage.join(output, "_state", "shards")
    fill_shard(work, Choice(None, 0), ivf.to_bytes(empty), folder)
    return builder._merge(empty, [0], 100)


@pytest.mark.parametrize(
    "where",
    [
        "pipelines.text.build_memory.ivf.merge_shards",
        "pyarrow.parquet.ParquetWriter.write_table",
        "os.fsync",
        "os.replace",
    ],
)
def test_a_full_disk_leaves_the_old_memory(table: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = table / "memory"
    old = build(table, str(output))
    with monkeypatch.context() as patch:

        def local(uri: str, place: Path) -> Path:
            patch.setattr(where, full)  # from here on: the shards are there, the memory is not
            return Path(uri)

        patch.setattr("pipelines.text.build_memory._local", local)
        with pytest.raises(StorageError, match="No space left on device"):
            build(table, str(output), seed=1)
    assert SantaMemory.load(str(output)).fingerprint == old["fingerprint"]
    assert sorted(path.name for path in (output / "_state").iterdir()) == ["shards"]
    new = build(table, str(output), seed=1)
    assert SantaMemory.load(str(output)).fingerprint == new["fingerprint"] != old["fingerprint"]


def test_an_upload_that_fails_leaves_the_old_memory(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    output = "memory://a-memory-of-a-test"
    build(table, output)
    names = ("index.faiss", "captions.parquet", "memory.json")
    before = [storage.read_bytes(storage.join(output, name)) for name in names]
    real = MemoryFileSystem.put_file

    def put_file(self: MemoryFileSystem, source: str, target: str, **more: Any) -> None:
        if target.endswith("memory.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, source, target, **more)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", put_file)
        with pytest.raises(StorageError, match="No space left on device"):
            build(table, output, seed=1)
    assert [storage.read_bytes(storage.join(output, name)) for name in names] == before
    build(table, output, seed=1)
    after = [storage.read_bytes(storage.join(output, name)) for name in names]
    assert all(a != b for a, b in zip(before[::2], after[::2], strict=True))
    assert not storage.exists(storage.join(output, "_state", "next"))


def test_a_cut_part_is_refused(table: Path) -> None:
    part = table / "embeddings" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:500])
    with pytest.raises(SettingsError, match=r"the part .*\.parquet cannot be read"):
        run_build_memory(BuildMemorySettings(embeddings=str(table), output=str(table / "out")))
