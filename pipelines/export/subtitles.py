"""vtt, srt, audacity: what is heard when, a text file a sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.export.places import as_text
from pipelines.export.rows import Row, length_of

SHORTEST_S = 0.001
UNKNOWN_S = 60.0
"""How long a chunk is taken to be whose length is not known."""


@dataclass(frozen=True)
class Cue:
    """A text from `start_s` to `end_s` of its file, in seconds; one line."""

    start_s: float
    end_s: float
    text: str


def cues_of(chunks: list[Row], text: str) -> list[Cue]:
    """The cues of a file: its segments where a chunk has some and `text` is the answer, else the chunk."""
    found = []
    for row in chunks:
        start = row.get("start_s") or 0.0
        segments = row.get("segments") if text == "text" else None
        for each in segments or ():
            found.append(Cue(each["start_s"], max(each["end_s"], each["start_s"] + SHORTEST_S), as_text(each["text"])))
        if not segments and not row.get("error_code"):
            found.append(Cue(start, start + (length_of(row) or UNKNOWN_S), as_text(row.get(text))))
    return sorted((cue for cue in found if cue.text), key=lambda cue: (cue.start_s, cue.end_s))


def vtt(cues: list[Cue]) -> str:
    """WebVTT."""
    marks = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    blocks = (f"\n{_clock(c.start_s, '.')} --> {_clock(c.end_s, '.')}\n{c.text.translate(marks)}\n" for c in cues)
    return "WEBVTT\n" + "".join(blocks)


def srt(cues: list[Cue]) -> str:
    """SubRip."""
    times = ((f"{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}", cue.text) for cue in cues)
    return "".join(f"{number}\n{time}\n{text.replace('-->', '→')}\n\n" for number, (time, text) in enumerate(times, 1))


def audacity(cues: list[Cue]) -> str:
    """A label track of Audacity: start, end and text, with tabs between."""
    return "".join(f"{cue.start_s:.6f}\t{cue.end_s:.6f}\t{cue.text}\n" for cue in cues)


WRITERS: dict[str, tuple[str, Callable[[list[Cue]], str]]] = {
    "vtt": (".vtt", vtt),
    "srt": (".srt", srt),
    "audacity": (".txt", audacity),
}
"""Kind → ending of its files, and what writes one."""


def _clock(seconds: float, mark: str) -> str:
    whole = round(seconds * 1000)
    hours, rest = divmod(whole, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"
