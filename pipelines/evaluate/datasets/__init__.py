"""Benchmarks: their definitions (YAML), readers of the files as their publishers ship them, and what is missing."""

from __future__ import annotations

from mats_core.scoring import Item
from pipelines.evaluate.datasets.definition import Benchmark, list_benchmarks, load_benchmark
from pipelines.evaluate.datasets.judges import judge_file
from pipelines.evaluate.datasets.loading import Reading, missing, read

__all__ = ["Benchmark", "Item", "Reading", "judge_file", "list_benchmarks", "load_benchmark", "missing", "read"]
