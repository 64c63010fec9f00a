"""The answers of a captioning run as a page shows them: totals over all rows, and its files with their rows."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError, counted
from mats_core.storage.uris import local_path, printable, public_uri
from pipelines.data import generations, parquet
from pipelines.data.results import Ranges, without_rows
from pipelines.output.corrections import ADDED, Correction, corrected
from pipelines.output.record import read_run

COLUMNS = (
    *("row_id", "chunk_id", "uri", "format", "sample_rate", "channels", "start_s", "duration_s", "decoded_s"),
    *("complete", "lost_s"),
    *("task", "question", "text", "segments", "error_code", "error_message"),
    *("confidence", "text_unsure", "only_channel"),
)
_FILES_AT_ONCE = 1024


@dataclass
class Totals:
    """Counts over all answers, whether they are shown with a player or not. sure: sum of `confidences` confidences;
    held: answers held back as unsure."""

    rows: int = 0
    files: int = 0
    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    incomplete: int = 0
    lost_s: float = 0.0
    gone: int = 0
    confidences: int = 0
    sure: float = 0.0
    held: int = 0

    @property
    def mean_confidence(self) -> float | None:
        """Of the answers that have one; None where none has."""
        return self.sure / self.confidences if self.confidences else None


def find_answers(answers: str) -> tuple[str, dict[str, Any]]:
    """The folder of the answers, and `_run.json` (empty when there is none), of an OUTPUT or of its folder of answers.

    Raises SettingsError for no answers.
    """
    shown, run, inside = public_uri(answers), read_run(answers), storage.join(answers, "answers")
    if generations.files(inside):
        return inside, run or {}
    if run is None and generations.files(answers):
        return answers, read_run(answers.rstrip("/").rpartition("/")[0] or ".") or {}
    if run is not None and run.get("job") == "caption" and run.get("status") != "complete":
        problem = f"the run in {shown} is {run.get('status')}, and none of its answers is finished yet"
        raise SettingsError("answers", problem, f"let it go on: {_going_on(run, shown)}")
    raise SettingsError("answers", f"there are none in {shown}", "give the OUTPUT of `mats caption` with answers in it")


def partial_run(run: Mapping[str, Any], rows: int, output: str) -> str:
    """That a run has not come to its end, how far it is, and how it goes on; "" for one that has, or of which nothing
    is told. run: its `_run.json`; rows: how many of its answers are there; output: its OUTPUT."""
    status = run.get("status")
    if status in (None, "complete"):
        return ""
    asked = int(run.get("rows") or 0) - sum(last - first + 1 for first, last in run.get("pruned") or ())
    how_far = f"{rows:,} of {counted(max(asked, rows), 'answer')} done" if run.get("rows") else f"{rows:,} done so far"
    state = "still running, or was ended from outside" if status == "running" else str(status)
    return f"not all answers are here: {how_far}; the run is {state}. To go on: {_going_on(run, public_uri(output))}"


def _going_on(run: Mapping[str, Any], output: str) -> str:
    source = (run.get("settings") or {}).get("input") or "INPUT"
    return f"`mats caption {shlex.quote(source)} {shlex.quote(output)}`, with the settings as before"


class Answers:
    """All rows of a run, in memory as Arrow has them, and which of them belong to each file. pruned: first and last
    row ids of what is left out. said: corrections, which are shown in place of the run's own texts."""

    def __init__(self, folder: str, pruned: Ranges = (), said: Mapping[int, Correction] | None = None) -> None:
        tables = [
            pa.Table.from_batches([batch])
            for info in generations.files(folder)
            for batch in parquet.batches(info.uri, 8192, COLUMNS)
        ]
        table = pa.concat_tables(tables, promote_options="permissive")
        table = table.select([name for name in COLUMNS if name in table.column_names])
        if "row_id" in table.column_names:
            table = without_rows(table.sort_by("row_id"), pruned)
        table = corrected(table, said or {})
        self._table = table
        self.totals = Totals(rows=len(table))
        self._rows: dict[str, list[int]] = {}
        self.failed: set[str] = set()
        self._least: dict[str, float] = {}
        facts = ("uri", "decoded_s", "error_code", "complete", "lost_s", "confidence", "text_unsure")
        for at, row in enumerate(self._dicts(range(len(table)), facts)):
            uri = row.get("uri") or ""
            self._rows.setdefault(uri, []).append(at)
            self.totals.seconds += row.get("decoded_s") or 0.0
            self.totals.incomplete += row.get("complete") is False
            self.totals.lost_s += row.get("lost_s") or 0.0
            self.totals.held += row.get("text_unsure") is not None
            if (sure := row.get("confidence")) is not None:
                self.totals.confidences += 1
                self.totals.sure += sure
                self._least[uri] = min(sure, self._least.get(uri, 1.0))
            if row.get("error_code"):
                self.totals.errors[row["error_code"]] += 1
                self.failed.add(uri)
        self.totals.files = len(self._rows)
        self.uris = list(self._rows)  # in the order of the work list

    def sample(self, most: int | None) -> list[str]:
        """The URIs of files without a failure, in order; of more than `most`, the least sure for one half, and those of
        the smallest hashes for the rest."""
        good = [uri for uri in self.uris if uri not in self.failed]
        if most is None or len(good) <= most:
            return good
        unsure = sorted((uri for uri in good if uri in self._least), key=lambda uri: (self._least[uri], _hash(uri)))
        chosen = set(unsure[: most // 2])
        chosen |= set(sorted((uri for uri in good if uri not in chosen), key=_hash)[: most - len(chosen)])
        return [uri for uri in good if uri in chosen]

    def rows_of(self, uri: str) -> int:
        """How many rows a file has."""
        return len(self._rows[uri])

    def files(self, uris: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Files with their rows by time, in the order given: ``uri`` and ``parts``."""
        waiting = iter(uris)
        while names := list(islice(waiting, _FILES_AT_ONCE)):
            rows = self._dicts([at for uri in names for at in self._rows[uri]], (*COLUMNS, *ADDED))
            for uri in names:
                parts = list(islice(rows, len(self._rows[uri])))
                parts.sort(key=lambda row: (row.get("start_s") or 0.0, row.get("row_id") or 0))
                yield {"uri": uri, "parts": parts}

    def _dicts(self, places: Sequence[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        table = self._table.select([name for name in columns if name in self._table.column_names])
        if not isinstance(places, range):
            table = table.take(pa.array(places, pa.int64()))
        for batch in table.to_batches(max_chunksize=8192):
            yield from batch.to_pylist()


def _hash(uri: str) -> bytes:
    return blake2b(uri.encode("utf-8", "replace"), digest_size=8).digest()


def path_text(uri: str) -> str:
    """A URI as path text (a local name that is not UTF-8 with Python's surrogates), without secrets."""
    path = local_path(uri)
    return public_uri(uri) if path is None else os.fsdecode(path)


def printable_path(name: str) -> str:
    """Path text as a page can hold it: percent-encoded where it is not UTF-8."""
    return printable(os.fsencode(name))
