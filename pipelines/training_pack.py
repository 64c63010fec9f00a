"""Corpora and embeddings, joined once into a local folder that training maps into memory (see training_data.py)."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.prompts import FAMILIES
from pipelines.corpus import FileReport, corpus_files, read_corpus
from pipelines.train_settings import DataSet, TrainSettings
from pipelines.training_data import RECORD_SCHEMA, TableFacts, store_key, table_of, tables

_BATCH = 8192


@dataclass
class _Table:
    """A packed embeddings table; `ids` (sorted) and `rows` find a caption, for text."""

    file: str
    ids: np.ndarray
    rows: np.ndarray


def ensure_store(settings: TrainSettings, folder: Path) -> Path:
    """The packed data of these settings below `folder`; packed now unless it is there. One process packs, others wait.

    Raises SettingsError: a missing file, embeddings of several encoders, too many unusable records.
    """
    from filelock import FileLock

    key = store_key(settings)
    place = folder / key
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder / f"{key}.lock")):
        if not (place / "store.json").is_file():
            draft = folder / f"{key}.partial"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            try:
                _pack(settings, draft)
                draft.rename(place)
            except OSError as error:  # a full disk, say
                raise storage.error_from(error, str(folder)) from error
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    report = json.loads((place / "store.json").read_bytes())
    _check_errors(report, settings.max_error_rate)
    return place


def _pack(settings: TrainSettings, folder: Path) -> None:
    facts = tables(settings)
    packed: dict[str, _Table] = {}
    reports: list[dict[str, Any]] = []
    vectors: list[dict[str, np.ndarray]] = []
    for data in settings.data:
        uri = table_of(data, settings)
        if data.audio is not None:
            reports.append(_pack_audio(data, facts[uri], folder, len(packed)))
            packed[uri] = _Table(f"vectors-{len(packed)}.npy", np.empty(0), np.empty(0))
        else:
            if uri not in packed:
                packed[uri] = _pack_vectors(facts[uri], folder, len(packed))
            reports.append(_pack_corpus(data, packed[uri], folder))
        vectors.append(_vector_columns(folder, data))
    _split(settings, packed, reports, vectors, folder)
    dim = next(iter(facts.values())).dim
    store = {"dim": dim, "encoder_fingerprint": next(iter(facts.values())).encoder_fingerprint, "sets": reports}
    (folder / "store.json").write_text(json.dumps(store, indent=1) + "\n")


def _parts(uri: str) -> list[str]:
    """The Parquet parts of an embeddings table."""
    found = [f.uri for f in storage.list_files(uri) if f.uri.endswith(".parquet") and "/_state/" not in f.uri]
    if not found:
        raise SettingsError("embeddings", storage.public_uri(uri), "a table with rows in it")
    return sorted(found)


def _pack_vectors(facts: TableFacts, folder: Path, number: int) -> _Table:
    """Copy a text table's vectors into one array, part by part."""
    parts = [pq.ParquetFile(storage.open_binary(uri, read_ahead=8 << 20)) for uri in _parts(facts.uri)]
    total = sum(part.metadata.num_rows for part in parts)
    name = f"vectors-{number}.npy"
    out = np.lib.format.open_memmap(folder / name, "w+", np.float16, (total, facts.dim))
    ids: list[np.ndarray] = []
    at = 0
    for part in parts:
        for batch in part.iter_batches(batch_size=_BATCH, columns=["caption_id", "embedding"]):
            out[at : at + len(batch)] = _matrix(batch["embedding"], facts.dim)
            ids.append(_id_array(batch["caption_id"].to_pylist()))
            at += len(batch)
    out.flush()
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    return _Table(name, every[order], order)


def _matrix(column: Any, dim: int) -> np.ndarray:
    """[rows, dim] of a list column."""
    values = column.flatten()
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), dim)


def _id_array(ids: list[str]) -> np.ndarray:
    return np.array([each.encode() for each in ids])


def _pack_corpus(data: DataSet, table: _Table, folder: Path) -> dict[str, Any]:
    """Write a set's records with the rows of their embeddings; returns what was read and why records fell out."""
    files: list[FileReport] = []
    missing: list[str] = []
    without = rows = 0
    held_from: int | None = None
    with pa.OSFile(str(folder / f"{data.name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, RECORD_SCHEMA) as writer:
        for corpus in (data.corpus, data.validation_corpus):
            if corpus is None:
                continue
            if corpus is data.validation_corpus:
                held_from = rows
            for records in _batched(_records(data, corpus, files)):
                batch, lost = _joined(records, table)
                without += len(lost)
                missing += lost[: 3 - len(missing)]
                rows += len(batch)
                writer.write_batch(batch)
    problems = sum((each.problems for each in files), Counter({"no_embedding": without}))
    first = [f"{f.as_dict()['file']} line {f.lines[0]['line']}: {f.lines[0]['code']}" for f in files if f.lines]
    return {
        "name": data.name,
        "vectors": table.file,
        "records": rows,
        "problems": {name: count for name, count in sorted(problems.items()) if count},
        "examples": [*first, *(f"no embedding for the caption {text!r}" for text in missing)][:5],
        "held_from": held_from,
    }


def _records(data: DataSet, corpus: str | list[str], reports: list[FileReport]) -> Iterator[dict[str, str]]:
    """Usable records of all files of a corpus; what is not usable is counted in `reports`, one a file."""
    for info in corpus_files(corpus, f"data.{data.name}.corpus"):
        reports.append(FileReport(info.uri))
        for record in read_corpus(info.uri, reports[-1], data.columns, True, data.task):
            yield record if record["tag"] or not data.tag else {**record, "tag": data.tag}


def _batched(records: Iterator[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    batch: list[dict[str, str]] = []
    for record in records:
        batch.append(record)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _joined(records: list[dict[str, str]], table: _Table) -> tuple[pa.RecordBatch, list[str]]:
    """Records whose caption has an embedding, as rows; and the captions of those without."""
    ids = _id_array([record["caption_id"] for record in records])
    at = np.minimum(np.searchsorted(table.ids, ids), len(table.ids) - 1)
    there = table.ids[at] == ids
    kept = [record for record, found in zip(records, there, strict=True) if found]
    columns: list[Any] = [pa.array(table.rows[at[there]], pa.int64())]
    columns += [pa.array([r[name] for r in kept], pa.string()) for name in RECORD_SCHEMA.names[1:]]
    missing = [record["caption"] for record, found in zip(records, there, strict=True) if not found]
    return pa.RecordBatch.from_arrays(columns, schema=RECORD_SCHEMA), missing


def _pack_audio(data: DataSet, facts: TableFacts, folder: Path, number: int) -> dict[str, Any]:
    """A clip's embedding is the weighted mean of its unit windows; its record is what its list said of it."""
    problems: Counter[str] = Counter()
    vectors: list[np.ndarray] = []
    columns: dict[str, list[str]] = {name: [] for name in RECORD_SCHEMA.names[1:]}
    for uri in _parts(facts.uri):
        for batch in pq.ParquetFile(storage.open_binary(uri)).iter_batches(batch_size=1024):
            if "output" not in batch.schema.names:
                raise SettingsError(
                    f"data.{data.name}.audio", storage.public_uri(facts.uri), "clips of a list with a column `output`"
                )
            for row in batch.to_pylist():
                record = _audio_record(row, data)
                if isinstance(record, str):
                    problems[record] += 1
                    continue
                for name, value in record.items():
                    columns[name].append(value)
                vectors.append(_mean_window(row["windows"]))
    table = np.stack(vectors) if vectors else np.empty((0, facts.dim), np.float32)
    np.save(folder / f"vectors-{number}.npy", table.astype(np.float32))
    arrays = [pa.array(range(len(vectors)), pa.int64()), *(pa.array(columns[n]) for n in RECORD_SCHEMA.names[1:])]
    with pa.OSFile(str(folder / f"{data.name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, RECORD_SCHEMA) as writer:
        writer.write_table(pa.Table.from_arrays(arrays, schema=RECORD_SCHEMA))
    return {
        "name": data.name, "vectors": f"vectors-{number}.npy", "records": len(vectors),
        "problems": dict(problems), "examples": [], "held_from": None,
    }  # fmt: skip


def _audio_record(row: dict[str, Any], data: DataSet) -> dict[str, str] | str:
    """The record of a row of audio embeddings, or why it has none."""
    if row.get("error_code") or not row.get("windows"):
        return "no_sound"
    task = str(row.get("task") or data.task or "caption")
    if task.strip().lower() not in FAMILIES:
        return "unknown_task"
    question = str(row.get("question") or row.get("instruction") or "")
    if FAMILIES[task.strip().lower()] == "QA" and not question.strip():
        return "missing_instruction"
    output = str(row.get("output") or "").strip()
    if not output:
        return "missing_output"
    return {"task": task, "instruction": question, "output": output, "tag": str(row.get("tag") or data.tag or "")}


def _mean_window(windows: list[dict[str, Any]]) -> np.ndarray:
    weights = np.array([each["weight"] for each in windows], np.float64)
    stacked = np.array([each["embedding"] for each in windows], np.float64)
    mean = (stacked * weights[:, None]).sum(axis=0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)


def _vector_columns(folder: Path, data: DataSet) -> dict[str, np.ndarray]:
    """The rows of a set's embeddings, a record each; the texts stay on disk."""
    with pa.memory_map(str(folder / f"{data.name}.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
        return {"vector": np.array(table["vector"].to_numpy(zero_copy_only=False))}


def _split(
    settings: TrainSettings,
    packed: dict[str, _Table],
    reports: list[dict[str, Any]],
    vectors: list[dict[str, np.ndarray]],
    folder: Path,
) -> None:
    """Hold records out by caption: no set trains on a caption that any set validates on."""
    held: dict[str, list[np.ndarray]] = {}
    validation: list[np.ndarray] = []
    for data, report, columns in zip(settings.data, reports, vectors, strict=True):
        rows = columns["vector"]
        if report["held_from"] is not None:
            chosen = np.arange(report["held_from"], len(rows))
        else:
            table = packed[table_of(data, settings)]
            wanted = settings.validation if data.validation is None else data.validation
            chosen = _held_out(rows, table, min(wanted, len(rows) // 5))
        validation.append(chosen)
        held.setdefault(report["vectors"], []).append(rows[chosen])
    for report, columns, chosen in zip(reports, vectors, validation, strict=True):
        rows = columns["vector"]
        apart = np.isin(rows, np.concatenate(held[report["vectors"]]))
        train = np.flatnonzero(~apart)
        if report["held_from"] is not None:
            train = train[train < report["held_from"]]
        np.save(folder / f"{report['name']}.train.npy", train)
        np.save(folder / f"{report['name']}.validation.npy", chosen)
        report.update(train=len(train), validation=len(chosen))


def _held_out(rows: np.ndarray, table: _Table, wanted: int) -> np.ndarray:
    """Record numbers of about `wanted` records: whole captions, in the order of their ids, which are hashes."""
    if wanted == 0:
        return np.empty(0, np.int64)
    rank = np.arange(int(rows.max()) + 1)
    if len(table.rows):
        rank = np.empty(len(table.rows), np.int64)
        rank[table.rows] = np.arange(len(table.rows))
    else:  # clips have no caption's hash; a fixed shuffle will do
        rank = np.random.default_rng(0).permutation(len(rank))
    order = np.argsort(rank[rows], kind="stable")
    last = rank[rows[order[wanted - 1]]]
    return np.sort(order[rank[rows[order]] <= last])


def _check_errors(store: dict[str, Any], most: float) -> None:
    for each in store["sets"]:
        bad = sum(each["problems"].values())
        if bad > most * (bad + each["records"]):
            why = ", ".join(f"{name} {count}" for name, count in each["problems"].items())
            hint = '; embed this corpus with "mats embed-text"' if "no_embedding" in each["problems"] else ""
            first = f"; first: {each['examples'][0]}" if each["examples"] else ""
            raise SettingsError(
                f"data.{each['name']}",
                f"{bad} of {bad + each['records']} records that cannot be used ({why})",
                f"at most {most:.1%} of them (max_error_rate){hint}{first}",
            )
        if not each.get("train"):
            raise SettingsError(f"data.{each['name']}", "no record to train on", "at least one")
