"""Inputs that once came out wrong, after public reports, in one run of `mats caption --segments`."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.audio.decode import decode
from pipelines.archive.caption import run_caption
from pipelines.settings.archive import CaptionSettings
from tests.e2e.conftest import read_answers

TROUBLE = Path(__file__).parents[3] / "shared" / "trouble"
# file → seconds of each row, seconds lost
SOUNDS: dict[str, tuple[list[float], float]] = {
    "vbr_no_header_75s.mp3": ([60, 15], 0),
    "header_third_of_frames_150s.mp3": ([60, 60, 30], 0),
    "mp3_3000_zero_bytes_at_15s_150s.mp3": ([60, 60, 27], 3),
    "m4a_300_zero_bytes_at_15s_150s.m4a": ([60, 60, 30], 0.5),
    "mpeg_program_stream_75s.mpg": ([60, 15], 0),
    "gap_60_to_90s_150s.webm": ([60, 60, 30], 0),
    "webm_no_duration_1810s.webm": ([60] * 30 + [10], 0),
    "chain_mono_stereo_140s.opus": ([60, 60, 20], 0),
    "xmp_chunk_after_data_10s.wav": ([10], 0),
    "stale_size_behind_8kB_bext_10s.wav": ([10], 0),
    "a.mkv": ([20], 0),  # the three members of two_tars_in_one.tar
    "b.mkv": ([20], 0),
    "c.amr": ([60, 60, 30], 0),
}
ERRORS = {"bits_per_sample_0_10s.wav": "no decoder for its codec, PCM", "ends_its_decoder.aac": "SIGSEGV"}
LISTS = {"string_view_column.parquet": "label", "timestamp_year_10000.parquet": "when"}
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not TROUBLE.is_dir(), reason="the inputs are not here: ../shared/trouble"),
]


def test_every_file_has_its_right_numbers_here() -> None:
    there = {path.name for path in TROUBLE.iterdir()} - {"README.md"}
    here = {*SOUNDS, *ERRORS, *LISTS} - {"a.mkv", "b.mkv", "c.amr"} | {"two_tars_in_one.tar"}
    assert there <= here


@pytest.mark.long
@pytest.mark.usefixtures("shared_ray")
def test_one_run_over_all_of_them(tmp_path: Path, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = CaptionSettings(input=str(TROUBLE), output=str(tmp_path), model=tiny_model_dir, segments=True)
    assert run_caption(settings).status == "complete"
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_answers(tmp_path):
        found[row["uri"].rpartition("/")[2]].append(row)
    with capsys.disabled():
        for name, rows in sorted(found.items()):
            decoded, lost = (round(sum(row[column] or 0 for row in rows), 2) for column in ("decoded_s", "lost_s"))
            print(f"{name:40} {len(rows):3} rows {decoded:8} s, {lost} s lost {rows[0]['error_message'] or ''}")
    assert {name: rows[0]["error_code"] for name, rows in found.items() if rows[0]["error_code"]} == dict.fromkeys(
        ERRORS, "decode_failed"
    )
    assert all(words in found[name][0]["error_message"] for name, words in ERRORS.items())
    assert found.keys() == {*SOUNDS, *ERRORS}
    for name, (seconds, lost) in SOUNDS.items():
        rows = found[name]
        assert [row["decoded_s"] for row in rows] == pytest.approx(seconds, abs=0.2), name
        assert sum(row["lost_s"] for row in rows) == pytest.approx(lost, abs=0.1), name
        assert all(row["complete"] for row in rows) is (lost == 0), name
        for row in rows:
            assert row["text"], name
            assert row["segments"][0]["start_s"] == row["start_s"]
            ends = row["segments"][-1]["end_s"]
            assert ends == pytest.approx(row["start_s"] + row["decoded_s"], abs=0.01), name


@pytest.mark.long
@pytest.mark.usefixtures("shared_ray")
@pytest.mark.parametrize("name", LISTS)
def test_columns_of_lists_are_carried_along(tmp_path: Path, tiny_model_dir: str, name: str) -> None:
    run_caption(CaptionSettings(input=str(TROUBLE / name), output=str(tmp_path), model=tiny_model_dir))
    table = pq.read_table(tmp_path / "answers")
    assert table["text"].to_pylist()[0]
    kept, given = (each[LISTS[name]].combine_chunks() for each in (table, pq.read_table(TROUBLE / name)))
    whole = pa.int64() if pa.types.is_timestamp(given.type) else pa.string()
    assert kept.cast(whole).to_pylist() == given.cast(whole).to_pylist()


def test_what_is_at_90_seconds_is_heard_at_90_seconds() -> None:
    """Of a live recording without packets from 60 s to 90 s."""
    with (TROUBLE / "gap_60_to_90s_150s.webm").open("rb") as file:
        samples = decode(file, sample_rate=16_000).samples
    loud = np.median(np.abs(samples[: 150 * 16_000].reshape(150, -1)), axis=1) > 1000
    assert [int(second) for second in np.flatnonzero(~loud)] == list(range(60, 90))
