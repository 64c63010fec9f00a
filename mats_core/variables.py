"""The variables of the environment that MATS reads."""

from __future__ import annotations

VARIABLES = {
    "MATS_CACHE": "Folder of what is downloaded or computed once: models, fingerprints, data sets (~/.cache/mats).",
    "MATS_STORAGE": "How stores are reached, as JSON: prefix of a URL → endpoint, profile, … (docs/archives.md).",
    "MATS_BENCHMARKS": "Folder in which the evaluation sets' own folders lie (benchmarks in the cache).",
    "MATS_HISTORY": "Folder or URL of the history that `mats evaluate` and `mats history` use when none is given.",
    "MATS_SERVE_TOKEN": "What who asks `mats serve` must know where others reach it: 16 characters or more.",
    "MATS_DEBUG": "Anything: an error that ends a command shows where it came from, and Ray what it logs.",
}
"""Name → what it says (and what holds where it is not set)."""
