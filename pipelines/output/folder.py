"""An OUTPUT folder from opening to closing.

    writable? ─ lease ─ (--overwrite: emptied) ─ unfinished files removed ─ of this job? ─ the run ─ lease given back

What refuses the folder does so before anything in it is removed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.output import record
from pipelines.output.identity import check_identity, forget_beginning
from pipelines.output.lease import Lease
from pipelines.output.removal import DATA_SETS, OUR_NAMES, empty_output, remove_partials


class Output:
    """An OUTPUT folder as the run that holds its lease sees it.

    `begun`: no run had begun it before this one.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self.uri, self.run_id = uri, run_id
        self.begun = False
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
            forget_beginning(self.uri)


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
            output.begun = check_identity(uri, identity, results)
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
