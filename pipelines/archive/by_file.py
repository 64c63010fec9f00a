"""An answer a file: its chunks are heard one after the other, their windows are pooled, and the file is asked once.

    shards ──ListStage──▶ rows, one a file ──HearStage──▶ answers

No more sound is in memory than that of `BLOCK_ROWS` chunks, however long a file is. Where chunks of it cannot be heard,
the rest is answered for, and the row says what is lost.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mats_core.audio.levels import Levels, joined_levels
from mats_core.audio.windows import chunk_starts
from pipelines.archive.decode_stage import (
    BLOCK_ROWS,
    CHUNK,
    ERROR,
    LEVELS,
    SOUND,
    DecodeStage,
    FetchStage,
    ShardStage,
    fetch_stage,
)
from pipelines.archive.model_spec import ModelSpec
from pipelines.archive.stages import HANDED_ON, AnswerStage, EmbedStage
from pipelines.cluster.isolation import IsolatedStage
from pipelines.cluster.plan import DECODER_CPUS, MODEL_CPUS
from pipelines.cluster.stages import Stage, StageContext
from pipelines.data.inputs import Entry
from pipelines.data.schemas import REQUEST_COLUMNS, WINDOWS_TYPE, dropped_columns, output_columns, timed, with_column
from pipelines.settings.archive import LimitSettings, RunSettings

TOGETHER_S = 3600.0
"""Seconds of sound after which the files that were heard are asked, so that what is done is soon durable."""
_TIMES = ("_decode_s", "_decode_cpu_s", "_embed_s")


class ListStage(ShardStage):
    """The rows of the work list as they are."""

    def load(self, rows: pa.Table) -> pa.Table:
        return rows


class FileModel:
    """A loaded model that hears chunks (rows with pcm → rows with windows) and answers files (rows with windows)."""

    def __init__(self, context: StageContext, spec: ModelSpec) -> None:
        self._answer = AnswerStage(context, spec)
        self._embed = EmbedStage(context, spec, loaded=self._answer)

    def __call__(self, rows: pa.Table) -> pa.Table:
        return self._for(rows)(rows)

    def refused(self, rows: pa.Table, reason: str) -> pa.Table:
        """Rows that the model is not to be given, for they end it."""
        return self._for(rows).refused(rows, reason)

    def _for(self, rows: pa.Table) -> Any:
        return self._answer if "windows" in rows.schema.names else self._embed


@dataclass
class _Heard:
    """What has been heard of a file: rows of its chunks without sound and windows, and the windows, which begin in
    seconds of the file."""

    left: int
    chunks: list[dict[str, Any]] = field(default_factory=list)
    windows: list[pa.Array] = field(default_factory=list)


class HearStage:
    """Rows of the work list, one a file → answers.

    The decoders are this process's own, the model is in a process beside it, for a row may end either. chunk_s: seconds
    decoded at once.
    """

    def __init__(
        self,
        context: StageContext,
        spec: ModelSpec,
        sample_rate: int,
        limits: LimitSettings,
        retried: tuple[str, ...],
        chunk_s: float,
    ) -> None:
        self._reader = DecodeStage(context, sample_rate, limits, retried)
        self._model = IsolatedStage(context, Stage("hear", FileModel, (spec,), isolated=True))
        self._chunk_s, self._retried = chunk_s, frozenset(retried)

    def __del__(self) -> None:
        if model := getattr(self, "_model", None):
            model.close()

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        chunks = self._chunks(rows)
        counts = [sum(at == number for at, *_ in chunks) for number in range(len(rows))]
        heard = {number: _Heard(count) for number, count in enumerate(counts)}
        ready: list[int] = []
        for block in (chunks[at : at + BLOCK_ROWS] for at in range(0, len(chunks), BLOCK_ROWS)):
            for (number, start, *_), row, windows in zip(block, *self._hear(rows, block), strict=True):
                file = heard[number]
                file.chunks.append(row)
                if windows is not None:
                    file.windows.append(_moved(windows, start - (rows["start_s"][number].as_py() or 0.0)))
                file.left -= 1
                if not file.left:
                    ready.append(number)
            if sum(row["decoded_s"] or 0.0 for at in ready for row in heard[at].chunks) >= TOGETHER_S:
                yield from self._answer(rows.take(ready), [heard.pop(at) for at in ready])
                ready = []
        if ready:
            yield from self._answer(rows.take(ready), [heard.pop(at) for at in ready])

    def _chunks(self, rows: pa.Table) -> list[tuple[int, float, float | None, bool]]:
        """(row, start, length, whether it ends with the file) of the chunks of every file, in order."""
        found: list[tuple[int, float, float | None, bool]] = []
        for number, row in enumerate(rows.select(CHUNK).to_pylist()):
            first, length, last = row["start_s"] or 0.0, row["duration_s"], bool(row["last"])
            code = row["error_code"] if row["error_code"] not in self._retried else None
            cut = chunk_starts(None if code is not None else length, self._chunk_s)
            for start, own in cut:
                rest = None if length is None else length - start
                found.append((number, first + start, rest if own is None else own, last and start == cut[-1][0]))
        return found

    def _hear(
        self, rows: pa.Table, block: list[tuple[int, float, float | None, bool]]
    ) -> tuple[list[dict[str, Any]], list[pa.Array | None]]:
        """What each chunk's row holds, and its windows, None where there are none."""
        numbers, starts, lengths, lasts = zip(*block, strict=True)
        part = rows.take(list(numbers))
        part = with_column(part, "start_s", list(starts), pa.float64())
        part = with_column(part, "duration_s", list(lengths), pa.float64())
        part = with_column(part, "last", list(lasts), pa.bool_())
        tables = [table.combine_chunks() for table in self._model(self._reader.load(part))]
        told: list[dict[str, Any]] = []
        windows: list[pa.Array | None] = []
        for table in tables:
            there = [name for name in ("start_s", "duration_s", *SOUND, *ERROR, *_TIMES) if name in table.schema.names]
            told += table.select(there).to_pylist()
            column = table["windows"].chunk(0) if len(table) else pa.array([], WINDOWS_TYPE)
            own = (column.slice(at, 1).flatten() for at in range(len(column)))
            windows += [each if len(each) else None for each in own]
        return told, windows

    def _answer(self, rows: pa.Table, files: list[_Heard]) -> Iterator[pa.Table]:
        told = [joined_sound(file.chunks) for file in files]
        kinds = SOUND | {name: pa.string() for name in ERROR}
        for name, kind in kinds.items():
            rows = with_column(rows, name, [each[name] for each in told], kind)
        windows = [pa.concat_arrays(file.windows) if file.windows else _NO_WINDOWS for file in files]
        ends = [0]
        for each in windows:
            ends.append(ends[-1] + len(each))
        rows = with_column(
            rows, "windows", pa.ListArray.from_arrays(ends, pa.concat_arrays(windows), type=WINDOWS_TYPE), WINDOWS_TYPE
        )
        spent = {name: sum(row.get(name) or 0.0 for file in files for row in file.chunks) for name in _TIMES}
        rows = timed(rows, decode_s=spent["_decode_s"], decode_cpu_s=spent["_decode_cpu_s"])
        for table in self._model(rows):
            yield timed(table, embed_s=spent["_embed_s"] * len(table) / len(rows))


_NO_WINDOWS = pa.array([], WINDOWS_TYPE.value_type)


def _moved(windows: pa.StructArray, by_s: float) -> pa.StructArray:
    """Windows that begin so much later."""
    columns = windows.flatten()
    names = [each.name for each in windows.type]
    columns[names.index("start_s")] = pc.add(columns[names.index("start_s")], by_s)
    return pa.StructArray.from_arrays(columns, fields=list(windows.type))


def joined_sound(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What is told of the sound of all chunks of a file, from what is told of each: `SOUND`, and error_code and
    error_message, which say what is wrong where none of them was heard, and else what is missing."""
    heard = [row for row in chunks if row["error_code"] is None]
    lost = [row for row in chunks if row["error_code"] is not None]
    if not heard:
        return {name: lost[0].get(name) for name in (*SOUND, *ERROR)}
    missing = sum(row["duration_s"] or 0.0 for row in lost)
    parts = [row for row in heard if row["rms_dbfs"] is not None]
    levels = joined_levels([(Levels(*(row[name] for name in LEVELS)), row["decoded_s"]) for row in parts])
    remark = next((row["error_message"] for row in heard if row["error_message"]), None)
    if lost:
        start = lost[0]["start_s"] or 0.0
        why = f"{lost[0]['error_code']} ({lost[0]['error_message']})"
        remark = f"{len(lost)} of {len(chunks)} minutes were not heard, the first at {start:g} s: {why}"
    known = [row["complete"] for row in heard if row["complete"] is not None]
    return {
        "decoded_s": sum(row["decoded_s"] or 0.0 for row in heard),
        "complete": all(known) and not lost if known or lost else None,
        "lost_s": round(sum(row["lost_s"] or 0.0 for row in heard) + missing, 3),
        **({name: getattr(levels, name) for name in LEVELS} if parts else dict.fromkeys(LEVELS)),
        "error_code": None,
        "error_message": remark and remark[:500],
    }


def hear_stages(settings: RunSettings, spec: ModelSpec, sample_rate: int, chunk_s: float) -> list[Stage]:
    """Declares the stages that answer whole files."""
    limits = LimitSettings(**settings.model_dump(include=set(LimitSettings.model_fields)))
    arguments = (spec, sample_rate, limits, tuple(settings.retry_errors or ()), chunk_s)
    columns = [each.name for each in output_columns("caption", spec)]
    return [
        Stage("list", ListStage, cpus=DECODER_CPUS),
        Stage(
            name="answer",
            actor=HearStage,
            arguments=arguments,
            reads=("entry_id", *CHUNK, *REQUEST_COLUMNS),
            writes=(*ERROR, *SOUND, *(each for each in columns if each not in HANDED_ON)),
            drops=dropped_columns("caption", spec),
            cpus=MODEL_CPUS,
            gpus=1.0,
        ),
    ]


# -- files of which the chunks are known -------------------------------------------------------------------------------


def whole_files(entries: Iterable[Entry], chunk_s: float) -> Iterator[Entry]:
    """The entries of a manifest, or of audio embeddings in order, with all chunks of a file in one.

    chunk_s: seconds of a chunk; one that is shorter, or that nothing follows on, is the last. Where the chunks' rows
    lie, `part` says (`decode_stage.FetchStage`).
    """
    together: list[Entry] = []
    for entry in entries:
        if together and not _goes_on(together[-1], entry, chunk_s):
            yield _file_of(together)
            together = []
        together.append(entry)
    if together:
        yield _file_of(together)


def _goes_on(before: Entry, entry: Entry, chunk_s: float) -> bool:
    one, other = before.chunk or {}, entry.chunk or {}
    if one.get("last") or before.uri != entry.uri or before.version != entry.version or before.own != entry.own:
        return False
    ends = (one["start_s"] or 0.0) + chunk_s
    follows = abs((other["start_s"] or 0.0) - ends) < 1e-3 and abs((one["duration_s"] or 0.0) - chunk_s) < 1e-3
    return follows and before.request == entry.request


def _file_of(chunks: list[Entry]) -> Entry:
    first, known = chunks[0], [each.chunk or {} for each in chunks]
    whole = copy.copy(known[0])
    lengths = [each["duration_s"] for each in known]
    whole["duration_s"] = None if None in lengths else sum(lengths)
    whole["last"] = known[-1]["last"]
    well = next((each for each in known if each["error_code"] is None), known[0])
    whole.update({name: well[name] for name in ("error_code", "error_message", "format", "sample_rate", "channels")})
    if known[0].get("part"):
        whole["part"] = spans([(each["part"], each["part_row"]) for each in known])
    whole["part_row"] = None
    # note: of more chunks, as a run that went on has them, it is another file
    return replace(first, path=f"{first.path}+{len(chunks)}", chunk=whole)


class FetchFiles(FetchStage):
    """Reads the windows of all chunks of a file out of the OUTPUT of an embed-audio run."""

    MORE = ("duration_s", *ERROR)

    def read(self, row: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        windows: list[dict[str, Any]] = []
        chunks = []
        for span in row["part"].split(" "):
            part, _, places = span.rpartition(":")
            first, last = map(int, places.split("-"))
            for at in range(first, last + 1):
                chunk = self.stored(part, at)
                by_s = (chunk["start_s"] or 0.0) - (row["start_s"] or 0.0)
                windows += [{**each, "start_s": each["start_s"] + by_s} for each in chunk.pop("windows") or ()]
                chunks.append(chunk)
        return windows, joined_sound(chunks)


def fetch_files_stage(embeddings: str) -> Stage:
    """Declares the stage that reads the audio embeddings of whole files."""
    return replace(fetch_stage(embeddings, "file"), actor=FetchFiles)


def spans(places: list[tuple[str, int]]) -> str:
    """Rows of part files as text: "a.parquet:3-7 b.parquet:0-0", rows that follow one another as one span."""
    found: list[list[Any]] = []
    for part, row in places:
        if found and found[-1][0] == part and found[-1][2] == row - 1:
            found[-1][2] = row
        else:
            found.append([part, row, row])
    return " ".join(f"{part}:{first}-{last}" for part, first, last in found)
