"""A small world to train in: records of eight sounds, embeddings made up for their captions, random parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mats_core.storage.fingerprint import fingerprint_directory
from pipelines.data.corpus import caption_id
from pipelines.settings.base import build
from pipelines.settings.train import TrainSettings
from tests.tiny import make_tiny_encoder, make_tiny_llm

KINDS = ["rain", "dog", "bell", "siren", "bird", "engine", "water", "wind"]
DIM = 32


def embedding(caption: str) -> np.ndarray:
    """float32 [DIM], unit: a direction a kind, the first kind the stronger."""
    draws = {kind: np.random.default_rng(i).standard_normal(DIM) for i, kind in enumerate(KINDS)}
    first, second, *_ = (word for word in caption.split() if word in KINDS)
    vector = draws[first] + 0.6 * draws[second]
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def records() -> list[dict[str, str]]:
    """112 records: two of each of 56 captions, a caption task and a question."""
    made = []
    for a in KINDS:
        for b in KINDS:
            if a != b:
                heard = f"a {a} with {b}"
                made.append({"caption": heard, "instruction": "", "output": f"{a} then {b}", "task": "caption"})
                made.append({"caption": heard, "instruction": "What is first ?", "output": a, "task": "QA"})
    return made


def write_embeddings(folder: Path, captions: list[str], fingerprint: str) -> Path:
    """A caption embeddings table, as `mats embed-text` writes it, in two parts."""
    (folder / "embeddings").mkdir(parents=True)
    whole = sorted(set(captions))
    for part, some in enumerate((whole[::2], whole[1::2])):
        flat = np.concatenate([embedding(each) for each in some]).astype(np.float16)
        table = pa.table(
            {
                "caption_id": [caption_id(each) for each in some],
                "caption": some,
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat), DIM),
            }
        )
        pq.write_table(table, folder / "embeddings" / f"part-{part}.parquet")
    (folder / "_embeddings.json").write_text(json.dumps({"encoder_fingerprint": fingerprint, "dim": DIM}))
    return folder


def make_world(folder: Path) -> Path:
    """Parts, two corpora and their embeddings in `folder`."""
    make_tiny_llm(folder / "llm")
    make_tiny_encoder(folder / "encoder")
    every = records()
    (folder / "one.jsonl").write_text("\n".join(map(json.dumps, every[:60])))
    (folder / "two.json").write_text(json.dumps({"annotation": every[60:]}))
    write_embeddings(folder / "emb", [r["caption"] for r in every], fingerprint_directory(folder / "encoder"))
    return folder


def values(world: Path, output: Path | str, **changes: Any) -> dict[str, Any]:
    """Settings of a short run in that world; `training` is merged, the rest replaced; `model` leaves out a new one."""
    training = {
        "steps": 12, "batch_size": 16, "learning_rate": 3e-3, "warmup_steps": 3, "micro_batch_tokens": 150,
        "noise_variance": 1e-3, **changes.pop("training", {}),
    }  # fmt: skip
    base = {
        "output": str(output),
        "llm": str(world / "llm"),
        "encoder": str(world / "encoder"),
        "embeddings": str(world / "emb"),
        "data": [
            {"name": "one", "corpus": str(world / "one.jsonl"), "ratio": 2, "tag": "[ a ]"},
            {"name": "two", "corpus": str(world / "two.json")},
        ],
        "mapper": {"vectors": 4, "clip_tokens": 2, "width": 32, "layers": 1, "heads": 4},
        "adapter": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "validation": 8,
        "validate_every": 100,
        "checkpoint_every": 5,
        "training": training,
        "device": "cpu",
    }
    new_only = ("llm", "encoder", "mapper", "adapter") if "model" in changes else ()
    return {**{name: value for name, value in base.items() if name not in new_only}, **changes}


def settings(world: Path, output: Path | str, **changes: Any) -> TrainSettings:
    """The same as a TrainSettings."""
    return build(TrainSettings, values(world, output, **changes))
