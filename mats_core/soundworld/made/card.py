"""The embedded model's card and its table, written from what was measured."""

from __future__ import annotations

from typing import Any

from mats_core.soundworld.corpus import MINUTES, RECORDS, ROUNDS
from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import QUESTION_KINDS
from mats_core.soundworld.made.ablation import MEMORY_ENTRIES
from mats_core.soundworld.made.build import PRETRAIN_CLIPS
from mats_core.soundworld.made.text_training import ABLATION_STEPS, STEPS, training_settings
from mats_core.soundworld.made.trust import TASKS


def model_card(
    numbers: dict[str, Any], ablation: dict[str, Any] | None, times: dict[str, float], size_mb: float
) -> str:
    """Markdown: what the model is, how it was made, how long that took, and what was measured."""
    groups: dict[str, list[str]] = {}
    for kind in KINDS.values():
        groups.setdefault(kind.group, []).append(kind.name)
    minutes = chosen = ""
    if times:
        minutes = f"\nMinutes on 2 shared CPU cores: {', '.join(f'{k} {v / 60:.1f}' for k, v in times.items())}.\n"
    if ablation:
        by_noise, by_mix = (_rounded(ablation[f"validation_by_{name}"], 3) for name in ("noise", "mix"))
        chosen = (
            f"\nAblation{', ' + ablation['of'] if 'of' in ablation else ''}: "
            f"noise variance {ablation['noise_variance']:g} and Santa's mix {ablation['mix']:g} were chosen on "
            f"{ablation['validation_clips']} validation clips (by noise: {by_noise}; "
            f"by mix: {by_mix}). The upper bound is trained with noise "
            f"{ablation['upper_bound_noise']:g}, chosen the same way. Every run of the ablation is {ABLATION_STEPS} "
            "steps long.\n"
        )
    return f"""# Model card: the embedded model

A MATS model small enough to ship. It knows the sounds of the embedded world and nothing else: it is for
trying the tools, for tests, and for measuring the method. Real audio needs a real CLAP and a real LLM.

- {len(KINDS)} kinds of sound: {"; ".join(f"{g}: {', '.join(k)}" for g, k in groups.items())}.
- CLAP: a `transformers` `ClapModel`, 5 s windows at 16 kHz, 128 dimensions, pretrained here on \
{PRETRAIN_CLIPS:,} synthesised clips with captions;
  then its last audio stage and its text tower alone, until order, pitch and rate can be read from both. The only part
  that ever met audio.
- LLM: a LLaMA with byte-level BPE, pretrained on texts of the embedded world: with what is heard in words, at
  first in lists; then with vectors in their place, which throw-away mappers make of text embeddings.
- MATS mapper and LoRA adapter: {STEPS} steps of {training_settings(0.0, 0).batch_size} on text alone \
({RECORDS * ROUNDS:,} records
  of clips and {MINUTES:,} of minutes, told by a tag), by `mats train soundworld`.
- Santa's memory: {MEMORY_ENTRIES:,} captions of that text.
- Size: {size_mb:.1f} MB. Weights are stored in float16 and run in float32.

Clips come from recipes drawn by seed; pretraining, text, upper bound, validation and test draw from seeds
that never meet. Every kind varies by an octave in pitch or a factor of two in rate; simultaneous sounds
differ by up to 12 dB; background noise lies 10 to 40 dB below; the room is dry or up to 0.8 s.

`mats soundworld build --work WORK --out OUT` makes such a model; `mats soundworld ablate --work WORK` and
`mats soundworld evaluate` measure it.
{minutes}{chosen}
{measured_table(numbers, ablation)}
{trust_told(numbers)}
Label F1 by kind, captions: {_rounded(numbers["captions"]["per_kind"], 2)}.
"""


def trust_told(numbers: dict[str, Any]) -> str:
    """What the card says of confidence; nothing of a model without."""
    if not numbers.get("trust"):
        return ""
    return """
Its `confidence` was fitted on validation clips (`mats soundworld calibrate`). Of test clips, upwards the share of
answers that was right, by confidence (`mats soundworld evaluate --picture`):

![Confidence against the share of answers that was right](../../../docs/reliability.svg)
"""


def measured_table(numbers: dict[str, Any], ablation: dict[str, Any] | None) -> str:
    """The table that `mats soundworld evaluate` prints: a row a measure, its value, and what it is compared with.

    numbers: of ``build.evaluate``.
    ablation: of ``ablation.run_ablation``, or None; ``of``, where it is there, says of which parts it was measured.
    """
    c, gap, scenes = numbers["captions"], numbers["gap"], numbers.get("scenes")
    low, high = c["label_f1_interval"]
    within = f"95 % interval {low:.3f} to {high:.3f}; {numbers['clips']} clips"
    ordered = f"{c['ordered_clips']} clips with an order; {c['order_given_kinds']:.3f} where the sounds are right"
    rows: list[tuple[str, float | str, str]] = [
        ("captions, label F1", c["label_f1"], within),
        ("captions without Santa, label F1", numbers["captions_without_santa"]["label_f1"], "same model"),
        ("captions shuffled (chance), label F1", numbers["chance_f1"], ""),
        ("labels (`cla_label`), label F1", numbers["cla_label_f1"], ""),
        ("order named right", c["order"], ordered),
    ]
    for kind in (*QUESTION_KINDS, "all"):
        if q := numbers["questions"].get(kind):
            prior = f"answer prior {q['prior']:.3f}; {q['questions']} questions"
            rows.append((f"questions, {kind}", q["accuracy"], prior))
    for task, trust in numbers.get("trust", {}).items():
        told = f"calibration error {trust['ece']:.3f}; {trust['right']:.3f} of {trust['answers']} answers are right"
        if trust["auroc_interval"]:  # else all are right, or all wrong
            told = "{:.3f} to {:.3f}; ".format(*trust["auroc_interval"]) + told
        rows.append((f"confidence, {TASKS[task]}, AUROC", "" if trust["auroc"] is None else trust["auroc"], told))
    for when in ("before", "after"):
        apart = f"mean cosine of pairs; centroids {gap[when]['centroid_distance']:.3f} apart"
        rows.append((f"gap {when} Santa", gap[when]["pair_cosine"], apart))
    if scenes:
        rows.append(
            ("3-minute scenes, one answer a minute", scenes["single_answer_f1"], f"{scenes['minutes']} minutes")
        )
        rows.append(("3-minute scenes, `--segments`", scenes["segments_f1"], "label F1 a minute"))
    table = ablation["table"] if ablation else {}
    for name, row in table.items():
        share = row["label_f1"] / table["audio (upper bound)"]["label_f1"]
        told = f"{len(row['seeds'])} seeds; {share:.3f} of the upper bound; order {row['order']:.3f}"
        told += f"; {ablation['of']}" if ablation and "of" in ablation else ""
        rows.append((f"ablation: {name}", f"{row['label_f1']:.3f} ± {row['spread']:.3f}", told))
    shown = [f"| {a} | {b if isinstance(b, str) else format(b, '.3f')} | {c} |" for a, b, c in rows]
    return "\n".join(["| measure | value | |", "|---|---|---|", *shown])


def _rounded(values: dict[str, float], digits: int) -> str:
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in values.items())
