"""Workers of embed-text without Ray: buckets, parts, a full disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mats_core import storage
from pipelines.data.corpus import caption_id
from pipelines.text.caption_buckets import (
    EmbedBucket,
    bucket_of,
    bucket_of_part,
    distinct,
    part_name,
    read_corpora,
)


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
    stage = EmbedBucket(str(tmp_path), encoder, dim=2, batch_size=2)
    told = stage(pa.concat_tables([rows_of(texts), rows_of(texts[:2], "b")])).to_pylist()[0]
    assert (told["bucket"], told["captions"], told["records"]) == (3, 5, 7)
    assert [[len(text) for text in batch] for batch in encoder.batches] == [[2, 4], [9, 17], [30]]
    table = pq.read_table(tmp_path / "part-00003.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 2)
    assert table["caption_id"].to_pylist() == sorted(caption_id(text) for text in texts)
    for row in table.to_pylist():
        assert row["embedding"][0] == len(row["caption"]) / 64
        assert (row["sources"], row["count"]) == ((["a", "b"], 2) if row["caption"] in texts[:2] else (["a"], 1))


def test_a_caption_of_several_lines_is_the_mean_of_its_lines(tmp_path: Path) -> None:
    class Axes(Lengths):
        def embed_text(self, texts: list[str]) -> torch.Tensor:
            return torch.stack([torch.eye(4)["abcd".index(text)] for text in texts])

    texts = ["a\nb", "c", "a\na\na\nd"]
    EmbedBucket(str(tmp_path), Axes(), dim=4, batch_size=2)(rows_of(texts))
    rows = pq.read_table(tmp_path / "part-00003.parquet").to_pylist()
    found = {row["caption"]: row["embedding"] for row in rows}
    half, tenth = 0.5**0.5, 0.1**0.5
    expected = {"a\nb": [half, half, 0, 0], "c": [0, 0, 1, 0], "a\na\na\nd": [3 * tenth, 0, 0, tenth]}
    for text, vector in expected.items():
        assert found[text] == pytest.approx(vector, abs=1e-3), text


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    class Broken(Lengths):
        def embed_text(self, texts: list[str]) -> torch.Tensor:
            return torch.full((len(texts), 2), float("nan"))

    stage = EmbedBucket(str(tmp_path), Broken(), dim=2)
    with pytest.raises(ValueError, match="NaN"):
        stage(rows_of(["a"]))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    stage = EmbedBucket(str(tmp_path), Lengths(), dim=2)
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
