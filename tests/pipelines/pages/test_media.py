"""Pictures and previews: a tone lies at its height, time runs from left to right."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from pipelines.pages import media
from tests.pipelines.pages.made_up import RATE, tone


def test_a_tone_is_a_line_at_its_height() -> None:
    for hertz in (300.0, 1000.0, 4000.0):
        picture = media.mel_picture(tone(hertz, 2.0))
        assert picture.shape == (media.PICTURE_HEIGHT, media.PICTURE_WIDTH)
        loudest = picture[:, 20:-20].mean(axis=1).argmax()
        from_bottom = 1 - (loudest + 0.5) / media.PICTURE_HEIGHT
        assert from_bottom == pytest.approx(media.height_of(hertz), abs=0.02)


def test_time_runs_from_left_to_right_over_the_whole_width() -> None:
    quiet = np.zeros(3 * RATE, np.int16)
    for share in (0.25, 0.5, 0.75):
        clicked = quiet.copy()
        at = int(share * len(quiet))
        clicked[at : at + 200] = 20000
        column = media.mel_picture(clicked).mean(axis=0).argmax()
        assert column / media.PICTURE_WIDTH == pytest.approx(share, abs=0.02)


def test_silence_is_dark_and_one_sample_is_enough() -> None:
    assert media.mel_picture(np.zeros(RATE, np.int16)).max() == 0
    assert media.mel_picture(np.zeros(1, np.int16)).max() == 0


def test_picture_is_small_webp() -> None:
    noise = np.random.default_rng(0).normal(0, 3000, 5 * RATE).astype(np.int16)
    data = media.spectrogram_webp(noise)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("WEBP", (media.PICTURE_WIDTH, media.PICTURE_HEIGHT))
    assert len(data) < 30_000


def test_preview_is_the_first_seconds_at_about_24_kbit_a_second() -> None:
    samples = np.concatenate([tone(500, 4.0), tone(3000, 4.0)])
    data = media.preview_mp3(samples, 4.0)
    heard, rate = soundfile.read(io.BytesIO(data))
    assert rate == RATE
    assert heard.ndim == 1
    assert len(heard) / rate == pytest.approx(4.0, abs=0.15)
    assert len(data) * 8 / 4.0 == pytest.approx(24_000, rel=0.1)
    middle = heard[RATE : 3 * RATE]
    assert np.abs(np.fft.rfft(middle)).argmax() / 2 == pytest.approx(500, abs=2)
