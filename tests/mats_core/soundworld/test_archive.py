"""The demo archive: real files of the kinds it promises, and a truth that fits them."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mats_core.soundworld.archive import BAD_FILES, CLIPS, Clip, encode, write_archive, write_truth
from mats_core.storage.uris import printable


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[dict]]:
    folder = tmp_path_factory.mktemp("archive")
    return os.fsencode(folder), write_archive(folder, seed=3)


def files_below(root: bytes) -> set[bytes]:
    return {os.path.relpath(os.path.join(folder, name), root) for folder, _, names in os.walk(root) for name in names}


def test_truth_names_every_file_and_nothing_else(archive: tuple[bytes, list[dict]]) -> None:
    root, truth = archive
    assert {row["path"] for row in truth} == {printable(name) for name in files_below(root)}
    assert len(truth) == len(CLIPS) + len(BAD_FILES)


def test_names_are_as_untidy_as_promised(archive: tuple[bytes, list[dict]]) -> None:
    names = b"\0".join(files_below(archive[0]))
    for piece in (b" ", b"'", b'"', "ö".encode(), b"\n", b"Ger\xe4usch"):
        assert piece in names
    with pytest.raises(UnicodeDecodeError):
        names.decode("utf-8")
    assert "odd%20names/Ger%E4usch.wav" in {row["path"] for row in archive[1]}


@pytest.mark.parametrize("clip", [c for c in CLIPS if c.cut == 1], ids=lambda c: printable(c.name))
def test_each_file_is_what_its_row_says(archive: tuple[bytes, list[dict]], clip: Clip) -> None:
    data = Path(os.fsdecode(os.path.join(archive[0], clip.name))).read_bytes()
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        heard = sum(frame.samples for frame in container.decode(stream))
        assert stream.rate == clip.sample_rate
        assert stream.channels == clip.channels
    # Lossy encoders add up to two frames of padding.
    assert heard / clip.sample_rate == pytest.approx(clip.seconds, abs=0.01 if "wav" in clip.encoding else 0.15)


@pytest.mark.parametrize(
    ("encoding", "subtype"),
    [("wav16", "PCM_16"), ("wav24", "PCM_24"), ("wavfloat", "FLOAT"), ("ogg", "VORBIS"), ("aiff", "PCM_16")],
)
def test_sample_formats(encoding: str, subtype: str) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32) * 0.5
    info = soundfile.info(io.BytesIO(encode(tone, 16000, 2, encoding)))
    assert (info.subtype, info.channels, info.frames) == (subtype, 2, 16000)


def test_resampling_keeps_the_pitch() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32) * 0.5
    samples, rate = soundfile.read(io.BytesIO(encode(tone, 48000, 1, "wav24")))
    peak = np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)
    assert (rate, peak) == (48000, pytest.approx(1000, abs=1))


def test_bad_files_are_bad_in_the_way_they_should_be(archive: tuple[bytes, list[dict]]) -> None:
    root, truth = archive

    def path(name: bytes) -> bytes:
        return os.path.join(root, b"worn tapes", name)

    assert os.path.getsize(path(b"zero bytes.wav")) == 0
    assert b"RIFF" not in Path(os.fsdecode(path(b"notes.wav"))).read_bytes()
    assert soundfile.info(os.fsdecode(path(b"header without samples.wav"))).frames == 0
    assert os.path.islink(path(b"dangling link.wav"))
    assert not os.path.exists(path(b"dangling link.wav"))
    codes = {row["path"].rpartition("/")[2]: row["error_code"] for row in truth if row["error_code"]}
    assert codes == {
        "zero bytes.wav": "empty_audio",
        "notes.wav": "not_audio",
        "header without samples.wav": "empty_audio",
        "dangling link.wav": "not_found",
    }


def test_the_cut_flac_promises_more_than_it_holds(archive: tuple[bytes, list[dict]]) -> None:
    root, truth = archive
    row = next(row for row in truth if "cut" in row["path"])
    name = os.fsdecode(os.path.join(root, b"worn tapes/cut in the middle.flac"))
    assert soundfile.info(name).duration == pytest.approx(10.0)
    with av.open(name) as container:
        heard = 0
        try:
            for frame in container.decode(audio=0):
                heard += frame.samples
        except av.FFmpegError:
            pass
    assert 1.0 < heard / 44100 < 9.0
    assert (row["complete"], row["error_code"], len(row["labels"])) == (False, None, 1)


def test_scenes_have_a_truth_for_every_minute(archive: tuple[bytes, list[dict]]) -> None:
    scenes = [row for row in archive[1] if row["seconds"] >= 60]
    assert {row["seconds"] for row in scenes} == {60.0, 120.0, 180.0}
    for row in scenes:
        assert [(m["start_s"], m["end_s"]) for m in row["minutes"]] == [
            (60.0 * k, 60.0 * (k + 1)) for k in range(int(row["seconds"] // 60))
        ]
        for minute in row["minutes"]:
            assert minute["labels"]
            assert set(minute["labels"]) <= set(row["labels"])
        kinds = [label for minute in row["minutes"] for label in minute["labels"]]
        assert len(kinds) == len(set(kinds)), "each minute keeps to its own kinds"


def test_a_seed_gives_the_same_archive_and_another_seed_another(
    tmp_path: Path, archive: tuple[bytes, list[dict]]
) -> None:
    again = write_archive(tmp_path / "again", seed=3)
    other = write_archive(tmp_path / "other", seed=4)
    assert again == archive[1]
    assert [row["path"] for row in other] == [row["path"] for row in again]
    assert [row["caption"] for row in other] != [row["caption"] for row in again]
    name = "field/001.wav"
    first = Path(os.fsdecode(archive[0]), name).read_bytes()
    assert (tmp_path / "again" / name).read_bytes() == first
    assert (tmp_path / "other" / name).read_bytes() != first


def test_truth_survives_its_file(tmp_path: Path, archive: tuple[bytes, list[dict]]) -> None:
    path = tmp_path / "truth.jsonl"
    write_truth(archive[1], path)
    # A newline inside a file name must not break the lines of the file.
    lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    assert [json.loads(line) for line in lines] == archive[1]
