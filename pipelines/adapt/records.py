"""What a model is adapted on: records out of sentences, and out of the text that it was trained on ("replay")."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.model.prompts import family
from mats_core.storage.fingerprint import hash_settings
from pipelines.data.corpus import (
    CORPUS_ENDINGS,
    FileReport,
    corpus_files,
    corpus_record,
    ending,
    join_captions,
    read_corpus,
    split_captions,
)
from pipelines.output.corrections import FOLDER as CORRECTIONS
from pipelines.output.corrections import corrected_records

if TYPE_CHECKING:
    from mats_core.model.model import MatsModel

SENTENCES = ".txt"
FIELDS = ("caption", "instruction", "output", "task", "tag", "source")
QUESTIONS = (
    "What sounds are heard?",
    "How many different sounds are there?",
    "Which sound comes first?",
    "Which sound comes last?",
    "Are the sounds together or one after another?",
    "Is there any music?",
)
"""Asked of the model's own training text, so that it goes on answering questions as it does."""
AT_ONCE = 64
"""Captions answered at once, and kept as one file."""

Record = dict[str, str]


def text_files(text: Sequence[str]) -> list[storage.FileInfo]:
    """The files that `text` names: sentences in .txt, one a line, corpora as `mats embed-text` reads them, and runs in
    which something was put right.

    Raises SettingsError where one is missing or of no known format.
    """
    found: list[storage.FileInfo] = []
    for uri in text:
        if _is_run(uri):
            said = sorted(info.path for info in storage.list_files(storage.join(uri, CORRECTIONS)))
            found.append(storage.FileInfo(uri, uri, len(said), hash_settings(said)[:16]))
            continue
        if ending(uri) != SENTENCES:
            found += corpus_files([uri], "text")
            continue
        try:
            found.append(storage.stat(uri))
        except storage.StorageError as error:
            problem = f"{storage.public_uri(uri)} cannot be read ({error})"
            remedy = f"give a file of sentences ({SENTENCES}) or records ({', '.join(sorted(CORPUS_ENDINGS))})"
            raise SettingsError("text", problem, remedy) from None
    return found


def new_records(
    files: Sequence[storage.FileInfo], columns: dict[str, str], task: str, reports: list[FileReport]
) -> Iterator[Record]:
    """A record of each sentence; one report a file is added to `reports`.

    A sentence stands for its sound and is its answer too, for all tasks but questions: these need both in their row.
    """
    for info in files:
        report = FileReport(info.uri)
        reports.append(report)
        if _is_run(info.uri):
            rows = _corrected(info.uri, report)
        else:
            rows = _lines(info.uri, report) if ending(info.uri) == SENTENCES else _rows(info.uri, report, columns, task)
        for record in rows:
            if family(record["task"]) == "QA" and not (record["output"] and record["instruction"]):
                report.add(report.line, "missing_output" if record["instruction"] else "missing_instruction")
                continue
            yield {name: record[name] for name in FIELDS} | {
                "output": record["output"] or record["caption"].partition("\n")[0]
            }


def _is_run(uri: str) -> bool:
    """Whether something was put right there. note: of a file nothing is asked, since a store may allow no more than to
    read it."""
    return ending(uri) not in {SENTENCES, *CORPUS_ENDINGS} and storage.is_dir(storage.join(uri, CORRECTIONS))


def _rows(uri: str, report: FileReport, columns: dict[str, str], task: str) -> Iterator[Record]:
    return read_corpus(uri, report, columns, complete=False, task=task)


def _corrected(run: str, report: FileReport) -> Iterator[Record]:
    """What people put right, or marked right, in a run."""
    for record in corrected_records(run):
        report.records, report.line = report.records + 1, report.line + 1
        yield record


def _lines(uri: str, report: FileReport) -> Iterator[Record]:
    """The sentences of a file of text, as records; a line that is not UTF-8 is counted."""
    lines = storage.read_bytes(uri).removeprefix(b"\xef\xbb\xbf").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        report.records, report.line = report.records + 1, number
        found = corpus_record({"caption": line.decode("utf-8", "surrogateescape")}, complete=False, source="sentences")
        if isinstance(found, tuple):
            report.add(number, *found)
        else:
            yield found


def write_records(path: Path, records: Iterator[Record]) -> int:
    """Write records as JSONL for `read_corpus`, whole or not at all; returns how many. Raises StorageError."""
    rows = ({**record, "caption": split_captions(record["caption"])} for record in records)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    storage.write_bytes(str(path), "".join(lines).encode())
    return len(lines)


def read_records(path: Path) -> Iterator[Record]:
    """What `write_records` wrote."""
    for line in path.read_bytes().split(b"\n")[:-1]:  # not where text may have other ends of lines
        row = json.loads(line)
        yield {**row, "caption": row["caption"] if isinstance(row["caption"], str) else join_captions(row["caption"])}


def answer_memory(
    model: MatsModel, folder: Path, count: int, seed: int, tell: Callable[[int, int], None] = lambda done, of: None
) -> Iterator[Record]:
    """Records of `count` captions of the model's memory, drawn by `seed`, in the words of the model itself.

    They go round the model's tasks, so that each is replayed as often: captions are answered by the caption, the others
    by the model, from the caption's own embedding. `folder` keeps what has been answered, so that an interruption costs
    at most `AT_ONCE` answers. tell: called with answered and wanted captions.
    """
    memory = model.memory
    assert memory is not None
    rows = np.sort(np.random.default_rng(seed).permutation(memory.count)[:count])
    order = np.random.default_rng(seed + 1).permutation(len(rows))
    tasks = list(model.config.tasks)
    for at in range(0, len(rows), AT_ONCE):
        tell(at, len(rows))
        part = folder / f"answered-{at:07d}.jsonl"
        chosen = order[at : at + AT_ONCE]
        if not part.exists():
            wanted = [
                (int(rows[i]), tasks[i % len(tasks)], QUESTIONS[i // len(tasks) % len(QUESTIONS)]) for i in chosen
            ]
            write_records(part, _answered(model, wanted))
        yield from read_records(part)
    tell(len(rows), len(rows))


def _answered(model: MatsModel, wanted: Sequence[tuple[int, str, str]]) -> Iterator[Record]:
    """A record of each (memory row, task, question); none where the model has nothing to say."""
    import torch

    memory: Any = model.memory
    numbers = np.array([row for row, _, _ in wanted], np.int64)
    captions = memory.captions(numbers)
    asked = [at for at, (_, task, _) in enumerate(wanted) if task != "caption"]
    prompts = [model.prompt(wanted[at][1], wanted[at][2] if wanted[at][1] == "QA" else None) for at in asked]
    vectors = torch.from_numpy(memory.vectors(numbers[asked]))  # [asked, D]
    said = dict(
        zip(asked, model.generate(vectors, prompts) if asked else [], strict=True)
    )  # not cleaned up: to imitate
    for at, (_, task, question) in enumerate(wanted):
        output = said.get(at, captions[at].partition("\n")[0]).strip()
        if captions[at] and output:
            asked_in_words = question if task == "QA" else ""
            yield {
                "caption": captions[at], "instruction": asked_in_words, "output": output, "task": task,
                "tag": model.config.tasks[task].tag, "source": "replay",
            }  # fmt: skip
