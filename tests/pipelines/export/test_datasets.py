from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from mats_core.errors import SettingsError
from mats_core.storage.uris import row_uri
from pipelines.export.rows import read_rows
from pipelines.export.run import run_export
from pipelines.output.corrections import Corrections
from tests.pipelines.export.made_up import HOSTILE, RATE, answer_rows, archive, write_answers


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Six sounds of 4 s, two chunks each; a chunk that failed, and a file that is gone."""
    uris, samples = archive(tmp_path / "sounds", tuple(f"{at} {{x}}.tar.wav" for at in range(6)))
    Path(uris[-1]).unlink()
    texts = [*HOSTILE, *HOSTILE]
    return write_answers(tmp_path / "run", answer_rows(uris, [*texts[:3], None, *texts[4:]])), samples


@pytest.mark.processes
def test_webdataset_reads_stretches(run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    import webdataset

    output, samples = run
    result = run_export(run=output, output=tmp_path / "wds", to="webdataset", items=5)
    assert (result.rows, result.left_out) == (9, {"not_audio": 1, "not_found": 2})
    shards = sorted(str(path) for path in (tmp_path / "wds").glob("*.tar"))
    assert [os.path.basename(path) for path in shards] == [f"shard-{at:06d}.tar" for at in range(3)]
    found = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [int(each["__key__"].partition("-")[0]) for each in found] == [0, 1, 2, *range(4, 10)]
    for each in found:
        row = json.loads(each["json"])
        heard, rate = soundfile.read(io.BytesIO(each["flac"]), dtype="int16")
        start = round(row["start_s"] * RATE)
        np.testing.assert_array_equal(heard, samples[row["uri"]][start : start + 2 * RATE])
        assert rate == RATE and each["txt"].decode() == row["text"]


def test_webdataset_has_files_as_they_are(run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    import webdataset

    output, samples = run
    run_export(run=output, output=tmp_path / "wds", to="webdataset", per="file", where="error_code is null")
    found = list(webdataset.WebDataset([str(tmp_path / "wds" / "shard-000000.tar")], shardshuffle=False))
    assert len(found) == 5
    assert [each["wav"] for each in found] == [Path(uri).read_bytes() for uri in list(samples)[:5]]


@pytest.mark.processes
def test_datasets_reads_the_folder(
    run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", minversion="4", reason="the extra `hub` is not installed")
    output, samples = run
    assert run_export(run=output, output=tmp_path / "hf", to="hf", items=4).rows == 9
    found = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(found) == 9 and isinstance(found.features["audio"], datasets.Audio)
    bare = found.cast_column("audio", datasets.Audio(decode=False))
    for row in bare:
        heard, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        start = round(row["start_s"] * RATE)
        np.testing.assert_array_equal(heard, samples[row["file"]][start : start + 2 * RATE])
    assert bare["text"][:3] == list(HOSTILE[:3])
    assert "9 sounds" in (tmp_path / "hf" / "README.md").read_text()


@pytest.mark.processes
@pytest.mark.parametrize("per", ["chunk", "file"])
def test_the_card_counts_what_a_person_checked(
    run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, per: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, _ = run
    assert run_export(run=output, output=tmp_path / "bare", to="hf", items=4).rows == 9
    assert "9 sounds" in (card := (tmp_path / "bare" / "README.md").read_text()) and "not checked by a person" in card
    said, rows = Corrections(str(output)), {row["row_id"]: row for row in read_rows(str(output))}
    said.correct(rows[0], 0, "Ann", {"text": "better", "mark": "right"})
    said.correct(rows[1], 0, "Ann", {"mark": "right"})
    said.correct(rows[5], 0, "Ann", {"mark": "wrong"})
    said.correct(rows[10], 0, "Ann", {"mark": "wrong"})  # its file is gone: it is not in the data set
    run_export(run=output, output=tmp_path / "hf", to="hf", items=4, per=per)
    told = {
        "chunk": "Of 3 a person has said something (`corrected_by`): 1 with a text of theirs in place of the model's, "
        "2 marked right, 1 marked wrong. The others are not checked.",
        "file": "Of 2 a person has said something, at least in part (`corrected_by`): "
        "1 with a text of theirs in place of the model's, 1 marked right. The others are not checked.",
    }[per]
    card = tmp_path / "hf" / "README.md"
    assert told in card.read_text()
    monkeypatch.setattr("pipelines.export.datasets.sounds", lambda *_: pytest.fail("a file is made again"))
    card.unlink()
    run_export(run=output, output=tmp_path / "hf", to="hf", items=4, per=per)
    assert told in card.read_text()


@pytest.mark.processes
def test_an_export_that_was_stopped_goes_on(
    run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.export import datasets

    output, _ = run
    target = tmp_path / "wds"
    made: list[int] = []
    write = datasets.write_tar

    def stopped(*given: object) -> object:
        made.append(1)
        if len(made) == 2:
            raise KeyboardInterrupt
        return write(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(datasets, "write_tar", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_export(run=output, output=target, to="webdataset", items=5)
    assert sorted(path.name for path in target.iterdir()) == ["_export.json", "shard-000000.tar"]
    first = (target / "shard-000000.tar").stat().st_mtime_ns
    made.extend([1] * 5)
    assert run_export(run=output, output=target, to="webdataset", items=5).rows == 9
    assert len(made) == 9 and (target / "shard-000000.tar").stat().st_mtime_ns == first
    with pytest.raises(SettingsError, match="another export"):
        run_export(run=output, output=target, to="webdataset", items=6)
    run_export(run=output, output=target, to="webdataset", items=6, overwrite=True)
    assert sorted(path.name for path in target.glob("*.tar")) == ["shard-000000.tar", "shard-000001.tar"]


def test_a_folder_of_something_else_is_refused(run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(SettingsError, match="has files in it"):
        run_export(run=run[0], output=tmp_path / "mine", to="hf", overwrite=True)


@pytest.mark.processes
def test_a_row_of_one_channel_or_of_a_parquet_file_is_handed_on_as_it_was_heard(tmp_path: Path) -> None:
    time = np.arange(2 * RATE) / RATE
    left, right = (np.rint(9000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16) for hertz in (300, 700))
    soundfile.write(tmp_path / "both.wav", np.stack([left, right], axis=1), RATE)
    inside = (tmp_path / "both.wav").read_bytes()
    pq.write_table(pa.table({"audio": [inside]}), tmp_path / "a.parquet")
    uris = [str(tmp_path / "both.wav"), row_uri(tmp_path / "a.parquet", 0, "audio", "both.wav")]
    run = write_answers(tmp_path / "run", answer_rows(uris, ["a", "b"], only_channel=[1, 0]))
    run_export(run=run, output=tmp_path / "wds", to="webdataset")
    with tarfile.open(tmp_path / "wds" / "shard-000000.tar") as tar:
        sounds = [tar.extractfile(name).read() for name in tar.getnames() if name.endswith("flac")]  # type: ignore[union-attr]
    for heard, wanted in zip(sounds, (right, left), strict=True):
        np.testing.assert_array_equal(soundfile.read(io.BytesIO(heard), dtype="int16")[0], wanted)
    some = write_answers(tmp_path / "some", answer_rows(uris, ["a", "b"], only_channel=[None, 0]))
    run_export(run=some, output=tmp_path / "hf", to="hf")
    told = pq.read_table(tmp_path / "hf" / "data" / "train-00000.parquet")["only_channel"]
    assert (told.type, told.to_pylist()) == (pa.int64(), [None, 0])
    run_export(run=run, output=tmp_path / "whole", to="webdataset", per="file")
    with tarfile.open(tmp_path / "whole" / "shard-000000.tar") as tar:
        whole = [tar.extractfile(name).read() for name in tar.getnames() if name.endswith("wav")]  # type: ignore[union-attr]
    assert whole == [inside, inside]
