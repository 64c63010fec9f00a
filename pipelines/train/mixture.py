"""The data of a training run: what a mixture is made of, and the packed form it is drawn from at random.

`pack.ensure_store` joins corpora and embeddings once into a local folder that all processes of a machine map
into memory: `vectors-N.npy` (an embeddings table, [rows, D]), and for each data set `NAME.arrow` (records) with the
numbers of those to train on and to validate on, `NAME.train.npy` and `NAME.validation.npy`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mats_core import storage
from mats_core.errors import SettingsError, got_allowed
from mats_core.storage.fingerprint import hash_settings
from pipelines.data.corpus import corpus_files
from pipelines.data.inputs import EMBEDDINGS_SIDECAR
from pipelines.settings.train import DataSet, TrainSettings

RECORD_SCHEMA = pa.schema(
    [
        ("vector", pa.int64()),
        ("task", pa.string()),
        ("instruction", pa.string()),
        ("output", pa.string()),
        ("tag", pa.string()),
    ]
)


_FORMAT = 2  # of the packed data, and of how records are held out


@dataclass(frozen=True)
class TableFacts:
    """An embeddings table as its sidecar tells it: `kind` is text or audio, `rows` None where it does not say."""

    uri: str
    kind: str
    dim: int
    encoder_fingerprint: str
    rows: int | None = None


@dataclass
class Record:
    """One training sample before its prompt is worded."""

    vector: np.ndarray
    task: str
    instruction: str
    output: str
    tag: str


def table_facts(uri: str, kind: str, setting: str) -> TableFacts:
    """Read an embeddings table's sidecar; SettingsError when it is missing, unfinished or of the other kind."""
    shown = storage.public_uri(uri)
    made_by = "mats embed-text" if kind == "text" else "mats embed-audio"
    try:
        sidecar = dict(json.loads(storage.read_bytes(storage.join(uri, EMBEDDINGS_SIDECAR))))
        dim = int(sidecar["dim"])
    except (storage.StorageError, ValueError, TypeError) as error:
        raise got_allowed(setting, shown, f'OUT of "{made_by}" ({error})') from None
    except KeyError:
        raise got_allowed(setting, shown, f'OUT of "{made_by}"; its {EMBEDDINGS_SIDECAR} tells no dim') from None
    is_audio = "window_seconds" in sidecar
    if is_audio != (kind == "audio"):
        raise got_allowed(setting, shown, f'OUT of "{made_by}"; this is of the other kind')
    if sidecar.get("status", "complete") != "complete":
        raise got_allowed(setting, shown, f'a finished "{made_by}"; run it again to finish')
    return TableFacts(uri, kind, dim, str(sidecar.get("encoder_fingerprint", "")), sidecar.get("rows"))


def list_parts(uri: str) -> list[storage.FileInfo]:
    """The Parquet parts of the table in this folder, in order; another table may lie beside or below them."""
    folder = storage.join(uri, "embeddings")
    found = storage.list_files(folder) if storage.is_dir(folder) else ()
    return sorted((info for info in found if info.uri.endswith(".parquet")), key=lambda info: info.uri)


def part_rows(uri: str, rows: int | None) -> dict[str, int]:
    """URI of every part → its rows. SettingsError when one is broken, or all hold other than the sidecar's `rows`."""
    parts = {}
    with whole_part(uri):
        listed = list_parts(uri)
    for info in listed:
        with whole_part(info.uri), storage.open_binary(info.uri) as file:
            parts[info.uri] = int(pq.ParquetFile(file).metadata.num_rows)
    found = sum(parts.values())
    if not found:
        raise got_allowed("embeddings", storage.public_uri(uri), "a table with rows in it")
    if rows is not None and rows != found:
        raise got_allowed("embeddings", storage.public_uri(uri), f"a table of {rows} rows, not {found}: embed again")
    return parts


@contextmanager
def whole_part(uri: str) -> Iterator[None]:
    """SettingsError for parts that cannot be read."""
    try:
        yield
    except (storage.StorageError, pa.ArrowException, OSError) as error:
        why = str(error).splitlines()[0][:200]
        raise got_allowed("embeddings", storage.public_uri(uri), f"whole Parquet parts ({why})") from None


def tables(settings: TrainSettings) -> dict[str, TableFacts]:
    """Facts of every table the mixture draws on, by URI; SettingsError unless all are of one encoder."""
    found: dict[str, TableFacts] = {}
    for each in settings.data:
        uri = table_of(each, settings)
        if uri not in found:
            kind = "audio" if each.audio is not None else "text"
            found[uri] = table_facts(uri, kind, f"data.{each.name}.{'audio' if each.audio else 'embeddings'}")
    first = next(iter(found.values()))
    for facts in found.values():
        if (facts.encoder_fingerprint, facts.dim) != (first.encoder_fingerprint, first.dim):
            raise SettingsError(
                "embeddings",
                f"{storage.public_uri(facts.uri)} is of encoder {facts.encoder_fingerprint[:12]} [{facts.dim}], and "
                f"{storage.public_uri(first.uri)} of encoder {first.encoder_fingerprint[:12]} [{first.dim}]",
                'embed all corpora with one encoder: "mats embed-text"',
            )
    return found


def table_of(data: DataSet, settings: TrainSettings) -> str:
    """The embeddings table of a data set."""
    return str(data.audio or data.embeddings or settings.embeddings)


def store_key(settings: TrainSettings) -> str:
    """Changes when the packed data would: other settings of the data, or other files."""
    files: list[Any] = []
    for each in settings.data:
        for corpus in (each.corpus, each.validation_corpus):
            if corpus is not None:
                files += [(f.uri, f.size, f.version) for f in corpus_files(corpus, f"data.{each.name}.corpus")]
    for uri in tables(settings):
        files.append([(f"embeddings/{f.path}", f.size, f.version) for f in list_parts(uri)])
    data = [each.model_dump(mode="json", exclude={"ratio"}) for each in settings.data]
    return hash_settings([_FORMAT, data, settings.embeddings, settings.validation, files])[:24]


def read_store(place: Path) -> dict[str, Any]:
    """What was packed: `dim`, `encoder_fingerprint`, and of each of the `sets` its files, problems and split."""
    store: dict[str, Any] = json.loads((place / "store.json").read_bytes())
    return store


def held_out_notes(sets: list[dict[str, Any]]) -> list[str]:
    """What a reader of the validation's numbers must know: sets that are not measured on unmet captions."""
    notes = []
    for each in sets:
        if each["held_by"] == "record":
            notes.append(
                f"data set {each['name']} has too few captions to hold any out: it is measured on "
                f"{each['validation']:,} records whose captions are trained on"
            )
        elif each["met"]:
            notes.append(
                f"data set {each['name']} is measured on {each['met']:,} records (of {each['validation']:,}) whose "
                "captions are labels, and trained on"
            )
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
        vector = np.asarray(self._vectors[row["vector"]], np.float32)
        return Record(vector, row["task"], row["instruction"], row["output"], row["tag"])


def open_store(place: Path) -> list[StoredSet]:
    """The packed data sets, in the order of the settings."""
    return [StoredSet(place, facts) for facts in read_store(place)["sets"]]
