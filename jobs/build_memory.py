"""`mats build-memory`: what it prints, and its exit code."""

from __future__ import annotations

from jobs.terminal.display import RunDisplay, duration
from mats_core.storage.uris import public_uri
from pipelines.settings.text import BuildMemorySettings
from pipelines.text.build_memory import BuildMemoryResult, run_build_memory


def run(settings: BuildMemorySettings) -> int:
    """Build the memory; the exit code."""
    with RunDisplay("captions", "filling the clusters") as display:
        result = run_build_memory(settings, display)
    print_result(result)
    return 0


def print_result(result: BuildMemoryResult) -> None:
    """What was made, on stdout."""
    from rich.console import Console
    from rich.table import Table

    times = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result.times.items())
    table = Table(show_header=False, box=None, pad_edge=False)
    memory = result.memory
    table.add_row("captions", f"{memory['count']} of {memory['dim']} numbers ({memory['storage']})")
    table.add_row("clusters", str(memory["clusters"]))
    table.add_row("size", f"{memory['index_bytes'] / 1e6:.1f} MB")
    table.add_row("time", f"{duration(result.wall_s)} ({times})")
    table.add_row("output", public_uri(result.output))
    Console().print(table)
