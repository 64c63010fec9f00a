"""The data of a training run: what a mixture is made of, and the packed form it is drawn from at random.

`pack.ensure_store` joins corpora and embeddings once into a local folder that all processes of a machine map
into memory: `vectors-N.npy` (an embeddings table, [rows, D]), and for each data set `NAME.arrow` (records) with the
numbers of those to train on and to validate on, `NAME.train.npy` and `NAME.validation.npy`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.encoders.facts import refuse_other_encoder
from mats_core.errors import SettingsError
from mats_core.storage.fingerprint import fingerprint_file, hash_settings, unsealed
from pipelines.data.corpus import corpus_files
from pipelines.data.embeddings import EmbeddingsFacts, list_parts, read_facts
from pipelines.settings.train import DataSet, TrainSettings

_TEXTS = ("task", "instruction", "output", "tag")
RECORD_SCHEMA = pa.schema([("vector", pa.int64()), *((name, pa.string()) for name in _TEXTS), ("long", pa.bool_())])
_FORMAT = 3  # of the packed data, and of how records are held out


@dataclass
class Record:
    """One training sample before its prompt is worded. long: its vector is a mean, of captions or of windows."""

    vector: np.ndarray
    task: str
    instruction: str
    output: str
    tag: str
    long: bool = False


def tables(settings: TrainSettings) -> dict[str, EmbeddingsFacts]:
    """Facts of every table the mixture draws on, by URI; SettingsError unless all are of one encoder."""
    found: dict[str, EmbeddingsFacts] = {}
    for each in settings.data:
        uri = table_of(each, settings)
        if uri not in found:
            kind = "audio" if each.audio is not None else "text"
            found[uri] = read_facts(uri, kind, f"data.{each.name}.{'audio' if each.audio else 'embeddings'}")
    first = next(iter(found.values()))
    for facts in found.values():
        shown, other = storage.public_uri(facts.uri), storage.public_uri(first.uri)
        remedy = f"train on embeddings of one encoder, such as those of {other}"
        refuse_other_encoder("embeddings", shown, facts.encoder_fingerprint, first.encoder_fingerprint, remedy)
        if facts.dim != first.dim:
            raise SettingsError("embeddings", f"{shown} has {facts.dim} dimensions, {other} has {first.dim}", remedy)
    return found


def table_of(data: DataSet, settings: TrainSettings) -> str:
    """The embeddings table of a data set."""
    return str(data.audio or data.embeddings or settings.embeddings)


def store_key(settings: TrainSettings) -> str:
    """Changes when the packed data would: other settings of the data, or other files."""
    corpora = [(c, each.name) for each in settings.data for c in (each.corpus, each.validation_corpus) if c is not None]
    listed = [file for corpus, name in corpora for file in corpus_files(corpus, f"data.{name}.corpus")]
    files: list[Any] = [(file.uri, file.size, file.version) for file in listed]
    files += [[(f"embeddings/{f.path}", f.size, f.version) for f in list_parts(uri)] for uri in tables(settings)]
    data = [each.model_dump(mode="json", exclude={"ratio"}) for each in settings.data]
    return hash_settings([_FORMAT, data, settings.embeddings, settings.validation, files])[:24]


def read_store(place: Path) -> dict[str, Any]:
    """What was packed: `dim`, `encoder_fingerprint`, `fingerprints` of its files, and of each of the `sets` its files,
    problems and split. Raises OSError, ValueError."""
    return unsealed(json.loads((place / "store.json").read_bytes()))


def is_whole(place: Path) -> bool:
    """Whether the packed data is there, and as it was written."""
    try:
        told = read_store(place).get("fingerprints", {})  # none: packed before there were checksums
        return all(fingerprint_file(place / name) == value for name, value in told.items())
    except (OSError, ValueError):
        return False


def held_out_notes(sets: list[dict[str, Any]]) -> list[str]:
    """What a reader of the validation's numbers must know: sets that are not measured on unmet captions."""
    notes = []
    for each in sets:
        name, held, met = f"data set {each['name']}", f"{each['validation']:,}", each["met"]
        if each["held_by"] == "record":
            why = "has too few captions to hold any out"
            notes.append(f"{name} {why}: it is measured on {held} records whose captions are trained on")
        elif met:
            notes.append(f"{name} is measured on {met:,} records (of {held}) whose captions are labels, and trained on")
    return notes


class StoredSet:
    """One data set, mapped into memory. `train` and `validation` hold numbers of records."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.name: str = facts["name"]
        self.facts = facts
        self.train = np.load(folder / f"{self.name}.train.npy", mmap_mode="r")
        self.validation = np.load(folder / f"{self.name}.validation.npy", mmap_mode="r")
        self._vectors = np.load(folder / facts["vectors"], mmap_mode="r")
        self._source = pa.memory_map(str(folder / f"{self.name}.arrow"))
        table = pa.ipc.open_file(self._source).read_all()
        self._columns = {name: table[name] for name in RECORD_SCHEMA.names}

    def record(self, number: int) -> Record:
        """Record `number`, its vector as float32 [D]."""
        row = {name: column[number].as_py() for name, column in self._columns.items()}
        return Record(np.asarray(self._vectors[row.pop("vector")], np.float32), **row)


def open_store(place: Path) -> list[StoredSet]:
    """The packed data sets, in the order of the settings."""
    return [StoredSet(place, facts) for facts in read_store(place)["sets"]]
