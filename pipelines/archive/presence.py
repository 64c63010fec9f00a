"""Whether INPUT is still there: a run whose files went away with their disk, folder or bucket stops, and says so.

A file that is missing alone gets its row with `not_found`. Where none of a sample of those that were listed can be
found, INPUT itself is gone: its rows are left undone, for when it is back.
"""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.compute as pc

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data.inputs import Entry

SAMPLE = 16
"""Files that are looked up before INPUT counts as gone; mostly the first one is there."""


class InputGone(SettingsError):
    """INPUT went away while it was read."""


class Presence:
    """A sample of the files that were there when INPUT was listed, drawn evenly."""

    def __init__(self) -> None:
        self._sample: list[str] = []
        self._seen = 0
        self._random = random.Random(0)

    def note(self, entry: Entry) -> None:
        """Take in an entry of the listing, if its file is there (a link to nothing has no version)."""
        if entry.error is not None or not (entry.version or storage.scheme(entry.uri)):
            return
        self._seen += 1
        if len(self._sample) < SAMPLE:
            self._sample.append(entry.uri)
        elif (place := self._random.randrange(self._seen)) < SAMPLE:
            self._sample[place] = entry.uri

    def check(self) -> None:
        """Raise InputGone when there were files, and none of the sample can be found."""
        if self._sample and not any(_is_there(uri) for uri in self._sample):
            problem = f"its files are gone since they were listed ({storage.public_uri(self._sample[0])}, and others)"
            raise InputGone("input", problem, "bring them back and give the same command again; what is done is kept")

    def rows_to_keep(self, rows: pa.Table) -> pa.Table:
        """Finished rows less those whose file was missing for a while and is back, which the next run does.

        Raises InputGone when INPUT is gone.
        """
        # note: what the scan could not open has no format
        missing = pc.and_(pc.equal(rows["error_code"], "not_found"), pc.is_valid(rows["format"]))
        lost = [bool(each) for each in missing.to_pylist()]
        if not any(lost):
            return rows
        self.check()
        uris = rows["uri"].to_pylist()
        return rows.filter(pa.array([not (gone and _is_there(uri)) for gone, uri in zip(lost, uris, strict=True)]))


def _is_there(uri: str) -> bool:
    """Whether a file can be looked up; one that may not be, and a store that does not answer, are not there either."""
    try:
        storage.stat(uri)
    except storage.StorageError:
        return False
    return True
