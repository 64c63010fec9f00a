"""Answers that name labels: one a clip (accuracy, macro F1) or several (F1 of the set, mAP)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import compress

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
)  # fmt: skip
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
    found = match_labels([_text(a) for a in answers], labels, embed_text)
    names = labels.names
    true = [names.index(item.labels[0]) if ok else -1 for item, ok in zip(items, counts, strict=True)]
    said = [None if m.index is None else names[m.index] for m in found]

    def correct(*hows: str) -> list[float]:
        return [float(m.index == t and m.how in hows) for m, t in zip(found, true, strict=True)]

    note = "" if embed_text is not None else _NO_NEAREST
    every = correct(EXACT, NORMALISED, NEAREST)
    rows = [(float(t), float(-1 if m.index is None else m.index)) for m, t in zip(found, true, strict=True)]
    named = [float(m.how in (EXACT, NORMALISED)) for m in found]
    means = {
        "accuracy": (every, note),
        "accuracy_exact": (correct(EXACT), _EXACT_NOTE),
        "accuracy_normalised": (correct(EXACT, NORMALISED), ""),
        "matched": (named, "share of answers that name a label, exactly or normalised"),
    }
    kept = [(names[t], guess) for t, guess in compress(zip(true, said, strict=True), counts)]
    per_label = (
        label_f1([{guess} if guess else set() for _, guess in kept], [{t} for t, _ in kept]).per_label if kept else {}
    )
    return Scores(
        metrics={
            name: of_rows(name, items, rows, every, why, name, seed, note=note)
            if name == "macro_f1"
            else of_values(name, items, means[name][0], why, seed, note=means[name][1])
            for name in wanted
        },
        details={
            "per_label": per_label,
            "per_category": per_category(items, [v if ok else None for v, ok in zip(every, counts, strict=True)], seed),
            "confusion": _confusion(kept),
            "match": _rates(list(compress(found, counts))),
            "matched": [each if ok else None for each, ok in zip(said, counts, strict=True)],
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
    at = iter(match_labels([piece for each in pieces for piece in each], labels, embed_text))
    found = [[next(at) for _ in each] for each in pieces]
    names = np.asarray(labels.names, dtype=object)
    truth, said = np.zeros((2, len(items), len(labels)))  # [N, C], 0 or 1
    for i, (item, each) in enumerate(zip(items, found, strict=True)):
        truth[i] = np.isin(names, item.labels) if counts[i] else 0.0
        said[i, [m.index for m in each if m.index is not None]] = 1.0
    hits = np.stack([(truth * said).sum(axis=1), said.sum(axis=1), truth.sum(axis=1)], axis=1)  # [N, 3]
    f1 = [_ratio(2 * both, guessed + there) for both, guessed, there in hits]
    named = [float(np.mean([m.how in (EXACT, NORMALISED) for m in each])) if each else 0.0 for each in found]
    note = "" if embed_text is not None else _NO_NEAREST
    metrics: dict[str, Metric] = {}
    unavailable: list[Unavailable] = []
    for name in wanted:
        if name == "micro_f1":
            metrics[name] = of_rows(name, items, list(map(tuple, hits)), f1, why, "micro_f1", seed, note=note)
        elif name == "macro_f1":
            rows = list(np.concatenate([truth, said], axis=1))
            metrics[name] = of_rows(name, items, rows, f1, why, "macro_f1_sets", seed, note=note)
        elif name == "matched":
            told = "share of an answer's parts that name a label"
            metrics[name] = of_values(name, items, named, why, seed, note=told)
        elif embed_text is None:
            unavailable.append(Unavailable(name, "no CLAP at hand", _NEEDS_CLAP))
        else:
            likeness = similarities([_text(a) for a in answers], labels.texts, embed_text)
            metrics[name] = mean_average_precision(items, likeness, truth, why, seed)
    guesses = [sorted(names[row > 0]) for row in said]
    kept = list(compress(zip(guesses, (names[row > 0] for row in truth), strict=True), counts))
    return Scores(
        metrics=metrics,
        unavailable=unavailable,
        details={
            "per_label": label_f1([g for g, _ in kept], [t.tolist() for _, t in kept]).per_label if kept else {},
            "match": _rates([m for each in compress(found, counts) for m in each]),
            "matched": [(", ".join(g) or None) if ok else None for g, ok in zip(guesses, counts, strict=True)],
        },
    )


def mean_average_precision(
    items: Sequence[Item], likeness: np.ndarray, truth: np.ndarray, why: Sequence[str], seed: int
) -> Metric:
    """mAP of scores [N, C] against truth [N, C] (0 or 1); an item's value is the average precision of its labels.

    The item's own value ranks the labels for that clip; it is for finding good and bad cases, not for averaging.
    """
    from sklearn.metrics import average_precision_score

    values = [float(average_precision_score(t, s)) if t.any() else None for t, s in zip(truth, likeness, strict=True)]
    rows = list(np.concatenate([likeness, truth], axis=1))
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
    Raises ValueError: when the two differ in length or are empty.
    """
    if len(predicted) != len(true) or not true:
        raise ValueError(f"{len(predicted)} predictions for {len(true)} truths; both must be the same and not zero")
    guessed = Counter(label for each in predicted for label in set(each))
    there = Counter(label for each in true for label in set(each))
    both = Counter(label for g, t in zip(predicted, true, strict=True) for label in set(g) & set(t))
    per_label = {label: _ratio(2 * both[label], guessed[label] + there[label]) for label in sorted(guessed | there)}
    hits, said, truths = (sum(counts.values()) for counts in (both, guessed, there))
    return LabelScores(
        precision=_ratio(hits, said),
        recall=_ratio(hits, truths),
        micro=_ratio(2 * hits, said + truths),
        macro=float(np.mean([f1 for label, f1 in per_label.items() if there[label]])) if there else 0.0,
        per_label=per_label,
    )


def split_answer(answer: str, labels: LabelSet) -> list[str]:
    """The pieces of a list answer: cut at semicolons, line ends and commas, but not within a label that has commas."""
    pieces: list[str] = []
    with_comma = {form for form in (*labels.names, *labels.spoken) if "," in form}
    for form in sorted(with_comma, key=lambda form: (-len(form), form)):
        left = _cut(answer, form)
        if left is not None:
            pieces.append(form)
            answer = left
    pieces += [piece.strip().rstrip(".") for piece in answer.replace(";", ",").replace("\n", ",").split(",")]
    return list(dict.fromkeys(filter(None, pieces)))


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


def _text(answer: object) -> str:
    return answer if isinstance(answer, str) else ""


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else 0.0
