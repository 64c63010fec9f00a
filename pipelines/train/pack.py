"""Corpora and embeddings, joined once into a local folder that training maps into memory (see mixture.py)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.audio.windows import is_long, pool_windows
from mats_core.errors import SettingsError
from mats_core.model.prompts import FAMILIES
from mats_core.storage.fetch import made_once
from mats_core.storage.fingerprint import hash_file, sealed
from pipelines.data.corpus import FileReport, corpus_files, read_corpus
from pipelines.data.embeddings import EmbeddingsFacts, part_rows, read_part
from pipelines.settings.train import DataSet, TrainSettings
from pipelines.train.mixture import RECORD_SCHEMA, is_whole, read_store, store_key, table_of, tables
from pipelines.train.split import SetRows, split

_BATCH = 8192


@dataclass
class _Table:
    """A packed embeddings table; `ids` (sorted) and `rows` find a caption, for text."""

    file: str
    ids: np.ndarray
    rows: np.ndarray


def ensure_store(settings: TrainSettings, folder: Path, report: str | None = None) -> Path:
    """The packed data of these settings below `folder`; packed now unless it is there. One process packs, others wait.

    report: URI that receives what was found in each file of each set. Raises SettingsError: a missing file, embeddings
    of several encoders, too many unusable records; StorageError: no room to pack.
    """
    place = folder / store_key(settings)
    try:
        made_once(place, is_whole, lambda draft: _pack(settings, draft))  # what is damaged is packed again
    except OSError as error:  # a full disk, say
        raise storage.error_from(error, str(folder)) from error
    store = read_store(place)
    if report is not None:
        files = [{"set": each["name"], **file} for each in store["sets"] for file in each["files"]]
        storage.write_bytes(report, json.dumps({"files": files}, indent=1).encode())
    _check_errors(store, settings.max_error_rate)
    return place


def _pack(settings: TrainSettings, folder: Path) -> None:
    facts = tables(settings)
    encoder = next(iter(facts.values()))
    packed: dict[str, _Table] = {}
    reports: list[dict[str, Any]] = []
    sets: list[SetRows] = []
    for number, data in enumerate(settings.data):
        uri = table_of(data, settings)
        if data.audio is not None:
            table = _Table(f"vectors-{number}.npy", np.empty(0), np.empty(0))
            reports.append(_pack_audio(data, facts[uri], folder, table.file))
        else:
            if uri not in packed:
                packed[uri] = _pack_vectors(facts[uri], folder, f"vectors-{number}.npy")
            table = packed[uri]
            reports.append(_pack_corpus(data, table, folder))
        wanted = settings.validation if data.validation is None else data.validation
        sets.append(_set_rows(data.name, reports[-1], table, wanted, folder))
    for report, each in zip(reports, split(sets), strict=True):
        for name, numbers in (("train", each.train), ("validation", each.validation)):
            with _array_file(folder / f"{report['name']}.{name}.npy", np.int64, numbers.shape) as file:
                file.write(numbers.astype(np.int64).tobytes())
            report[name] = len(numbers)
        report.update(held_by=each.held_by, given_up=each.given_up, met=each.met)
    hashes = {file.name: hash_file(file) for file in sorted(folder.iterdir())}
    store = {"dim": encoder.dim, "encoder_fingerprint": encoder.encoder_fingerprint, "fingerprints": hashes}
    (folder / "store.json").write_text(json.dumps(sealed({**store, "sets": reports}), indent=1) + "\n")


@contextmanager
def _array_file(path: Path, dtype: Any, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """A .npy file whose numbers are written one after the other."""
    # note: a full disk ends a write with an error, but a process that fills a new file through a mapping with SIGBUS
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, described)
        yield file


def _pack_vectors(facts: EmbeddingsFacts, folder: Path, name: str) -> _Table:
    """Copy a text table's vectors into one array, part by part."""
    parts = part_rows(facts.uri, facts.rows)
    ids: list[np.ndarray] = []
    with _array_file(folder / name, np.float16, (sum(parts.values()), facts.dim)) as file:
        for uri in parts:
            for batch in read_part(uri, _BATCH, ["caption_id", "embedding"]):
                values = batch["embedding"].flatten().to_numpy(zero_copy_only=False)  # [rows * D]
                file.write(values.astype(np.float16).tobytes())
                ids.append(_id_array(batch["caption_id"].to_pylist()))
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    return _Table(name, every[order], order)


def _id_array(ids: list[str]) -> np.ndarray:
    return np.array([each.encode() for each in ids])


_Usable = tuple[dict[str, str], FileReport, int]  # a record, the report of its file, and its line


@contextmanager
def _record_file(folder: Path, name: str) -> Iterator[Any]:
    """The Arrow writer of a set's records."""
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, RECORD_SCHEMA) as writer:
        yield writer


def _pack_corpus(data: DataSet, table: _Table, folder: Path) -> dict[str, Any]:
    """Write a set's records with the rows of their embeddings; returns what was read and why records fell out."""
    files: list[FileReport] = []
    rows, held_from = 0, None
    with _record_file(folder, data.name) as writer:
        for corpus in (data.corpus, data.validation_corpus):
            if corpus is None:
                continue
            if corpus is data.validation_corpus:
                held_from = rows
            records = _records(data, corpus, files)
            while found := list(islice(records, _BATCH)):
                batch = _joined(found, table)
                rows += len(batch)
                writer.write_batch(batch)
    return _set_report(data.name, table.file, rows, files, held_from)


def _set_report(name: str, vectors: str, rows: int, files: list[FileReport], held_from: int | None) -> dict[str, Any]:
    """What is known of a packed set."""
    problems = sum((each.problems for each in files), Counter())
    first = [(storage.public_uri(each.uri), each.lines[0]) for each in files if each.lines]
    examples = [
        f"{uri} line {at['line']}: {at['code']}" + (f" ({at['detail']})" if at["detail"] else "")
        for uri, at in first[:5]
    ]
    return {
        "name": name, "vectors": vectors, "records": rows, "problems": dict(sorted(problems.items())),
        "examples": examples, "held_from": held_from, "files": [each.as_dict() for each in files],
    }  # fmt: skip


def _records(data: DataSet, corpus: str | list[str], reports: list[FileReport]) -> Iterator[_Usable]:
    """Usable records of all files of a corpus; what is not usable is counted in `reports`, one a file."""
    for info in corpus_files(corpus, f"data.{data.name}.corpus"):
        report = FileReport(info.uri)
        reports.append(report)
        for record in read_corpus(info.uri, report, data.columns, True, data.task):
            yield {**record, "tag": record["tag"] or data.tag or ""}, report, report.line


def _joined(found: list[_Usable], table: _Table) -> pa.RecordBatch:
    """Records whose caption has an embedding, as rows; the others are counted in their files."""
    ids = _id_array([record["caption_id"] for record, _, _ in found])
    at = np.minimum(np.searchsorted(table.ids, ids), len(table.ids) - 1)
    there = table.ids[at] == ids
    for number in np.flatnonzero(~there):
        record, report, line = found[number]
        report.add(line, "no_embedding", repr(record["caption"]))
    joined = [record for record, _, _ in compress(found, there)]
    columns: list[Any] = [pa.array(table.rows[at[there]], pa.int64())]
    columns += [pa.array([r[name] for r in joined], pa.string()) for name in RECORD_SCHEMA.names[1:-1]]
    columns.append(pa.array(["\n" in r["caption"] for r in joined], pa.bool_()))
    return pa.RecordBatch.from_arrays(columns, schema=RECORD_SCHEMA)


def _pack_audio(data: DataSet, facts: EmbeddingsFacts, folder: Path, file: str) -> dict[str, Any]:
    """A clip's embedding is the weighted mean of its unit windows; its record is what its list said of it."""
    files: list[FileReport] = []
    vectors: list[np.ndarray] = []
    records: list[dict[str, Any]] = []
    for uri in part_rows(facts.uri, facts.rows):
        files.append(FileReport(uri))
        for batch in read_part(uri, 1024):
            if "output" not in batch.schema.names:
                problem = f"{storage.public_uri(facts.uri)} was made from a list without a column `output`"
                raise SettingsError(f"data.{data.name}.audio", problem, "add the column and embed the clips again")
            for row in batch.to_pylist():
                files[-1].records += 1
                record = _audio_record(row, data)
                if isinstance(record, str):
                    files[-1].add(files[-1].records, record)
                    continue
                windows = row["windows"]
                weights = [window["weight"] for window in windows]
                records.append({"vector": len(records), **record, "long": is_long(weights)})
                vectors.append(pool_windows([window["embedding"] for window in windows], weights))
    table = np.stack(vectors) if vectors else np.empty((0, facts.dim), np.float32)
    with _array_file(folder / file, np.float32, table.shape) as out:
        out.write(table.astype(np.float32).tobytes())
    with _record_file(folder, data.name) as writer:
        writer.write_table(pa.Table.from_pylist(records, schema=RECORD_SCHEMA))
    return _set_report(data.name, file, len(vectors), files, None)


def _audio_record(row: dict[str, Any], data: DataSet) -> dict[str, str] | str:
    """The record of a row of audio embeddings, or why it has none."""
    if row.get("error_code") or not any(window["weight"] for window in row.get("windows") or ()):
        return "no_sound"
    task = str(row.get("task") or data.task or "caption")
    question = str(row.get("question") or row.get("instruction") or "")
    family = FAMILIES.get(task.strip().lower())
    if family is None:
        return "unknown_task"
    if family == "QA" and not question.strip():
        return "missing_instruction"
    output = str(row.get("output") or "").strip()
    if not output:
        return "missing_output"
    return {"task": task, "instruction": question, "output": output, "tag": str(row.get("tag") or data.tag or "")}


def _set_rows(name: str, report: dict[str, Any], table: _Table, wanted: int, folder: Path) -> SetRows:
    """A packed set as `split` takes it; its texts stay on disk."""
    with pa.memory_map(str(folder / f"{name}.arrow")) as source:
        packed = pa.ipc.open_file(source).read_all()
        rows = np.array(packed["vector"].to_numpy(zero_copy_only=False))
    if len(table.rows):  # captions in the order of their ids, which are hashes
        rank = np.empty(len(table.rows), np.int64)
        rank[table.rows] = np.arange(len(table.rows))
    else:  # clips have no caption's hash; a fixed shuffle will do
        rank = np.random.default_rng(0).permutation(report["records"])
    return SetRows(rows, report["vectors"], rank, min(wanted, len(rows) // 5), report["held_from"])


def _check_errors(store: dict[str, Any], most: float) -> None:
    for each in store["sets"]:
        bad = sum(each["problems"].values())
        if bad > most * (bad + each["records"]):
            why = ", ".join(f"{name} {count}" for name, count in each["problems"].items())
            first = f"; first: {each['examples'][0]}" if each["examples"] else ""
            share = f"{bad} of {bad + each['records']} records"
            problem = f"{share} cannot be used ({why}{first}), which is more than the {most:.1%} of max_error_rate"
            embed = ', or embed this corpus with "mats embed-text"' if "no_embedding" in each["problems"] else ""
            raise SettingsError(f"data.{each['name']}", problem, f"repair them{embed}, or raise max_error_rate")
        if not each["train"]:
            why = ": other sets hold its captions out" if each["given_up"] else ""
            problem = f"no record is left to train on{why}"
            raise SettingsError(f"data.{each['name']}", problem, "add records, or hold fewer out (validation)")
