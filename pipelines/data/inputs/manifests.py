"""The manifests of lhotse (recordings, supervisions, cuts), as rows of a list. NeMo's is a list whose columns have
other names (`rows.NEMO`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data.inputs.entries import CHANNEL, END, START
from pipelines.data.inputs.rows import ERROR, Row
from pipelines.data.lists import opened_text

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".ndjson", ".ndjson.gz")
_MOST_LINE = 16 << 20  # bytes
_OWN = ("id", "recording_id", "own_text", "speaker", "language")
_CUTS = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut")


def kind_of(uri: str) -> str | None:
    """What a file of JSON lines is by its first one: recordings, supervisions, cuts, list (rows with `uri` or
    `audio_filepath`), or None. Raises SettingsError where it cannot be read."""
    first = next(_records(uri, strict=False), None)
    if first is None:
        return None
    if "uri" in first or "audio_filepath" in first:
        return "list"
    if first.get("type") in _CUTS or ("recording" in first and "start" in first):
        return "cuts"
    if isinstance(first.get("sources"), list) and "sampling_rate" in first:
        return "recordings"
    return "supervisions" if {"recording_id", "start", "duration"} <= first.keys() else None


def own_schema(columns: list[str] | None) -> pa.Schema:
    """The columns that are carried along: which channel, and what the manifest says of the sound."""
    for name in columns or ():
        if name not in ("uri", *_OWN):
            problem = f"a manifest of lhotse has no column `{name}`, but {', '.join(_OWN)}"
            raise SettingsError("columns", problem, "choose some of these (only `uri`: none is carried along)")
    kept = [name for name in _OWN if columns is None or name in columns]
    return pa.schema([*((name, pa.string()) for name in kept), (CHANNEL, pa.int64())])


def lhotse_rows(uri: str, kind: str) -> Iterator[Row]:
    """The rows of a manifest: uri, stretch, channel, and what is said of it. Raises SettingsError."""
    if kind == "recordings":
        for each in _records(uri):
            yield _row(each, each, None, [], {"recording_id": each.get("id")})
    elif kind == "supervisions":
        known = _recordings_beside(uri)
        for each in _records(uri):
            yield _row(known.get(str(each.get("recording_id"))), each, each.get("channel"), [each], each)
    else:
        for each in _records(uri):
            recording = each.get("recording")
            told = [part for part in each.get("supervisions") or () if isinstance(part, dict)]
            one = recording if isinstance(recording, dict) else None
            yield _row(one, each, each.get("channel"), told, {"recording_id": (one or {}).get("id")})


def _row(
    recording: dict[str, Any] | None, part: dict[str, Any], channel: Any, told: list[dict[str, Any]], more: Row
) -> Row:
    row: Row = dict.fromkeys(("uri", START, END, CHANNEL, *_OWN))
    row.update(id=_text(part.get("id")), recording_id=_text(more.get("recording_id")))
    for name, key in (("own_text", "text"), ("speaker", "speaker"), ("language", "language")):
        said = dict.fromkeys(str(each[key]) for each in told if each.get(key))
        row[name] = "\n".join(said) if key == "text" else ", ".join(said)
        row[name] = row[name] or None
    if part is not recording:
        start, length = part.get("start"), part.get("duration")
        row[START] = start
        try:
            row[END] = round(float(start) + float(length), 6)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            row[END] = f"{length!r} after it"
    try:
        row["uri"], row[CHANNEL] = _file_of(recording, part, channel)
    except ValueError as error:
        row[ERROR] = ("refused", str(error))
    return row


def _text(given: Any) -> str | None:
    return None if given is None else str(given)


def _file_of(recording: dict[str, Any] | None, part: dict[str, Any], channel: Any) -> tuple[str, int | None]:
    """The file of a recording, and which channel of it alone is meant, None for all; ValueError says why there is none.

    channel: as the manifest has it, a number of the recording's or a list of them; None: all.
    """
    if recording is None:
        kind = part.get("type")
        if kind in ("MixedCut", "PaddingCut"):
            raise ValueError(f"is a {kind}, which is no stretch of one recording; save the mix as a sound of its own")
        raise ValueError(f"is of the recording {part.get('recording_id')!r}, which is not in the manifest"[:300])
    if recording.get("transforms"):
        raise ValueError("is of a recording with transforms, which are not applied; save it as a sound of its own")
    sources = [each for each in recording.get("sources") or () if isinstance(each, dict)]
    wanted = channel if isinstance(channel, list) else None if channel is None else [channel]
    if wanted is not None and any(not isinstance(each, int) for each in wanted):
        raise ValueError(f"names the channel {channel!r}"[:300])
    if wanted is not None:
        sources = [each for each in sources if set(wanted) & set(each.get("channels") or ())]
    if len(sources) != 1:
        found = "none" if not sources else f"{len(sources)}"
        raise ValueError(f"has its channels in {found} of the recording's files; give cuts of one channel each")
    (source,) = sources
    if source.get("type") not in ("file", "url"):
        raise ValueError(f"is a source of type {source.get('type')!r}; only files and URLs are read")
    there = list(source.get("channels") or ())
    if wanted is None or set(wanted) >= set(there):
        return str(source.get("source") or ""), None
    if len(wanted) > 1:
        raise ValueError(f"means {len(wanted)} of the {len(there)} channels of its file; give cuts of one channel each")
    return str(source.get("source") or ""), there.index(wanted[0])


def _recordings_beside(uri: str) -> dict[str, dict[str, Any]]:
    """The recordings that supervisions tell of, by id: of the manifest beside, named as lhotse names it."""
    folder, slash, name = uri.rpartition("/")
    beside = folder + slash + name.replace("supervisions", "recordings")
    if beside == uri or not storage.exists(beside):
        problem = f"{storage.public_uri(uri)} holds supervisions, and no manifest of their recordings lies beside it"
        remedy = "call the two …supervisions….jsonl.gz and …recordings….jsonl.gz, or give cuts"
        raise SettingsError("input", problem, remedy)
    return {str(each.get("id")): each for each in _records(beside)}


def _records(uri: str, strict: bool = True) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines. strict: SettingsError for a line that is none; else it ends there."""
    shown = storage.public_uri(uri)
    with opened_text(uri) as lines:
        number = 0
        while line := lines.readline(_MOST_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                if not strict:
                    return
                problem = f"line {number} of {shown} is no JSON object"
                raise SettingsError("input", problem, "give a whole manifest, one object a line")
            yield found
