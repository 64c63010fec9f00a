"""Embeddings that no memory can be built of are refused before Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.settings.text import BuildMemorySettings
from pipelines.text.build_memory import run_build_memory
from pipelines.text.caption_buckets import embedding_table


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        ({}, {"clusters": 101}, "clusters: 101 clusters cannot be made of 100 captions; choose 1 to 100"),
        ({}, {"clusters": 11, "cap": 10}, "clusters: 11 clusters cannot be made of 10 captions; choose 1 to 10"),
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


def test_a_cut_part_is_refused(table: Path) -> None:
    part = table / "embeddings" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:500])
    with pytest.raises(SettingsError, match=r"^embeddings: .*part-00000\.parquet cannot be read"):
        run_build_memory(BuildMemorySettings(embeddings=str(table), output=str(table / "out")))


def test_embeddings_that_are_all_alike_are_refused_before_ray(table: Path) -> None:
    part = table / "embeddings" / "part-00000.parquet"
    rows = pq.read_table(part)
    flat = 1.0 + 0.001 * np.random.default_rng(0).standard_normal((100, 4))
    same = embedding_table(rows.drop_columns(["embedding"]), flat.astype(np.float16))
    pq.write_table(same, part, row_group_size=30)
    settings = BuildMemorySettings(embeddings=str(table), output=str(table / "out"))
    with pytest.raises(SettingsError, match=r"^embeddings: the vectors of .* are all alike: 100 .* cosine of 1\.0000"):
        run_build_memory(settings)
    assert not (table / "out").exists()
