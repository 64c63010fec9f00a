"""The measured table of the embedded model, as Markdown: what `mats soundworld evaluate` prints."""

from __future__ import annotations

from typing import Any

from mats_core.soundworld.language import QUESTION_KINDS


def markdown(numbers: dict[str, Any], ablation: dict[str, Any] | None) -> str:
    """One table: a row a measure, its value, and what it is compared with.

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
