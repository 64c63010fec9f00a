"""The columns of our tables: manifest, work list, answers and audio embeddings, each column in one place.

A new column of answers is a row of OUTPUT_COLUMNS, and its values in the stage that makes them. From here a list's own
columns are checked against it, the stage takes its type, and who reads a table back leaves it out where it is large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

Columns = Mapping[str, tuple[pa.DataType, str]]
"""The columns of a table, in order: name → type, and what stands in it, as the documents tell it."""


def schema_of(columns: Columns) -> pa.Schema:
    """The schema of a table."""
    return pa.schema({name: kind for name, (kind, _) in columns.items()})


MANIFEST_COLUMNS: Columns = {
    "chunk_id": (
        pa.string(),
        "Hash of the path below INPUT, the version, the start, and the end and channel that a list names: the same "
        "chunk, the same id.",
    ),
    "uri": (
        pa.string(),
        "The file, without query string; bytes that are no UTF-8 are percent-encoded. A member of an archive is "
        "`tar+URL!FIRST+SIZE/NAME`, a row of a Parquet file `parquet+URL!ROW+COLUMN/NAME`.",
    ),
    "size_bytes": (pa.int64(), "Size of the file."),
    "version": (pa.string(), "The store's etag, or size and time of change: another one is another sound."),
    "format": (pa.string(), "What it is by its first bytes: wav, flac, mp3, …"),
    "sample_rate": (pa.int32(), "Hz, as the header says."),
    "channels": (pa.int32(), "As the header says; they are averaged."),
    "start_s": (pa.float64(), "Where the chunk begins in the file, in seconds."),
    "duration_s": (pa.float64(), "Seconds of the chunk by the header; null where that is silent."),
    "duration_source": (pa.string(), "`header` (declared), `decoded` (counted) or `unknown`."),
    "error_code": (pa.string(), "What is wrong with the file or the row, see the error codes; null where nothing is."),
    "error_message": (pa.string(), "The same for people."),
}
MANIFEST_SCHEMA = schema_of(MANIFEST_COLUMNS)
"""What a scan finds out about a chunk."""

REQUESTS: Columns = {
    "task": (pa.string(), "What was asked: caption, cla_label, music_caption or QA."),
    "question": (pa.string(), "The question of QA."),
    "tag": (pa.string(), "The tag in the prompt, where the list or the settings give one."),
}
REQUEST_COLUMNS = tuple(REQUESTS)
"""What a list may ask of each of its sounds; strings."""

PLACES: Columns = {
    "start_s": (pa.float64(), "Where the stretch begins that is meant, in seconds; without one: at the beginning."),
    "end_s": (pa.float64(), "Where it ends; without one: at the end of the file."),
    "only_channel": (pa.int64(), "The only channel that is heard, from 0; without one: the mean of all."),
}
PLACE_COLUMNS = tuple(PLACES)
"""What of its sound a row of a list means, where not all of it. The last is an own column of its OUTPUT."""

WORK_SCHEMA = pa.schema(
    [
        ("row_id", pa.int64()),
        ("entry_id", pa.int64()),
        ("last", pa.bool_()),
        ("part", pa.string()),
        ("part_row", pa.int64()),
    ]
)
"""What the work list adds: its ids, whether a chunk is the last of its file, and where stored embeddings lie."""

PCM = "pcm"
"""A chunk's sound between decoding and the model: int16 mono, little endian. Never written."""

WINDOWS_TYPE = pa.list_(
    pa.struct([("start_s", pa.float64()), ("weight", pa.float32()), ("embedding", pa.list_(pa.float32()))])
)
SEGMENTS_TYPE = pa.list_(pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())]))
NEIGHBORS_TYPE = pa.list_(
    pa.struct(
        [
            ("row", pa.int64()),
            ("caption", pa.string()),
            ("source", pa.string()),
            ("weight", pa.float32()),
            ("score", pa.float32()),
        ]
    )
)


@dataclass(frozen=True)
class Column:
    """A column that the OUTPUT of `jobs` has beside the manifest's, the request's and a list's own columns.

    `setting`: the setting that asks for it; "" where it is always there. `meaning`: what the documents
    say of it.
    """

    name: str
    type: pa.DataType
    jobs: tuple[str, ...] = ("caption",)
    setting: str = ""
    meaning: str = ""


CORRECTION_COLUMNS: Columns = {
    "row_id": (pa.int64(), "The row of the answers."),
    "version": (pa.int64(), "1 for the first thing that was said of the row; the highest counts."),
    "action": (pa.string(), "`correct`, or `undo` of the newest that was not undone."),
    "text": (pa.string(), "The text that counts since; null where it is the run's own."),
    "labels": (pa.list_(pa.string()), "Labels that somebody gave the sound."),
    "mark": (pa.string(), "`right` or `wrong`, of the run's own answer where no other text was given; or null."),
    "by": (pa.string(), "Who said it, as they call themselves."),
    "at": (pa.timestamp("ms", "UTC"), "When."),
    "answer": (pa.string(), "The run's own text."),
    "uri": (pa.string(), "The file, as in the answers."),
    "start_s": (pa.float64(), "Where the chunk begins in it."),
    "duration_s": (pa.float64(), "Seconds of it that were heard."),
    "chunk_id": (pa.string(), "As in the answers."),
    "task": (pa.string(), "What was asked."),
    "question": (pa.string(), "The question of QA."),
    "run_id": (pa.string(), "Which run wrote the answer."),
    "model_fingerprint": (pa.string(), "Which model answered."),
    "only_channel": (pa.int64(), "The only channel that was heard; null: the mean of all."),
}
"""What `pipelines.output.corrections` writes beside answers."""

_BOTH = ("caption", "embed-audio")
OUTPUT_COLUMNS = (
    Column("row_id", pa.int64(), _BOTH, meaning="Number of the row in the work list, from 0."),
    Column("last", pa.bool_(), ("embed-audio",), meaning="Whether the chunk is the last of its file."),
    Column(
        "decoded_s", pa.float64(), _BOTH, meaning="Seconds that were heard; less than `duration_s` in a broken file."
    ),
    Column("text", pa.string(), meaning="The answer; null where there is an error code."),
    Column(
        "segments", SEGMENTS_TYPE, meaning="An answer a window, with its times in the file (`--segments`), else null."
    ),
    Column(
        "windows",
        WINDOWS_TYPE,
        ("embed-audio",),
        meaning="Each window's start, weight (seconds; 0 where it is silent) and unit vector, before Santa.",
    ),
    Column("model_fingerprint", pa.string(), meaning="Which model answered."),
    Column("run_id", pa.string(), _BOTH, meaning="Which run wrote the row; its `_run.json` is beside the folder."),
    Column(
        "embedding",
        pa.list_(pa.float32()),
        setting="with_embedding",
        meaning="The chunk's own unit vector, before Santa.",
    ),
    Column("neighbors", NEIGHBORS_TYPE, setting="explain", meaning="The captions of the memory that Santa mixed in."),
    Column("complete", pa.bool_(), _BOTH, meaning="False where the file breaks off or is damaged within the row."),
    Column(
        "lost_s", pa.float64(), _BOTH, meaning="Seconds that could not be decoded, where known; null where nothing was."
    ),
    Column(
        "peak_dbfs", pa.float64(), _BOTH, meaning="Largest sample of the mono mix, in dB of full scale; -120 at least."
    ),
    Column(
        "rms_dbfs",
        pa.float64(),
        _BOTH,
        meaning="RMS of the mono mix about its mean, in dB of full scale; -120 at least. Of the whole row.",
    ),
    Column("clipped", pa.float64(), _BOTH, meaning="Share of all channels' samples that are at full scale."),
    Column(
        "silent",
        pa.bool_(),
        _BOTH,
        meaning="Whether every window is below `--silence-dbfs`: then a caption is `Silence.`, labels are `silence`.",
    ),
    Column(
        "logprob",
        pa.float32(),
        meaning="Mean log-probability of a token of the answer, its end included; null where no model was asked.",
    ),
    Column("clap_score", pa.float32(), meaning="Cosine of CLAP's embeddings of the answer and of the sound."),
    Column(
        "confidence",
        pa.float32(),
        meaning="The chance that the answer is right, 0 to 1; null without a calibration (`mats calibrate`).",
    ),
    Column(
        "text_unsure",
        pa.string(),
        meaning="The answer where it is less sure than `--min-confidence`; `text` is null then.",
    ),
)
"""In the order in which they stand in a table. New ones come last: a reader of older outputs sees nulls."""

_WITHIN = frozenset({*WORK_SCHEMA.names, PCM, *(column.name for column in OUTPUT_COLUMNS)})

RESERVED = (_WITHIN | {*MANIFEST_SCHEMA.names}) - {"uri"}
"""Names that a list's own columns may not have."""

NESTED = frozenset(column.name for column in OUTPUT_COLUMNS if pa.types.is_nested(column.type))
"""Columns that take most of a table's bytes: not read where only requests and sounds are asked for."""


def output_columns(job: str, settings: object) -> tuple[Column, ...]:
    """The columns that `job` adds with these settings, in order."""
    asked = (c for c in OUTPUT_COLUMNS if job in c.jobs)
    return tuple(c for c in asked if not c.setting or getattr(settings, c.setting, False))


def dropped_columns(job: str, settings: object) -> tuple[str, ...]:
    """Columns that rows have within a run, and the OUTPUT of `job` does not."""
    return tuple(sorted(_WITHIN - {column.name for column in output_columns(job, settings)}))


def with_output(rows: pa.Table, job: str, settings: object, values: Mapping[str, Any]) -> pa.Table:
    """Rows as they stand within a run → rows of the OUTPUT of `job`: what is not in its `output_columns` goes.

    values: a list or array a column. Columns that the rows have already need none. KeyError where one is missing.
    """
    rows = rows.drop_columns([name for name in dropped_columns(job, settings) if name in rows.schema.names])
    for column in output_columns(job, settings):
        if column.name in values or column.name not in rows.schema.names:
            rows = with_column(rows, column.name, values[column.name], column.type)
    return rows


def with_column(table: pa.Table, name: str, values: Any, kind: pa.DataType) -> pa.Table:
    """`table` with the column replaced or added."""
    array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, kind)
    at = table.schema.get_field_index(name)
    return table.append_column(name, array) if at < 0 else table.set_column(at, pa.field(name, kind), array)


def timed(rows: pa.Table, **values: float) -> pa.Table:
    """Add measures of a block to its rows: moments (`…_at`, epoch), and seconds of work (`…_s`) and counts, of which
    every row gets an equal share.

    The driver sums them up and drops them again.
    """
    for name, value in values.items():
        share = value if name.endswith("_at") else value / max(1, len(rows))
        rows = with_column(rows, f"_{name}", [share] * len(rows), pa.float64())
    return rows


def map_type(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """`kind` with every type inside its lists, maps and structs, and then itself, as `change` makes it."""
    if pa.types.is_list(kind):
        kind = pa.list_(map_type(kind.value_type, change))
    elif pa.types.is_large_list(kind):
        kind = pa.large_list(map_type(kind.value_type, change))
    elif pa.types.is_fixed_size_list(kind):
        kind = pa.list_(map_type(kind.value_type, change), kind.list_size)
    elif pa.types.is_map(kind):
        kind = pa.map_(map_type(kind.key_type, change), map_type(kind.item_type, change))
    elif pa.types.is_struct(kind):
        kind = pa.struct([(each.name, map_type(each.type, change)) for each in kind])
    return change(kind)
