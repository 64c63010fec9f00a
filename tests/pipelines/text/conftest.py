"""A table of caption embeddings that no encoder made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.data.corpus import caption_id
from pipelines.text.caption_buckets import Caption, caption_table, embedding_table


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """100 embeddings [100, 4] in row groups of 30; even ones of source a, all of source b."""
    captions = {caption_id(str(n)): Caption(f"c{n}", {"a", "b"} if n % 2 == 0 else {"b"}, 1) for n in range(100)}
    vectors = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float16)
    (tmp_path / "embeddings").mkdir()
    pq.write_table(
        embedding_table(caption_table(captions), vectors),
        tmp_path / "embeddings" / "part-00000.parquet",
        row_group_size=30,
    )
    (tmp_path / "_embeddings.json").write_text(
        json.dumps({"encoder_fingerprint": "e" * 64, "dim": 4, "rows": 100, "status": "complete"})
    )
    return tmp_path
