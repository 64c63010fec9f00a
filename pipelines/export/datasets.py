"""webdataset, hf: data sets with the audio in them, in files of so many sounds each.

`_export.json` says which rows each file has. A file that is there with the rows that it is to have is not made again:
an export that was stopped goes on, and one of a run that has grown adds to itself.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mats_core import storage
from mats_core.errors import SettingsError, counted
from mats_core.storage.fingerprint import hash_settings
from pipelines.export.audio import sounds
from pipelines.export.places import shown
from pipelines.export.rows import Row
from pipelines.export.tables import json_line

NOTES = "_export.json"
Sound = tuple[Row, "bytes | None", str]


def write_files(
    output: str, rows: Iterable[Row], identity: dict[str, Any], overwrite: bool, tell: Callable[[int], None]
) -> tuple[int, Counter[str]]:
    """Write the data set; (sounds in it, those left out by why). Raises SettingsError for a folder of something else.

    identity: what it is made of: kind (`to`), chunks or files (`per`), sounds a file (`items`), and which run.
    """
    kind, per, items = identity["to"], identity["per"], identity["items"]
    notes = _notes(output, identity, overwrite)
    schema = notes.setdefault("schema", None)
    count, left_out, said, number = 0, Counter[str](), Counter[str](), 0
    source = iter(rows)
    while group := list(islice(source, items)):
        name = f"shard-{number:06d}.tar" if kind == "webdataset" else f"data/train-{number:05d}.parquet"
        mark = hash_settings(
            [[str(row.get(name)) for name in ("row_id", "uri", "run_id", "start_s", "text")] for row in group]
        )
        known = notes["files"].get(name)
        uri = storage.join(output, *name.split("/"))
        if not (known and known["rows"] == mark and "checked" in known and storage.exists(uri)):
            checked = Counter[str]()
            found = _checked(sounds(group, per), checked)
            with storage.whole_file(uri) as file:
                if kind == "webdataset":
                    written, lost = write_tar(file, found)
                else:
                    written, lost, schema = write_parquet(file, found, _schema_of(schema))
                    notes["schema"] = schema
            known = {"rows": mark, "sounds": written, "left_out": dict(lost), "checked": dict(checked)}
            notes["files"][name] = known
            _write_notes(output, notes)
        count += known["sounds"]
        left_out.update(known["left_out"])
        said.update(known["checked"])
        number += 1
        tell(count)
    for name in [each for each in notes["files"] if _number(each) >= number]:  # of a run that has become shorter
        storage.remove_tree(storage.join(output, *name.split("/")))
        del notes["files"][name]
    _write_notes(output, notes)
    if kind == "hf":
        storage.write_bytes(storage.join(output, "README.md"), card(identity, count, said).encode())
    return count, left_out


def _checked(found: Iterable[Sound], said: Counter[str]) -> Iterator[Sound]:
    """The sounds; counts those of which a person said something: `checked`, `corrected`, and by mark."""
    for row, data, ending in found:
        if data is not None and row.get("corrected_by"):
            kinds = ("checked", "corrected" if row.get("corrected_from") is not None else None, row["corrected_mark"])
            said.update(filter(None, kinds))
        yield row, data, ending


def _number(name: str) -> int:
    return int(name.rpartition("-")[2].partition(".")[0])


def _notes(output: str, identity: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """What an earlier export into this folder noted, where it was the same one."""
    fresh: dict[str, Any] = {"identity": identity, "files": {}}
    uri = storage.join(output, NOTES)
    shown_output = storage.public_uri(output)
    if not storage.exists(uri):
        if storage.is_dir(output) and next(iter(storage.list_files(output)), None) is not None:
            raise SettingsError("output", f"{shown_output} has files in it", "choose an empty folder")
        return fresh
    try:
        noted = json.loads(storage.read_bytes(uri))
        same, files = noted["identity"] == identity, dict(noted["files"])
        [_number(name) for name in files]
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{shown_output} has a {NOTES} that is damaged ({error})"
        raise SettingsError("output", problem, "choose another folder") from None
    if overwrite:
        for name in files:
            storage.remove_tree(storage.join(output, *name.split("/")))
        return fresh
    if not same:
        problem = f"{shown_output} holds another export"
        raise SettingsError("output", problem, "choose another folder, or replace it with --overwrite")
    return {"identity": identity, "files": files, "schema": noted.get("schema")}


def _write_notes(output: str, notes: dict[str, Any]) -> None:
    storage.write_bytes(storage.join(output, NOTES), json.dumps(notes, indent=1).encode())


def name_of(row: Row) -> str:
    """The name of a row's sound: its row and where it begins, in milliseconds. note: no dot, at which readers of tars
    take a name to end."""
    return f"{row['row_id']:012d}-{round(1000 * (row.get('start_s') or 0.0)):09d}"


def write_tar(file: IO[bytes], found: Iterable[Sound]) -> tuple[int, Counter[str]]:
    """A shard of WebDataset: for each sound its audio, its row as JSON, and its text, under one key."""
    count, lost = 0, Counter[str]()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row, data, ending in found:
            if data is None:
                lost[ending] += 1
                continue
            key = name_of(row)
            text = str(row.get("text") or "").encode("utf-8", "replace")
            for end, content in ((ending, data), ("json", json_line(row)), ("txt", text)):
                member = tarfile.TarInfo(f"{key}.{end}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            count += 1
    return count, lost


def write_parquet(
    file: IO[bytes], found: Iterable[Sound], schema: pa.Schema | None
) -> tuple[int, Counter[str], dict[str, Any] | None]:
    """A file of a `datasets` folder: `audio` (bytes, path) and the row's plain columns, a row group a few sounds.

    schema: of the files before, which all of them share. Returns it as `_schema_of` takes it.
    """
    lost = Counter[str]()

    def kept() -> Iterator[dict[str, Any]]:
        for row, data, ending in found:
            if data is None:
                lost[ending] += 1
            else:
                name = f"{name_of(row)}.{ending}"
                told = {key: _value(value) for key, value in row.items() if key != "uri"}
                yield {"audio": {"bytes": data, "path": name}, **told, "file": shown(row["uri"])}

    each = kept()
    first = list(islice(each, 1))
    if schema is None and first:
        schema = _hub_schema(first[0])
    count = 0
    with pq.ParquetWriter(file, schema or pa.schema([]), compression="zstd") as writer:
        rest = chain(first, each)
        while schema is not None and (group := list(islice(rest, 16))):
            plain = [{key: _fit(row.get(key), schema.field(key).type) for key in schema.names} for row in group]
            writer.write_table(pa.Table.from_pylist(plain, schema))
            count += len(group)
    return count, lost, _told_schema(schema)


def _value(value: Any) -> Any:
    """A row's value as a plain column holds it: what is nested as JSON."""
    return json_line({"": value})[5:-2].decode() if isinstance(value, (dict, list, bytes)) else value


_TYPES = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
_KNOWN = {"row_id": "int64", "size_bytes": "int64", "sample_rate": "int64", "channels": "int64",
          "only_channel": "int64", "start_s": "float64", "duration_s": "float64", "decoded_s": "float64",
          "lost_s": "float64", "complete": "bool", "peak_dbfs": "float64", "rms_dbfs": "float64", "clipped": "float64",
          "silent": "bool", "logprob": "float64", "clap_score": "float64", "confidence": "float64"}  # fmt: skip


def _hub_schema(row: dict[str, Any]) -> pa.Schema:
    kinds = {bool: "bool", int: "int64", float: "float64"}
    names = {key: _KNOWN.get(key) or kinds.get(type(value), "string") for key, value in row.items() if key != "audio"}
    return _schema_of(names)


def _schema_of(names: dict[str, Any] | None) -> pa.Schema | None:
    """Columns as `datasets` reads them, with its own description of them."""
    if names is None:
        return None
    fields = [("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    fields += [(key, _TYPES[kind]) for key, kind in names.items()]
    features = {"audio": {"_type": "Audio"}, **{key: {"dtype": kind, "_type": "Value"} for key, kind in names.items()}}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _told_schema(schema: pa.Schema | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    kinds = {str(kind): name for name, kind in _TYPES.items()}
    return {each.name: kinds[str(each.type)] for each in schema if each.name != "audio"}


def _fit(value: Any, kind: pa.DataType) -> Any:
    """A value for a column of this type; None where it is none of it."""
    if value is None or pa.types.is_struct(kind):
        return value
    if pa.types.is_string(kind):
        return str(value).encode("utf-8", "replace").decode()
    try:
        return pa.scalar(value, kind).as_py()
    except (pa.ArrowException, TypeError, ValueError):
        return None


def card(identity: dict[str, Any], count: int, said: Mapping[str, int]) -> str:
    """The card of a `datasets` folder of so many sounds; said: what `_checked` counted."""
    size = next(name for most, name in _SIZES if count < most)
    what = "files" if identity["per"] == "file" else "parts of files, about a minute each"
    checked = "`text` is the answer of a model, not checked by a person."
    if said.get("checked"):
        told = (
            ", ".join(f"{said[kind]} {how}" for kind, how in _CHECKED.items() if said.get(kind)) or "with labels alone"
        )
        part = ", at least in part" if identity["per"] == "file" else ""
        checked = (
            f"`text` is the answer of a model. Of {said['checked']} a person has said something{part} "
            f"(`corrected_by`): {told}. The others are not checked."
        )
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
task_categories:
- audio-classification
size_categories:
- {size}
tags:
- audio
- captions
---

# Sounds and what a model says of them

{counted(count, "sound")} ({what}), exported by `mats export --to hf`. {checked}

```python
from datasets import load_dataset

sounds = load_dataset("parquet", data_files="data/train-*.parquet", split="train")
```

Whether the recordings may be passed on is for whoever holds the rights in them to say.
"""


_CHECKED = {
    "corrected": "with a text of theirs in place of the model's",
    "right": "marked right",
    "wrong": "marked wrong",
}
_SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**99, "n>1M"))
