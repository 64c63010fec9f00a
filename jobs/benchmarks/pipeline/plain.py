"""One plain process of the benchmark: read, decode, batch, answer, write Parquet. No Ray, nothing isolated.

    python -m jobs.benchmarks.pipeline.plain MODEL LIST OUT BATCH

Prints "ready" when the model is loaded, starts at a line on stdin, ends with its figures as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def answer_files(model: Any, files: list[str], out: Path, batch_size: int) -> dict[str, float]:
    """Answer `files` into one Parquet file; seconds of each stage, and of audio."""
    from mats_core.audio.decode import decode
    from mats_core.batches import raised
    from mats_core.model.asking import Request, ask_clips
    from mats_core.model.hearing.clips import embed_clips

    stage = dict.fromkeys(("decode_s", "embed_s", "answer_s", "write_s", "audio_s"), 0.0)
    rows: list[dict[str, Any]] = []

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        stage[name] += time.monotonic() - began

    for at in range(0, len(files), batch_size):
        batch, sounds = files[at : at + batch_size], []
        with timed("decode_s"):
            for name in batch:
                with open(name, "rb") as file:
                    sounds.append(decode(file, sample_rate=model.encoder.sample_rate))
        with timed("embed_s"):
            clips = raised(embed_clips(model, [(0.0, sound.samples) for sound in sounds], batch_size))
        with timed("answer_s"):
            answers = raised(ask_clips(model, clips, [Request()] * len(clips), batch_size=batch_size))
        for name, sound, answer in zip(batch, sounds, answers, strict=True):
            stage["audio_s"] += sound.decoded_s
            rows.append({"uri": name, "decoded_s": sound.decoded_s, "text": answer.text})
    with timed("write_s"):
        pq.write_table(pa.Table.from_pylist(rows), out)
    return stage


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
    print(json.dumps(answer_files(model, files, Path(out), int(batch))), flush=True)


if __name__ == "__main__":
    main()
