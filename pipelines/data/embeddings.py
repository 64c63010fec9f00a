"""A table of embeddings, as `mats embed-text` (captions) and `mats embed-audio` (sounds) write it.

OUTPUT/embeddings/*.parquet    its rows
OUTPUT/_embeddings.json        facts about the whole
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.spread import READ_ROWS, refuse_alike
from mats_core.storage.fingerprint import sealed, unsealed
from pipelines.data import generations, parquet

FOLDER = "embeddings"
SIDECAR = "_embeddings.json"


@dataclass(frozen=True)
class EmbeddingsFacts:
    """What `_embeddings.json` says of the table at `uri`; a field that is None is not in the file.

    `window_seconds` and `sample_rate` are of sounds, `encoder`, `dtype`, `records` and `corpora` of captions.
    """

    uri: str
    encoder: str | None = None
    encoder_fingerprint: str = ""
    dim: int = 0
    dtype: str | None = None
    sample_rate: int | None = None
    window_seconds: float | None = None
    rows: int | None = None
    records: int | None = None
    corpora: list[str] | None = None
    status: str = "complete"

    @property
    def kind(self) -> str:
        """text or audio."""
        return "text" if self.window_seconds is None else "audio"


def told_of(facts: EmbeddingsFacts) -> dict[str, Any]:
    """What `_embeddings.json` holds of these facts, with a checksum."""
    return sealed({name: value for name, value in asdict(facts).items() if name != "uri" and value is not None})


def has_facts(uri: str) -> bool:
    """Whether there is a table of embeddings at `uri`."""
    try:
        return generations.told(uri, SIDECAR) is not None
    except ValueError:
        return True  # one that `read_facts` refuses by name


def copy_facts(source: str, target: str) -> None:
    """Put the facts of the table at `source` beside rows made of it at `target`, which no run holds."""
    storage.write_bytes(storage.join(target, SIDECAR), json.dumps(generations.told(source, SIDECAR), indent=1).encode())


def read_facts(uri: str, kind: str, setting: str) -> EmbeddingsFacts:
    """Facts of a finished table of `kind` (text or audio); SettingsError, named after `setting`, without one."""
    shown = storage.public_uri(uri)
    job = "mats embed-text" if kind == "text" else "mats embed-audio"
    remedy = f'give the OUTPUT of "{job}"'
    try:
        told = generations.told(uri, SIDECAR)
    except (storage.StorageError, ValueError) as error:
        raise SettingsError(setting, f"{shown} holds no embeddings that can be read ({error})", remedy) from None
    if told is None:
        raise SettingsError(setting, f"{shown} holds no embeddings that can be read (there is no {SIDECAR})", remedy)
    told = {**told, "uri": uri}
    facts = EmbeddingsFacts(**{each.name: told[each.name] for each in fields(EmbeddingsFacts) if each.name in told})
    if type(facts.dim) is not int or facts.dim < 1:
        raise SettingsError(setting, f"{shown} is no table of embeddings: its {SIDECAR} has no dim", remedy)
    if facts.kind != kind:
        what = "captions" if facts.kind == "text" else "audio"
        raise SettingsError(setting, f"{shown} holds embeddings of {what}", remedy)
    if facts.status != "complete":
        raise SettingsError(setting, f"{shown} is not finished ({facts.status})", f'run "{job}" again to finish it')
    try:
        unsealed({name: value for name, value in told.items() if name != "uri"})
    except ValueError as error:
        remedy = f'copy it again, or make it anew with "{job} --overwrite"'
        raise SettingsError(setting, f"{SIDECAR} of {shown} is no longer what it was: {error}", remedy) from None
    return facts


def list_parts(uri: str) -> list[storage.FileInfo]:
    """The parts of the table at `uri` that count, in order; another table may lie beside or below them."""
    return generations.files(storage.join(uri, FOLDER))


def part_rows(uri: str, rows: int | None) -> dict[str, int]:
    """URI of every part → its rows. SettingsError when one is broken, or all hold other than the sidecar's `rows`."""
    shown, parts = storage.public_uri(uri), {}
    with _whole(uri):
        listed = list_parts(uri)
    for info in listed:
        with _whole(info.uri):
            parts[info.uri] = parquet.row_count(info.uri)
    found = sum(parts.values())
    if not found:
        raise SettingsError("embeddings", f"{shown} has no rows", "give a table with rows in it")
    if rows is not None and rows != found:
        raise SettingsError("embeddings", f"{shown} is to have {rows} rows and has {found}", "embed again")
    return parts


def read_part(uri: str, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a part, at most `rows` at once. SettingsError when it is broken."""
    with _whole(uri):
        yield from parquet.batches(uri, rows, columns)


def check_spread(facts: EmbeddingsFacts, setting: str) -> None:
    """SettingsError where the first READ_ROWS rows of a table tell nothing apart. Rows lie by their hashes, so that the
    first are as good as any."""
    column = "embedding" if facts.kind == "text" else "windows"
    found: list[Any] = []
    with suppress(SettingsError):  # what is broken inside is told by who takes all rows
        for info in list_parts(facts.uri):
            for batch in read_part(info.uri, READ_ROWS, [column]):
                values = batch[column].to_pylist() if column in batch.schema.names else []
                found += values if facts.kind == "text" else [each["embedding"] for row in values for each in row or ()]
                if len(found) >= READ_ROWS:
                    break
            if len(found) >= READ_ROWS:
                break
    remedy = "embed again with another CLAP (`mats doctor --model` measures one)"
    rows = np.array([each for each in found[:READ_ROWS] if each is not None and len(each) == facts.dim], np.float64)
    refuse_alike(rows, storage.public_uri(facts.uri), setting, remedy)


@contextmanager
def _whole(uri: str) -> Iterator[None]:
    """SettingsError for a table or part that cannot be read."""
    try:
        yield
    except storage.StorageError as error:
        problem = f"{storage.public_uri(uri)} cannot be read ({error})"
        raise SettingsError("embeddings", problem, "put the whole file back, or embed again") from None
