"""The one way in: items and answers of a kind → scores."""

from __future__ import annotations

from collections.abc import Sequence

from mats_core.errors import SettingsError
from mats_core.scoring import captions, chat, choices
from mats_core.scoring import labels as label_family
from mats_core.scoring.items import Answers, Item, Kind, Scores
from mats_core.scoring.matching import EmbedText, LabelSet

# Metrics of each kind, in the order they are shown.
METRICS: dict[Kind, tuple[str, ...]] = {
    "caption": (
        "cider_d", "spider", "fense", "spice", "meteor", "rouge_l", "bleu_1", "bleu_2", "bleu_3", "bleu_4",
    ),
    "label": ("accuracy", "macro_f1", "accuracy_exact", "accuracy_normalised", "matched"),
    "labels": ("map", "micro_f1", "macro_f1", "matched"),
    "choice": ("accuracy", "matched"),
    "chat": ("answered",),
}  # fmt: skip


def score(
    kind: Kind,
    items: Sequence[Item],
    answers: Answers,
    *,
    labels: LabelSet | Sequence[str] = (),
    embed_text: EmbedText | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
) -> Scores:
    """Score answers of one model.

    answers: a text an item, None where the model gave none (left out, and counted as such); for kind ``choice``
        a text or a list of texts an item, one for each order of the options (`choices.order` of seed, seed + 1, …).
    labels: the label set of kinds ``label`` and ``labels`` (default: the labels that occur in the items).
    embed_text: texts → unit embeddings [N, D]; without it answers are matched by their letters alone, and mAP
        is named as unavailable.
    metrics: names out of ``METRICS[kind]``; default: all.
    seed: of the bootstrap, and of the first order of the options.
    Raises SettingsError: for a kind or metric that is not known, or answers that are not as many as the items.
    """
    if kind not in METRICS:
        raise SettingsError("kind", f'"{kind}" is no kind of item', f"choose {', '.join(METRICS)}")
    wanted = list(metrics) if metrics is not None else list(METRICS[kind])
    unknown = [name for name in wanted if name not in METRICS[kind]]
    if unknown:
        problem = f"kind {kind} has no metric called {', '.join(unknown)}"
        raise SettingsError("metrics", problem, f"choose from {', '.join(METRICS[kind])}")
    if len(answers) != len(items) or not items:
        problem = f"there are {len(answers)} for {len(items)} items"
        raise SettingsError("answers", problem, "give one for each item, and at least one")
    if kind == "caption":
        return captions.score(items, answers, wanted, seed)
    if kind == "choice":
        return choices.score(items, answers, wanted, embed_text, seed)
    if kind == "chat":
        return chat.score(items, answers, wanted, seed)
    if not isinstance(labels, LabelSet):
        labels = LabelSet(tuple(labels))
    if not len(labels):
        labels = LabelSet(tuple(sorted({label for item in items for label in item.labels})))
    family = label_family.score_sets if kind == "labels" else label_family.score
    return family(items, answers, labels, wanted, embed_text, seed)
