"""How benchmarks measure and show: a place to work in, medians, memory of processes, GPU clocks, tables of two ways."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import psutil

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")


def say(text: str) -> None:
    """Progress goes to stderr; standard output is the result's."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def workplace(folder: str | None) -> Iterator[Path]:
    """The folder to work in, made if need be; without one a temporary folder that is removed."""
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield Path(folder).absolute()
        return
    with tempfile.TemporaryDirectory(prefix="mats-benchmark-") as made:
        yield Path(made)


def print_figures(figures: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any]], None]) -> None:
    """The figures on stdout: as JSON, or as `show` prints them."""
    if as_json:
        print(json.dumps(figures, indent=1))
    else:
        show(figures)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of figures: what is measured on the left, numbers to the right; a short row ends with empty cells."""
    from rich.table import Table

    from jobs.terminal.display import wide_console

    table = Table(title=title, show_header=any(columns))
    for name in columns:
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        table.add_row(*row, *[""] * (len(columns) - len(row)))
    wide_console().print(table)


def print_driver_memory(figures: dict[str, Any], what: str) -> None:
    """The driver's peak memory, a line a number of `what`."""
    for count, mb in figures["driver_peak_mb"].items():
        print(f"driver, {count} {what}: {mb:.0f} MB at most")


def run_mats(*words: str, cwd: Path | None = None, stdout: Any = subprocess.DEVNULL) -> float:
    """`mats …` in a process of its own, as a user runs it; its seconds. Raises CalledProcessError when it fails."""
    return timed(lambda: subprocess.run([sys.executable, "-m", "jobs", *words], check=True, cwd=cwd, stdout=stdout))[1]


def timed(run: Callable[[], Result], device: torch.device | None = None) -> tuple[Result, float]:
    """(what `run()` returns, its seconds), a GPU's work included."""
    began = time.perf_counter()
    found = run()
    if device is not None:
        wait_for(device)
    return found, time.perf_counter() - began


def median_s(run: Callable[[], Any], times: int = 9) -> float:
    """Median seconds of `run()`, after one that does not count."""
    run()
    return float(np.median([timed(run)[1] for _ in range(times)]))


@contextmanager
def watched(look: Callable[[], Result], every_s: float = 0.2) -> Iterator[list[Result]]:
    """What `look()` returns meanwhile, every so many seconds."""
    seen: list[Result] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every_s):
            seen.append(look())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def memory_of_tree_mb() -> float:
    """What this process and all below it hold together (proportional set size: what they share counts once)."""
    top = psutil.Process()
    total = 0.0
    for process in [top, *top.children(recursive=True)]:
        with suppress(psutil.Error, OSError):  # those that end meanwhile count for nothing
            total += getattr(process.memory_full_info(), "pss", 0) / 2**20  # pss: on Linux only
    return total


def device_name(device: torch.device) -> str:
    """A GPU's name, or how many threads the CPU works with."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was given; a CPU has."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def empty_cache(device: torch.device) -> None:
    """Give a GPU's unused memory back, and count its peak anew."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_gb(device: torch.device, peak: bool = False) -> float:
    """GB: of the GPU's tensors, or of this process (its peak either way on a CPU)."""
    import resource

    import torch

    if device.type == "cuda":
        return round((torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 1e9, 2)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)
