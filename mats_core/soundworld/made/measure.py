"""Measures of a model of the embedded world on clips it has never met: captions, labels, order, questions, the gap."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mats_core.memory.bridges import Bridge, BridgeSettings
from mats_core.model.asking import Request
from mats_core.model.config import SantaSettings
from mats_core.model.model import MatsModel
from mats_core.scoring import interval
from mats_core.scoring.labels import label_f1
from mats_core.soundworld.corpus import text_record
from mats_core.soundworld.language import QUESTION_KINDS, Content, parse_kinds, parse_order, question, recipe_caption
from mats_core.soundworld.recipe import Recipe, clip_recipe

Numbers = dict[str, Any]


@dataclass
class Clips:
    """Unit audio embeddings [N, D] of clips, and the recipe of each."""

    embeddings: torch.Tensor
    recipes: list[Recipe]


def ask(
    model: MatsModel, embeddings: torch.Tensor, requests: list[Request], santa: SantaSettings, batch: int = 64
) -> list[str]:
    """Answers of a model to embeddings [N, D], a request each."""
    texts: list[str] = []
    for at in range(0, len(requests), batch):
        replies = model.answer_embeddings(embeddings[at : at + batch], requests[at : at + batch], santa=santa)
        texts += [r.text for r in replies]
    return texts


def caption_numbers(captions: list[str], recipes: list[Recipe]) -> Numbers:
    """Label F1 of the kinds that captions name, with a 95 % interval, and how often they name the order right.

    ``order`` counts clips whose sounds follow one another; right means every sound named, in that order.
    ``order_given_kinds`` counts of those only the captions that name the right sounds.
    """
    named = [set(parse_kinds(c)) for c in captions]
    true = [set(r.labels()) for r in recipes]
    scores = label_f1(named, true)
    hits = [(len(n & t), len(n), len(t)) for n, t in zip(named, true, strict=True)]
    low, high = interval("micro_f1", hits, draws=200)
    ordered = [(c, r) for c, r in zip(captions, recipes, strict=True) if len(r.ordered()) >= 2]
    right = [parse_order(c) == r.ordered() for c, r in ordered]
    knows = [set(parse_kinds(c)) == set(r.labels()) for c, r in ordered]
    return {
        "label_f1": scores.micro, "label_f1_interval": [low, high], "label_f1_macro": scores.macro,
        "precision": scores.precision, "recall": scores.recall, "per_kind": scores.per_label,
        "order": _mean(right), "order_given_kinds": _mean([r for r, k in zip(right, knows, strict=True) if k]),
        "clips": len(captions), "ordered_clips": len(ordered),
    }  # fmt: skip


def caption_f1(model: MatsModel, clips: Clips, santa: SantaSettings) -> Numbers:
    """``caption_numbers`` of a model's own captions."""
    captions = ask(model, clips.embeddings, [Request("caption")] * len(clips.recipes), santa)
    return caption_numbers(captions, clips.recipes) | {"captions": captions}


def chance_f1(captions: list[str], recipes: list[Recipe], seed: int = 0) -> float:
    """Label F1 when every clip is given another clip's caption."""
    shift = 1 + np.random.default_rng(seed).permutation(len(captions) - 1)
    scores = [
        label_f1([parse_kinds(c) for c in np.roll(captions, int(s))], [r.labels() for r in recipes]).micro
        for s in shift[:5]
    ]
    return float(np.mean(scores))


def label_answers(model: MatsModel, clips: Clips, santa: SantaSettings) -> float:
    """Label F1 of answers to ``cla_label``."""
    answers = ask(model, clips.embeddings, [Request("cla_label")] * len(clips.recipes), santa)
    return label_f1([parse_kinds(a) for a in answers], [r.labels() for r in clips.recipes]).micro


def questions(clips: Clips, prior_records: int = 20_000) -> tuple[list[tuple[str, str, str]], list[str]]:
    """A question a clip (question, answer, kind), and the answer its wording most often has in the text corpus."""
    asked = []
    for i, recipe in enumerate(clips.recipes):
        rng = np.random.default_rng([31, i])
        content = Content.of(recipe, rng, attributes=1.0)
        asked.append(question(content, rng, only=QUESTION_KINDS[i % len(QUESTION_KINDS)]))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    for i in range(prior_records):
        record = text_record(i)
        if record["task"] == "QA":
            counts[record["instruction"]][record["output"]] += 1
            overall[record["output"]] += 1
    prior = [(counts.get(q) or overall).most_common(1)[0][0] for q, _, _ in asked]
    return asked, prior


def question_numbers(model: MatsModel, clips: Clips, santa: SantaSettings) -> Numbers:
    """Accuracy by kind of question, beside the prior: always the answer most usual for that wording."""
    asked, prior = questions(clips)
    answers = ask(model, clips.embeddings, [Request("QA", question=q) for q, _, _ in asked], santa)
    numbers: Numbers = {}
    for kind in (*QUESTION_KINDS, "all"):
        rows = [i for i, (_, _, k) in enumerate(asked) if kind in (k, "all")]
        if rows:
            true = [asked[i][1] for i in rows]
            numbers[kind] = {
                "accuracy": accuracy([answers[i] for i in rows], true),
                "prior": accuracy([prior[i] for i in rows], true),
                "questions": len(rows),
            }
    return numbers


def accuracy(answers: list[str], true: list[str]) -> float:
    """Share of answers equal to the truth, letter case and a final full stop aside."""
    return _mean([_plain(a) == _plain(t) for a, t in zip(answers, true, strict=True)])


def modality_gap(model: MatsModel, clips: Clips, santa: SantaSettings) -> Numbers:
    """Mean cosine of true pairs and distance of the two centroids, before and after Santa."""
    if model.encoder is None or model.memory is None:
        raise ValueError("the modality gap needs a model with an encoder and a memory")
    text = model.encoder.embed_text([recipe_caption(r) for r in clips.recipes]).cpu()
    bridge = Bridge(BridgeSettings(), model.memory)
    moved = [bridge.move(part.to(model.device), santa).cpu() for part in clips.embeddings.split(256)]
    numbers: Numbers = {}
    for name, audio in (("before", clips.embeddings), ("after", torch.cat(moved))):
        unit = torch.nn.functional.normalize(audio, dim=1)
        numbers[name] = {
            "pair_cosine": float((unit * text).sum(dim=1).mean()),
            "centroid_distance": float((unit.mean(dim=0) - text.mean(dim=0)).norm()),
        }
    return numbers


def split_recipes(split: str, count: int) -> list[Recipe]:
    """The first recipes of a split."""
    return [clip_recipe(split, i) for i in range(count)]


def _mean(values: list[bool]) -> float:
    return float(np.mean(values)) if values else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().strip().rstrip(".").split())
