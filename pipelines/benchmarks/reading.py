"""Files of a benchmark → items, and what is missing to run it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mats_core.errors import SettingsError
from mats_core.scoring import Item, LabelSet
from pipelines.benchmarks.definition import Benchmark


@dataclass
class Reading:
    """What a benchmark's files hold.

    Attributes:
        items: in the order of the publisher's file; ids are unique.
        labels: the label set (kinds ``label`` and ``labels``), else empty.
        left_out: (item id, why): items that the files name but that cannot be asked.
    """

    items: list[Item]
    labels: LabelSet = field(default_factory=LabelSet)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def read(benchmark: Benchmark, root: str, limit: int | None = None) -> Reading:
    """Items of a benchmark whose files lie under ``root``/its folder (a path or fsspec URL).

    Args:
        limit: the first so many items only.

    Raises:
        SettingsError: for files that are not there or are not as their publisher ships them (wrong columns,
            duplicate ids, labels outside the label set), naming file, line and what was expected; and when not
            one item is left.
    """
    raise SettingsError("benchmarks", benchmark.name, f"a reader; root {root}, limit {limit}")


def missing(benchmark: Benchmark, root: str | None) -> list[str]:
    """What is missing to run a benchmark, a sentence each with what to do; empty when it can run."""
    return [benchmark.name] if root is None else []
