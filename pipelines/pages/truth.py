"""What the files of an embedded-world archive truly hold, beside what was answered: labels right, missed and wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from mats_core import storage
from mats_core.errors import SettingsError, checked, first_line
from mats_core.soundworld.language import WORDS, parse_kinds
from mats_core.storage.uris import Uri, public_uri
from pipelines.pages.answers import path_text, printable_path

LABEL_TASKS = ("caption", "cla_label")


class Minute(BaseModel):
    """What a minute of a scene truly holds, in seconds of the file."""

    start_s: float
    end_s: float
    labels: list[str]
    caption: str | None = None


class Truth(BaseModel):
    """What a file truly holds: what the page reads of a row of `truth.jsonl`."""

    path: str
    labels: list[str]
    minutes: list[Minute]
    caption: str | None = None


class LabelCounts(Counter[str]):
    """Sound kinds named in the answers against the truth: how many are right, missed, wrong."""

    @property
    def f1(self) -> float | None:
        """2·right / (2·right + missed + wrong); None when nothing was compared."""
        total = 2 * self["right"] + self["missed"] + self["wrong"]
        return 2 * self["right"] / total if total else None


def load_truth(truth: Uri | Sequence[Mapping[str, Any]] | None) -> dict[str, Truth] | None:
    """What is true, by path; None where nothing is given. Raises SettingsError that names the first wrong line."""
    if truth is None:
        return None
    if not isinstance(truth, (str, os.PathLike)):
        return {row.path: row for row in (checked(Truth, each, "truth") for each in truth)}
    facts, number = {}, 0
    try:
        for line in storage.read_bytes(truth).decode("utf-8").split("\n"):
            number += 1
            if line.strip():
                row = Truth.model_validate_json(line)
                facts[row.path] = row
        return facts
    except ValidationError as error:
        first = error.errors()[0]
        where = ", ".join(str(part) for part in (f"line {number}", *first["loc"]))
        why = f"{where}: {first['msg'].partition(' at line ')[0]}"
    except (ValueError, storage.StorageError) as error:
        why = first_line(error)
    problem = f"{public_uri(truth)} is not the truth.jsonl of an archive ({why})"
    raise SettingsError("truth", problem, "repair it, or name the one that was written with the archive")


def truth_of(uri: str, facts: Mapping[str, Truth]) -> Truth | None:
    """The truth whose path ends the URI."""
    parts = path_text(uri).split("/")
    paths = (printable_path("/".join(parts[start:])) for start in range(len(parts)))
    return next((facts[path] for path in paths if path in facts), None)


def compare_labels(part: dict[str, Any], known: Truth, counts: LabelCounts) -> None:
    """Put the truth of a part into it, and, for tasks that name sounds, each label with its mark, which is counted."""
    start = part["start"]
    end = start + (part["length"] or 0.0)
    minutes = [m for m in known.minutes if m.start_s < end - 0.5 and m.end_s > start + 0.5]
    pieces: Sequence[Minute | Truth] = minutes or [known]
    part["truth"] = " ".join(piece.caption for piece in pieces if piece.caption)
    if part.get("task") not in (None, *LABEL_TASKS):
        return
    true = list(dict.fromkeys(label for piece in pieces for label in piece.labels))
    named = parse_kinds(part.get("text") or "")
    marks = [(kind, "right" if kind in named else "missed") for kind in true]
    marks += [(kind, "wrong") for kind in named if kind not in true]
    part["labels"] = [(WORDS[kind].label if kind in WORDS else kind, mark) for kind, mark in marks]
    counts.update(mark for _, mark in marks)
