from __future__ import annotations

import html
from pathlib import Path

import pyarrow as pa
import pysrt
import webvtt

from pipelines.data.schemas import SEGMENTS_TYPE
from pipelines.export.run import run_export
from tests.pipelines.export.made_up import HOSTILE, answer_rows, write_answers

URIS = ["/archive/one.wav", "/archive/one.wav", "/archive/b/two.wav", "/archive/b/three.wav"]
LINES = [" ".join(text.split()) for text in HOSTILE]


def _run(tmp_path: Path) -> Path:
    late = {"start_s": 3661.5, "end_s": 3661.5, "text": "late"}
    segments = [None, None, [late, {"start_s": 0.0, "end_s": 1.25, "text": HOSTILE[3]}], None]
    rows = answer_rows(URIS, [HOSTILE[2], HOSTILE[4], "whole", None], segments=pa.array(segments, SEGMENTS_TYPE))
    return write_answers(tmp_path / "run", rows)


def _seconds(text: str) -> float:
    hours, minutes, rest = text.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_vtt_is_read_by_webvtt(tmp_path: Path) -> None:
    assert run_export(run=_run(tmp_path), output=tmp_path / "vtt", to="vtt").rows == 2
    one = webvtt.read(str(tmp_path / "vtt" / "one.vtt"))
    assert [(_seconds(cue.start), _seconds(cue.end)) for cue in one] == [(0.0, 2.0), (2.0, 4.0)]
    assert [html.unescape(cue.raw_text) for cue in one] == [LINES[2], LINES[4]]
    two = webvtt.read(str(tmp_path / "vtt" / "b" / "two.vtt"))
    assert [(cue.text, _seconds(cue.start), _seconds(cue.end)) for cue in two] == [
        (LINES[3], 0.0, 1.25),
        ("late", 3661.5, 3661.501),
    ]
    assert not (tmp_path / "vtt" / "b" / "three.vtt").exists()  # an error has nothing to say


def test_srt_is_read_by_pysrt(tmp_path: Path) -> None:
    run_export(run=_run(tmp_path), output=tmp_path / "srt", to="srt")
    one = pysrt.open(str(tmp_path / "srt" / "one.srt"))
    assert [(cue.start.ordinal, cue.end.ordinal) for cue in one] == [(0, 2000), (2000, 4000)]
    assert [cue.text for cue in one] == ["<i>a → b</i> & c", LINES[4]]


def test_label_tracks_have_a_line_a_label(tmp_path: Path) -> None:
    run_export(run=_run(tmp_path), output=tmp_path / "labels", to="audacity")
    lines = (tmp_path / "labels" / "b" / "two.txt").read_text().splitlines()
    assert lines == [f"0.000000\t1.250000\t{LINES[3]}", "3661.500000\t3661.501000\tlate"]
