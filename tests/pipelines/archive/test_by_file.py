"""An answer a file: from all of its windows, whatever comes with it, and from what can be heard of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from mats_core.audio.windows import pool_windows
from pipelines.archive import by_file
from pipelines.archive.by_file import HearStage, ListStage, joined_sound, spans, whole_files
from pipelines.archive.decode_stage import DecodeStage
from pipelines.archive.headers import Rowing, Scanner
from pipelines.archive.model_spec import ModelSpec
from pipelines.archive.stages import EmbedStage
from pipelines.archive.work_list import WorkList, shard_table
from pipelines.cluster.stages import StageContext
from pipelines.data.inputs import Entry, open_input
from pipelines.settings.archive import LimitSettings

RATE, WINDOW_S, CHUNK_S = 16_000, 5.0, 60.0
SECONDS = (3.0, 131.5, 7.0, 60.02, 65.0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of many lengths, the longest with a silent minute; and no sound at all."""
    folder = tmp_path_factory.mktemp("archive")
    draw = np.random.default_rng(5)
    for index, seconds in enumerate(SECONDS):
        sound = 0.2 * draw.standard_normal(round(seconds * RATE)) * np.sin(np.arange(round(seconds * RATE)) / 9e4)
        if index == 1:
            sound[60 * RATE : 120 * RATE] = 0
        soundfile.write(folder / f"{index:02d}.wav", sound, RATE)
    (folder / "text.wav").write_text("not a sound")
    return folder


def _rows(archive: Path, folder: str, per: str) -> pa.Table:
    work = WorkList(folder, pa.schema([]))
    with Scanner(CHUNK_S, LimitSettings(), rows=Rowing(per, WINDOW_S, RATE)) as scanner:
        work.extend(open_input(str(archive)), scanner, {"task": "caption"})
    (table,) = ListStage(StageContext(folder))(shard_table(0, work.total, np.zeros(work.total, bool)))
    return table


@pytest.mark.processes
def test_a_file_is_heard_in_chunks_and_answered_once(
    archive: Path, tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _rows(archive, str(tmp_path / "files"), "file")
    assert len(rows) == len(SECONDS) + 1
    spec = ModelSpec(tiny_model_dir, window_s=WINDOW_S, with_embedding=True, segments=True)
    stage = HearStage(StageContext(str(tmp_path / "files")), spec, RATE, LimitSettings(), (), CHUNK_S)
    most: list[int] = []
    real = DecodeStage.load
    monkeypatch.setattr(DecodeStage, "load", lambda self, part: (most.append(len(part)), real(self, part))[1])
    monkeypatch.setattr(by_file, "BLOCK_ROWS", 4)
    found = pa.concat_tables(stage(rows)).to_pylist()
    assert max(most) == 4 and sum(most) == 9  # chunks: never more than so many at once
    monkeypatch.setattr(by_file, "TOGETHER_S", 1.0)
    alone = [row for at in range(len(rows)) for table in stage(rows.slice(at, 1)) for row in table.to_pylist()]
    names = ("text", "segments", "decoded_s", "complete", "rms_dbfs", "silent", "error_code")
    assert [[row[name] for name in names] for row in found] == [[row[name] for name in names] for row in alone]
    for row, other in zip(found[:-1], alone[:-1], strict=True):
        assert np.abs(np.array(row["embedding"]) - np.array(other["embedding"])).max() < 1e-5

    minutes = _rows(archive, str(tmp_path / "minutes"), "minute")
    heard = DecodeStage(StageContext(str(tmp_path / "minutes")), RATE, LimitSettings()).load(minutes)
    windows = EmbedStage(StageContext(), spec)(heard).to_pylist()
    for row, seconds in zip(found, SECONDS, strict=False):
        own = [(chunk, each) for chunk in windows if chunk["uri"] == row["uri"] for each in chunk["windows"]]
        vectors = np.array([each["embedding"] for _, each in own], np.float32)
        pooled = pool_windows(vectors, [each["weight"] for _, each in own])
        assert np.abs(pooled - np.array(row["embedding"], np.float32)).max() < 1e-5
        starts = [chunk["start_s"] + each["start_s"] for chunk, each in own]
        assert [each["start_s"] for each in row["segments"]] == pytest.approx(starts)
        assert (row["decoded_s"], row["complete"]) == (pytest.approx(seconds), True)
        assert row["rms_dbfs"] < -10 and row["silent"] is False
    assert any(each["text"] == "Silence." for each in found[1]["segments"])
    assert found[5]["error_code"] == "not_audio" and found[5]["text"] is None


@pytest.mark.processes
def test_the_rest_of_a_file_is_answered_where_a_part_cannot_be_heard(
    archive: Path, tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _rows(archive, str(tmp_path / "files"), "file").slice(1, 1)
    spec = ModelSpec(tiny_model_dir, window_s=WINDOW_S)
    stage = HearStage(StageContext(str(tmp_path / "files")), spec, RATE, LimitSettings(), (), CHUNK_S)
    real = DecodeStage.load
    lost = [60.0]

    def some(self: DecodeStage, part: pa.Table) -> pa.Table:
        codes = ["timeout" if start in lost else None for start in part["start_s"].to_pylist()]
        messages = ["took too long" if code else None for code in codes]
        for name, values in (("error_code", codes), ("error_message", messages)):
            part = part.set_column(part.schema.get_field_index(name), name, pa.array(values, pa.string()))
        return real(self, part)

    monkeypatch.setattr(DecodeStage, "load", some)
    ((row,),) = [table.to_pylist() for table in stage(rows)]
    assert row["text"] and row["error_code"] is None and row["complete"] is False
    assert (row["decoded_s"], row["lost_s"]) == (pytest.approx(71.5), 60.0)
    assert row["error_message"] == "1 of 3 minutes were not heard, the first at 60 s: timeout (took too long)"
    lost += [0.0, 120.0]
    ((row,),) = [table.to_pylist() for table in stage(rows)]
    assert (row["text"], row["error_code"], row["error_message"]) == (None, "timeout", "took too long")


def test_levels_of_chunks_are_joined_by_their_seconds() -> None:
    usual: dict[str, Any] = {"complete": True, "lost_s": 0.0, "error_code": None, "error_message": None}
    loud = {**usual, "decoded_s": 30.0, "peak_dbfs": -1.0, "rms_dbfs": -10.0, "clipped": 0.3}
    soft = {**usual, "decoded_s": 60.0, "peak_dbfs": -40.0, "rms_dbfs": -120.0, "clipped": 0.0}
    told = joined_sound([loud, soft])
    assert told["rms_dbfs"] == pytest.approx(-10 - 10 * np.log10(3), abs=0.01)
    assert (told["peak_dbfs"], told["clipped"], told["decoded_s"]) == (-1.0, pytest.approx(0.1), 90.0)


def test_rows_that_follow_one_another_are_one_span() -> None:
    places = [("a", 3), ("a", 4), ("b", 0), ("a", 5), ("a", 9)]
    assert spans(places) == "a:3-4 b:0-0 a:5-5 a:9-9"


def test_chunks_of_one_file_are_joined_and_stretches_are_not() -> None:
    def chunk(uri: str, start: float, seconds: float, last: bool, code: str | None = None) -> Entry:
        told = {"start_s": start, "duration_s": seconds, "last": last, "error_code": code, "error_message": code}
        more = {"format": "wav", "sample_rate": 8, "channels": 1, "part": "p", "part_row": int(start)}
        return Entry(uri, f"{uri}{start}", chunk={**told, **more})

    chunks = [
        chunk("a", 0, 60, False), chunk("a", 60, 60, False, "timeout"), chunk("a", 120, 5, True),
        chunk("a", 0, 10, False), chunk("a", 10, 20, False),  # stretches that a list named
        chunk("b", 0, 60, False), chunk("c", 60, 60, False), chunk("c", 120, 3, True, "not_found"),
    ]  # fmt: skip
    found = list(whole_files(iter(chunks), 60.0))
    names = ("start_s", "duration_s", "last")
    told = [(each.uri, *(each.chunk[name] for name in names)) for each in found if each.chunk]
    assert told == [
        ("a", 0, 125, True), ("a", 0, 10, False), ("a", 10, 20, False), ("b", 0, 60, False), ("c", 60, 63, True),
    ]  # fmt: skip
    assert [each.chunk["error_code"] for each in found if each.chunk] == [None] * 5
    assert found[0].chunk is not None and found[0].chunk["part"] == "p:0-0 p:60-60 p:120-120"
    assert found[0].path == "a0+3"
