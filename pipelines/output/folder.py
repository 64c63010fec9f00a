"""An OUTPUT folder from opening to closing.

    writable? ─ lease ─ (--overwrite: emptied) ─ unfinished files removed ─ of this job? ─ the run ─ lease given back

What refuses the folder does so before anything in it is removed, and only what runs wrote there ever is.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.output import record
from pipelines.output.lease import Lease

DATA_SETS = ("answers", "embeddings", "manifest")
OUR_NAMES = ("_run.json", "_embeddings.json", "_manifest.json", *DATA_SETS, "_state/work_list", "_state/identity.json")
"""What scan, embed-audio, caption and compact write, in the order in which it goes: first what says that the rest is
whole, last what says whose it is."""
_PARTIALS = {
    "": re.compile(r"(_\w+\.json\.|\.model-)[0-9a-f]{8}\.partial"),
    "_state": re.compile(r".+\.partial"),
    "data set": re.compile(r".+\.parquet\.[0-9a-f]{8}\.partial|growing-\d+\.partial"),
}


class Output:
    """An OUTPUT folder as the run that holds its lease sees it.

    `begun`: no run had begun it before this one.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self.uri, self.run_id, self.begun = uri, run_id, False
        self.lease = Lease(storage.join(uri, "_state"), run_id)

    def join(self, *names: str) -> str:
        """URI of what lies in the folder."""
        return storage.join(self.uri, *names)

    def check(self) -> None:
        """Raise LeaseLost unless this run still holds the lease; StorageError when that cannot be known."""
        self.lease.check()

    def read_run(self) -> dict[str, Any] | None:
        """`_run.json` of the last run, or None."""
        return record.read_run(self.uri)

    def write_run(self, run: dict[str, Any]) -> None:
        """Put `_run.json` in place; raises LeaseLost, as `check`."""
        self.check()
        record.write_run(self.uri, run)

    def forget(self) -> None:
        """Undo the beginning, if this run made it, so that settings that turned out wrong can be put right."""
        if self.begun:
            storage.remove_tree(self.join("_state", "identity.json"))
            storage.remove_tree(self.join("_state", "work_list"))


@contextmanager
def open_output(
    uri: str,
    identity: dict[str, Any] | None = None,
    *,
    results: str = "",
    overwrite: bool = False,
    written: Sequence[str] = OUR_NAMES,
    waiting: Callable[[str], None] | None = None,
) -> Iterator[Output]:
    """Hold OUTPUT for one run.

    identity: the job (`job`) and the settings that must stay the same in one OUTPUT; None for a folder that keeps no
    such record. results: name of the folder where results go. written: what runs of this job write, in the order in
    which --overwrite removes it. waiting: told who holds the lease, while a holder that went silent is watched.
    Raises SettingsError for a folder that cannot be written, that another run is writing into (LeaseHeld), or that
    belongs to another job or to other settings.
    """
    prepare_output(uri)
    output = Output(uri, uuid.uuid4().hex[:12])
    output.lease.acquire(waiting)
    try:
        if overwrite and identity is not None:
            empty_output(uri, identity["job"], written)
        remove_partials(uri, [name for name in written if name in DATA_SETS])
        if identity is not None:
            output.begun = record.check_identity(uri, identity, results)
        yield output
    finally:
        output.lease.release()


def prepare_output(uri: str) -> None:
    """Make sure OUTPUT can be written. Raises SettingsError."""
    if not uri.strip():
        raise SettingsError("output", "no folder is named", "name one (. is the folder you are in)")
    shown = storage.public_uri(uri)
    try:
        if storage.exists(uri) and not storage.is_dir(uri):
            raise SettingsError("output", f"{shown} is a file", "choose a folder")
        trial = storage.join(uri, "_state", f"trial-{uuid.uuid4().hex[:8]}")
        storage.write_bytes(trial, b"")
        storage.remove_tree(trial)
    except (OSError, storage.StorageError) as error:
        problem = f"{shown} cannot be written ({error})"
        raise SettingsError("output", problem, "choose a folder that can, or change its permissions") from None


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
        with suppress(storage.StorageError):
            told = record.read_record(output, name) or {}
            if isinstance(told.get("job"), str):
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
            for path_left in (os.path.join(folder, name) for name in left):
                if os.path.isdir(path_left) and not os.path.islink(path_left):
                    shutil.rmtree(path_left, ignore_errors=True)
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(path_left)
            folders[:] = set(folders) - set(left) if place else []


def _place(output: str, name: str) -> str:
    return storage.join(output, *name.split("/"))
