from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from mats_core.audio.file import AudioError
from mats_core.storage.uris import row_uri
from pipelines.serve.sounds import Sounds, byte_range, file_blocks, file_size
from tests.pipelines.pages.made_up import row, tone

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def sounds() -> Iterator[Sounds]:
    found = Sounds()
    yield found
    found.close()


def test_a_row_is_its_stretch_at_the_files_own_rate(sounds: Sounds, tmp_path: Path) -> None:
    """Half a second of low, then of high tone in AIFF, which browsers do not play; the row is the second half."""
    both = np.concatenate([tone(200, 0.5), tone(2000, 0.5)])
    soundfile.write(tmp_path / "two.aiff", np.stack([both, both], axis=1), 16_000, subtype="PCM_16")
    asked = row(0, str(tmp_path / "two.aiff"), start_s=0.5, decoded_s=0.5, sample_rate=16_000)
    data, rate = soundfile.read(io.BytesIO(sounds.wav("a", asked)), dtype="int16")
    assert rate == 16_000 and abs(len(data) - 8000) <= 2
    assert np.abs(data[100:-100].astype(int) - tone(2000, 0.5)[100:-100]).max() < 40
    assert sounds.wav("a", row(1, "/none")) == sounds.wav("a", asked), "it is kept"


def test_a_picture_is_a_spectrogram(sounds: Sounds, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "high.wav", tone(4000, 1), 16_000, subtype="PCM_16")
    picture = Image.open(io.BytesIO(sounds.picture("p", row(0, str(tmp_path / "high.wav")))))
    assert picture.format == "WEBP" and picture.size == (480, 112)
    light = np.asarray(picture.convert("L")).astype(float).mean(axis=1)
    assert light[:56].max() > light[56:].max() + 50, "the tone lies in the upper half"


@pytest.mark.parametrize("content", [b"", b"<html>no sound</html>" * 99])
def test_what_is_no_sound_is_an_error(sounds: Sounds, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(AudioError):
        sounds.wav(content, row(0, str(tmp_path / "x.wav")))
    with pytest.raises(AudioError):
        sounds.check(str(tmp_path / "x.wav"))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None), ("bytes=0-", (0, 99)), ("bytes=10-19", (10, 19)), ("bytes=90-500", (90, 99)),
        ("bytes=-10", (90, 99)), ("bytes=-500", (0, 99)), ("bytes=0-0", (0, 0)),
        ("bytes=0-1,5-6", None), ("items=0-1", None), ("bytes=a-b", None), ("bytes=-", None), ("bytes=1--2", None),
    ],
)  # fmt: skip
def test_ranges(header: str | None, found: tuple[int, int] | None) -> None:
    assert byte_range(header, 100) == found


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=20-10", "bytes=-0", "bytes=999-1000"])
def test_ranges_that_there_are_not(header: str) -> None:
    with pytest.raises(ValueError):
        byte_range(header, 100)


def test_the_size_of_what_a_store_does_not_tell(tmp_path: Path) -> None:
    pq.write_table(pa.table({"audio": [b"x" * 12_345]}), tmp_path / "a.parquet")
    assert file_size(row_uri(tmp_path / "a.parquet", 0, "audio", "both.wav")) == 12_345
    (tmp_path / "f").write_bytes(b"y" * 7)
    assert file_size(str(tmp_path / "f")) == 7


def test_a_stretch_of_a_file_comes_in_blocks(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(1 << 20)
    (tmp_path / "f").write_bytes(data)
    for first, last in ((0, len(data) - 1), (5, 5), (1 << 18, (1 << 19) + 3)):
        found = b"".join(itertools.chain(file_blocks(str(tmp_path / "f"), first, last)))
        assert found == data[first : last + 1]
