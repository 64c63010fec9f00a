"""`mats benchmark score`: what it costs to tell how sure each answer is, beside all that an answer takes.

Every block of clips is asked both ways, in turns, in one process: what the machine does besides falls on both. Times
are of the CPU, so that a busy machine does not count.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.benchmarks.inputs import write_clips
from jobs.benchmarks.measuring import print_figures, print_table, say, workplace
from mats_core.errors import SettingsError
from mats_core.model.directory import check_model_dir
from pipelines.archive.decode_stage import BLOCK_ROWS

WAYS = ("without", "with")


def run_benchmark(files: int, model: str, seconds: float, task: str, folder: str | None, as_json: bool) -> int:
    """Measure and print; raises SettingsError."""
    if files < BLOCK_ROWS or seconds <= 0:
        problem = f"{files} clips of {seconds:g} s are too little to measure"
        raise SettingsError("files, seconds", problem, f"give at least {BLOCK_ROWS} clips, longer than nothing")
    check_model_dir(model)
    with workplace(folder) as place:
        say(f"writing {files} clips")
        write_clips(place / "clips", files, seconds)
        figures = measure(place / "clips", model, task)
    print_figures(figures, as_json, print_report)
    return 0


def measure(clips: Path, model: str, task: str) -> dict[str, Any]:
    """CPU milliseconds a clip: decoding, hearing, answering both ways; and the share that telling takes of it all."""
    import torch

    torch.set_num_threads(1)
    from mats_core import load_model
    from mats_core.audio.decode import decode
    from mats_core.batches import raised
    from mats_core.model.asking import Request, ask_clips
    from mats_core.model.hearing.clips import Clip, embed_clips

    loaded = load_model(model, device="cpu")
    encoder = loaded.encoder
    assert encoder is not None
    question = "Which sounds can be heard?" if task == "QA" else None
    spent = dict.fromkeys(("decode", "hear", *WAYS), 0.0)

    def answer(heard: list[Clip], way: str) -> list[str]:
        began = time.process_time()
        found = raised(ask_clips(loaded, heard, [Request(task, question)] * len(heard), score=way == "with"))
        spent[way] += time.process_time() - began
        return [each.text for each in found]

    def decoded(paths: Sequence[Path]) -> list[tuple[float, Any]]:
        sounds = []
        for path in paths:
            with path.open("rb") as file:
                sounds.append((0.0, decode(file, sample_rate=encoder.sample_rate).samples))
        return sounds

    files = sorted(clips.rglob("*.wav"))
    answer(raised(embed_clips(loaded, decoded(files[:1]))), "with")  # what the first one costs is not counted
    spent.update(dict.fromkeys(spent, 0.0))
    for at in range(0, len(files), BLOCK_ROWS):
        began = time.process_time()
        sounds = decoded(files[at : at + BLOCK_ROWS])
        middle = time.process_time()
        heard = raised(embed_clips(loaded, sounds))
        spent["decode"] += middle - began
        spent["hear"] += time.process_time() - middle
        ways = WAYS if at // BLOCK_ROWS % 2 else WAYS[::-1]  # neither always comes first
        texts = [answer(heard, way) for way in ways]
        assert texts[0] == texts[1]
    each = {name: round(1000 * seconds / len(files), 3) for name, seconds in spent.items()}
    without = each["decode"] + each["hear"] + each["without"]
    share = round((each["with"] - each["without"]) / without, 4)
    return {"files": len(files), "task": task, "ms": each, "share": share}


def print_report(figures: dict[str, Any]) -> None:
    """A table for people."""
    rows = [[name, f"{value:.2f}"] for name, value in figures["ms"].items()]
    print_table(f"{figures['files']} clips, {figures['task']}: CPU ms a clip", ["", "ms"], rows)
    print(f"telling how sure an answer is takes {figures['share']:.1%} of all that it takes")
