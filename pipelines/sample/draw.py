"""The answers of a run, in strata by confidence, and how many of each stratum are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mats_core import storage
from mats_core.errors import SettingsError, counted
from pipelines.data import generations, parquet
from pipelines.data.results import pruned_rows, without_rows
from pipelines.search.reading import LEFT_OUT
from pipelines.search.where import rows_where

FACTS = ("row_id", "task", "confidence", "text", "text_unsure")
SHOWN = (
    "uri", "start_s", "duration_s", "decoded_s", "only_channel", "task", "question", "text", "text_unsure",
    "confidence",
)  # fmt: skip
MOST_STRATA, LEAST_DRAWN = 10, 2
"""Strata of one task, and clips drawn of one."""
OWN = 71_177
OFTEN = 4
"""Fewer strata where fewer than so many clips would be drawn of each."""


@dataclass(frozen=True)
class Stratum:
    """Rows of one task and of like confidence: their row ids, int64 [N]."""

    name: str
    rows: np.ndarray


def folder_of(run: str) -> str:
    """The folder of a run's answers; SettingsError where it has none."""
    folder = storage.join(run, "answers")
    if not generations.files(folder):
        raise SettingsError("run", f"{storage.public_uri(run)} holds no answers", "give the OUTPUT of `mats caption`")
    return folder


def answered(run: str, where: str | None = None) -> tuple[pa.Table, int]:
    """(row_id, task, confidence, given of every row with an answer, in order of row_id; how many have none).

    `given` is false where the answer was held back as unsure. where: SQL over the run's columns. Raises SettingsError.
    """
    tables, failed, pruned = [], 0, pruned_rows(run)
    for info in generations.files(folder_of(run)):
        names = [name for name in parquet.schema(info.uri).names if name not in LEFT_OUT]
        table = parquet.read(info.uri, [n for n in names if where is not None or n in FACTS])
        table = without_rows(table, pruned)
        if where is not None:
            table = table.filter(pa.array(rows_where(table, where)))
        text, unsure = (_column(table, name, pa.string()) for name in ("text", "text_unsure"))
        given = pc.is_valid(text)
        there = pc.or_(given, pc.is_valid(unsure))
        failed += len(table) - int(pc.sum(there).as_py() or 0)
        columns = {"row_id": table["row_id"], "task": _column(table, "task", pa.string())}
        columns |= {"confidence": _column(table, "confidence", pa.float32()), "given": given}
        tables.append(pa.table(columns).filter(there))
    return pa.concat_tables(tables).sort_by("row_id"), failed


def _column(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """A column, of nulls where the table, which may be older, has none."""
    if name in table.schema.names:
        return table[name].cast(kind)
    return pa.chunked_array([pa.nulls(len(table), kind)])


def strata_of(rows: pa.Table, n: int) -> list[Stratum]:
    """The rows of `answered` by task and, where they have one, by confidence: tenths of a task, equal in number.

    Fewer than tenths where n clips would be fewer than OFTEN a stratum. Rows without a confidence are apart.
    """
    ids = rows["row_id"].to_numpy()
    tasks = np.array([each or "answers" for each in rows["task"].to_pylist()])
    confidence = rows["confidence"].to_numpy().astype(np.float64)
    found = []
    for task in sorted(set(tasks.tolist())):
        own = np.flatnonzero(tasks == task)
        known = own[np.isfinite(confidence[own])]
        known = known[np.argsort(confidence[known], kind="stable")]
        share = n * len(known) / len(ids)
        count = int(min(MOST_STRATA, max(1, share // OFTEN))) if len(known) else 0
        for number, part in enumerate(np.array_split(known, count) if count else (), 1):
            found.append(Stratum(f"{task} {number:02d}/{count:02d}", ids[part]))
        unknown = own[~np.isfinite(confidence[own])]
        if len(unknown):
            found.append(Stratum(f"{task} without confidence" if count else task, ids[unknown]))
    return [each for each in found if len(each.rows)]


def allotted(strata: list[Stratum], n: int) -> list[int]:
    """How many of n clips are drawn of each stratum: by its rows, LEAST_DRAWN at least, and no more than it has."""
    sizes = np.array([len(each.rows) for each in strata])
    n = min(n, int(sizes.sum()))
    given = np.minimum(sizes, LEAST_DRAWN)
    if given.sum() > n:
        kinds = counted(len(strata), "task or kind of rows", "tasks or kinds of rows")
        problem = f"{counted(n, 'clip')} {'is' if n == 1 else 'are'} too few for {kinds}"
        raise SettingsError("n", problem, f"draw at least {given.sum()}, or from fewer (--where)")
    for _ in range(n - int(given.sum())):
        lacking = n * sizes / sizes.sum() - given
        lacking[given >= sizes] = -np.inf
        given[int(lacking.argmax())] += 1
    return [int(each) for each in given]


def drawn_of(strata: list[Stratum], counts: list[int], seed: int) -> list[np.ndarray]:
    """The row ids drawn of each stratum: a function of the seed and of the strata alone."""
    return [
        # note: a seed of zeros is the seed 0, which others take too; what they drew by it must not decide here
        np.random.default_rng([seed, number, OWN]).choice(each.rows, size=count, replace=False)
        for number, (each, count) in enumerate(zip(strata, counts, strict=True))
    ]


def shown_rows(run: str, ids: np.ndarray) -> dict[int, dict[str, object]]:
    """Row id → what a person is shown of the row, of these rows."""
    found: dict[int, dict[str, object]] = {}
    wanted = pa.array(np.sort(ids))
    for info in generations.files(folder_of(run)):
        names = parquet.schema(info.uri).names
        table = parquet.read(info.uri, ["row_id", *(name for name in SHOWN if name in names)])
        for row in table.filter(pc.is_in(table["row_id"], value_set=wanted)).to_pylist():
            found[row["row_id"]] = row
    return found
