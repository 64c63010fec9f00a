"""`mats benchmark evaluate`: `mats caption`, `mats evaluate`, `mats caption` again, on the same clips.

`mats caption` runs before and after, because the speed of a shared machine drifts; its rate is that of both together.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.benchmarks.measuring import print_figures, print_table, run_mats, say, workplace
from jobs.benchmarks.pipeline.caption import mean_of, run_pipeline, steady_figures
from mats_core.errors import SettingsError
from mats_core.model.directory import check_model_dir
from pipelines.cluster.plan import usable_cores
from pipelines.evaluate.datasets import load_evaluation_set, load_items

DATA_SET = "soundworld"


def run_benchmark(clips: int, model: str, folder: str | None, as_json: bool) -> int:
    """Measure and print; raises SettingsError."""
    most = int(load_evaluation_set(DATA_SET).options["clips"])
    if not 1 < clips <= most:
        raise SettingsError("clips", f"{clips} cannot be measured", f"choose 2 to {most}")
    check_model_dir(model)
    with workplace(folder) as place:
        figures = compare(place, clips, model)
    print_figures(figures, as_json, print_comparison)
    return 0


def compare(place: Path, clips: int, model: str) -> dict[str, Any]:
    """(a) `mats caption`, (b) `mats evaluate`, (a) again; figures of both and their ratio."""
    data = place / f"benchmarks-{clips}"
    say(f"writing {clips} clips")
    load_items(load_evaluation_set(DATA_SET), str(data), clips)
    say("(a) mats caption")
    first = run_pipeline(data / DATA_SET, place / "answers", model)
    say("(b) mats evaluate")
    evaluation = run_evaluation(data, place / "evaluation", clips, model)
    say("(a) mats caption again")
    caption = mean_of([first, run_pipeline(data / DATA_SET, place / "answers", model)])
    ratio = round(evaluation["rows_per_s"] / caption["rows_per_s"], 3)
    return {"clips": clips, "cores": usable_cores(), "caption": caption, "evaluate": evaluation, "ratio": ratio}


def run_evaluation(data: Path, out: Path, clips: int, model: str) -> dict[str, Any]:
    """`mats evaluate` as a user runs it. total_s: from command to prompt, with scores, baselines and the page."""
    options = ("--data", str(data), "--out", str(out), "--model", model, "--device", "cpu", "--overwrite")
    total = run_mats("evaluate", "--benchmarks", DATA_SET, "--limit", str(clips), *options)
    run = json.loads((out / "cells" / "run" / "_run.json").read_text())
    parts = json.loads((out / "metrics.json").read_text())["seconds"]
    return {**steady_figures(run), "total_s": round(total, 2), "seconds": parts}


def print_comparison(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    a, b = figures["caption"], figures["evaluate"]
    rows = [
        ("answers/s once started", f"{a['rows_per_s']:.1f}", f"{b['rows_per_s']:.1f}"),
        ("answers/s before, after", " ".join(f"{rate:.1f}" for rate in a["rates"])),
        ("start-up (s)", f"{a['start_s']:.1f}", f"{b['start_s']:.1f}"),
        ("busy (s)", f"{a['busy_s']:.1f}", f"{b['busy_s']:.1f}"),
        *((f"{name} (s)", "", f"{seconds:.1f}") for name, seconds in b["seconds"].items()),
        ("the whole command (s)", "", f"{b['total_s']:.1f}"),
        ("b/a", "", f"{figures['ratio']:.3f}"),
    ]
    title = f"{figures['clips']} clips, {figures['cores']} cores"
    print_table(title, ("", "mats caption (a)", "mats evaluate (b)"), rows)
