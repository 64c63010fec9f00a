"""How loud a stretch of sound is, what of it is clipped, and what of it is silence. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SILENCE_DBFS = -70.0
"""Sound below this level (dB of full scale, RMS) counts as silence: a 16-bit sample moves by ten steps there."""
FLOOR_DBFS = -120.0
"""The level of digital silence: a number, so that it can be sorted and compared."""
_FULL = np.float32(1.0 - 2.0**-15)
_QUIET = np.float32(0.01)


@dataclass(frozen=True)
class Levels:
    """peak_dbfs, rms_dbfs: the largest sample and the root mean square of the mono mix, in dB of full scale, at least
    FLOOR_DBFS; the mean is taken off before the RMS, for a constant offset is no sound. clipped: share of all channels'
    samples that are at full scale. cancels: whether the mix is silence while the channels are not.
    """

    peak_dbfs: float = FLOOR_DBFS
    rms_dbfs: float = FLOOR_DBFS
    clipped: float = 0.0
    cancels: bool = False


SILENT = Levels()
"""Of digital silence, and of no sound at all."""


class LevelMeter:
    """Levels of blocks of sound, as they come."""

    def __init__(self) -> None:
        self._count = self._clipped = self._samples = 0
        self._peak = self._offset = self._sum = self._squares = 0.0
        self._apart = 0.0  # RMS of the loudest channel, over blocks whose mix is quiet: squares of it

    def add(self, block: npt.NDArray[np.float32], mono: npt.NDArray[np.float32]) -> None:
        """block: [T, C]; mono: [T], its mix."""
        if not len(mono):
            return
        peak = float(max(mono.max(), -mono.min()))
        self._peak = max(self._peak, peak)
        if not self._count:
            self._offset = float(mono.mean(dtype=np.float64))  # near the mean of all, lest squares of it drown the rest
        self._count += len(mono)
        apart = mono - np.float32(self._offset)
        self._sum += float(apart.sum(dtype=np.float64))
        self._squares += float(np.dot(apart, apart))
        self._samples += block.size
        if block.max() >= _FULL or block.min() <= -_FULL:
            self._clipped += int((np.abs(block) >= _FULL).sum())
        if block.shape[1] > 1 and peak < _QUIET:
            self._apart += float(block.var(axis=0).max()) * len(block)

    def levels(self) -> Levels:
        """Of all blocks so far."""
        if not self._count:
            return SILENT
        mean = self._sum / self._count
        rms = math.sqrt(max(0.0, self._squares / self._count - mean * mean))
        apart = math.sqrt(self._apart / self._count)
        return Levels(
            round(dbfs(self._peak), 2),
            round(dbfs(rms), 2),
            self._clipped / self._samples,
            dbfs(rms) < SILENCE_DBFS <= dbfs(apart),
        )


def dbfs(amplitude: float) -> float:
    """An amplitude (1 is full scale) in dB, at least FLOOR_DBFS."""
    return max(FLOOR_DBFS, 20.0 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DBFS


def levels_of(samples: npt.NDArray[np.int16]) -> Levels:
    """Levels of mono int16 samples [T]."""
    meter = LevelMeter()
    mono = samples.astype(np.float32) / np.float32(32768.0)
    meter.add(mono[:, None], mono)
    return meter.levels()


def joined_levels(parts: Sequence[tuple[Levels, float]]) -> Levels:
    """Levels of stretches one behind the other, each with its seconds; the RMS is about each one's own mean."""
    seconds = sum(length for _, length in parts)
    if seconds <= 0:
        return SILENT
    power = sum(10.0 ** (each.rms_dbfs / 10.0) * length for each, length in parts) / seconds
    return Levels(
        max(each.peak_dbfs for each, _ in parts),
        round(max(FLOOR_DBFS, 10.0 * math.log10(power)), 2),
        sum(each.clipped * length for each, length in parts) / seconds,
    )


def is_silent(samples: npt.NDArray[np.int16] | npt.NDArray[np.float32], below_dbfs: float = SILENCE_DBFS) -> bool:
    """Whether samples [T] (int16, or float32 in -1 … 1) lie below a level, an offset left out; below FLOOR_DBFS lies
    nothing."""
    if below_dbfs <= FLOOR_DBFS or not len(samples):
        return below_dbfs > FLOOR_DBFS
    scale = 32768.0 if samples.dtype == np.int16 else 1.0
    level, spread = 10.0 ** (below_dbfs / 20.0), (float(samples.max()) - float(samples.min())) / scale
    if spread < 2.0 * level:  # the RMS about the mean is at most half of it
        return True
    if spread > math.sqrt(2.0 * len(samples)) * level:  # and at least that of these two samples
        return False
    wave = samples.astype(np.float32) / np.float32(scale)
    apart = wave - np.float32(wave.mean(dtype=np.float64))
    return math.sqrt(float(np.dot(apart, apart)) / len(wave)) < level
