"""What people say of a run's answers: better texts, labels, right or wrong. The answers themselves stay as they are.

    OUTPUT/corrections/000000000123-000002.parquet      the second thing that was said of row 123

Each is a file of one row, made where there is none (`storage.create_bytes`) and never changed: of two people who saw
the same and write at once, in one process or two, one makes the file, and the other is told (`Conflict`). What stands
in the newest counts; all others are the history. A correction belongs to what was asked about a chunk, so that it
stays with it when the archive is answered anew, and says nothing of another sound that gets the same row.
"""

from __future__ import annotations

import datetime
import io
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data import parquet
from pipelines.data.schemas import CORRECTION_COLUMNS, schema_of, with_column

FOLDER = "corrections"
SCHEMA = schema_of(CORRECTION_COLUMNS)
_NEWER = ("only_channel",)  # columns that older corrections lack
MARKS = ("right", "wrong")
MOST_TEXT, MOST_NAME, MOST_LABELS = 10_000, 80, 50
"""Characters of a text, of a name or label, and labels of a row."""
ADDED: dict[str, pa.DataType] = {
    "corrected_from": pa.string(),
    "corrected_mark": pa.string(),
    "corrected_labels": pa.list_(pa.string()),
    "corrected_by": pa.string(),
    "corrected_at": pa.string(),
}
"""Columns that `corrected` adds: the run's own text where another one was given, the mark, labels, who and when."""
SCORES = ("logprob", "clap_score", "confidence")
OF_OWN_TEXT = (*SCORES, "text_unsure", "segments")
"""Columns that are told of a run's own text for the row, and of no other text."""
_NAME = re.compile(r"(\d{12,})-(\d{6,})\.parquet")
_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_READERS = 16

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Correction:
    """One thing that was said of a row, and how the row stands since. text: None where the run's own counts."""

    row_id: int
    version: int
    action: Literal["correct", "undo"]
    text: str | None
    labels: list[str] | None
    mark: str | None
    by: str
    at: datetime.datetime
    answer: str | None
    uri: str
    start_s: float
    duration_s: float | None
    chunk_id: str | None
    task: str | None
    question: str | None
    run_id: str | None
    model_fingerprint: str | None
    only_channel: int | None = None

    @property
    def says_something(self) -> bool:
        """Whether anything is left of what was said, after all that was undone."""
        return self.text is not None or self.mark is not None or bool(self.labels)

    @property
    def when(self) -> str:
        """The moment as text, in UTC."""
        return self.at.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    def belongs_to(self, row: Row) -> bool:
        """Whether it was said of what this row asks about this sound."""
        if self.chunk_id and row.get("chunk_id"):
            same = self.chunk_id == row["chunk_id"]
        else:
            there = (row.get("uri"), row.get("start_s") or 0.0, row.get("only_channel"))
            same = (self.uri, self.start_s, self.only_channel) == there
        return same and all((getattr(self, name) or "") == (row.get(name) or "") for name in ("task", "question"))


class Conflict(Exception):
    """Somebody else has said something of the row since it was looked at: `now`."""

    def __init__(self, now: Correction | None) -> None:
        super().__init__("the row was changed since")
        self.now = now


class Corrections:
    """What was said of the rows of one OUTPUT. May be used by several threads; `refresh` sees what others wrote."""

    def __init__(self, output: str) -> None:
        self.folder = storage.join(output, FOLDER)
        self._lock = threading.Lock()
        self._history: dict[int, dict[int, Correction]] = {}
        self.refresh()

    def refresh(self) -> list[int]:
        """Read what is new in the folder; the rows that were changed. Raises SettingsError for a damaged file."""
        listed = list(storage.list_files(self.folder)) if storage.is_dir(self.folder) else []
        with self._lock:
            known = {(row, version) for row, said in self._history.items() for version in said}
        named = ((info.uri, _NAME.fullmatch(info.path)) for info in listed)
        new = [uri for uri, name in named if name and (int(name[1]), int(name[2])) not in known]
        with ThreadPoolExecutor(_READERS) as pool:
            found = list(pool.map(_read, new))
        with self._lock:
            for each in found:
                self._history.setdefault(each.row_id, {})[each.version] = each
        return sorted({each.row_id for each in found})

    def newest(self, row_id: int) -> Correction | None:
        """The newest of a row; None where nothing was ever said."""
        with self._lock:
            said = self._history.get(row_id)
            return said[max(said)] if said else None

    def history(self, row_id: int) -> list[Correction]:
        """All that was said of a row, the oldest first."""
        with self._lock:
            return [each for _, each in sorted(self._history.get(row_id, {}).items())]

    def about(self, row: Row) -> list[Correction]:
        """What was said of what this row asks about its sound, the oldest first, since anything was said of another
        sound in its place."""
        found: list[Correction] = []
        for each in self.history(row["row_id"]):
            found = [*found, each] if each.belongs_to(row) else []
        return found

    def standing(self) -> dict[int, Correction]:
        """Row → what counts for it, where that is anything."""
        with self._lock:
            newest = {row: said[max(said)] for row, said in self._history.items()}
        return {row: each for row, each in newest.items() if each.says_something}

    def correct(self, row: Row, seen: int, by: str, change: Mapping[str, Any]) -> Correction:
        """Say something of a row as it was at version `seen` (0: nothing was said yet); `change` has text, labels,
        mark, or some of them. A mark is of the text it was given to: another text begins without one. Raises Conflict,
        and ValueError for what nobody can say."""
        own = self.about(row)
        stands = {name: getattr(own[-1], name) if own else None for name in ("text", "labels", "mark")}
        wanted = stands | {name: _checked(name, value) for name, value in change.items()}
        if wanted["text"] == row.get("text"):
            wanted["text"] = None
        if wanted["text"] != stands["text"] and "mark" not in change:
            wanted["mark"] = None
        return self._write(row, seen, by, "correct", wanted)

    def undo(self, row: Row, seen: int, by: str) -> Correction:
        """Take back the newest thing that was said and not taken back yet. Raises Conflict; ValueError where there is
        none."""
        standing: list[Correction] = []
        for each in self.about(row):
            if each.action == "correct":
                standing.append(each)
            elif standing:
                standing.pop()
        if not standing:
            raise ValueError("there is nothing to undo")
        before = standing[-2] if len(standing) > 1 else None
        wanted = {name: getattr(before, name) if before else None for name in ("text", "labels", "mark")}
        return self._write(row, seen, by, "undo", wanted)

    def _write(
        self, row: Row, seen: int, by: str, action: Literal["correct", "undo"], wanted: dict[str, Any]
    ) -> Correction:
        now = self.newest(row["row_id"])
        if seen != (now.version if now else 0):
            raise Conflict(now)
        made = Correction(
            row_id=row["row_id"], version=seen + 1, action=action, by=_checked("by", by),
            at=_now(), answer=own_text(row), uri=row["uri"],
            start_s=row.get("start_s") or 0.0, duration_s=row.get("decoded_s") or row.get("duration_s"),
            chunk_id=row.get("chunk_id"), task=row.get("task"), question=row.get("question"),
            run_id=row.get("run_id"), model_fingerprint=row.get("model_fingerprint"),
            only_channel=row.get("only_channel"), **wanted,
        )  # fmt: skip
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([asdict(made)], SCHEMA), buffer)
        name = storage.join(self.folder, f"{made.row_id:012d}-{made.version:06d}.parquet")
        if not storage.create_bytes(name, buffer.getvalue()):
            self.refresh()
            raise Conflict(self.newest(made.row_id))
        with self._lock:
            self._history.setdefault(made.row_id, {})[made.version] = made
        return made


def own_text(row: Row) -> str | None:
    """What the run itself says of a row, also where it is too unsure to say it in `text`."""
    said: str | None = row.get("text")
    return said if said is not None else row.get("text_unsure")


def _now() -> datetime.datetime:
    """This moment, as exact as it is stored."""
    moment = datetime.datetime.now(datetime.timezone.utc)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _read(uri: str) -> Correction:
    try:
        (values,) = parquet.read(uri, [name for name in SCHEMA.names if name not in _NEWER], _NEWER).to_pylist()
        return Correction(**values)
    except (parquet.NotParquet, ValueError) as error:
        problem = f"{storage.public_uri(uri)} is no whole correction ({error})"
        raise SettingsError("corrections", problem, "move it away") from None


def _checked(name: str, value: Any) -> Any:
    """A part of a correction in its plain form; ValueError for what none can be."""
    if name == "mark":
        if value is not None and value not in MARKS:
            raise ValueError(f"a mark is one of {', '.join(MARKS)}, or none")
        return value
    if name == "labels":
        labels = [label for each in value or () if (label := _plain(each, MOST_NAME, "a label"))]
        if len(labels) > MOST_LABELS:
            raise ValueError(f"at most {MOST_LABELS} labels")
        return list(dict.fromkeys(labels)) or None
    if name == "by":
        if not (known := _plain(value, MOST_NAME, "a name")):
            raise ValueError("who says it? Give a name")
        return known
    if name != "text":
        raise ValueError(f'a correction has no "{name}"')
    return None if value is None else _plain(value, MOST_TEXT, "a text") or None


def _plain(value: Any, most: int, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is text")
    text = _UNFIT.sub(" ", value).strip()
    if len(text) > most:
        raise ValueError(f"{what} has at most {most} characters")
    return text


def copy_corrections(output: str, to: str) -> int:
    """Put what was said of the rows of one OUTPUT beside the same rows in another; how many files were new there."""
    folder = storage.join(output, FOLDER)
    listed = (
        [info for info in storage.list_files(folder) if _NAME.fullmatch(info.path)] if storage.is_dir(folder) else []
    )

    def copy(info: storage.FileInfo) -> bool:
        return storage.create_bytes(storage.join(to, FOLDER, info.path), storage.read_bytes(info.uri))

    with ThreadPoolExecutor(_READERS) as pool:
        return sum(pool.map(copy, listed))


def read_corrections(output: str) -> dict[int, Correction]:
    """Row → what counts for it, of all rows of which something was said."""
    return Corrections(output).standing() if storage.is_dir(storage.join(output, FOLDER)) else {}


def corrected(rows: pa.Table, said: Mapping[int, Correction]) -> pa.Table:
    """Rows with corrected texts in place of the run's own, without what is told of those (OF_OWN_TEXT), and
    the columns ADDED; as they are where nothing was said of any row of the run."""
    if not said or not {"row_id", "uri"} <= set(rows.schema.names):
        return rows
    places = pc.drop_null(pc.index_in(pa.array(sorted(said), pa.int64()), rows["row_id"].combine_chunks()))
    names = ("row_id", "chunk_id", "uri", "start_s", "only_channel", "task", "question", "text", "text_unsure")
    found = rows.select([name for name in names if name in rows.schema.names]).take(places).to_pylist()
    mine = [(place, row) for place, row in zip(places.to_pylist(), found, strict=True)
            if said[row["row_id"]].belongs_to(row)]  # fmt: skip
    number = np.full(len(rows), -1)
    number[[place for place, _ in mine]] = np.arange(len(mine))
    which = pa.array(number, mask=number < 0)
    made = [said[row["row_id"]] for _, row in mine]
    text = pa.array([each.text for each in made], pa.string()).take(which)
    if text.null_count < len(text) and "text" in rows.schema.names:
        rows = with_column(rows, "text", pc.coalesce(text, rows["text"].cast(pa.string())), pa.string())
        for name in set(OF_OWN_TEXT) & set(rows.schema.names):
            kind = rows.schema.field(name).type
            kept = pc.if_else(pc.is_null(text), rows[name], pa.scalar(None, kind))
            rows = with_column(rows, name, kept, kind)
    own = [None if each.text is None else own_text(row) for each, (_, row) in zip(made, mine, strict=True)]
    told = (own, *([getattr(each, name) for each in made] for name in ("mark", "labels", "by", "when")))
    for (name, kind), values in zip(ADDED.items(), told, strict=True):
        rows = with_column(rows, name, pa.array(values, kind).take(which), kind)
    return rows


def corrected_records(output: str) -> list[dict[str, str]]:
    """What was put right as training records: a caption that stands for its sound, a question, and the answer to it.

    Captions that were corrected or marked right are records; so are labels and questions where the caption of their
    sound is known, from a correction too.
    """
    said = [(each, _truth(each)) for each in read_corrections(output).values()]
    good = [(each, truth) for each, truth in said if truth]
    captions = {_place(each): truth for each, truth in good if (each.task or "caption") in ("caption", "music_caption")}
    return [
        {
            "caption": captions[_place(each)], "instruction": each.question or "", "output": truth,
            "task": each.task or "caption", "tag": "", "source": "corrections",
        }
        for each, truth in good
        if _place(each) in captions
    ]  # fmt: skip


def truths(said: Iterable[Correction], task: str) -> list[tuple[Correction, str]]:
    """What is known to be right of the answers to a task."""
    return [(each, truth) for each in said if (each.task or "caption") == task and (truth := _truth(each))]


def _truth(each: Correction) -> str | None:
    """A corrected text, or the run's own that was marked right. Of a text that is marked wrong, nothing is known."""
    if each.mark == "wrong":
        return each.text
    return each.text or (each.answer if each.mark == "right" else None)


def _place(each: Correction) -> Sequence[Any]:
    """What of which file was heard."""
    return each.uri, each.start_s, each.duration_s, each.only_channel
