"""Answers of a cell → scores, baselines, the gap before and after the bridge, and predictions row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core.model.directory import part_uri, resolve
from mats_core.model.facts import ModelFacts
from mats_core.scoring import Item, Scores, choices, score
from mats_core.scoring.baselines import majority, shuffled, zero_shot
from pipelines.evaluate.answers import Reply, Task

GAP_ITEMS = 600
TEXT_BATCH = 128


@dataclass
class Gap:
    """Where audio lies beside its texts, before and after the bridge.

    cosine: mean cosine of true pairs; distance: of the two centroids; points: 2-D [N, 2] in one PCA of all three.
    """

    cosine: dict[str, float]
    distance: dict[str, float]
    points: dict[str, list[tuple[float, float]]] = field(repr=False)


@dataclass
class Result:
    """One benchmark in one cell. judge_file: the file its own judge takes, relative to OUT; "" where there is none."""

    task: Task
    replies: list[Reply] = field(repr=False)
    scores: Scores
    baselines: dict[str, Scores]
    gap: Gap | None = None
    judge_file: str = ""

    @property
    def answers(self) -> list[Any]:
        """An answer an item as `score` takes them: of items with options a text an order, else the first text."""
        several = self.task.benchmark.kind == "choice"
        return [r.texts if several else (r.texts[0] if r.texts else None) for r in self.replies]

    @property
    def answered(self) -> list[float]:
        """1 or 0 an item: whether every order of it got an answer."""
        return [float(bool(r.texts) and all(text is not None for text in r.texts)) for r in self.replies]


class Ears:
    """The model's encoder and memory without its LLM, loaded when first needed."""

    def __init__(self, model: str, facts: ModelFacts, device: str) -> None:
        self._model, self._facts, self._device = model, facts, device
        self._encoder: Any = None
        self._memory: Any = None
        self._kept: dict[str, np.ndarray] = {}

    def embed_text(self, texts: list[str]) -> np.ndarray:
        """Texts → unit float32 [N, D]; every text is embedded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._kept]
        if new and self._encoder is None:
            from mats_core.device import pick_device
            from mats_core.encoders.load import load_encoder

            uri = part_uri(resolve(self._model), self._facts.config.encoder)
            self._encoder = load_encoder(str(uri), device=str(pick_device(self._device)))
        for start in range(0, len(new), TEXT_BATCH):
            batch = new[start : start + TEXT_BATCH]
            vectors = self._encoder.embed_text(batch).cpu().numpy()
            self._kept.update(zip(batch, vectors, strict=True))
        return np.stack([self._kept[text] for text in texts]) if texts else np.zeros((0, self._facts.dim), np.float32)

    def memory(self) -> Any:
        """Santa's memory, or None."""
        if self._memory is None and self._facts.config.memory is not None:
            from mats_core.memory.santa import SantaMemory

            self._memory = SantaMemory.load(str(part_uri(resolve(self._model), self._facts.config.memory)))
        return self._memory


def score_task(task: Task, replies: list[Reply], ears: Ears, seed: int, shared: dict[str, Scores]) -> Result:
    """Scores and baselines. shared: baselines that do not depend on the answers, filled by the first cell."""
    kind, items, metrics = task.benchmark.kind, task.items, task.benchmark.metrics
    labels = task.reading.labels
    result = Result(task, replies, Scores(), {})
    answers = result.answers
    orders = max((len(r.texts) for r in replies), default=1) or 1

    def scored(given: Sequence[Any], clap: bool = True) -> Scores:
        embed = ears.embed_text if clap else None
        return score(kind, items, given, labels=labels, embed_text=embed, metrics=metrics, seed=seed)

    if not shared and kind != "chat":
        shared["majority"] = scored(majority(kind, items, orders, seed))
        audio = np.stack([_vector(reply, ears) for reply in replies])
        if kind in ("label", "labels", "choice"):
            shared["zero-shot CLAP"] = zero_shot(kind, items, audio, labels, ears.embed_text, seed, metrics)
    baselines = dict(shared)
    if kind != "chat" and len(items) > 1:
        baselines["shuffled answers"] = scored(shuffled(kind, items, answers, seed))
    result.scores, result.baselines = scored(answers), baselines
    return result


def _vector(reply: Reply, ears: Ears) -> np.ndarray:
    dim = ears._facts.dim
    return np.full(dim, np.nan, np.float32) if reply.embedding is None else reply.embedding


def truth_text(item: Item) -> str:
    """What is right, in words."""
    if item.references:
        return item.references[0]
    return item.answer or ", ".join(item.labels)


def modality_gap(result: Result, ears: Ears, move: Callable[[np.ndarray], np.ndarray]) -> Gap | None:
    """The gap over up to GAP_ITEMS sounds; None where fewer than three have a text and an embedding.

    move: unit audio embeddings [N, D] → what the mapper was given.
    """
    names = dict(zip(result.task.reading.labels.names, result.task.reading.labels.texts, strict=True))
    pairs = []
    for item, reply in zip(result.task.items, result.replies, strict=True):
        named = ", ".join(names.get(label, label) for label in item.labels)
        text = truth_text(item) if item.references or not named else named
        if reply.embedding is not None and text and item.task != "QA":
            pairs.append((reply.embedding, text))
    if len(pairs) < 3:
        return None
    pairs = pairs[:: max(1, len(pairs) // GAP_ITEMS)][:GAP_ITEMS]
    text = ears.embed_text([text for _, text in pairs]).astype(np.float64)
    sets = {"audio": np.stack([vector for vector, _ in pairs]).astype(np.float64)}
    sets["moved"] = move(sets["audio"].astype(np.float32)).astype(np.float64)
    every = np.concatenate([text, *sets.values()])
    _, _, axes = np.linalg.svd(every - every.mean(axis=0), full_matrices=False)
    flat = {name: (table - every.mean(axis=0)) @ axes[:2].T for name, table in {"text": text, **sets}.items()}
    return Gap(
        cosine={name: float((table * text).sum(axis=1).mean()) for name, table in sets.items()},
        distance={name: float(np.linalg.norm(table.mean(0) - text.mean(0))) for name, table in sets.items()},
        points={name: [(float(x), float(y)) for x, y in table] for name, table in flat.items()},
    )


def predictions(results: Sequence[Result], model_fingerprint: str, run_id: str, seed: int) -> pa.Table:
    """One row an item and order: what was asked, what is right, what was answered, what it was taken for, and what
    every metric makes of it (`metrics`: list of name and value)."""
    rows = []
    for result in results:
        matched = result.scores.details.get("matched") or [None] * len(result.replies)
        for index, (item, reply) in enumerate(zip(result.task.items, result.replies, strict=True)):
            values = [
                {"name": name, "value": metric.values[index]}
                for name, metric in result.scores.metrics.items()
                if index < len(metric.values)
            ]
            for order, text in enumerate(reply.texts or [None]):
                shown = list(choices.order(item.choices, seed + order, item.item_id)) if item.choices else None
                rows.append(
                    {
                        "benchmark": result.task.benchmark.name,
                        "item": item.item_id,
                        "order": order,
                        "uri": item.uri,
                        "task": item.task,
                        "question": item.question or None,
                        "choices": shown,
                        "category": item.category or None,
                        "truth": list(item.references or item.labels or ([item.answer] if item.answer else [])),
                        "text": text,
                        "matched": matched[index] if order == 0 else None,
                        "metrics": values if order == 0 else None,
                        "seconds": reply.seconds,
                        "error": reply.error or None,
                        "model_fingerprint": model_fingerprint,
                        "run_id": run_id,
                    }
                )
    return pa.Table.from_pylist(rows, schema=PREDICTIONS_SCHEMA)


_TEXTS = pa.list_(pa.string())
PREDICTIONS_SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("item", pa.string()),
        ("order", pa.int32()),
        ("uri", pa.string()),
        ("task", pa.string()),
        ("question", pa.string()),
        ("choices", _TEXTS),
        ("category", pa.string()),
        ("truth", _TEXTS),
        ("text", pa.string()),
        ("matched", pa.string()),
        ("metrics", pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))),
        ("seconds", pa.float64()),
        ("error", pa.string()),
        ("model_fingerprint", pa.string()),
        ("run_id", pa.string()),
    ]
)


def lengths(replies: Sequence[Reply]) -> dict[str, float]:
    """Words of the answers: mean, and the 5th, 50th and 95th percentile."""
    counts = [len(text.split()) for reply in replies for text in reply.texts if text is not None]
    if not counts:
        return {}
    return {"mean": float(np.mean(counts)), **{f"p{p}": float(np.percentile(counts, p)) for p in (5, 50, 95)}}
