"""The model card of the embedded model, written from what was measured."""

from __future__ import annotations

from typing import Any

from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.made import ablation as tuned
from mats_core.soundworld.made.build import PRETRAIN_CLIPS
from mats_core.soundworld.made.table import markdown
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
    lines += [markdown(numbers, ablation), "", "Label F1 by kind, captions: "]
    lines[-1] += ", ".join(f"{k} {v:.2f}" for k, v in numbers["captions"]["per_kind"].items()) + "."
    return "\n".join(lines) + "\n"


def _rounded(values: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.3f}" for k, v in values.items())
