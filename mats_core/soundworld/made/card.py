"""The embedded model's card and its table, written from what was measured."""

from __future__ import annotations

from typing import Any

from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import QUESTION_KINDS
from mats_core.soundworld.made import ablation as tuned
from mats_core.soundworld.made.build import PRETRAIN_CLIPS
from mats_core.soundworld.made.text_training import ABLATION_STEPS, RECORDS, ROUNDS, STEPS, training_settings


def model_card(
    numbers: dict[str, Any], ablation: dict[str, Any] | None, times: dict[str, float], size_mb: float
) -> str:
    """Markdown: what the model is, how it was made, how long that took, and what was measured."""
    groups: dict[str, list[str]] = {}
    for kind in KINDS.values():
        groups.setdefault(kind.group, []).append(kind.name)
    settings = training_settings(0.0, 0)
    lines = [
        "# Model card: the embedded model",
        "",
        "A MATS model small enough to ship. It knows the sounds of the embedded world and nothing else: it is for",
        "trying the tools, for tests, and for measuring the method. Real audio needs a real CLAP and a real LLM.",
        "",
        f"- {len(KINDS)} kinds of sound: " + "; ".join(f"{g}: {', '.join(k)}" for g, k in groups.items()) + ".",
        "- CLAP: a `transformers` `ClapModel`, 5 s windows at 16 kHz, 128 dimensions, pretrained here on "
        f"{PRETRAIN_CLIPS:,} synthesised clips with captions. The only part that ever met audio.",
        "- LLM: a LLaMA with byte-level BPE, pretrained on texts of the embedded world: with captions in words, at the",
        "  end in any order; then with vectors in their place, which a throw-away mapper makes of text embeddings.",
        f"- MATS mapper and LoRA adapter: {STEPS} steps of {settings.batch_size} on text alone "
        f"({RECORDS * ROUNDS:,} records), by `mats train soundworld`.",
        f"- Santa's memory: {tuned.MEMORY_ENTRIES:,} captions of that text.",
        f"- Size: {size_mb:.1f} MB. Weights are stored in float16 and run in float32.",
        "",
        "Clips come from recipes drawn by seed; pretraining, text, upper bound, validation and test draw from seeds",
        "that never meet. Every kind varies by an octave in pitch or a factor of two in rate; simultaneous sounds",
        "differ by up to 12 dB; background noise lies 10 to 40 dB below; the room is dry or up to 0.8 s.",
        "",
        "`mats soundworld build --work WORK --out OUT` makes such a model; `mats soundworld ablate --work WORK` and",
        "`mats soundworld evaluate` measure it.",
        "",
    ]
    if times:
        lines += [
            "Minutes on 2 shared CPU cores: " + ", ".join(f"{k} {v / 60:.1f}" for k, v in times.items()) + ".",
            "",
        ]
    if ablation:
        lines += [
            f"Noise variance {ablation['noise_variance']:g} and Santa's mix {ablation['mix']:g} were chosen on "
            f"{ablation['validation_clips']} validation clips (by noise: {_rounded(ablation['validation_by_noise'])}; "
            f"by mix: {_rounded(ablation['validation_by_mix'])}). The upper bound is trained with noise "
            f"{ablation['upper_bound_noise']:g}, chosen the same way. Every run of the ablation is {ABLATION_STEPS} "
            "steps long.",
            "",
        ]
    lines += [measured_table(numbers, ablation), "", "Label F1 by kind, captions: "]
    lines[-1] += ", ".join(f"{k} {v:.2f}" for k, v in numbers["captions"]["per_kind"].items()) + "."
    return "\n".join(lines) + "\n"


def measured_table(numbers: dict[str, Any], ablation: dict[str, Any] | None) -> str:
    """The table that `mats soundworld evaluate` prints: a row a measure, its value, and what it is compared with.

    Args:
        numbers: of ``build.evaluate``.
        ablation: of ``ablation.run_ablation``, or None.
    """
    c = numbers["captions"]
    low, high = c["label_f1_interval"]
    rows = [
        (
            "captions, label F1",
            f"{c['label_f1']:.3f}",
            f"95 % interval {low:.3f} to {high:.3f}; {numbers['clips']} clips",
        ),
        ("captions without Santa, label F1", f"{numbers['captions_without_santa']['label_f1']:.3f}", "same model"),
        ("captions shuffled (chance), label F1", f"{numbers['chance_f1']:.3f}", ""),
        ("labels (`cla_label`), label F1", f"{numbers['cla_label_f1']:.3f}", ""),
        (
            "order named right",
            f"{c['order']:.3f}",
            f"{c['ordered_clips']} clips with an order; {c['order_given_kinds']:.3f} where the sounds are right",
        ),
    ]
    for kind in (*QUESTION_KINDS, "all"):
        q = numbers["questions"].get(kind)
        if q:
            rows.append(
                (
                    f"questions, {kind}",
                    f"{q['accuracy']:.3f}",
                    f"answer prior {q['prior']:.3f}; {q['questions']} questions",
                )
            )
    for when in ("before", "after"):
        g = numbers["gap"][when]
        rows.append(
            (
                f"gap {when} Santa",
                f"{g['pair_cosine']:.3f}",
                f"mean cosine of pairs; centroids {g['centroid_distance']:.3f} apart",
            )
        )
    if "scenes" in numbers:
        s = numbers["scenes"]
        rows.append(("3-minute scenes, one answer a minute", f"{s['single_answer_f1']:.3f}", f"{s['minutes']} minutes"))
        rows.append(("3-minute scenes, `--segments`", f"{s['segments_f1']:.3f}", "label F1 a minute"))
    if ablation:
        bound = ablation["table"]["audio (upper bound)"]["label_f1"]
        count = len(ablation["seeds"])
        for name, row in ablation["table"].items():
            share = f"{row['label_f1'] / bound:.3f} of the upper bound; order {row['order']:.3f}"
            rows.append(
                (f"ablation: {name}", f"{row['label_f1']:.3f} ± {row['spread']:.3f}", f"{count} seeds; {share}")
            )
    lines = ["| measure | value | |", "|---|---|---|"]
    return "\n".join(lines + [f"| {a} | {b} | {c} |" for a, b, c in rows])


def _rounded(values: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.3f}" for k, v in values.items())
