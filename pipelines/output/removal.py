"""What a run may remove from its OUTPUT: what runs wrote there, and nothing else a user keeps beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress

from mats_core import storage
from mats_core.errors import SettingsError

DATA_SETS = ("answers", "embeddings", "manifest")
OUR_NAMES = ("_run.json", "_embeddings.json", "_manifest.json", *DATA_SETS, "_state/work_list", "_state/identity.json")
"""What scan, embed-audio, caption and compact write, in the order in which it goes: first what says that the rest is
whole, last what says whose it is."""
_PARTIALS = {
    "": re.compile(r"(_\w+\.json\.|\.model-)[0-9a-f]{8}\.partial"),
    "_state": re.compile(r".+\.partial"),
    "data set": re.compile(r".+\.parquet\.[0-9a-f]{8}\.partial|growing-\d+\.partial"),
}


def empty_output(output: str, job: str, names: Sequence[str] = OUR_NAMES) -> None:
    """Remove `names`, never the lease. Raises SettingsError, with nothing removed, for what `job` has not made."""
    there = [name for name in names if storage.exists(_place(output, name))]
    shown = storage.public_uri(output)
    maker = _maker(output)
    seen = [name for name in there if not name.startswith("_state/")]
    elsewhere = "choose another OUTPUT, or leave out --overwrite"
    if maker is None and seen:
        raise SettingsError("overwrite", f"no run has made the `{seen[0]}` in {shown}", f"move it away, or {elsewhere}")
    if maker not in (None, job):
        raise SettingsError("overwrite", f"{shown} is an OUTPUT of `mats {maker}`, not of `mats {job}`", elsewhere)
    for name in set(DATA_SETS) & set(there):
        for info in storage.list_files(_place(output, name)):
            if not info.path.endswith((".parquet", ".partial")):
                problem = f"{shown} holds {name}/{info.path}, which is no result"
                raise SettingsError("overwrite", problem, "move this file away: it would be removed with the results")
    for name in there:
        storage.remove_tree(_place(output, name))


def _maker(output: str) -> str | None:
    """The job that began OUTPUT; None where none did."""
    for name in ("_state/identity.json", "_run.json"):
        try:
            told = json.loads(storage.read_bytes(_place(output, name)))
        except (storage.StorageError, ValueError):
            continue
        if isinstance(told, dict) and isinstance(told.get("job"), str):
            return str(told["job"])
    return None


def remove_partials(output: str, names: Iterable[str] = DATA_SETS) -> None:
    """Remove what a killed writer had not put in place yet: in OUTPUT itself, its `_state` and `names`. Only for the
    holder of the lease; stores leave nothing. No link is followed."""
    path = storage.local_path(output)
    if path is None:
        return
    for place in ("", "_state", *names):
        ours = _PARTIALS.get(place, _PARTIALS["data set"])
        for folder, folders, files in os.walk(os.path.join(path, place.encode())):
            left = [name for name in folders + files if ours.fullmatch(os.fsdecode(name))]
            for name in left:
                _remove(os.path.join(folder, name))
            folders[:] = set(folders) - set(left) if place else []


def _remove(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _place(output: str, name: str) -> str:
    return storage.join(output, *name.split("/"))
