"""nemo, lhotse: lists of stretches of sound files with their texts, a JSON object a line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from mats_core.storage.uris import local_path, public_uri
from pipelines.export.places import as_text
from pipelines.export.rows import CHOSEN, Row, length_of, windows_of


def place_of(uri: str) -> str:
    """A sound as other programs open it: an absolute path, or a URL without secrets."""
    path = local_path(uri)
    return public_uri(uri) if path is None else os.path.abspath(os.fsdecode(path))


UNKNOWN = "unknown length or rate"


def nemo(rows: Iterable[Row], text: str, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """NeMo's manifest: audio_filepath, offset, duration, text, and what a list brought of its own.

    Rows that were not heard have none, and are counted in `left_out`.
    """
    for row in rows:
        length = length_of(row)
        if row.get("error_code") or length is None:
            left_out[row.get("error_code") or UNKNOWN] += 1
            continue
        yield {
            "audio_filepath": place_of(row["uri"]), "offset": row.get("start_s") or 0.0, "duration": length,
            "text": as_text(row.get(text)), "row_id": row.get("row_id"),
        }  # fmt: skip


def lhotse(files: Iterable[list[Row]], text: str, per: str, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """Cuts of lhotse, with their recording and a supervision each: one a chunk, a file, or a window.

    files: all chunks of each, since a recording is told with its whole length; those that are not CHOSEN have no cut.
    Chunks that were not heard, and files whose rate is not known, have none, and are counted in `left_out`.
    """
    for chunks in files:
        chosen = [row for row in chunks if row.get(CHOSEN, True)]
        heard = [row for row in chosen if not row.get("error_code") and length_of(row)]
        known = bool(heard and heard[0].get("sample_rate"))
        left_out.update(row.get("error_code") or UNKNOWN for row in chosen if not known or row not in heard)
        if not known:
            continue
        recording = _recording(heard[0], max(_end(row) for row in chunks))
        if per == "file":
            told = "\n".join(str(row.get(text) or "") for row in heard)
            start = min(row.get("start_s") or 0.0 for row in heard)
            yield _cut(heard[0], recording, start, _end(heard[-1]) - start, told)
            continue
        for row in (each for chunk in heard for each in (windows_of(chunk) if per == "window" else [chunk])):
            start = row.get("start_s") or 0.0
            yield _cut(row, recording, start, length_of(row) or 0.0, as_text(row.get(text)))


def _end(row: Row) -> float:
    return (row.get("start_s") or 0.0) + (length_of(row) or 0.0)


def _recording(row: Row, seconds: float) -> dict[str, Any]:
    rate, channels = int(row["sample_rate"]), list(range(int(row.get("channels") or 1)))
    place = place_of(row["uri"])
    samples = round(seconds * rate)
    kind = "file" if local_path(row["uri"]) is not None else "url"
    return {
        "id": place, "sources": [{"type": kind, "channels": channels, "source": place}], "sampling_rate": rate,
        "num_samples": samples, "duration": samples / rate, "channel_ids": channels,
    }  # fmt: skip


def _cut(row: Row, recording: dict[str, Any], start: float, seconds: float, text: str) -> dict[str, Any]:
    name = f"{row.get('chunk_id') or row.get('row_id')}-{round(1000 * start)}"
    channels = recording["channel_ids"]
    channel = channels[0] if len(channels) == 1 else channels
    seconds = min(seconds, recording["duration"] - start)
    supervision = {
        "id": name, "recording_id": recording["id"], "start": 0.0, "duration": seconds, "channel": channel,
        "text": text, "custom": {"task": row.get("task"), "question": row.get("question")},
    }  # fmt: skip
    return {
        "id": name, "start": start, "duration": seconds, "channel": channel, "supervisions": [supervision],
        "recording": recording, "type": "MonoCut" if len(channels) == 1 else "MultiCut",
    }  # fmt: skip
