"""Which files of an OUTPUT count, and what is said of it as a whole.

A run may be frozen between its last look around and a write, and go on when another run has taken OUTPUT over. No check
before a write helps against that, so who wrote what is told apart afterwards:

- A run writes files under names of its own, which hold its run id.
- A *generation*, `_state/generations/000007.json`, says which run writes now, which files of earlier runs it took over,
  by name, to which job OUTPUT belongs (`identity`), and what `_run.json` and its like hold (`told`). Each is made with
  the next number where there is none, and never changed; only the newest is believed. To take OUTPUT over is to make
  the next one (`output.lease`).
- A file counts when the newest generation took it over, or when its name holds that generation's run id. What a run
  that has lost OUTPUT writes afterwards is in no newer generation: it counts for nobody, and is removed by its own
  writer when that looks around, or by the next run.
- What counts is removed by nobody, unless a generation without it is in place.

The last two generations are kept. An OUTPUT without any is of an older version: all its files count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.fingerprint import sealed, unsealed
from pipelines.data import parquet

COUNTED = (
    *("answers", "embeddings", "manifest", "records"),
    *("_state/checkpoints", "_state/index", "_state/work_list"),
)
"""The folders of an OUTPUT to which all this applies; the work list last, so that who takes files over in this order
takes over no part without its rows."""
_NAME = re.compile(r"(\d{6,})\.json")
_TRIES = 20


@dataclass(frozen=True)
class Generation:
    """What one generation says. files: names relative to OUTPUT; identity: None where no job has begun OUTPUT."""

    number: int
    run_id: str
    identity: dict[str, Any] | None = None
    files: frozenset[str] = frozenset()
    told: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def counts(self, name: str) -> bool:
        """Whether the file of this name, relative to OUTPUT, is part of OUTPUT."""
        return name in self.files or self.run_id in name.rpartition("/")[2]

    def to_bytes(self) -> bytes:
        """Its file, with a checksum."""
        said = {"number": self.number, "run_id": self.run_id, "identity": self.identity, "files": sorted(self.files)}
        said["told"] = dict(self.told)
        return json.dumps(sealed(said), indent=1).encode()

    @staticmethod
    def of_bytes(data: bytes) -> Generation:
        """The inverse of `to_bytes`; ValueError for a file that was changed since."""
        whole = json.loads(data)
        said = unsealed(whole)
        if said == whole:
            raise ValueError("it has no checksum")
        return Generation(**{**said, "files": frozenset(said["files"])})


def generation_uri(output: str, number: int) -> str:
    """The file of a generation."""
    return storage.join(output, "_state", "generations", f"{number:06d}.json")


def newest(output: str) -> Generation | None:
    """The generation that is believed; None where there is none.

    Raises StorageError where it cannot be read, SettingsError where it is damaged.
    """
    folder = storage.join(output, "_state", "generations")
    for _ in range(_TRIES):
        found = [_NAME.fullmatch(name) for name in _names(folder)]
        numbers = [int(each[1]) for each in found if each is not None]
        if not numbers:
            return None
        uri = generation_uri(output, max(numbers))
        try:
            return Generation.of_bytes(storage.read_bytes(uri))
        except storage.StorageError as error:
            if error.code != "not_found":  # else: a newer one has been made, and this one was removed
                raise
        except (ValueError, TypeError, KeyError) as error:
            problem = f"{storage.public_uri(uri)}, which says what belongs to OUTPUT, is damaged ({error})"
            remedy = "move it away: what was written since the file before it is then done again"
            raise SettingsError("output", problem, remedy) from None
    raise storage.StorageError("io_error", f"{storage.public_uri(folder)} changes faster than it can be read")


def files(folder: str) -> list[storage.FileInfo]:
    """The Parquet files that count in a folder of an OUTPUT, in the order of their names. Of any other folder: all but
    those in folders that begin with _, as Arrow and Spark have it: a work list in `_state` is no answers."""
    found = parquet.files(folder)
    return counted(folder, [each for each in found if not any(p.startswith("_") for p in each.path.split("/")[:-1])])


def counted(folder: str, found: list[storage.FileInfo]) -> list[storage.FileInfo]:
    """Those of the files `found` in a folder that count."""
    output, place = place_of(folder)
    generation = newest(output) if place in COUNTED else None
    return found if generation is None else [each for each in found if generation.counts(f"{place}/{each.path}")]


def missing(folder: str) -> list[str]:
    """URIs of files that an OUTPUT is to have in this folder, and has not."""
    output, place = place_of(folder)
    generation = newest(output)
    wanted = [] if generation is None else [name for name in generation.files if name.startswith(f"{place}/")]
    there = {f"{place}/{each.path}" for each in parquet.files(folder)} if wanted else set()
    return [storage.join(output, *name.split("/")) for name in sorted(set(wanted) - there)]


def told(output: str, name: str) -> dict[str, Any] | None:
    """The JSON object in the file `name` of OUTPUT (`_run.json`); None where no run told of one.

    The file itself is believed only where there are no generations. Raises ValueError for one that is no JSON object.
    """
    generation = newest(output)
    if generation is not None:
        return generation.told.get(name)
    uri = storage.join(output, name)
    if not storage.exists(uri):
        return None
    said = json.loads(storage.read_bytes(uri))
    if not isinstance(said, dict):
        raise ValueError("it holds no JSON object")
    return said


def place_of(folder: str) -> tuple[str, str]:
    """(OUTPUT, place in it) of a folder `OUTPUT/answers` or `OUTPUT/_state/work_list`."""
    above, _, last = folder.rstrip("/").rpartition("/")
    if above.endswith("/_state") or above == "_state":
        return above[: -len("/_state")] or ".", f"_state/{last}"
    return above or ".", last


def _names(folder: str) -> list[str]:
    try:
        return [each.path for each in storage.list_files(folder)] if storage.is_dir(folder) else []
    except storage.StorageError as error:
        if error.code == "not_found":
            return []
        raise
