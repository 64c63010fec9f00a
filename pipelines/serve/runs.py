"""The runs that are served: rows as people see them, what was said of them, and details out of the part files.

What goes to a browser are names below the run's own root, never a path of this machine.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mats_core import storage
from mats_core.storage.uris import local_path, public_uri, redacted
from pipelines.data import parquet
from pipelines.export.places import shown
from pipelines.output.corrections import Correction, Corrections
from pipelines.output.record import read_run
from pipelines.search.asking import Asker
from pipelines.search.run import OpenRun
from pipelines.serve.catalog import Catalog, Tell, open_catalog
from pipelines.settings.base import anchored

REFRESHED_S = 2.0
"""How long what others wrote may stay unseen."""
DETAILS = (
    *("segments", "neighbors", "run_id", "model_fingerprint", "lost_s", "peak_dbfs", "rms_dbfs"),
    *("logprob", "clap_score", "tag"),
)
"""Columns that are read from the part file when one row is looked at."""
_PATH = re.compile(
    r"(?i)(?<=\")(?:[a-z][a-z0-9+.-]*:/)?/[^\"]+(?=\")|(?:\b[a-z][a-z0-9+.-]*:/|(?<![\w/…]))/[^\s'\",;)]+"
)
"""An absolute path, or a URI, in a text."""


@dataclass
class Served:
    """A run. label: its name on pages; opened, asker: its index and who embeds queries, once they are ready."""

    run: str
    label: str
    catalog: Catalog
    corrections: Corrections
    model: str = "builtin"
    opened: OpenRun | None = None
    asker: Asker | None = None
    notes: list[str] = field(default_factory=list)
    changes: int = 0
    _seen_at: float = -1e9
    _rest: float = REFRESHED_S
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _said: dict[int, Correction] = field(default_factory=dict)

    def said(self) -> dict[int, Correction]:
        """What counts of what was said, by rows; with what others wrote up to REFRESHED_S ago."""
        with self._lock:
            began = time.monotonic()
            if began - self._seen_at > self._rest:
                changed, first = self.corrections.refresh(), self._seen_at < 0
                if changed or first:
                    self._renew(None if first else changed)
                self._seen_at = time.monotonic()
                self._rest = max(REFRESHED_S, 20 * (time.monotonic() - began))  # a store may take long to list
            return self._said

    def look(self) -> None:
        """See at once what others wrote."""
        with self._lock:
            self.corrections.refresh()
            self._renew()
            self._seen_at = time.monotonic()

    def take(self, row_id: int) -> None:
        """See what was just written here of a row."""
        with self._lock:
            self._renew([row_id])

    def _renew(self, changed: Collection[int] | None = None) -> None:
        """Take over what counts of some rows (None: all), where it was said of the sound that is there now."""
        standing = self.corrections.standing()
        again = set(standing if changed is None else changed)
        kept = {} if changed is None else {row: each for row, each in self._said.items() if row not in again}
        asked = sorted(again & standing.keys())
        rows = self.catalog.by_ids(asked)
        mine = {row: standing[row] for row in asked if row in rows and standing[row].belongs_to(rows[row])}
        self._said = kept | mine
        self.changes += 1

    def row(self, row_id: int) -> dict[str, Any] | None:
        """A row as the catalog has it; None where there is none."""
        return self.catalog.by_ids([row_id]).get(row_id) if abs(row_id) < 2**62 else None

    def whole(self, row_id: int) -> dict[str, Any] | None:
        """A row with its DETAILS, out of its part file."""
        row, place = self.row(row_id), self.catalog.place_of(row_id)
        if row is None or place is None:
            return None
        path, at = place
        uri = storage.join(self.run, "answers", *path.split("/"))
        with parquet.opened(uri, parquet.READ_AHEAD) as file:
            for number in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(number).num_rows
                if at < size:
                    names = [name for name in DETAILS if name in file.schema_arrow.names]
                    (told,) = file.read_row_group(number, names).slice(at, 1).to_pylist()
                    return row | {name: told.get(name) for name in DETAILS}
                at -= size
        return row | dict.fromkeys(DETAILS)

    def name(self, uri: str) -> str:
        """A file's name as a page shows it: below the folder that all files of its store share."""
        name = shown(uri)
        root = max((root for root in self.roots if name.startswith(root)), key=len, default="")
        return name.removeprefix(root) if root else name.rpartition("/")[2]

    @cached_property
    def roots(self) -> list[str]:
        """The folders that are left away in names; local ones, however they are written, share one."""
        local = [shown(root).rstrip("/") + "/" for root in self.catalog.roots if local_path(root) is not None]
        common = os.path.commonprefix(local)  # noqa: RUF071 (of letters, and then whole folders)
        far = [shown(root) for root in self.catalog.roots if local_path(root) is None]
        return [root for root in (common[: common.rfind("/") + 1], *far) if root]

    @cached_property
    def prefixes(self) -> list[str]:
        """What `name` leaves away of a URI, as the catalog has it, the longest first."""
        found = []
        for root in self.catalog.roots:
            name = shown(root) if local_path(root) is None else shown(root).rstrip("/") + "/"
            left = max((each for each in self.roots if name.startswith(each)), key=len, default="")
            below = name[len(left) :].count("/")
            found.append(root.rstrip("/").rsplit("/", below)[0] + "/" if below else root)
        return sorted(filter(None, found), key=len, reverse=True)

    @property
    def folders(self) -> list[str]:
        """Folders of this machine below which names may be told: the run's, and that of its sounds."""
        return [shown(self.run).rstrip("/") + "/", *self.roots]


def plain_message(message: str | None, folders: Collection[str] = ()) -> str:
    """A message without a path or a secret: of what lies below one of `folders` it tells the rest."""
    told = redacted(message or "")
    for folder in sorted(folders, key=len, reverse=True):
        if len(folder) > 1:
            told = re.sub(rf"(?:file://|(?<![\w/.-])){re.escape(folder)}", "…/", told)
    return _PATH.sub("…", told)


def open_served(run: str, tell: Tell | None = None) -> Served:
    """A run to be served; makes or extends its catalog. Raises SettingsError."""
    run = anchored(run)
    record = read_run(run) or {}
    model = (record.get("settings") or {}).get("model") or "builtin"
    label = os.path.basename(public_uri(run).rstrip("/")) or "run"
    return Served(run, label, open_catalog(run, tell), Corrections(run), str(model))
