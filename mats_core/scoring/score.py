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

_LETTERS = "Share of items whose answer is the true label"
_BLEU = "of all answers together, less for answers shorter than the references."
MEANINGS: dict[str, str] = {
    "cider_d": "CIDEr-D: n-grams shared with the references, rare ones more. Depends on which items there are.",
    "spider": "SPIDEr: the mean of CIDEr-D and SPICE.",
    "fense": "FENSE: sentences close in meaning to the references, less for broken ones.",
    "spice": "SPICE: what is said, as a graph of things, properties and relations, beside that of the references.",
    "meteor": "METEOR: words shared with the references: the same, stems, synonyms, paraphrases.",
    "rouge_l": "ROUGE-L: the longest sequence of words shared with a reference.",
    "bleu_1": f"BLEU-1: share of words that a reference has, {_BLEU}",
    **{f"bleu_{n}": f"BLEU-{n}: the same of sequences of one to {n} words, their geometric mean." for n in (2, 3, 4)},
    "accuracy": "Share of items answered right. Of labels: an answer that names none is taken for the one nearest "
    "to it by CLAP. Of options: the mean over the orders in which they were shown.",
    "accuracy_exact": f"{_LETTERS}, letter for letter but for the case of the first one and a final full stop.",
    "accuracy_normalised": f"{_LETTERS}, but for case, punctuation and articles; CLAP takes no part.",
    "macro_f1": "F1 of each label, then the mean over labels: rare ones count as much as frequent ones.",
    "micro_f1": "F1 of all pairs of item and label together: frequent labels count more.",
    "map": "mAP: mean over labels of average precision, items ranked by how near the answer is to the label by CLAP.",
    "matched": "Share of answers that name a label or option themselves, right or wrong, without CLAP. Of sets of "
    "labels: of an answer's parts. Of options: of answers that choose one, in whatever way.",
    "answered": "Share of questions that got an answer, whatever it says; the history has it of every data set.",
    "auroc": "How often a right answer is more confident than a wrong one; 0.5 is a guess.",
    "ece": "Expected calibration error: how far confidence is from the share that is right. Less is better.",
    "risk_area": "Share of wrong answers among those kept, the most confident first, as a mean over all shares that "
    "may be kept. Less is better.",
}
"""What every metric of an evaluation is: those of METRICS and of `sureness.SURENESS`."""


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
