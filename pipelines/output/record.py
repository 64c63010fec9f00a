"""What an OUTPUT says of itself: its identity, the job and settings it was begun with, and `_run.json`, what the last
run was asked, what it ran with, and what came of it."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data.generations import Generation, told

TOLD = ("_run.json", "_embeddings.json", "_manifest.json", "_evaluation.json")
PACKAGES = ("numpy", "torch", "transformers", "ray", "pyarrow", "peft", "faiss-cpu", "soundfile", "av", "soxr")


def check_identity(output: str, before: dict[str, Any] | None, identity: dict[str, Any], results: str = "") -> bool:
    """Refuse an OUTPUT made with another model or with settings that change answers (SettingsError), and one that no
    run has begun, but with files in the folder `results` where the results are to go.

    before: the identity OUTPUT has. True where it has none yet.
    """
    shown = storage.public_uri(output)
    if before is None:
        place = storage.join(output, results)
        if results and storage.is_dir(place) and next(storage.list_files(place), None) is not None:
            problem = f"{shown} has a folder `{results}` with files that no run has made"
            raise SettingsError("output", problem, f"choose another OUTPUT, or move `{results}` away")
        return True
    now = json.loads(json.dumps(identity))
    if before.get("job") != now.get("job"):
        problem = f"{shown} was begun by another job (job was {_show(before.get('job'))}, is {_show(now.get('job'))})"
        raise SettingsError("output", problem, "choose another OUTPUT")
    if changes := "; ".join(_changes(before, now)):
        remedy = "use the settings it was begun with, choose another OUTPUT, or start anew with --overwrite"
        raise SettingsError("output", f"{shown} was begun with other settings ({changes})", remedy)
    return False


def _changes(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """What is not the same, each by its own name (`training.warmup_steps was 100, is 5`), however deep it lies."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = (dict(zip(map(str, range(len(each))), each, strict=True)) for each in (before, now))
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _changes(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} was {_show(before)}, is {_show(now)}"


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def of_older_version(output: str, overwrite: bool = False) -> Generation:
    """What an OUTPUT without generations says of itself: all its files count.

    Raises SettingsError where it does not say what it was begun with, which --overwrite need not know.
    """
    found = {name: said for name in TOLD if (said := _read(output, name)) is not None}
    uri = storage.join(output, "_state", "identity.json")
    identity = _read(output, "_state/identity.json")
    if identity is None and not overwrite and storage.exists(uri):
        problem = f"{storage.public_uri(uri)}, which says what OUTPUT was begun with, is damaged"
        raise SettingsError("output", problem, "bring it back whole, or start anew with --overwrite")
    return Generation(0, "", identity, told=found)


def maker(generation: Generation) -> str | None:
    """The job that began an OUTPUT; None where none did."""
    for said in (generation.identity, generation.told.get("_run.json")):
        if said is not None and isinstance(said.get("job"), str):
            return str(said["job"])
    return None


def _read(output: str, name: str) -> dict[str, Any] | None:
    uri = storage.join(output, *name.split("/"))
    try:
        said = json.loads(storage.read_bytes(uri)) if storage.exists(uri) else None
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def shown(values: dict[str, Any]) -> bytes:
    """`_run.json` and its like as they are written."""
    return json.dumps(values, indent=1, default=str).encode()


def read_run(output: str) -> dict[str, Any] | None:
    """What the last run of OUTPUT told in `_run.json`; None where there is nothing that can be read."""
    try:
        return told(output, "_run.json")
    except ValueError:
        return None


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
