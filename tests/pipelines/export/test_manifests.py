from __future__ import annotations

import json
from pathlib import Path

import lhotse
import numpy as np
import pytest

from pipelines.export.run import run_export
from tests.pipelines.export.made_up import RATE, answer_rows, archive, write_answers


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Three sounds of 4 s, two chunks each, the last of which failed."""
    uris, samples = archive(tmp_path / "sounds", ("one.wav", "zwei ö.wav", "c/three.wav"))
    rows = answer_rows(uris, ["a", "b\nc", "d", "e", "f", None])
    return write_answers(tmp_path / "run", rows), samples


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_lhotse_hears_the_stretches(run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, ending: str) -> None:
    output, samples = run
    assert run_export(run=output, output=tmp_path / f"cuts.{ending}", to="lhotse").rows == 5
    cuts = list(lhotse.load_manifest_lazy(tmp_path / f"cuts.{ending}"))
    lhotse.CutSet.from_cuts(cuts)
    for cut, uri, start, text in zip(
        cuts, [u for u in samples for _ in "12"], [0, 2] * 3, ["a", "b c", "d", "e", "f"], strict=False
    ):
        lhotse.validate(cut)
        assert (cut.start, cut.duration, cut.supervisions[0].text) == (start, 2.0, text)
        expected = samples[uri][start * RATE : (start + 2) * RATE] / 32768
        np.testing.assert_allclose(cut.load_audio()[0], expected, atol=1e-4)


def test_lhotse_has_a_cut_a_file(run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    assert run_export(run=run[0], output=tmp_path / "cuts.jsonl", to="lhotse", per="file").rows == 3
    cuts = list(lhotse.load_manifest_lazy(tmp_path / "cuts.jsonl"))
    assert [(cut.duration, cut.supervisions[0].text) for cut in cuts] == [(4.0, "a\nb\nc"), (4.0, "d\ne"), (2.0, "f")]


def test_nemo_has_path_offset_duration_and_text(run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    output, samples = run
    assert run_export(run=output, output=tmp_path / "nemo.json", to="nemo").rows == 5
    lines = [json.loads(line) for line in (tmp_path / "nemo.json").read_text().splitlines()]
    assert [line["audio_filepath"] for line in lines] == [uri for uri in samples for _ in "12"][:5]
    assert [(line["offset"], line["duration"], line["text"]) for line in lines[:2]] == [
        (0.0, 2.0, "a"),
        (2.0, 2.0, "b c"),
    ]


def test_lhotse_is_told_of_the_whole_recording_where_a_part_is_chosen(
    run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    assert run_export(run=run[0], output=tmp_path / "cuts.jsonl", to="lhotse", where="text = 'a'").rows == 1
    (cut,) = lhotse.load_manifest_lazy(tmp_path / "cuts.jsonl")
    assert cut.recording.duration == 4.0 and cut.load_audio().shape == (1, 2 * RATE)
