"""One plain process of the benchmark: read, decode, batch, answer, write Parquet. No Ray, nothing isolated.

    python -m jobs.benchmarks.plain MODEL LIST OUT BATCH

Prints "ready" when the model is loaded, starts at a line on stdin, ends with its figures as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def answer_files(model: Any, files: list[str], out: Path, batch_size: int) -> dict[str, float]:
    """Answer `files` into one Parquet file; seconds of each stage, and of audio."""
    import torch

    from mats_core.audio.decode import decode
    from mats_core.audio.windows import pool_windows, windows
    from mats_core.model.asking import Request

    encoder = model.encoder
    stage = {"decode_s": 0.0, "embed_s": 0.0, "answer_s": 0.0, "write_s": 0.0, "audio_s": 0.0}
    rows: list[dict[str, Any]] = []
    for at in range(0, len(files), batch_size):
        batch = files[at : at + batch_size]
        moment = time.monotonic()
        sounds = []
        for name in batch:
            with open(name, "rb") as file:
                sounds.append(decode(file, sample_rate=encoder.sample_rate))
        moment = _add(stage, "decode_s", moment)
        cuts = [windows(len(each.samples), encoder.sample_rate, encoder.window_seconds) for each in sounds]
        vectors = model.embed_windows(
            [each.samples[w.start : w.stop] for each, cut in zip(sounds, cuts, strict=True) for w in cut]
        )
        pooled, first = [], 0
        for cut in cuts:
            pooled.append(pool_windows(vectors[first : first + len(cut)], [w.weight for w in cut]))
            first += len(cut)
        moment = _add(stage, "embed_s", moment)
        replies = model.answer_embeddings(torch.from_numpy(np.stack(pooled)), [Request()] * len(batch))
        _add(stage, "answer_s", moment)
        for name, sound, reply in zip(batch, sounds, replies, strict=True):
            stage["audio_s"] += sound.decoded_s
            rows.append({"uri": name, "decoded_s": sound.decoded_s, "text": reply.text})
    moment = time.monotonic()
    pq.write_table(pa.Table.from_pylist(rows), out)
    _add(stage, "write_s", moment)
    return stage


def _add(stage: dict[str, float], name: str, since: float) -> float:
    now = time.monotonic()
    stage[name] += now - since
    return now


def main() -> None:
    """See the module's text."""
    model_uri, list_file, out, batch = sys.argv[1:5]
    import torch

    torch.set_num_threads(1)
    from mats_core import load_model

    model = load_model(model_uri, device="cpu")
    files = Path(list_file).read_text().splitlines()
    print("ready", flush=True)
    sys.stdin.readline()
    stage = answer_files(model, files, Path(out), int(batch))
    print(json.dumps(stage), flush=True)


if __name__ == "__main__":
    main()
