"""What an evaluation comes to, as plain data, and how: answers of a cell → scores, baselines, and the gap before and
after the bridge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mats_core import storage
from mats_core.model.directory import part_uri, resolve
from mats_core.model.facts import ModelFacts
from mats_core.scoring import (
    Item,
    Kind,
    Metric,
    Scores,
    Unavailable,
    labels_right,
    reached,
    right_answers,
    score,
    score_confidence,
)
from mats_core.scoring.baselines import majority, shuffled, zero_shot
from mats_core.scoring.sureness import LABELS_RIGHT, SURENESS
from mats_core.soundworld.language import WORDS, parse_kinds
from mats_core.spread import refuse_collapsed
from pipelines.data.results import Rows
from pipelines.evaluate.answers import ItemAnswer
from pipelines.evaluate.datasets import EvaluationSet, LoadedSet
from pipelines.evaluate.datasets.loading import SOUNDWORLD
from pipelines.evaluate.gate import Verdict
from pipelines.settings.evaluate import Cell

if TYPE_CHECKING:
    from mats_core.encoders.base import ClapEncoder

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
class SetResult:
    """One data set in one cell: an answer an item, in the order of its items, and what they are worth.

    right, judged_by: see `right_of`. baselines: name → scores of answers that take no hearing. judge_file: the file
    that the publisher's own judge takes, relative to OUT; "" where there is none.
    """

    data: LoadedSet
    answers: list[ItemAnswer] = field(repr=False)
    scores: Scores
    baselines: dict[str, Scores]
    gap: Gap | None = None
    judge_file: str = ""
    right: list[bool | None] = field(default_factory=list, repr=False)
    judged_by: str = ""

    @property
    def texts(self) -> list[Any]:
        """What `score` takes, one an item: of items with options a text an order, else the first text or None."""
        if self.data.definition.kind == "choice":
            return [answer.texts for answer in self.answers]
        return [answer.texts[0] if answer.texts else None for answer in self.answers]

    @property
    def confidence(self) -> list[float | None]:
        """Of each item's first answer."""
        return [answer.confidence[0] if answer.confidence else None for answer in self.answers]

    @property
    def answered(self) -> list[float]:
        """1 or 0 an item: whether every order of it got an answer."""
        return [float(bool(a.texts) and all(text is not None for text in a.texts)) for a in self.answers]

    @property
    def word_counts(self) -> list[int]:
        """Words of every answer that was given."""
        return [len(text.split()) for answer in self.answers for text in answer.texts if text is not None]

    @property
    def lengths(self) -> dict[str, float]:
        """Words of the answers: mean, and the 5th, 50th and 95th percentile; empty where there are no answers."""
        counts = self.word_counts
        if not counts:
            return {}
        return {"mean": float(np.mean(counts)), **{f"p{p}": float(np.percentile(counts, p)) for p in (5, 50, 95)}}

    @property
    def leading(self) -> Metric | None:
        """The first metric that could be computed."""
        return next((metric for metric in self.scores.metrics.values() if metric.value is not None), None)


@dataclass
class CellResult:
    """One cell of the grid: its results in the order of the data sets, and the `_run.json` of its captioning run."""

    cell: Cell
    results: list[SetResult]
    run: dict[str, Any] = field(repr=False)


@dataclass
class Evaluation(Rows):
    """What an evaluation came to; `to_pandas()` gives its predictions, an item and order a row.

    status: complete, or that of the captioning run that did not end.

    seconds: wall time of the answers, the scores and the page.
    """

    status: str
    run_id: str
    out: str
    cells: list[CellResult] = field(default_factory=list, repr=False)
    verdict: Verdict | None = None
    accepted: bool = False
    rows: int = 0
    failed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    tables: str = field(default="", repr=False)
    """Of a suite: its tables, in Markdown."""

    def rows_at(self) -> str:
        """The folder of the rows."""
        return storage.join(self.out, "predictions")

    @property
    def error_rate(self) -> float:
        """Share of all answers that failed."""
        return self.failed / self.rows if self.rows else 0.0


def upward(metric: Metric | None) -> float:
    """A metric's value as a number that is larger where the metric is better; −∞ where there is none."""
    if metric is None or metric.value is None:
        return -np.inf
    return metric.value if metric.higher_is_better else -metric.value


def best_cell(cells: Sequence[CellResult]) -> CellResult:
    """The cell whose leading metrics are best on average over data sets (ranks): the one shown in full."""
    ranks = np.zeros(len(cells))
    for index in range(len(cells[0].results)):
        values = [upward(cell.results[index].leading) for cell in cells]
        ranks += np.argsort(np.argsort([-value for value in values], kind="stable"), kind="stable")
    return cells[int(ranks.argmin())]


class EncoderAndMemory:
    """A model's encoder and memory without its LLM, each loaded when first needed. loaded: the encoder, where it is
    there already."""

    def __init__(self, model: str, facts: ModelFacts, device: str, loaded: ClapEncoder | None = None) -> None:
        self.dim = facts.dim
        self._model, self._facts, self._device, self._loaded = model, facts, device, loaded
        self._embedded: dict[str, np.ndarray] = {}

    @cached_property
    def encoder(self) -> Any:
        """The encoder, on its device. Raises SettingsError where it cannot tell texts apart."""
        from mats_core.device import pick_device
        from mats_core.encoders.load import load_encoder

        found = self._loaded
        if found is None:
            uri = part_uri(resolve(self._model), self._facts.config.encoder)
            found = load_encoder(str(uri), device=str(pick_device(self._device)))
        refuse_collapsed(found, storage.public_uri(self._model), "model")
        return found

    @cached_property
    def memory(self) -> Any:
        """Santa's memory, or None."""
        from mats_core.memory.santa import SantaMemory

        uri = self._facts.config.memory
        return None if uri is None else SantaMemory.load(str(part_uri(resolve(self._model), uri)))

    def embed_text(self, texts: list[str]) -> np.ndarray:
        """Texts → unit float32 [N, D]; every text is embedded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._embedded]
        for start in range(0, len(new), TEXT_BATCH):
            batch = new[start : start + TEXT_BATCH]
            vectors = self.encoder.embed_text(batch).cpu().numpy()
            self._embedded.update(zip(batch, vectors, strict=True))
        return np.stack([self._embedded[text] for text in texts]) if texts else np.zeros((0, self.dim), np.float32)


def score_answers(
    data: LoadedSet, answers: list[ItemAnswer], encoder: EncoderAndMemory, seed: int, fixed: dict[str, Scores],
    unsure: str = "",
) -> SetResult:  # fmt: skip
    """Scores and baselines of one cell. fixed: baselines that are the same in every cell, filled by the first. unsure:
    why answers have no confidence, where that is known."""
    kind, items, metrics = data.definition.kind, data.items, data.definition.metrics
    result = SetResult(data, answers, Scores(), {})
    orders = max((len(answer.texts) for answer in answers), default=1) or 1

    scored: Callable[[Sequence[Any]], Scores] = partial(
        score, kind, items, labels=data.labels, embed_text=encoder.embed_text, metrics=metrics, seed=seed
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
    result.right, result.judged_by = right_of(
        data, [each.texts[0] if each.texts else None for each in answers], result.scores
    )
    own, details = score_confidence(items, result.confidence, result.right, seed, result.judged_by)
    result.scores.metrics.update(own)
    result.scores.details.update(details)
    if not own:
        why, remedy = f"answers have no confidence: {unsure or 'none was computed'}", "a calibration (mats calibrate)"
        if any(sure is not None for sure in result.confidence):
            why, remedy = "no answer with a confidence is judged right or wrong", "a metric that judges answers"
        result.scores.unavailable += [Unavailable(name, why, remedy) for name in SURENESS]
    return result


def by_its_sounds(definition: EvaluationSet) -> bool:
    """Whether answers are right by the sounds that they name: captions of the embedded world."""
    return definition.kind == "caption" and definition.reader == SOUNDWORLD


def right_of(
    data: LoadedSet, first: Sequence[str | None], scores: Scores, metric: str = "", at_least: float | None = None
) -> tuple[list[bool | None], str]:
    """Whether the first answer to each item is right, and what that means, in words ("": nothing does). None where
    there is no answer, or it is not told.

    What is right is told by its sounds, or by `right_answers`; where a `metric` is named, one of the scores, by what
    an answer reaches in that (`at_least`: see `reached`).
    """
    definition = data.definition
    if metric:
        right, meaning = reached(metric, scores.metrics[metric].values, at_least)
    elif by_its_sounds(definition):
        named = [{WORDS[kind].label for kind in parse_kinds(text or "")} for text in first]
        pairs = [(said, set(item.labels)) for said, item in zip(named, data.items, strict=True)]
        right = [labels_right(len(said & true), len(said), len(true)) for said, true in pairs]
        meaning = LABELS_RIGHT
    else:
        right, meaning = right_answers(definition.kind, data.items, scores)
    return [None if text is None else told for text, told in zip(first, right, strict=True)], meaning


def truths(item: Item, kind: Kind) -> list[str]:
    """What is right, one text each: labels or the right option where these are asked for, else the references."""
    if kind == "choice":
        return [item.answer] if item.answer else []
    return list(item.labels if kind in ("label", "labels") else item.references)


def modality_gap(
    result: SetResult, embed_text: Callable[[list[str]], np.ndarray], move: Callable[[np.ndarray], np.ndarray]
) -> Gap | None:
    """The gap over up to GAP_ITEMS sounds; None where fewer than three have a text and an embedding. A sound's text is
    its first reference caption, else the texts of its labels, else the right option. embed_text: texts → unit [N, D].
    move: the bridge: unit audio embeddings [N, D] → what the mapper was given."""
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
