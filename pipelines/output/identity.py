"""Which job an OUTPUT belongs to, and with which settings it was begun: OUTPUT/_state/identity.json."""

from __future__ import annotations

import json
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError


def check_identity(output: str, identity: dict[str, Any], results: str = "") -> bool:
    """Refuse an OUTPUT made with another model or with settings that change answers (SettingsError), and one that no
    run has begun, but with files in the folder `results` where the results are to go.

    True where there was nothing yet: `identity` is now what OUTPUT is.
    """
    uri = storage.join(output, "_state", "identity.json")
    shown = storage.public_uri(output)
    if not storage.exists(uri):
        place = storage.join(output, results) if results else output
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


def forget_beginning(output: str) -> None:
    """Undo `check_identity` and the scan after it: what was wrong with the settings can be put right."""
    for name in ("identity.json", "work_list"):
        storage.remove_tree(storage.join(output, "_state", name))


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
