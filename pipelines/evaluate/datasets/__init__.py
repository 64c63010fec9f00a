"""Evaluation data sets: definitions (YAML), readers of the files as their publishers ship them, and what is missing.

    definition         a data set as data: kind, task, metrics, files; one YAML file each in definitions/
    loading            files → items with their labels; the file for a publisher's judge; what is missing
    folder             where a data set's audio lies; what a reader collects
    readers            CSV and TSV files, JSON lists, names of files: `reader: table`, `records`, `names`
    asked              ids of the clips a set asks, where they come from: what is left out of training
    corrections_reader  answers of a run that people put right: `reader: corrections`
    soundworld_reader  clips of the embedded world: `reader: soundworld`

Public is what is exported here; `pipelines.evaluate` and jobs import it. A new data set is a YAML file; a new layout of
files is a reader, entered in `loading.READERS`. What it shares with corpora is in `pipelines.published`.
"""

from __future__ import annotations

from pipelines.evaluate.datasets.asked import asked_ids
from pipelines.evaluate.datasets.definition import EvaluationSet, list_evaluation_sets, load_evaluation_set
from pipelines.evaluate.datasets.loading import OPTIONS, LoadedSet, load_items, missing

__all__ = [
    "OPTIONS",
    "EvaluationSet",
    "LoadedSet",
    "asked_ids",
    "list_evaluation_sets",
    "load_evaluation_set",
    "load_items",
    "missing",
]
