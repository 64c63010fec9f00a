"""What a program may give as a sound."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from mats_core.audio.file import AudioError
from mats_core.audio.sources import Stretch, decoded_chunks, on_disk, samples_of
from mats_core.errors import SettingsError

STAIRS = np.linspace(-0.5, 0.5, 101, dtype=np.float32)


@pytest.mark.parametrize(
    ("waveform", "scale"),
    [
        (STAIRS, 0),
        (STAIRS.astype(np.float64), 0),
        (torch.from_numpy(STAIRS), 0),
        (torch.from_numpy(STAIRS).requires_grad_(), 0),
        (np.round(STAIRS * 32768).astype(np.int16), 2e-5),
        (np.round(STAIRS * 2.0**31).astype(np.int32), 1e-7),
        (np.round(STAIRS * 128 + 128).astype(np.uint8), 5e-3),
        (torch.from_numpy(STAIRS).bfloat16(), 2e-3),
        (np.stack([STAIRS * 2, STAIRS * 0]), 1e-7),
        (np.stack([STAIRS * 2, STAIRS * 0], axis=1), 1e-7),
        (STAIRS[None], 0),
        (STAIRS[:, None], 0),
    ],
)
def test_a_waveform_is_float32_mono(waveform: Any, scale: float) -> None:
    """Whole numbers by their width, channels averaged wherever they stand."""
    for given in ((waveform, 8000), (8000, waveform)):
        found = samples_of(given)
        assert found is not None and found[1] == 8000 and found[0].dtype == np.float32 and found[0].ndim == 1
        np.testing.assert_allclose(found[0], STAIRS, atol=scale)
    alone = samples_of(waveform, sample_rate=11025)
    assert alone is not None and alone[1] == 11025
    np.testing.assert_allclose(alone[0], STAIRS, atol=scale)


def test_what_is_no_number_is_silence_before_channels_are_averaged() -> None:
    found = samples_of((np.array([[np.nan, 1.0], [0.5, np.inf]] * 100, np.float32), 8000))
    assert found is not None and found[0][:2].tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (STAIRS, "of type ndarray, without a rate; .* sample_rate="),
        ((STAIRS, "44100"), "its sample rate is '44100'"),
        ((STAIRS, 0), "its sample rate is 0"),
        ((np.zeros((3, 4, 5)), 8000), r"shape \[3, 4, 5\] is not mono"),
        ((np.zeros((200, 300)), 8000), r"shape \[200, 300\] is not mono"),
        ((np.array(["a"]), 8000), "waveform is of <U1"),
    ],
)
def test_what_is_no_waveform_is_refused(source: Any, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        samples_of(source)


LONG = np.random.default_rng(3).integers(-9000, 9000, 2000 * 150).astype(np.int16)
"""150 s at 2 kHz."""


@pytest.mark.parametrize(
    ("stretch", "heard"),
    [
        (None, [(0, 60), (60, 120), (120, 150)]),
        ((60.0, None), [(60, 120)]),
        ((120.0, None), [(120, 150)]),
        ((60.0004, None), [(60, 120)]),
        ((70.0, None), [(70, 130)]),
        ((0.0, 60.0), [(0, 60)]),
        ((7.5, 12.25), [(7.5, 12.25)]),
        ((10.0, 140.0), [(10, 70), (70, 130), (130, 140)]),
        ((130.0, 500.0), [(130, 150)]),
        ((130.0, 1e15), [(130, 150)]),
        ((10.0, math.inf), [(10, 70), (70, 130), (130, 150)]),
        ((150.0, 1e18), []),
        ((1e6, math.inf), []),
        ((None, 9.0), [(0, 9)]),
        ((None, None), [(0, 60), (60, 120), (120, 150)]),
        ((150.0, 151.0), []),
    ],
)
@pytest.mark.parametrize("as_file", [False, pytest.param(True, marks=pytest.mark.processes)])
def test_a_stretch_is_decoded_alone(
    tmp_path: Path, stretch: tuple[float | None, float | None] | None, heard: list[tuple[float, float]], as_file: bool
) -> None:
    soundfile.write(tmp_path / "long.wav", LONG, 2000)
    source = tmp_path / "long.wav" if as_file else (LONG, 2000)
    found = decoded_chunks(source, 2000, 10.0, stretch=Stretch(*stretch) if stretch else None)
    assert [start for start, _ in found] == pytest.approx([start for start, _ in heard], abs=1e-3)
    for (_, decoded), (start, end) in zip(found, heard, strict=True):
        np.testing.assert_array_equal(decoded.samples, LONG[round(start * 2000) : round(end * 2000)])


@pytest.mark.parametrize(
    ("stretch", "told"),
    [
        ((-3.0, None), "from -3 s to the end of the file, which is none"),
        ((-3.0, 5.0), "from -3 s to 5 s, which is none"),
        ((5.0, -3.0), "from 5 s to -3 s, which is none"),
        ((5.0, 3.0), "from 5 s to 3 s, which is none"),
        ((None, -9.0), "from 0 s to -9 s, which is none"),
        ((math.nan, None), "from nan s"),
        ((math.inf, math.inf), "from inf s"),
        ((1.0, math.nan), "to nan s"),
    ],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_what_is_no_stretch_is_refused(
    tmp_path: Path, stretch: tuple[float | None, float | None], told: str, as_file: bool
) -> None:
    """Of samples, -3 s would be 3 s before their end, and of a file its decoder would be said to have failed."""
    source = tmp_path / "long.wav" if as_file else (LONG, 2000)
    with pytest.raises(AudioError, match=told) as refused:
        decoded_chunks(source, 2000, 10.0, stretch=Stretch(*stretch))
    assert refused.value.code == "refused"


@pytest.mark.processes
def test_one_channel_of_a_file_is_decoded_alone(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "two.wav", np.stack([LONG, -LONG // 2], axis=1), 2000)
    ((start, decoded),) = decoded_chunks(tmp_path / "two.wav", 2000, 10.0, stretch=Stretch(7.0, 9.0, 1))
    assert start == 7.0
    np.testing.assert_array_equal(decoded.samples, (-LONG // 2)[14000:18000])


@pytest.mark.parametrize("axis", [0, 1])
def test_one_channel_of_samples_is_heard_alone(axis: int) -> None:
    two = np.stack([LONG, -LONG // 2], axis=axis)
    for channel, own in enumerate((LONG, -LONG // 2)):
        ((_, decoded),) = decoded_chunks((two, 2000), 2000, 10.0, stretch=Stretch(7.0, 9.0, channel))
        np.testing.assert_array_equal(decoded.samples, own[14000:18000])
    ((_, decoded),) = decoded_chunks((LONG, 2000), 2000, 10.0, stretch=Stretch(7.0, 9.0, 0))
    np.testing.assert_array_equal(decoded.samples, LONG[14000:18000])
    for samples, channel, told in ((two, 2, "have 2;"), (two, -1, "have 2;"), (LONG, 1, "have 1;")):
        with pytest.raises(SettingsError, match=f"channel: channel {channel} is asked for, and the samples {told}"):
            decoded_chunks((samples, 2000), 2000, 10.0, stretch=Stretch(7.0, 9.0, channel))


def test_other_sources_are_no_samples() -> None:
    for source in ("a.wav", b"a.wav", Path("a.wav"), io.BytesIO(), None, 3):
        assert samples_of(source) is None


class Stream(io.RawIOBase):
    """Bytes that can be read once, and not sought, as of a web server."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


def test_an_open_file_is_read_from_where_it_stands() -> None:
    file = io.BytesIO(b"skipped, heard")
    file.seek(9)
    for source in (file, Stream(b"heard")):
        with on_disk(source) as place:
            assert Path(place).read_bytes() == b"heard"
        assert not Path(place).exists()
    with on_disk("https://example.org/a.wav") as place:
        assert place == "https://example.org/a.wav"


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(SettingsError, match='reading it gives str, not bytes; open it with "rb"'),
        on_disk(io.StringIO("a")),
    ):
        pass
    with pytest.raises(SettingsError, match="of type int; give a path"), on_disk(7):
        pass
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(AudioError), on_disk(closed):
        pass

    class Endless:
        def read(self, count: int) -> bytes:
            return bytes(1000)

    monkeypatch.setattr("mats_core.audio.sources.DecodeLimits", lambda: type("Limits", (), {"max_bytes": 2500}))
    with on_disk(Endless()) as place:
        assert Path(place).stat().st_size == 3000  # more than is allowed, which the decoder refuses
