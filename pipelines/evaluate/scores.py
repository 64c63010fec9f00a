"""Answers of a cell → scores, baselines, and the gap before and after the bridge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mats_core.model.directory import part_uri, resolve
from mats_core.model.facts import ModelFacts
from mats_core.scoring import Item, Scores, score
from mats_core.scoring.baselines import majority, shuffled, zero_shot
from pipelines.evaluate.answers import ItemAnswer
from pipelines.evaluate.datasets import LoadedSet
from pipelines.evaluate.results import Gap, SetResult

GAP_ITEMS = 600
TEXT_BATCH = 128


class EncoderAndMemory:
    """A model's encoder and memory without its LLM, each loaded when first needed."""

    def __init__(self, model: str, facts: ModelFacts, device: str) -> None:
        self.dim = facts.dim
        self._model, self._facts, self._device = model, facts, device
        self._encoder: Any = None
        self._memory: Any = None
        self._embedded: dict[str, np.ndarray] = {}

    def embed_text(self, texts: list[str]) -> np.ndarray:
        """Texts → unit float32 [N, D]; every text is embedded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._embedded]
        if new and self._encoder is None:
            from mats_core.device import pick_device
            from mats_core.encoders.load import load_encoder

            uri = part_uri(resolve(self._model), self._facts.config.encoder)
            self._encoder = load_encoder(str(uri), device=str(pick_device(self._device)))
        for start in range(0, len(new), TEXT_BATCH):
            batch = new[start : start + TEXT_BATCH]
            vectors = self._encoder.embed_text(batch).cpu().numpy()
            self._embedded.update(zip(batch, vectors, strict=True))
        return np.stack([self._embedded[text] for text in texts]) if texts else np.zeros((0, self.dim), np.float32)

    def memory(self) -> Any:
        """Santa's memory, or None."""
        if self._memory is None and self._facts.config.memory is not None:
            from mats_core.memory.santa import SantaMemory

            self._memory = SantaMemory.load(str(part_uri(resolve(self._model), self._facts.config.memory)))
        return self._memory


def score_answers(
    data: LoadedSet, answers: list[ItemAnswer], encoder: EncoderAndMemory, seed: int, fixed: dict[str, Scores]
) -> SetResult:
    """Scores and baselines of one cell. fixed: baselines that are the same in every cell, filled by the first."""
    kind, items, metrics = data.definition.kind, data.items, data.definition.metrics
    result = SetResult(data, answers, Scores(), {})
    orders = max((len(answer.texts) for answer in answers), default=1) or 1

    def scored(texts: Sequence[Any]) -> Scores:
        return score(
            kind, items, texts, labels=data.labels, embed_text=encoder.embed_text, metrics=metrics, seed=seed
        )  # fmt: skip

    if not fixed and kind != "chat":
        fixed["majority"] = scored(majority(kind, items, orders, seed))
        if kind in ("label", "labels", "choice"):
            absent = np.full(encoder.dim, np.nan, np.float32)
            audio = np.stack([absent if answer.embedding is None else answer.embedding for answer in answers])
            fixed["zero-shot CLAP"] = zero_shot(kind, items, audio, data.labels, encoder.embed_text, seed, metrics)
    result.baselines = dict(fixed)
    if kind != "chat" and len(items) > 1:
        result.baselines["shuffled answers"] = scored(shuffled(kind, items, result.texts, seed))
    result.scores = scored(result.texts)
    return result


def truths(item: Item) -> list[str]:
    """What is right, one text each: the reference captions, else the labels, else the right option."""
    return list(item.references or item.labels or ([item.answer] if item.answer else []))


def modality_gap(
    result: SetResult, embed_text: Callable[[list[str]], np.ndarray], move: Callable[[np.ndarray], np.ndarray]
) -> Gap | None:
    """The gap over up to GAP_ITEMS sounds; None where fewer than three have a text and an embedding.

    A sound's text is its first reference caption, else the texts of its labels, else the right option.

    Args:
        embed_text: texts → unit [N, D].
        move: the bridge: unit audio embeddings [N, D] → what the mapper was given.
    """
    label_texts = dict(zip(result.data.labels.names, result.data.labels.texts, strict=True))
    pairs = []
    for item, answer in zip(result.data.items, result.answers, strict=True):
        named = ", ".join(label_texts.get(label, label) for label in item.labels)
        text = item.references[0] if item.references else named or item.answer
        if answer.embedding is not None and text and item.task != "QA":
            pairs.append((answer.embedding, text))
    if len(pairs) < 3:
        return None
    pairs = pairs[:: max(1, len(pairs) // GAP_ITEMS)][:GAP_ITEMS]
    text = embed_text([text for _, text in pairs]).astype(np.float64)  # [N, D]
    sets = {"audio": np.stack([vector for vector, _ in pairs]).astype(np.float64)}  # [N, D]
    sets["moved"] = move(sets["audio"].astype(np.float32)).astype(np.float64)  # [N, D]
    every = np.concatenate([text, *sets.values()])  # [3N, D]
    _, _, axes = np.linalg.svd(every - every.mean(axis=0), full_matrices=False)
    flat = {name: (table - every.mean(axis=0)) @ axes[:2].T for name, table in {"text": text, **sets}.items()}  # [N, 2]
    return Gap(
        cosine={name: float((table * text).sum(axis=1).mean()) for name, table in sets.items()},
        distance={name: float(np.linalg.norm(table.mean(0) - text.mean(0))) for name, table in sets.items()},
        points={name: [(float(x), float(y)) for x, y in table] for name, table in flat.items()},
    )
