"""What needs no model of ours: the majority answer, answers given to other clips, zero-shot CLAP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from mats_core.scoring import labels as label_family
from mats_core.scoring.choices import choose, order, texts_of
from mats_core.scoring.items import Answers, Item, Kind, Scores
from mats_core.scoring.matching import LabelSet, normalise, unit_embeddings
from mats_core.scoring.score import METRICS, score

_MEDOID_OF = 2000


def majority(kind: Kind, items: Sequence[Item], orders: int = 1, seed: int = 0) -> list[str] | list[list[str]]:
    """The same answer to everything, as good as knowing the truth's distribution makes it.

    ``label``: the most frequent label. ``labels``: the labels that more than half of the clips have, at least the
    most frequent one. ``choice``: the option that is most often right elsewhere under the same words; where all are
    as rare, one drawn by item and order. ``caption``: the reference whose words are shared most with the other
    clips'. ``chat``: an empty answer.
    """
    if kind in ("label", "labels"):
        counts = Counter(label for item in items for label in item.labels)
        most = min(counts, key=lambda name: (-counts[name], name), default="")
        frequent = [label for label, n in sorted(counts.items()) if kind == "labels" and 2 * n > len(items)]
        return [", ".join(frequent or [most])] * len(items)
    if kind == "choice":
        counts = Counter(normalise(item.answer) for item in items)
        rows = []
        for item in items:
            row = []
            for k in range(orders):
                shown = order(item.choices, seed + k, item.item_id)
                own = normalise(item.answer)
                often = [counts[normalise(c)] - (normalise(c) == own) for c in shown]
                drawn = order(range(len(shown)), seed + k, f"majority {item.item_id}")
                row.append(shown[max(drawn, key=lambda place: often[place])])
            rows.append(row)
        return rows
    return [_central(items) if kind == "caption" else ""] * len(items)


def shuffled(kind: Kind, items: Sequence[Item], answers: Answers, seed: int = 0) -> list[object]:
    """A model's answers handed round: every clip gets the answer another clip got (of several, all move together).

    For ``choice`` the *place* of the option that was chosen moves, so that the answer is one of the item's own.
    """
    n = len(items)
    places = np.random.default_rng([seed, 51]).permutation(n)
    giver = np.empty(n, dtype=int)
    giver[places] = np.roll(places, 1)
    if kind != "choice":
        return [answers[int(g)] for g in giver]
    taken = [
        [choose(item, text, seed + k) for k, text in enumerate(texts_of(each))]
        for item, each in zip(items, answers, strict=True)
    ]
    moved: list[object] = []
    for item, g in zip(items, giver, strict=True):
        given = [None if each is None else each.place for each in taken[int(g)]]
        shown = [order(item.choices, seed + k, item.item_id) for k in range(len(given))]
        moved.append(["" if p is None else own[p % len(own)] for p, own in zip(given, shown, strict=True)])
    return moved


def zero_shot(
    kind: Kind,
    items: Sequence[Item],
    audio: np.ndarray,
    labels: LabelSet,
    embed_text: Callable[[list[str]], np.ndarray],
    seed: int = 0,
    metrics: Sequence[str] | None = None,
) -> Scores:
    """CLAP alone: the label (or option) whose text is nearest to the sound.

    audio: embeddings [N, D] of the items' sounds, in their order; rows that are not finite are left out.
    labels: for kinds ``label`` and ``labels``; their ``texts`` are compared with the sound.
    Raises ValueError: for kinds it does not apply to (``caption``, ``chat``), and when N is not the number of items.
    """
    if len(audio) != len(items):
        raise ValueError(f"{len(audio)} embeddings for {len(items)} items")
    finite = np.isfinite(audio).all(axis=1)
    unit = np.where(finite[:, None], audio, 0.0).astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    if kind == "choice":
        texts = list(dict.fromkeys(c for item in items for c in item.choices))
        table = dict(zip(texts, unit_embeddings(texts, embed_text), strict=True))
        chosen = [
            max(item.choices, key=lambda c: float(u @ table[c])) if ok else None
            for item, u, ok in zip(items, unit, finite, strict=True)
        ]
        return score(kind, items, chosen, metrics=metrics, seed=seed)
    if kind not in ("label", "labels"):
        raise ValueError(f"zero-shot CLAP does not apply to kind {kind}")
    likeness = unit @ unit_embeddings(list(labels.texts), embed_text).T
    nearest = [labels.names[i] if ok else None for i, ok in zip(likeness.argmax(axis=1), finite, strict=True)]
    if kind == "label":
        return score(kind, items, nearest, labels=labels, metrics=metrics, seed=seed)
    truth = np.array([np.isin(labels.names, item.labels) for item in items], dtype=float)
    why = ["" if ok else "no embedding" for ok in finite]
    others = [m for m in (metrics if metrics is not None else METRICS[kind]) if m != "map"]
    scores = score(kind, items, nearest, labels=labels, metrics=others, seed=seed)
    scores.metrics = {"map": label_family.mean_average_precision(items, likeness, truth, why, seed), **scores.metrics}
    return scores


def _central(items: Sequence[Item]) -> str:
    """The reference whose words most other references share, for its length."""
    texts = list(dict.fromkeys(text for item in items for text in item.references))[:_MEDOID_OF]
    words = [frozenset(normalise(text).split()) for text in texts]
    frequency = Counter(word for each in words for word in each)
    usual = float(np.mean([len(each) for each in words])) if words else 0.0
    if not texts:
        return ""
    best = max(range(len(texts)), key=lambda i: (sum(frequency[w] for w in words[i]) / (len(words[i]) + usual), -i))
    return texts[best]
