"""The captioning pipeline's two ends without Ray or a model: rows in, made-up answers out, in the same columns."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core import storage
from pipelines.archive.run import RunResult
from pipelines.cluster import session as ray_runtime
from pipelines.cluster.plan import Resources
from pipelines.cluster.progress import Progress
from pipelines.data.schemas import WINDOWS_TYPE
from pipelines.evaluate import answers as evaluate_answers
from pipelines.evaluate.run import run_evaluate
from pipelines.evaluate.scores import Evaluation
from pipelines.settings.archive import CaptionSettings, EmbedSettings
from pipelines.settings.evaluate import EvaluateSettings

CLIPS = 8

NAMES = ("soundworld_labels", "soundworld_choice")


Say = Callable[[dict[str, Any]], "str | None"]


def vector(uri: str, dim: int) -> np.ndarray:
    """A unit embedding of one's own for every sound."""
    seed = int.from_bytes(hashlib.sha256(Path(uri).name.encode()).digest()[:4], "big")
    drawn = np.random.default_rng(seed).standard_normal(dim).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


class StandIn:
    """`say` answers a row (its item, benchmark, order, question), None for a row that fails. Counts what was heard."""

    def __init__(self, say: Say, dim: int = 128) -> None:
        self.say, self.dim = say, dim
        self.sure: Callable[[dict[str, Any]], float] | None = None  # the confidence of a row; without it there is none
        self.heard: list[str] = []
        self.captioned: list[CaptionSettings] = []

    def embed_audio(self, settings: EmbedSettings, progress: Callable[[Progress], None]) -> RunResult:
        sounds = pq.read_table(settings.input).to_pylist()
        uris = [sound["uri"] for sound in sounds]
        self.heard += uris
        windows = [[{"start_s": 0.0, "weight": 5.0, "embedding": vector(uri, self.dim).tolist()}] for uri in uris]
        table = pa.table(
            {
                "row_id": range(len(uris)),
                "chunk_id": [str(i) for i in range(len(uris))],
                "uri": uris,
                "start_s": [sound["start_s"] or 0.0 for sound in sounds],
                "sound": [sound["sound"] for sound in sounds],
                "decoded_s": [5.0] * len(uris),
                "task": pa.nulls(len(uris), pa.string()),
                "windows": pa.array(windows, WINDOWS_TYPE),
            }
        )
        folder = Path(settings.output) / "embeddings"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / "part-0.parquet")
        (Path(settings.output) / "_embeddings.json").write_text(json.dumps({"status": "complete"}))
        return RunResult("complete", settings.output, len(uris), len(uris))

    def caption(self, settings: CaptionSettings, progress: Callable[[Progress], None]) -> RunResult:
        self.captioned.append(settings)
        source = Path(settings.input)
        rows = pq.read_table(source if source.is_file() else source / "embeddings").to_pylist()
        for row in rows:
            row["text"] = self.say({**row, "bridge": settings.bridge, "mix": settings.santa_mix})
            failed = row["text"] is None
            if self.sure is not None:
                row["confidence"] = None if failed else self.sure(row)
            row.update(error_code="decode_failed" if failed else None, error_message="broken" if failed else None)
            row.update(start_s=row["start_s"] or 0.0, decoded_s=5.0, embedding=vector(row["uri"], self.dim).tolist())
            row.pop("windows", None)
        folder = Path(settings.output) / "answers"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")
        run = {"rows_new": len(rows), "stage_s": {"embed_s": 1.0, "answer_s": 2.0}, "steady": {"rows_per_s": 40.0}}
        (Path(settings.output) / "_run.json").write_text(json.dumps(run))
        errors = {"decode_failed": sum(row["text"] is None for row in rows)}
        progress(Progress("run", len(rows), len(rows)))
        return RunResult("complete", settings.output, len(rows), len(rows), errors)


def install(model: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put a stand-in in the place of the captioning pipeline and of Ray."""
    there = Resources(2, 0, 1, own=False)

    def caption(*given: Any) -> RunResult:
        """The stand-in's answers, with the version of each sound that the captioning pipeline keeps."""
        done = model.caption(*given)
        part = Path(done.output) / "answers" / "part-0.parquet"
        table = pq.read_table(part)
        versions = [storage.stat(uri).version for uri in table["uri"].to_pylist()]
        pq.write_table(table.append_column("version", [versions]), part)
        return done

    monkeypatch.setattr(evaluate_answers, "run_caption", caption)
    monkeypatch.setattr(evaluate_answers, "run_embed_audio", model.embed_audio)
    monkeypatch.setattr(ray_runtime, "ray_session", contextlib.contextmanager(lambda *_: iter([there])))
    return model


def evaluate(data: str, out: Path, **given: Any) -> Evaluation:
    """An evaluation of the first CLIPS items of NAMES, or of what is given."""
    values = {"benchmarks": ",".join(NAMES), "limit": CLIPS, "data": [data], "players": 2}
    return run_evaluate(EvaluateSettings(**{**values, "out": str(out), **given}))
