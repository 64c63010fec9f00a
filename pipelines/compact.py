"""Many part files → few large ones, in order of row_id: a new data set, the old one is only read.

    parts by first row_id ─ sweep: sorted rows ─ one open file a partition value ─ files put in place whole

Rows come in the same order whatever happens, and a file's name holds the first and last row_id in it. So a
compaction that was killed continues after the last row of each partition that is in place. Rows that `--prune` leaves
out of reports are left out here, since other readers know nothing of that; INPUT keeps them.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mats_core import storage
from mats_core.errors import SettingsError, first_line
from pipelines.data import generations, parquet
from pipelines.data.carried import plain_values
from pipelines.data.embeddings import SIDECAR
from pipelines.data.parquet import NULL_PARTITION
from pipelines.data.results import Ranges, without_rows
from pipelines.output.corrections import copy_corrections
from pipelines.output.folder import Output, open_output
from pipelines.output.record import read_run
from pipelines.settings.calling import by_name
from pipelines.settings.compact import CompactSettings

FOLDERS = ("answers", "embeddings")
MOST_PARTITIONS = 256
MOST_NAME = 255
"""Bytes that a folder's name may have, on most file systems."""
BUFFER_BYTES = 1_000_000_000
"""Rows waiting_bytes for row groups that are not full yet, over all open files, in bytes."""
MEGABYTE = 1e6
MOST_GROUP_BYTES, LEAST_GROUP_BYTES = 64_000_000, 2_000_000


@dataclass
class CompactResult:
    """What a compaction did. `files` and `bytes` of the whole data set; `new_rows` of this run; `pruned`: left out."""

    rows: int
    new_rows: int
    parts: int
    files: int
    bytes: int
    wall_s: float
    folder: str
    pruned: int = 0


class Part(NamedTuple):
    """A part file of the input: its first row_id, how many rows it has, and their columns."""

    first: int
    uri: str
    rows: int
    schema: pa.Schema


@by_name(CompactSettings)
def run_compact(settings: CompactSettings) -> CompactResult:
    """Write the rows of `settings.input` into few files below `settings.output`. Raises SettingsError."""
    started = time.time()
    run, name = _finished_run(settings.input)
    shown = storage.public_uri(settings.output)
    if storage.same_place(settings.output, settings.input) or storage.lies_in(
        settings.output, storage.join(settings.input, name)
    ):
        raise SettingsError("output", f"{shown} is where INPUT is, which is only read", "choose another folder")
    uris = generations.files(storage.join(settings.input, name))
    listed = hashlib.blake2b(repr(sorted((i.path, i.size) for i in uris)).encode(), digest_size=16).hexdigest()
    parts = sorted(read_part(info.uri) for info in uris)
    rows = sum(part.rows for part in parts)
    if rows != run.get("rows", rows):
        problem = f"{storage.public_uri(settings.input)} is to have {run['rows']} rows, and its parts hold {rows}"
        raise SettingsError("input", problem, f"run `mats {run['job']}` again as before, which makes the missing ones")
    pruned = run.get("pruned") or []
    left_out = sum(last - first + 1 for first, last in pruned)
    counts = _count_values(parts, settings.partition_by, pruned)
    identity = {"job": "compact", "parts": listed, **settings.model_dump(include={"partition_by", "file_mb"})}
    if pruned:
        identity["pruned"] = pruned
    with open_output(settings.output, identity, results=name, overwrite=settings.overwrite) as out:
        folder = out.join(name)
        with suppress(storage.StorageError):  # not every key may list them: docs/archives.md, "Few large files"
            storage.abort_uploads(folder)
        large = LargeFiles(folder, settings, counts, out)
        new = sum(large.add(table) for table in in_order(parts, pruned))
        large.close()
        sizes = [info.size for info in generations.files(folder)]
        if (facts := generations.told(settings.input, SIDECAR)) is not None:
            out.tell(SIDECAR, facts)
        copy_corrections(settings.input, settings.output)
        compacted = {
            "input": storage.public_uri(settings.input),
            "parts": len(parts),
            "files": len(sizes),
            "bytes": sum(sizes),
            "partition_by": settings.partition_by,
            "pruned": left_out,
        }
        kept = rows - left_out
        out.write_run({**run, "rows": kept, "rows_done": kept, "pruned": [], "compacted": compacted})
        wall_s, shown = time.time() - started, storage.public_uri(folder)
        return CompactResult(kept, new, len(parts), len(sizes), sum(sizes), wall_s, shown, left_out)


def _finished_run(source: str) -> tuple[dict[str, Any], str]:
    """`_run.json` of a finished run and the name of its folder of parts; raises SettingsError."""
    run = read_run(source)
    shown = storage.public_uri(source)
    if run is None or run.get("job") not in ("caption", "embed-audio"):
        problem = f"{shown} has no _run.json of `mats caption` or `mats embed-audio`"
        raise SettingsError("input", problem, "give the OUTPUT of one of them")
    if run.get("status") != "complete":
        raise SettingsError("input", f"the run in {shown} is {run.get('status')}", "run it to its end first")
    for name in FOLDERS:
        if storage.is_dir(storage.join(source, name)):
            return run, name
    raise SettingsError("input", f"{shown} has no folder {' or '.join(FOLDERS)}", "give the whole OUTPUT of a run")


def read_part(uri: str) -> Part:
    """What the footer of a part says; SettingsError for a file that is none."""
    try:
        with parquet.opened(uri) as file:
            at = file.metadata.schema.names.index("row_id")
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            firsts = [group.column(at).statistics.min for group in groups if group.num_rows]
            return Part(min(firsts, default=0), uri, file.metadata.num_rows, file.schema_arrow)
    except (parquet.NotParquet, ValueError, AttributeError) as error:  # no Parquet, no row_id, no statistics
        problem = f"{storage.public_uri(uri)} is no whole part of a run ({first_line(error)})"
        raise SettingsError("input", problem, "move it away, and run the same command as before again") from None


def _count_values(parts: list[Part], column: str | None, pruned: Ranges) -> dict[str, int]:
    """Rows by partition folder ("" where there are none); raises SettingsError for a column that cannot part."""
    if column is None or not parts:
        return {"": sum(part.rows for part in parts) - sum(last - first + 1 for first, last in pruned)}
    counts: Counter[str] = Counter()
    for part in parts:
        schema = part.schema
        plain = [each.name for each in schema if _makes_folders(each.type) and each.name != "row_id"]
        if column not in plain:
            problem = f'there is no column "{column}" to make folders by'
            if column in schema.names:
                problem = f'"{column}" is {schema.field(column).type}, which no name of a folder can hold'
            raise SettingsError("partition_by", problem, f"choose one of {', '.join(plain)}")
        values = pc.value_counts(
            without_rows(parquet.read(part.uri, [column, "row_id"]), pruned)[column].combine_chunks()
        )
        for value, count in zip(plain_values(values.field(0)), values.field(1).to_pylist(), strict=True):
            name = _partition_folder(column, value)
            if value == NULL_PARTITION:
                problem = f'"{column}" has the value "{value}", which readers take for none'
                raise SettingsError("partition_by", problem, "choose another column")
            if len(name.encode()) > MOST_NAME:
                problem = f'"{column}" has a value that makes a folder name of {len(name)} bytes ({name[:60]}…)'
                raise SettingsError("partition_by", problem, f"choose a column of values below {MOST_NAME} bytes")
            counts[name] += count
        if len(counts) > MOST_PARTITIONS:
            problem = f'"{column}" has more than {MOST_PARTITIONS} different values'
            raise SettingsError("partition_by", problem, "choose a column of fewer, since each gets a folder")
    return counts


def _makes_folders(kind: pa.DataType) -> bool:
    """Whether the values of a type can be read back from the names of folders."""
    if pa.types.is_dictionary(kind):
        return _makes_folders(kind.value_type)
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    moments = pa.types.is_temporal(kind) and not pa.types.is_duration(kind) and not pa.types.is_interval(kind)
    return numbers or moments or pa.types.is_boolean(kind) or str(kind) in ("string", "large_string", "null")


def _partition_folder(column: str, value: Any) -> str:
    """Name of a value's folder: column=value, percent-encoded as Hive's readers decode it."""
    text = NULL_PARTITION if value is None else quote(str(value), safe=" ")
    # note: DuckDB decodes values, and takes names as they stand
    return f"{column.replace('%', '%25').replace('/', '%2F').replace('=', '%3D')}={text}"


def in_order(parts: list[Part], pruned: Ranges) -> Iterator[pa.Table]:
    """All rows but the pruned in order of row_id. Holds the rows of parts that overlap, no more."""
    waiting: pa.Table | None = None
    last = -1
    # note: parts of an older version lack newer columns, which are null in their rows
    whole = pa.unify_schemas([part.schema.remove_metadata() for part in parts]) if parts else pa.schema([])
    for index, part in enumerate(parts):
        table = pa.concat_tables([whole.empty_table(), parquet.read(part.uri)], promote_options="default")
        waiting = table if waiting is None else pa.concat_tables([waiting, table])
        waiting = waiting.sort_by("row_id")
        ids = waiting["row_id"].to_numpy()
        cut = int(np.searchsorted(ids, parts[index + 1].first)) if index + 1 < len(parts) else len(ids)
        if cut == 0:
            continue
        if ids[0] <= last or (np.diff(ids[:cut]) <= 0).any():
            raise RuntimeError(f"a row_id stands twice in the parts, near {storage.public_uri(part.uri)}")
        last = int(ids[cut - 1])
        yield without_rows(waiting.slice(0, cut), pruned)
        waiting = waiting.slice(cut)


@dataclass
class _Growing:
    """The file in the making of `partition` ("" where there are none).

    left: rows of the partition that are in no closed file. in_place_to: last row_id in a closed one. waiting: rows that
    are in no row group yet. first, last, rows: of the file so far.
    """

    partition: str
    left: int
    in_place_to: int = -1
    waiting: list[pa.Table] = field(default_factory=list)
    waiting_bytes: int = 0
    writer: pq.ParquetWriter | None = None
    sink: Any = None
    first: int = -1
    last: int = -1
    rows: int = 0


_FILE_NAME = re.compile(r"part-\d{12,}-(\d{12,})(-[0-9a-f]{12})?\.parquet")


class LargeFiles:
    """The files of the new data set: `part-<first row_id>-<last row_id>-<run id>.parquet` below each partition's
    folder."""

    def __init__(self, folder: str, settings: CompactSettings, counts: dict[str, int], out: Output) -> None:
        self._folder, self._column = folder, settings.partition_by
        self._file_bytes = int(settings.file_mb * MEGABYTE)
        self._group_bytes = int(min(MOST_GROUP_BYTES, max(LEAST_GROUP_BYTES, BUFFER_BYTES / max(1, len(counts)))))
        self._group_bytes = min(self._group_bytes, max(1, self._file_bytes // 8))
        self._output, self._kind = out, ""
        self._local = storage.local_path(folder) is not None
        self._files = {name: _Growing(name, left) for name, left in counts.items()}
        for info in generations.files(folder):
            name, last = self._place(info.uri)
            if name in self._files:
                self._files[name].in_place_to = max(self._files[name].in_place_to, last)

    def _place(self, uri: str) -> tuple[str, int]:
        """Partition folder of a file in place, and the last row_id in it."""
        above, _, file = uri.rpartition("/")
        ours = _FILE_NAME.fullmatch(file)
        if ours is None:
            problem = f"{storage.public_uri(uri)} is not of `mats compact`"
            raise SettingsError("output", problem, "move this file away")
        name = "" if self._column is None else above.rpartition("/")[2]
        if name not in self._files:  # a listing may write what a folder is called in another way
            name = next((each for each in self._files if unquote(each) == unquote(name)), name)
        return name, int(ours[1])

    def add(self, table: pa.Table) -> int:
        """Take rows in order; returns how many were not in place already."""
        if self._column is None:
            return self._take("", table)
        new = 0
        column = table[self._column].combine_chunks()
        self._kind = str(column.type)
        different = column.unique()
        for value in range(len(different)):
            name = _partition_folder(self._column, plain_values(different.slice(value, 1))[0])
            mask = pc.is_in(column, value_set=different.slice(value, 1))
            new += self._take(name, table.filter(mask).drop_columns([self._column]))
        return new

    def _take(self, name: str, table: pa.Table) -> int:
        growing = self._files[name]
        if growing.in_place_to >= 0:
            before = len(table)
            table = table.filter(pc.greater(table["row_id"], growing.in_place_to))
            growing.left -= before - len(table)
        if len(table):
            growing.waiting.append(table)
            growing.waiting_bytes += table.nbytes
            while growing.waiting_bytes >= self._group_bytes:
                self._write_group(growing)
        return len(table)

    def _write_group(self, growing: _Growing) -> None:
        """Write one row group of about `_group_bytes`."""
        table = pa.concat_tables(growing.waiting)
        rows = min(len(table), max(1, int(len(table) * self._group_bytes / max(1, growing.waiting_bytes))))
        group, rest = table.slice(0, rows), table.slice(rows)
        growing.waiting, growing.waiting_bytes = ([rest] if len(rest) else []), rest.nbytes if len(rest) else 0
        if growing.writer is None:
            growing.first = group["row_id"][0].as_py()
            growing.sink = self._sink(growing)
            schema = group.schema
            if self._kind:
                schema = schema.with_metadata({**(schema.metadata or {}), parquet.PARTITION_TYPE: self._kind})
            growing.writer = pq.ParquetWriter(growing.sink, schema, compression="zstd", write_page_checksum=True)
        growing.writer.write_table(group.cast(growing.writer.schema), row_group_size=rows)
        growing.rows += rows
        growing.last = group["row_id"][-1].as_py()
        written = growing.sink.tell()
        rest_bytes = (growing.left - growing.rows) * written / growing.rows
        if written >= self._file_bytes and rest_bytes >= self._file_bytes / 2:  # what is left makes a file of its own
            self.put(growing)

    def _uri(self, growing: _Growing, name: str) -> str:
        return storage.join(self._folder, *filter(None, (growing.partition, name)))

    def _sink(self, growing: _Growing) -> Any:
        """Where a file grows: a .partial beside its place, or a temporary file that is uploaded when it is whole."""
        if not self._local:
            return tempfile.TemporaryFile()  # lives as long as the file grows
        storage.make_dirs(self._uri(growing, ""))
        system, path = storage.arrow(self._partial_uri(growing))
        return system.open_output_stream(path)

    def _partial_uri(self, growing: _Growing) -> str:
        return self._uri(growing, f".growing-{growing.first:012d}-{self._output.run_id}.partial")

    def put(self, growing: _Growing) -> None:
        """Put a file in place whole; raises LeaseLost."""
        assert growing.writer is not None
        growing.writer.close()
        name = f"part-{growing.first:012d}-{growing.last:012d}-{self._output.run_id}.parquet"
        place = "/".join(filter(None, (generations.place_of(self._folder)[1], growing.partition, name)))
        if not self._local:
            self._output.put(place, lambda uri: storage.write_from(uri, growing.sink))
        growing.sink.close()
        if self._local:
            system, path = storage.arrow(self._partial_uri(growing))
            self._output.put(place, lambda uri: system.move(path, storage.arrow(uri)[1]))
        growing.left -= growing.rows
        growing.writer, growing.sink, growing.rows = None, None, 0

    def close(self) -> None:
        """Write what is left."""
        for growing in self._files.values():
            while growing.waiting:
                self._write_group(growing)
            if growing.writer is not None:
                self.put(growing)
