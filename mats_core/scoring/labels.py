"""Answers that name labels: one a clip (accuracy, macro F1) or several (F1 of the set, mAP)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mats_core.scoring.items import Answers, Item, Metric, Scores, Unavailable
from mats_core.scoring.matching import (
    EXACT,
    HOWS,
    NEAREST,
    NORMALISED,
    EmbedText,
    LabelSet,
    Match,
    match_labels,
    similarities,
)
from mats_core.scoring.metric import no_answer, of_rows, of_values, per_category

_NO_NEAREST = "no CLAP at hand: an answer that names no label counts as wrong"
_EXACT_NOTE = "letter for letter, but for the case of the first letter and a final full stop"
_NEEDS_CLAP = "a model with an encoder, whose text side scores each label by its similarity to the answer"


def score(
    items: Sequence[Item],
    answers: Answers,
    labels: LabelSet,
    wanted: Sequence[str],
    embed_text: EmbedText | None,
    seed: int,
) -> Scores:
    """Kind ``label``: each item has one true label.

    ``accuracy`` takes every answer to a label by `matching.match_labels`; ``accuracy_exact`` (which ignores the case of
    the first letter) and ``accuracy_normalised`` go only that far. ``matched`` is the share of answers that name a
    label without CLAP.
    """
    why = _left_out(items, answers, labels, most=1)
    counts = [not reason for reason in why]
    texts = [_text(a) for a in answers]
    found = match_labels(texts, labels, embed_text)
    names = labels.names
    true = [names.index(item.labels[0]) if ok else -1 for item, ok in zip(items, counts, strict=True)]

    def correct(*hows: str) -> list[float | None]:
        return [
            float(m.index == t and m.how in hows) if ok else None for m, t, ok in zip(found, true, counts, strict=True)
        ]

    def mean(name: str, values: Sequence[float | None], note: str = "") -> Metric:
        return of_values(name, items, values, why, seed, note=note)

    note = "" if embed_text is not None else _NO_NEAREST
    every = correct(EXACT, NORMALISED, NEAREST)
    rows = [
        (float(t), float(-1 if m.index is None else m.index)) if ok else None
        for m, t, ok in zip(found, true, counts, strict=True)
    ]
    named = [float(m.how in (EXACT, NORMALISED)) if ok else None for m, ok in zip(found, counts, strict=True)]
    build = {
        "accuracy": lambda: mean("accuracy", every, note),
        "accuracy_exact": lambda: mean("accuracy_exact", correct(EXACT), _EXACT_NOTE),
        "accuracy_normalised": lambda: mean("accuracy_normalised", correct(EXACT, NORMALISED)),
        "macro_f1": lambda: of_rows("macro_f1", items, rows, every, why, "macro_f1", seed, note=note),
        "matched": lambda: mean("matched", named, "share of answers that name a label, exactly or normalised"),
    }
    kept = [(names[t], m) for m, t, ok in zip(found, true, counts, strict=True) if ok]
    guessed = [set() if m.index is None else {names[m.index]} for _, m in kept]
    return Scores(
        metrics={name: build[name]() for name in wanted},
        details={
            "per_label": label_f1(guessed, [{t} for t, _ in kept]).per_label if kept else {},
            "per_category": per_category(items, every, seed),
            "confusion": _confusion([(t, None if m.index is None else names[m.index]) for t, m in kept]),
            "match": _rates([m for _, m in kept]),
            "matched": [
                None if m.index is None or not ok else names[m.index] for m, ok in zip(found, counts, strict=True)
            ],
        },
    )


def score_sets(
    items: Sequence[Item],
    answers: Answers,
    labels: LabelSet,
    wanted: Sequence[str],
    embed_text: EmbedText | None,
    seed: int,
) -> Scores:
    """Kind ``labels``: each item has a set of true labels; an answer lists labels with commas or semicolons.

    ``micro_f1`` and ``macro_f1`` are those of the labels that the answer lists, each piece matched by
    `matching.match_labels`. ``map`` is the mean over labels that occur of average precision, the similarity of the
    whole answer to each label's text in CLAP's text space being the score; so it needs ``embed_text``.
    """
    why = _left_out(items, answers, labels, most=None)
    counts = [not reason for reason in why]
    pieces = [split_answer(_text(a), labels) for a in answers]
    matches = match_labels([piece for each in pieces for piece in each], labels, embed_text)
    at = iter(matches)
    found = [[next(at) for _ in each] for each in pieces]
    guessed = [{m.index for m in each if m.index is not None} for each in found]
    index = {name: i for i, name in enumerate(labels.names)}
    true = [{index[name] for name in item.labels} if ok else set() for item, ok in zip(items, counts, strict=True)]

    def indicator(sets: Sequence[set[int]]) -> np.ndarray:
        table = np.zeros((len(sets), len(labels)))
        for row, each in zip(table, sets, strict=True):
            row[list(each)] = 1.0
        return table

    hits = [
        (float(len(g & t)), float(len(g)), float(len(t))) if ok else None
        for g, t, ok in zip(guessed, true, counts, strict=True)
    ]
    f1 = [None if h is None else (2 * h[0] / (h[1] + h[2]) if h[1] + h[2] else 0.0) for h in hits]
    truth, said = indicator(true), indicator(guessed)
    note = "" if embed_text is not None else _NO_NEAREST
    named = [
        float(np.mean([m.how in (EXACT, NORMALISED) for m in each]) if each else 0.0) if ok else None
        for each, ok in zip(found, counts, strict=True)
    ]
    metrics: dict[str, Metric] = {}
    unavailable: list[Unavailable] = []
    for name in wanted:
        if name == "micro_f1":
            metrics[name] = of_rows(name, items, hits, f1, why, "micro_f1", seed, note=note)
        elif name == "macro_f1":
            rows = _rows(np.concatenate([truth, said], axis=1), counts)
            metrics[name] = of_rows(name, items, rows, f1, why, "macro_f1_sets", seed, note=note)
        elif name == "matched":
            metrics[name] = of_values(
                name, items, named, why, seed, note="share of an answer's parts that name a label"
            )
        elif embed_text is None:
            unavailable.append(Unavailable(name, "no CLAP at hand", _NEEDS_CLAP))
        else:
            likeness = similarities([_text(a) for a in answers], labels.texts, embed_text)
            metrics[name] = mean_average_precision(items, likeness, truth, why, seed)
    kept = [(g, t) for g, t, ok in zip(guessed, true, counts, strict=True) if ok]

    def words(sets: set[int]) -> set[str]:
        return {labels.names[i] for i in sets}

    return Scores(
        metrics=metrics,
        unavailable=unavailable,
        details={
            "per_label": label_f1([words(g) for g, _ in kept], [words(t) for _, t in kept]).per_label if kept else {},
            "match": _rates([m for each, ok in zip(found, counts, strict=True) if ok for m in each]),
            "matched": [
                ", ".join(sorted(words(g))) or None if ok else None for g, ok in zip(guessed, counts, strict=True)
            ],
        },
    )


def mean_average_precision(
    items: Sequence[Item], likeness: np.ndarray, truth: np.ndarray, why: Sequence[str], seed: int
) -> Metric:
    """mAP of scores [N, C] against truth [N, C] (0 or 1); an item's value is the average precision of its labels.

    The item's own value ranks the labels for that clip; it is for finding good and bad cases, not for averaging.
    """
    from sklearn.metrics import average_precision_score

    counts = [not reason for reason in why]
    values = [
        float(average_precision_score(t, s)) if ok and t.any() else None
        for t, s, ok in zip(truth, likeness, counts, strict=True)
    ]
    rows = _rows(np.concatenate([likeness, truth], axis=1), counts)
    return of_rows("map", items, rows, values, why, "mean_average_precision", seed)


@dataclass(frozen=True)
class LabelScores:
    """Scores of predicted label sets against true ones, all between 0 and 1.

    ``micro`` pools all decisions; ``macro`` is the mean of the labels' own F1 over labels that occur in the truth.
    """

    precision: float
    recall: float
    micro: float
    macro: float
    per_label: dict[str, float]


def label_f1(predicted: Sequence[Collection[str]], true: Sequence[Collection[str]]) -> LabelScores:
    """F1 of label sets, one predicted and one true set an item.

    Raises:
        ValueError: when the two differ in length or are empty.
    """
    if len(predicted) != len(true) or not true:
        raise ValueError(f"{len(predicted)} predictions for {len(true)} truths; both must be the same and not zero")
    hits: dict[str, np.ndarray] = {}
    for guess, truth in zip(predicted, true, strict=True):
        for label in set(guess) | set(truth):
            row = hits.setdefault(label, np.zeros(3))
            row += (label in guess and label in truth, label in guess, label in truth)
    both, guessed, there = np.sum(list(hits.values()), axis=0) if hits else np.zeros(3)
    per_label = {label: _ratio(2 * h[0], h[1] + h[2]) for label, h in sorted(hits.items())}
    occurring = [per_label[label] for label, h in hits.items() if h[2]]
    return LabelScores(
        precision=_ratio(both, guessed),
        recall=_ratio(both, there),
        micro=_ratio(2 * both, guessed + there),
        macro=float(np.mean(occurring)) if occurring else 0.0,
        per_label=per_label,
    )


def split_answer(answer: str, labels: LabelSet) -> list[str]:
    """The pieces of a list answer: cut at semicolons, line ends and commas, but not within a label that has commas."""
    pieces: list[str] = []
    with_comma = sorted(
        (form for form in {*labels.names, *labels.spoken} if "," in form), key=lambda form: (-len(form), form)
    )
    rest = answer
    for form in with_comma:
        left = _cut(rest, form)
        if left is not None:
            pieces.append(form)
            rest = left
    for piece in rest.replace(";", ",").replace("\n", ",").split(","):
        text = piece.strip().rstrip(".")
        if text:
            pieces.append(text)
    return list(dict.fromkeys(pieces))


def _cut(text: str, form: str) -> str | None:
    """The text without a form that stands in it between commas or ends, whatever its case; None when it does not."""
    at = text.lower().find(form.lower())
    if at < 0:
        return None
    before, after = text[:at].rstrip(), text[at + len(form) :].lstrip()
    if (before and before[-1] not in ",;\n") or (after and after[0] not in ",;.\n"):
        return None
    return f"{before}, {after.lstrip('.')}"


def _left_out(items: Sequence[Item], answers: Answers, labels: LabelSet, most: int | None) -> list[str]:
    known = set(labels.names)
    why = no_answer(answers)
    for i, item in enumerate(items):
        if not item.labels or (most is not None and len(item.labels) > most):
            why[i] = f"{len(item.labels)} true labels"
        elif not set(item.labels) <= known:
            why[i] = f"label not in the label set: {', '.join(sorted(set(item.labels) - known))}"
    return why


def _confusion(pairs: Sequence[tuple[str, str | None]]) -> dict[str, dict[str, int]]:
    """{true label: {label answered, "" for none: count}}."""
    table: dict[str, Counter[str]] = {}
    for true, guessed in pairs:
        table.setdefault(true, Counter())[guessed or ""] += 1
    return {true: dict(sorted(row.items())) for true, row in sorted(table.items())}


def _rates(matches: Sequence[Match]) -> dict[str, float]:
    return {how: sum(m.how == how for m in matches) / len(matches) for how in HOWS} if matches else {}


def _rows(table: np.ndarray, counts: Sequence[bool]) -> list[np.ndarray | None]:
    return [row if ok else None for row, ok in zip(table, counts, strict=True)]


def _text(answer: object) -> str:
    return answer if isinstance(answer, str) else ""


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else 0.0
