"""What an OUTPUT says of itself: `_state/identity.json`, the job and settings it was begun with, and `_run.json`, what
the last run was asked, what it ran with, and what came of it."""

from __future__ import annotations

import json
import platform
import time
from importlib import metadata
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError

PACKAGES = ("numpy", "torch", "transformers", "ray", "pyarrow", "peft", "faiss-cpu", "soundfile", "av", "soxr")


def check_identity(output: str, identity: dict[str, Any], results: str = "") -> bool:
    """Refuse an OUTPUT made with another model or with settings that change answers (SettingsError), and one that no
    run has begun, but with files in the folder `results` where the results are to go.

    True where there was nothing yet: `identity` is now what OUTPUT is.
    """
    uri = storage.join(output, "_state", "identity.json")
    shown = storage.public_uri(output)
    if not storage.exists(uri):
        place = storage.join(output, results)
        if results and storage.is_dir(place) and next(storage.list_files(place), None) is not None:
            problem = f"{shown} has a folder `{results}` with files that no run has made"
            raise SettingsError("output", problem, f"choose another OUTPUT, or move `{results}` away")
        storage.write_bytes(uri, json.dumps(identity, indent=1, sort_keys=True).encode())
        return True
    before = json.loads(storage.read_bytes(uri))
    names = sorted(set(before) | set(identity))
    different = [name for name in names if before.get(name) != identity.get(name)]
    if different:
        changes = "; ".join(f"{n} was {_show(before.get(n))}, is {_show(identity.get(n))}" for n in different)
        remedy = "choose another OUTPUT"
        if "job" not in different:
            remedy = f"use the settings it was begun with, {remedy}, or start anew with --overwrite"
        raise SettingsError("output", f"{shown} was begun with other settings ({changes})", remedy)
    return False


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_record(output: str, name: str) -> dict[str, Any] | None:
    """The JSON object in the file `name` of OUTPUT; None where there is none. Raises StorageError for one that cannot
    be read."""
    uri = storage.join(output, *name.split("/"))
    try:
        told = json.loads(storage.read_bytes(uri)) if storage.exists(uri) else None
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def write_run(output: str, run: dict[str, Any]) -> None:
    """Put `_run.json` in place."""
    storage.write_bytes(storage.join(output, "_run.json"), json.dumps(run, indent=1, default=str).encode())


def read_run(output: str) -> dict[str, Any] | None:
    """The last `_run.json` of OUTPUT, or None."""
    return read_record(output, "_run.json")


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
