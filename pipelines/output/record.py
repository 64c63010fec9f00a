"""OUTPUT/_run.json: what the last run was asked, what it ran with, and what came of it."""

from __future__ import annotations

import json
import platform
import time
from importlib import metadata
from typing import Any

from mats_core import storage

PACKAGES = (
    "numpy",
    "torch",
    "transformers",
    "ray",
    "pyarrow",
    "peft",
    "faiss-cpu",
    "soundfile",
    "av",
    "soxr",
)


def write_run(output: str, run: dict[str, Any]) -> None:
    """Put `_run.json` in place."""
    storage.write_bytes(storage.join(output, "_run.json"), json.dumps(run, indent=1, default=str).encode())


def read_run(output: str) -> dict[str, Any] | None:
    """The last `_run.json` of OUTPUT, or None."""
    uri = storage.join(output, "_run.json")
    if not storage.exists(uri):
        return None
    try:
        run = json.loads(storage.read_bytes(uri))
    except ValueError:
        return None
    return run if isinstance(run, dict) else None


def versions() -> dict[str, str]:
    """Python and the packages that could change a result."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def utc(moment: float) -> str:
    """Seconds since the epoch as 2026-01-31T23:59:59Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
