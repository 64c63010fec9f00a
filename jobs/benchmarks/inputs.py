"""Captions of the embedded world by the million, and the maps and measures that benchmarks of the text side share."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def world_captions(count: int, seed: int = 0) -> Iterator[str]:
    """`count` distinct captions: one to three sounds in any layout, pitch and rate told or not."""
    from mats_core.soundworld.kinds import KINDS
    from mats_core.soundworld.language import Content, Sound, caption

    rng = np.random.default_rng(seed)
    kinds: list[str] = list(KINDS)
    seen: set[str] = set()
    layouts = {1: ("single",), 2: ("together", "sequence"), 3: ("together", "sequence", "background")}
    told = {"pitch": (None, "low", "high"), "rate": (None, "slow", "fast")}
    while len(seen) < count:
        size = 1 + int(rng.choice(3, p=(0.1, 0.3, 0.6)))
        chosen = rng.choice(len(kinds), size, replace=False)
        words = rng.integers(0, 3, (size, 2))
        sounds = tuple(
            Sound(kinds[kind], told["pitch"][pitch], told["rate"][rate])
            for kind, (pitch, rate) in zip(chosen, words, strict=True)
        )
        text = caption(Content(layouts[size][int(rng.integers(len(layouts[size])))], sounds), rng)
        if text not in seen:
            seen.add(text)
            yield text


def write_captions(path: Path, count: int, seed: int = 0) -> None:
    """A corpus of `count` distinct captions as JSON lines; left alone where it is there already."""
    if path.exists():
        return
    draft = path.with_suffix(".draft")
    with draft.open("w") as file:
        for text in world_captions(count, seed):
            file.write(json.dumps({"caption": text}) + "\n")
    draft.rename(path)


def lift(dim: int, target: int, seed: int = 0) -> np.ndarray:
    """A fixed map float32 [dim, target] with orthonormal rows: lengths and angles stay as they are."""
    draws = np.random.default_rng(seed).standard_normal((target, dim))
    return np.ascontiguousarray(np.linalg.qr(draws)[0].T, dtype=np.float32)


def median_s(run: Any, times: int = 9) -> float:
    """Median seconds of `run()`, after one that does not count."""
    run()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return float(np.median(found))


class Peak:
    """Most memory that a process and all below it held together (proportional set size, so that what they share
    counts once), in MB; looked at five times a second."""

    def __init__(self) -> None:
        self.mb = 0.0


@contextmanager
def watch_memory(root: int) -> Iterator[Peak]:
    """Watch the processes below `root` (a process id) meanwhile."""
    peak, over = Peak(), threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            peak.mb = max(peak.mb, sum(_pss_mb(pid) for pid in _below(root)))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _below(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found = {root}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def _pss_mb(pid: int) -> float:
    try:
        text = (Path("/proc") / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:")), 0.0)
