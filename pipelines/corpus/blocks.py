"""What the workers of `mats corpus` do: check a set, read it in blocks of clips, write the records of a block."""

from __future__ import annotations

import io
import json
import pickle
import re
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.corpus.definition import load_corpus_set
from pipelines.corpus.reading import AskedClips, Tally, read_clips
from pipelines.corpus.writing.llm_writer import LlmWriter, Write, rewrite_records
from pipelines.corpus.writing.records import COLUMNS, write_records
from pipelines.corpus.writing.variety import Variety
from pipelines.data import parquet
from pipelines.output.lease import check_generation

FOLDER = "records"
BLOCK_RECORDS, LLM_BLOCK_RECORDS = 8192, 512
"""Records of a part, about, and of one that an LLM writes: where a run breaks off, minutes of its work are lost."""
RECORD_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])
WRITTEN_BY = "written_by"
"""A further column of what an LLM writes: who wrote a caption."""
_PART = re.compile(r"part-(\d{5})(-\w+)?\.parquet")


def clips_a_block(name: str, records: int = BLOCK_RECORDS) -> int:
    """Clips that make a part of about `records`: it depends on the set alone, so that each run cuts it alike."""
    definition = load_corpus_set(name)
    return max(1, round(records * definition.clips / max(definition.clips, definition.records)))


def part_name(number: int, run_id: str = "") -> str:
    """The part file of a block, by the run that writes it (`data.generations`)."""
    return f"part-{number:05d}{run_id and '-'}{run_id}.parquet"


def number_of_part(file_name: str) -> int | None:
    """The block of a part file; the inverse of `part_name`; None for another name."""
    match = _PART.fullmatch(file_name)
    return int(match[1]) if match else None


def check_sets(sets: pa.Table, root: str, asked: AskedClips) -> pa.Table:
    """Sets (column `set`) read from the first to the last clip → what was found, as JSON (`tally`)."""
    found = []
    for name in sets["set"].to_pylist():
        tally = Tally()
        for _ in read_clips(load_corpus_set(name), root, asked, tally):
            pass
        found.append({"set": name, "tally": json.dumps(tally.told())})
    return pa.Table.from_pylist(found)


def read_sets(
    sets: pa.Table, root: str, asked: AskedClips, done: Mapping[str, Collection[int]], records: int = BLOCK_RECORDS
) -> Iterator[pa.Table]:
    """Sets → a row a block of clips (`set`, `number`, `clips`) for about `records`, less the blocks that are done."""
    for name in sets["set"].to_pylist():
        finished, size = set(done.get(name, ())), clips_a_block(name, records)
        number, block = 0, []
        for clip in read_clips(load_corpus_set(name), root, asked, Tally()):
            block.append(clip)
            if len(block) == size:
                if number not in finished:
                    yield _block(name, number, block)
                number, block = number + 1, []
        if block and number not in finished:
            yield _block(name, number, block)


def _block(name: str, number: int, clips: list[Any]) -> pa.Table:
    return pa.table({"set": [name], "number": [number], "clips": pa.array([pickle.dumps(clips)], pa.large_binary())})


def write_blocks(blocks: pa.Table, output: str, seed: int, run_id: str, write: Write | None = None) -> pa.Table:
    """Blocks of clips → their part files, OUT/records/NAME/part-….parquet; returns what was written.

    write: the LLM that writes the captions of labels; None where templates do.
    """
    written = []
    for row in blocks.to_pylist():
        began = time.thread_time()
        definition = load_corpus_set(row["set"])
        clips = pickle.loads(row["clips"])
        if write is None:
            rows, schema = [record for clip in clips for record in write_records(clip, definition, seed)], RECORD_SCHEMA
        else:
            rows = rewrite_records(clips, definition, seed, write)
            schema = RECORD_SCHEMA.append(pa.field(WRITTEN_BY, pa.string()))
        table = pa.Table.from_pylist(rows, schema)
        check_generation(output, run_id)
        name = f"{FOLDER}/{row['set']}/{part_name(row['number'], run_id)}"
        parquet.write(storage.join(output, *name.split("/")), table)
        check_generation(output, run_id, name)
        told = {"set": row["set"], "number": row["number"], "clips": len(clips), "records": len(rows)}
        written.append({**told, "cpu_s": time.thread_time() - began})
    return pa.Table.from_pylist(written)


class BlockWriter:
    """`write_blocks` in an actor that holds the LLM. writer: its URI; the rest as there."""

    def __init__(self, writer: str, device: str, output: str, seed: int, run_id: str) -> None:
        self._given = (output, seed, run_id)
        self._refusal: SettingsError | None = None
        try:
            self._write = LlmWriter(writer, device)
        except SettingsError as error:  # note: of an actor that fails to start Ray tells a text; of a task, the error
            self._refusal = error

    def __call__(self, blocks: pa.Table) -> pa.Table:
        if self._refusal is not None:
            raise self._refusal
        return write_blocks(blocks, *self._given, write=self._write)


def written_by(parts: list[str]) -> dict[str, int]:
    """Who wrote the captions of part files, where that is told, the most frequent first."""
    found: Counter[str] = Counter()
    for part in parts:
        found.update(parquet.read(part, [WRITTEN_BY])[WRITTEN_BY].to_pylist())
    return dict(found.most_common())


def variety(part: str) -> dict[str, int]:
    """Runs of three words in the captions of a part file, and how many are distinct."""
    seen = Variety()
    for text in parquet.read(part, ["caption"])["caption"].to_pylist():
        seen.add(text)
    return {"distinct": len(seen.threes), "of": seen.of}


def write_json(output: str, name: str, parts: list[str]) -> None:
    """The records of a set as the authors have them, OUT/NAME.json: {"annotation": [record, …]}, in order."""
    with tempfile.TemporaryFile() as draft:
        text = io.TextIOWrapper(draft, "utf-8", newline="\n", write_through=True)
        text.write('{"annotation": [')
        between = "\n"
        for part in parts:
            for batch in parquet.batches(part, 8192, COLUMNS):
                for record in batch.to_pylist():
                    text.write(between + json.dumps(record, ensure_ascii=False))
                    between = ",\n"
        text.write("\n]}\n")
        text.flush()
        draft.seek(0)
        storage.write_from(storage.join(output, f"{name}.json"), draft)
        text.detach()
