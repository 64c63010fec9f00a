"""Manifests of lhotse, written by lhotse, and of NeMo."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mats_core.errors import SettingsError
from pipelines.data.inputs import Entry, open_input
from tests.pipelines.data.inputs.made import write


def _stretches(entries: list[Entry]) -> list[tuple[str, float, float | None, Any]]:
    return [(Path(e.uri).name, e.start_s, e.end_s, e.own.get("only_channel")) for e in entries]


@pytest.fixture
def spoken(tmp_path: Path) -> Any:
    """lhotse, a stereo recording of 6 s, and supervisions of both of its channels."""
    lhotse = pytest.importorskip("lhotse")
    path = write(tmp_path / "sounds" / "both.wav", 6.0, 440.0, 880.0)
    recording = lhotse.Recording.from_file(path)
    parts = [
        lhotse.SupervisionSegment("s1", "both", 0.5, 1.25, channel=0, text="ein Wort", speaker="A", language="de"),
        lhotse.SupervisionSegment("s2", "both", 3.0, 2.0, channel=1, text="zwei", speaker="B"),
    ]
    return lhotse, recording, parts


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_lhotse_recordings_supervisions_and_cuts(tmp_path: Path, spoken: Any, ending: str) -> None:
    lhotse, recording, parts = spoken
    lhotse.RecordingSet.from_recordings([recording]).to_file(tmp_path / f"x_recordings_dev.{ending}")
    lhotse.SupervisionSet.from_segments(parts).to_file(tmp_path / f"x_supervisions_dev.{ending}")
    whole = list(open_input(str(tmp_path / f"x_recordings_dev.{ending}")).entries)
    assert _stretches(whole) == [("both.wav", 0.0, None, None)]
    assert whole[0].own["id"] == "both" and whole[0].size > 0
    source = open_input(str(tmp_path / f"x_supervisions_dev.{ending}"))
    told = list(source.entries)
    assert _stretches(told) == [("both.wav", 0.5, 1.75, 0), ("both.wav", 3.0, 5.0, 1)]
    assert told[0].own == {
        "id": "s1", "recording_id": "both", "own_text": "ein Wort", "speaker": "A", "language": "de", "only_channel": 0,
    }  # fmt: skip
    assert source.own_schema.names == list(told[0].own)
    cut = lhotse.MonoCut("c", 1.0, 3.5, channel=1, recording=recording, supervisions=[])
    both = lhotse.MultiCut("m", 0.0, 2.0, channel=[0, 1], recording=recording, supervisions=[parts[0], parts[1]])
    lhotse.CutSet.from_cuts([cut, both, cut.pad(duration=9.0)]).to_file(tmp_path / f"cuts.{ending}")
    cuts = list(open_input(str(tmp_path / f"cuts.{ending}")).entries)
    assert _stretches(cuts[:2]) == [("both.wav", 1.0, 4.5, 1), ("both.wav", 0.0, 2.0, None)]
    assert cuts[1].own["own_text"] == "ein Wort\nzwei" and cuts[1].own["speaker"] == "A, B"
    assert cuts[2].error is not None and cuts[2].error[0] == "refused" and "MixedCut" in cuts[2].error[1]


def test_a_mono_recording_needs_no_channel_and_channels_in_several_files_are_found(tmp_path: Path, spoken: Any) -> None:
    lhotse, _, _ = spoken
    mono = lhotse.Recording.from_file(write(tmp_path / "mono.wav", 2.0))
    left, right = write(tmp_path / "l.wav", 2.0), write(tmp_path / "r.wav", 2.0)
    sources = [lhotse.AudioSource("file", [channel], str(path)) for channel, path in ((0, left), (1, right))]
    apart = lhotse.Recording("apart", sources, 8000, 16000, 2.0)
    cuts = [
        lhotse.MonoCut("1", 0.0, 1.0, channel=0, recording=mono),
        lhotse.MonoCut("2", 0.0, 1.0, channel=1, recording=apart),
        lhotse.MultiCut("3", 0.0, 1.0, channel=[0, 1], recording=apart),
    ]
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    found = list(open_input(str(tmp_path / "cuts.jsonl.gz")).entries)
    assert _stretches(found[:2]) == [("mono.wav", 0.0, 1.0, None), ("r.wav", 0.0, 1.0, None)]
    assert found[2].error is not None and "2 of the recording's files" in found[2].error[1]


def test_a_manifest_runs_no_command_and_reads_nothing_that_a_list_may_not(tmp_path: Path) -> None:
    def recording(kind: str, source: str) -> dict[str, Any]:
        sources = [{"type": kind, "channels": [0], "source": source}]
        return {"id": "x", "sources": sources, "sampling_rate": 8000, "num_samples": 8, "duration": 1.0}

    rows = [
        recording("command", "touch /tmp/x"),
        recording("memory", "AAAA"),
        recording("file", "../x.wav"),
        recording("file", ""),
    ]
    (tmp_path / "recordings.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = list(open_input(str(tmp_path / "recordings.jsonl")).entries)
    assert [entry.error[0] for entry in found if entry.error] == ["refused"] * 4
    assert "'command'" in str(found[0].error) and "'memory'" in str(found[1].error)


def test_supervisions_without_their_recordings_and_lines_that_are_none_are_refused(tmp_path: Path) -> None:
    line = json.dumps({"id": "s", "recording_id": "r", "start": 0.0, "duration": 1.0, "channel": 0})
    (tmp_path / "supervisions.jsonl").write_text(line)
    with pytest.raises(SettingsError, match="no manifest of their recordings lies beside it"):
        list(open_input(str(tmp_path / "supervisions.jsonl")).entries)
    (tmp_path / "recordings.jsonl").write_text(f"{line}\nnot json\n")
    with pytest.raises(SettingsError, match=r"line 2 of .*recordings\.jsonl is no JSON object"):
        list(open_input(str(tmp_path / "supervisions.jsonl")).entries)
    torn = gzip.compress(line.encode() * 50)[:-20]
    (tmp_path / "torn.jsonl.gz").write_bytes(torn)
    with pytest.raises(SettingsError, match=r"torn\.jsonl\.gz cannot be read"):
        list(open_input(str(tmp_path / "torn.jsonl.gz")).entries)


@pytest.mark.parametrize("name", ["m.json", "m.jsonl", "m.jsonl.gz", "m.json.gz"])
def test_nemo_gives_offset_and_duration_and_keeps_the_text(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.wav", 4.0)
    rows = [
        {"audio_filepath": "a.wav", "offset": 0.1, "duration": 0.2, "text": "x", "lang": "en"},
        {"audio_filepath": str(tmp_path / "a.wav"), "duration": 4.0, "text": "y", "lang": "de"},
        {"audio_filepath": "a.wav", "text": "z", "lang": "fr"},
    ]
    content = "\n".join(map(json.dumps, rows)).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    source = open_input(str(tmp_path / name))
    found = list(source.entries)
    assert [(e.start_s, e.end_s) for e in found] == [(0.1, 0.3), (0.0, 4.0), (0.0, None)]
    assert [e.own for e in found] == [
        {"own_text": text, "lang": lang} for text, lang in (("x", "en"), ("y", "de"), ("z", "fr"))
    ]
    assert {e.uri for e in found} == {str(tmp_path / "a.wav")}


def test_nemos_manifest_of_our_own_export_comes_back(tmp_path: Path) -> None:
    from pipelines.export.manifests import nemo

    write(tmp_path / "a.wav", 3.0)
    row = {"uri": str(tmp_path / "a.wav"), "start_s": 1.0, "decoded_s": 2.0, "text": "rain", "row_id": 7}
    (tmp_path / "m.json").write_text("\n".join(json.dumps(line) for line in nemo([row], "text", Counter())))
    (entry,) = open_input(str(tmp_path / "m.json")).entries
    assert (entry.uri, entry.start_s, entry.end_s) == (str(tmp_path / "a.wav"), 1.0, 3.0)
    assert entry.own == {"own_text": "rain", "own_row_id": 7}
