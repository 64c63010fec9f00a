"""`mats soundworld build`: the frozen parts, then MATS through the jobs that make any other model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mats_core.errors import got_allowed

Log = Callable[[str], None]
WORK_FOLDERS = ("encoder", "llm", "llm-ordered", "llm-words", "memory", "runs", "world")


def build_model(work: Path, out: Path, log: Log) -> int:
    """Make the embedded model in ``work`` and copy it to ``out``; returns the exit code of the step that ended it.

    Raises SettingsError when ``out`` holds something else, or the work. Finished steps are not repeated.
    """
    if out.exists() and any(out.iterdir()) and not (out / "mats.json").is_file():
        raise got_allowed("out", str(out), "a folder that is empty, or holds a model to replace")
    place, inside = out.resolve(), work.resolve()
    if inside.is_relative_to(place) or any(place.is_relative_to(inside / name) for name in WORK_FOLDERS):
        raise got_allowed("out", str(out), f"a folder that neither holds the work nor is a part of it ({work})")
    from mats_core.soundworld.corpus import write_corpus
    from mats_core.soundworld.made.build import Times, build_parts

    encoder, llm = build_parts(work, log)
    times = Times(work / "times.json", log)
    world = work / "world"
    if not (world / "text.jsonl").exists():
        with times("text"):
            world.mkdir(parents=True, exist_ok=True)
            write_corpus(world / "text.jsonl")
    parts = (encoder.relative_to(work), llm.relative_to(work), world.relative_to(work))
    for step, arguments in steps(*parts).items():  # run inside `work`, so that the model names no place of this machine
        with times(f"mats {step}"):
            command = [sys.executable, "-m", "jobs", step, *arguments]
            code = subprocess.run(command, check=False, cwd=work).returncode
        if code:
            log(f"mats {step} ended with {code}; to go on from there: mats soundworld build --work {work} --out {out}")
            return code
    draft = out.with_name(f".{out.name}-{uuid.uuid4().hex[:8]}.partial")
    shutil.copytree(world / "trained" / "model", draft)
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)
    log(f"{out}: {sum(f.stat().st_size for f in out.rglob('*') if f.is_file()) / 1e6:.1f} MB")
    return 0


def steps(encoder: Path, llm: Path, world: Path) -> dict[str, list[str]]:
    """Job → its arguments, in order. Each continues, or says that it is done, when it is run again."""
    from mats_core.soundworld.made.ablation import MEMORY_ENTRIES

    embeddings, memory = world / "embeddings", world / "memory"
    places: dict[str, Any] = {"output": str(world / "trained"), "llm": str(llm), "encoder": str(encoder)}
    places.update(memory=str(memory), embeddings=str(embeddings))
    places["data"] = [{"name": "soundworld", "corpus": str(world / "text.jsonl")}]
    changes = [f"--set={name}={json.dumps(place)}" for name, place in places.items()]  # JSON is YAML
    return {
        "embed-text": [str(world / "text.jsonl"), str(embeddings), "--encoder", str(encoder)],
        "build-memory": [str(embeddings), str(memory), "--cap", str(MEMORY_ENTRIES)],
        "train": ["soundworld", *changes],
    }
