"""Can a model learn kinds of sound it was never told of, from sentences alone? Some kinds are held out of all text.

A model is trained on text that never names the held-out kinds, and another, as long and with the same seed, on text
that names all. `mats adapt` then brings the first one sentences about them; all are measured on the same clips, which
no training has met.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mats_core import storage
from mats_core.encoders.clap import HfClapEncoder
from mats_core.memory.santa import SantaMemory
from mats_core.model.asking import Request
from mats_core.model.config import Part
from mats_core.model.model import MatsModel, load_model
from mats_core.scoring.labels import label_f1
from mats_core.soundworld.corpus import RECORDS, ROUNDS, text_record
from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import Content, caption, parse_kinds
from mats_core.soundworld.made.ablation import MEMORY_ENTRIES, santa_settings
from mats_core.soundworld.made.measure import Clips, ask
from mats_core.soundworld.made.text_training import Corpus, corpus_of, memory_captions, train_mats, training_settings
from mats_core.soundworld.recipe import clip_recipe

Log = Callable[[str], None]

HELD_OUT = tuple(list(KINDS)[3::4])
"""Every fourth kind, six in all: no choice of easy ones."""
NOISE_VARIANCE, MIX, SEED = 0.003, 0.2, 1
"""Those of the shipped model."""
TASKS = ("caption", "cla_label")


def held_out_records(held: Sequence[str], records: int = RECORDS, rounds: int = ROUNDS) -> list[dict[str, str]]:
    """The text corpus, of clips without the held-out kinds; a question that names one is left out."""
    kept = [kind for kind in KINDS if kind not in held]
    rows = [text_record(index, turn, kinds=kept) for turn in range(rounds) for index in range(records)]
    return [row for row in rows if not set(parse_kinds(f"{row['caption']}. {row['instruction']}")) & set(held)]


def archive_sentences(held: Sequence[str], count: int) -> list[str]:
    """What someone might write about an archive: captions of clips in which one of the held-out kinds is heard, perhaps
    with others."""
    found: list[str] = []
    index = 0
    while len(found) < count:
        recipe = clip_recipe("memory", index)
        if set(recipe.labels()) & set(held):
            rng = np.random.default_rng([37, index])
            found.append(caption(Content.of(recipe, rng), rng))
        index += 1
    return found


def make_model(out: Path, parts: Path, rows: Sequence[dict[str, str]], steps: int, log: Log) -> None:
    """Train a whole model on records, with the encoder and LLM in `parts`, into `out`, unless it is there."""
    if (out / "model" / "mats.json").exists():
        return
    encoder = HfClapEncoder(str(parts / "encoder"), device="cpu")
    corpus: Corpus = corpus_of(rows, encoder.embed_text([row["caption"] for row in rows]).float().cpu())
    chosen = memory_captions(MEMORY_ENTRIES, corpus)
    memory = SantaMemory.build(
        corpus.embeddings[chosen], [corpus.captions[i] for i in chosen], ["soundworld"] * len(chosen), seed=0,
        storage="float16", encoder_fingerprint=encoder.fingerprint,
    )  # fmt: skip
    memory.save(str(out / "memory"))
    settings = training_settings(NOISE_VARIANCE, SEED, steps)
    model = train_mats(corpus, parts / "encoder", parts / "llm", settings, log, out.name)
    part = Part(uri=str(out / "memory"), fingerprint=memory.fingerprint)
    model.config = model.config.model_copy(update={"memory": part, "santa": santa_settings(MIX, NOISE_VARIANCE)})
    model.parts["memory"] = str(out / "memory")
    model.save(str(out / "model"), include=("encoder", "llm", "memory"), weights="float16")


def held_out_scores(model: MatsModel, clips: Clips, held: Sequence[str]) -> dict[str, Any]:
    """Label F1 of captions and of `cla_label` answers: on clips with a held-out kind in them, on the others, and of the
    held-out kinds alone on all clips."""
    found: dict[str, Any] = {}
    true = [set(recipe.labels()) for recipe in clips.recipes]
    new = [bool(labels & set(held)) for labels in true]
    for task in TASKS:
        texts = ask(model, clips.embeddings, [Request(task)] * len(true), model.config.santa)
        named = [set(parse_kinds(text)) for text in texts]
        pairs = list(zip(named, true, new, strict=True))

        def micro(chosen: list[tuple[set[str], set[str]]]) -> float:
            return label_f1([said for said, _ in chosen], [labels for _, labels in chosen]).micro

        found[task] = {
            "held": micro([(said, labels) for said, labels, is_new in pairs if is_new]),
            "others": micro([(said, labels) for said, labels, is_new in pairs if not is_new]),
            "held_kinds": micro([(said & set(held), labels & set(held)) for said, labels, _ in pairs]),
        }
    return {**found, "clips": {"held": sum(new), "others": len(new) - sum(new)}}


def score_models(work: Path, models: dict[str, Path], clips: Clips, held: Sequence[str], log: Log) -> dict[str, Any]:
    """`held_out_scores` of each model by name, kept in WORK/scores-NAME.json."""
    found = {}
    for name, place in models.items():
        path = work / f"scores-{name}.json"
        if not path.exists():
            log(f"asking the model {name}")
            model = load_model(str(place), device="cpu", dtype="float32")
            storage.write_bytes(str(path), json.dumps(held_out_scores(model, clips, held), indent=1).encode())
        found[name] = json.loads(path.read_text())
    return found


def held_out_table(scores: dict[str, Any], rows: dict[str, str]) -> str:
    """A table for people, in Markdown. rows: name in `scores` → what the model is."""
    first = next(iter(scores.values()))["clips"]
    head = [f"clips with held-out kinds ({first['held']})", f"other clips ({first['others']})", "held-out kinds alone"]
    lines = ["| model | " + " | ".join(head) + " | labels, held-out | labels, others |", "|---|---|---|---|---|---|"]
    for name, what in rows.items():
        said, labels = scores[name]["caption"], scores[name]["cla_label"]
        cells = (said["held"], said["others"], said["held_kinds"], labels["held"], labels["others"])
        lines.append(f"| {what} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(lines)
