"""Chunks and windows: how a file is cut into pieces of about a minute, and these into what an encoder hears at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TAIL_S = 0.05  # a rest shorter than this belongs to the chunk before it
MOST_CUT_S = 1e7
"""What is said to be longer than this, 116 days, is not cut into chunks: the largest file that is read (8 GiB) does not
last so long, and an end so far away means "to the end"."""


@dataclass(frozen=True)
class Window:
    """samples[start:stop] of a chunk; `weight` is the seconds in it that no window before has covered."""

    start: int
    stop: int
    weight: float


def windows(num_samples: int, sample_rate: int, window_seconds: float) -> list[Window]:
    """Cut a chunk into consecutive windows (DESIGN.md, "Windows").

    A last, shorter one is moved back to end with the chunk where a full one came before, and weighs by its
    new seconds. A chunk shorter than a window is one window, for the encoder to pad. No samples, no
    windows.
    """
    size = round(window_seconds * sample_rate)
    if size <= 0:
        raise ValueError(f"window_seconds {window_seconds} at {sample_rate} Hz is less than a sample")
    cut = [Window(start, start + size, size / sample_rate) for start in range(0, num_samples - size + 1, size)]
    rest = num_samples - len(cut) * size
    if rest > 0:
        cut.append(Window(max(0, num_samples - size), num_samples, rest / sample_rate))
    return cut


def chunk_seconds(window_seconds: float) -> float:
    """Length of a chunk: as many whole windows as fit a minute, at least one (7 → 56, 10 → 60)."""
    if not window_seconds > 0:
        raise ValueError(f"window_seconds must be positive, got {window_seconds}")
    return max(1, math.floor(60.0 / window_seconds + 1e-9)) * window_seconds


def chunk_starts(duration_s: float | None, chunk_s: float) -> list[tuple[float, float | None]]:
    """(start, length) in seconds of a file's chunks. The last has no length: it reads to the end of the file.

    A rest shorter than 50 ms belongs to the chunk before it: headers round. A file whose length is not known (None), or
    cannot be true (MOST_CUT_S), is one chunk.
    """
    if duration_s is None or duration_s > MOST_CUT_S:
        return [(0.0, None)]
    count = max(1, math.ceil((duration_s - TAIL_S) / chunk_s))
    return [(index * chunk_s, chunk_s) for index in range(count - 1)] + [((count - 1) * chunk_s, None)]


def no_stretch(start_s: float, end_s: float | None, most_s: float = math.inf) -> str | None:
    """Why there is no sound from `start_s` to `end_s` (None: the end), whatever the sound, in words that go on from its
    name; None where there may be. most_s: the latest that either may be."""
    if 0.0 <= start_s <= most_s and start_s < math.inf and (end_s is None or start_s < end_s <= most_s):
        return None
    ends = "the end of the file" if end_s is None else f"{end_s:g} s"
    return f"is the stretch from {start_s:g} s to {ends}, which is none"


def stretch_starts(
    duration_s: float | None, chunk_s: float, start_s: float = 0.0, end_s: float | None = None
) -> list[tuple[float, float | None]]:
    """(start, length) in seconds of the chunks of what lies between `start_s` and `end_s` of a sound.

    duration_s: how long all of the sound is said to be, None where that is not known. Without an end (None, infinity)
    the last chunk has no length: it reads to the end of the sound. An end behind that of the sound is the sound's; one
    of which that cannot be told, and which is more than MOST_CUT_S away, counts as none.
    """
    end = math.inf if end_s is None else end_s
    # note: behind the end that a header tells there may be sound all the same, and reading finds it
    stop = min(end, duration_s) if duration_s is not None and duration_s > start_s else end
    chunks = [(start_s + at, length) for at, length in chunk_starts(stop - start_s, chunk_s)]
    if math.isinf(end) or stop - start_s > MOST_CUT_S:
        return chunks
    return [*chunks[:-1], (chunks[-1][0], stop - chunks[-1][0])]


def window_starts(length_s: float, sample_rate: int, window_seconds: float) -> list[tuple[float, float]]:
    """(start, length) in seconds of a chunk's windows; a rest shorter than 50 ms belongs to the window before it."""
    cut = windows(max(1, round(length_s * sample_rate)), sample_rate, window_seconds)
    if len(cut) > 1 and cut[-1].weight < TAIL_S:
        cut.pop()
    return [(each.start / sample_rate, (each.stop - each.start) / sample_rate) for each in cut]


def is_long(weights: Iterable[float]) -> bool:
    """Whether windows of these weights (seconds; 0 where silent) are a long sound: more than one and a half of them.

    What is pooled of it is a mean, and like no single window's embedding.
    """
    seconds = [float(weight) for weight in weights]
    return sum(seconds) > 1.5 * max(seconds, default=0.0)


def pool_windows(
    embeddings: npt.NDArray[np.float32] | Sequence[npt.NDArray[np.float32]], weights: Iterable[float]
) -> npt.NDArray[np.float32]:
    """Weighted mean of unit window embeddings [W, D], normalised: float32 [D].

    Summed in float64, so that the result does not depend on how it was batched. Where the windows cancel
    out (a mean of zero has no direction), the heaviest window's embedding is taken. Raises ValueError for
    no window or no weight.
    """
    stacked = np.asarray(embeddings, np.float64)
    shares = np.asarray(list(weights), np.float64)
    if stacked.ndim != 2 or len(stacked) != len(shares) or not len(shares) or shares.sum() <= 0:
        raise ValueError(f"embeddings {stacked.shape} and weights {shares.shape} do not make a mean")
    mean = (stacked * shares[:, None]).sum(axis=0) / shares.sum()
    norm = float(np.linalg.norm(mean))
    if norm < 1e-9:
        return np.asarray(stacked[int(shares.argmax())], np.float32)
    return np.asarray(mean / norm, np.float32)
