"""Runs to export: sounds that are there, with names that are anything, and rows as `mats caption` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from pipelines.data.schemas import SEGMENTS_TYPE
from pipelines.output.folder import open_output
from pipelines.output.parts import part_name

RATE = 8000
HOSTILE = ("=1+1", "@SUM(A1)", "<i>a --> b</i> & c", "two\nlines\tand\ttabs", "Glöckchen 東京", "\\x")
"""Answers that a reader could take for something else."""


def tone(path: Path, seconds: float, hertz: float = 440.0) -> np.ndarray:
    """Write a tone; its samples int16 [T]."""
    samples = np.round(8000 * np.sin(np.arange(round(seconds * RATE)) * 2 * np.pi * hertz / RATE)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return samples


def answer_rows(uris: list[str], texts: list[str | None], **columns: Any) -> pa.Table:
    """Rows of 2 s chunks; a URI that comes again is the next chunk of its file; without a text there is an error."""
    starts: list[float] = []
    for at, uri in enumerate(uris):
        starts.append(starts[-1] + 2.0 if at and uris[at - 1] == uri else 0.0)
    well = [text is not None for text in texts]
    count = len(uris)
    return pa.table(
        {
            "chunk_id": [f"id-{at}" for at in range(count)],
            "uri": uris,
            "format": ["wav"] * count,
            "sample_rate": pa.array([RATE] * count, pa.int32()),
            "channels": pa.array([1] * count, pa.int32()),
            "start_s": starts,
            "duration_s": [2.0] * count,
            "error_code": [None if each else "not_audio" for each in well],
            "error_message": pa.array([None] * count, pa.string()),
            "task": ["caption"] * count,
            "question": pa.array([None] * count, pa.string()),
            "tag": pa.array([None] * count, pa.string()),
            "row_id": pa.array(range(count), pa.int64()),
            "decoded_s": pa.array([2.0 if each else None for each in well], pa.float64()),
            "text": pa.array(texts, pa.string()),
            "segments": pa.array([None] * count, SEGMENTS_TYPE),
            "run_id": ["r"] * count,
            "embedding": pa.array([[0.5]] * count, pa.list_(pa.float32())),
            **columns,
        }
    )


def write_answers(output: Path, rows: pa.Table, parts: int = 2, pruned: list[list[int]] | None = None) -> Path:
    """An OUTPUT with these rows, those of its parts mixed as Ray hands them over."""
    with open_output(str(output), {"job": "caption"}, results="answers") as out:
        for number in range(parts):
            part = rows.take(pa.array(range(number, len(rows), parts), pa.int64()))
            if len(part):
                out.put_table(f"answers/{part_name(part['row_id'][0].as_py(), out.run_id, number)}", part)
        out.write_run({"job": "caption", "status": "complete", "pruned": pruned or []})
    return output


def archive(place: Path, names: tuple[str, ...], seconds: float = 4.0) -> tuple[list[str], dict[str, np.ndarray]]:
    """Sounds of these names; their URIs, two chunks each, and the samples of each file."""
    samples = {str(place / name): tone(place / name, seconds, 200 + 50 * at) for at, name in enumerate(names)}
    return [uri for uri in samples for _ in range(2)], samples
