"""Sounds for what others write around them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000


def sound(seconds: float = 1.0, hertz: float = 440.0, right: float | None = None, kind: str = "WAV") -> bytes:
    """A tone as a file; with `right`, another one on a second channel."""
    time = np.arange(round(seconds * RATE)) / RATE
    tones = [0.3 * np.sin(2 * np.pi * each * time) for each in (hertz, right) if each]
    file = io.BytesIO()
    soundfile.write(file, np.stack(tones, axis=1), RATE, format=kind)
    return file.getvalue()


def write(path: Path, *args: float, **kwargs: float) -> Path:
    """A tone as a file on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sound(*args, **kwargs))  # type: ignore[arg-type]
    return path


def loudest(samples: np.ndarray, rate: int) -> float:
    """The frequency that is loudest in int16 [T]."""
    power = np.abs(np.fft.rfft(samples.astype(np.float64)))
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[int(power.argmax())])
