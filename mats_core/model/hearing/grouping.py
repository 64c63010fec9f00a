"""Clips of a minute → one of the whole file, or one a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mats_core.audio.levels import joined_levels
from mats_core.audio.windows import TAIL_S
from mats_core.errors import SettingsError

if TYPE_CHECKING:  # a pipeline that is set up needs no torch
    from mats_core.model.hearing.clips import Clip

PER = ("minute", "file", "window")


def regrouped(clips: Sequence[Clip], per: str) -> list[Clip]:
    """The clips of one sound, in order, as they are to be asked.

    per: minute (as they are), file (one clip with all windows, so that its pooled embedding weighs each by its seconds)
    or window. Raises SettingsError for another word.
    """
    if per not in PER:
        raise SettingsError("per", f'there is no answer per "{per}"', f"choose {', '.join(PER)}")
    if per == "minute" or not clips:
        return list(clips)
    return [_whole(clips)] if per == "file" else [each for clip in clips for each in _windows(clip)]


def _whole(clips: Sequence[Clip]) -> Clip:
    first = clips[0]
    levels = [(clip.levels, clip.seconds) for clip in clips if clip.levels is not None]
    return replace(
        first,
        embeddings=np.concatenate([clip.embeddings for clip in clips]),
        weights=np.concatenate([clip.weights for clip in clips]),
        starts=np.concatenate([clip.starts + (clip.start_s - first.start_s) for clip in clips]),
        seconds=clips[-1].start_s + clips[-1].seconds - first.start_s,
        complete=all(clip.complete for clip in clips),
        lost_s=sum(clip.lost_s for clip in clips),
        levels=joined_levels(levels) if levels else None,
    )


def _windows(clip: Clip) -> list[Clip]:
    stops = [*range(1, len(clip.starts)), len(clip.starts)]
    if has_tail(clip.starts):  # a rest belongs to the window before it
        stops = [*stops[:-2], len(clip.starts)]
    return [
        replace(
            clip,
            embeddings=clip.embeddings[at:stop],
            weights=clip.weights[at:stop],
            starts=clip.starts[at:stop] - clip.starts[at],
            seconds=min(float(clip.starts[stop - 1]) + clip.window_s, clip.seconds) - float(clip.starts[at]),
            start_s=clip.start_s + float(clip.starts[at]),
            levels=None,
        )
        for at, stop in enumerate(stops)
    ]


def has_tail(starts: Sequence[float] | np.ndarray) -> bool:
    """Whether the last of the windows that begin so is less than 50 ms more than the one before it."""
    return len(starts) > 1 and float(starts[-1]) - float(starts[-2]) < TAIL_S
