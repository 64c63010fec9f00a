"""Runs of `mats embed-audio` and `mats caption --with-embedding` whose vectors are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.data.embeddings import EmbeddingsFacts, told_of
from pipelines.data.schemas import SEGMENTS_TYPE, WINDOWS_TYPE
from pipelines.output.folder import open_output
from pipelines.output.parts import part_name

DIM, WINDOW_S = 32, 5.0
CAPTIONS = ("a dog barks", "rain falls on a roof", "dogs bark while it rains", "a siren wails", "=HYPERLINK(1)")


def unit_vectors(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """float32 [N, D], unit, around a mean that is far from 0, as CLAP's are."""
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(count, dim)) + 2.0 * np.eye(dim)[0]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def chunk_rows(vectors: list[np.ndarray], first: int = 0, answers: bool = False, **columns: Any) -> pa.Table:
    """Rows of chunks with these windows [W, D] each (W 0: no sound), one chunk a file, from row_id `first` on."""
    numbers = range(first, first + len(vectors))
    heard = [len(each) * WINDOW_S - 1.0 if len(each) else None for each in vectors]
    rows: dict[str, Any] = {
        "row_id": pa.array(numbers, pa.int64()),
        "chunk_id": [f"chunk-{number}" for number in numbers],
        "uri": [f"/sounds/{number:04d}.wav" for number in numbers],
        "format": ["wav" if number % 2 else "flac" for number in numbers],
        "start_s": [60.0 * (number % 3) for number in numbers],
        "duration_s": pa.array(heard, pa.float64()),
        "decoded_s": pa.array(heard, pa.float64()),
        "error_code": pa.array([None if len(each) else "empty_audio" for each in vectors], pa.string()),
        "error_message": pa.array([None] * len(vectors), pa.string()),
    }
    if answers:
        rows["task"] = ["caption"] * len(vectors)
        rows["question"] = pa.array([None] * len(vectors), pa.string())
        rows["text"] = [CAPTIONS[number % len(CAPTIONS)] for number in numbers]
        rows["segments"] = pa.array([None] * len(vectors), SEGMENTS_TYPE)
        pooled = [each.mean(axis=0).tolist() if len(each) else None for each in vectors]
        rows["embedding"] = pa.array(pooled, pa.list_(pa.float32()))
    else:
        rows["windows"] = pa.array(
            [
                [{"start_s": WINDOW_S * at, "weight": WINDOW_S, "embedding": v.tolist()} for at, v in enumerate(each)]
                for each in vectors
            ],
            WINDOWS_TYPE,
        )
    return pa.table({**rows, **columns})


def write_run(output: Path, *parts: pa.Table, job: str = "embed-audio", fingerprint: str = "") -> Path:
    """Put parts into an OUTPUT as a run of `job` does; again: into the same OUTPUT, beside what is there."""
    folder = "embeddings" if job == "embed-audio" else "answers"
    with open_output(str(output), {"job": job}, results=folder) as out:
        for number, part in enumerate(parts):
            out.put_table(f"{folder}/{part_name(part['row_id'][0].as_py(), out.run_id, number)}", part)
        if job == "embed-audio":
            facts = EmbeddingsFacts(str(output), encoder_fingerprint=fingerprint, dim=DIM, window_seconds=WINDOW_S)
            out.tell("_embeddings.json", told_of(facts))
        out.write_run({"job": job, "status": "complete", "settings": {"model": "builtin"}})
    return output


def windows_of(vectors: np.ndarray, each: int = 2) -> list[np.ndarray]:
    """Vectors [N, D] as chunks of `each` windows."""
    return [vectors[at : at + each] for at in range(0, len(vectors), each)]
