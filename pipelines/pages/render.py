"""Templates → pages that need nothing from outside, and whether a page can be written where it is to go."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from mats_core import storage
from mats_core.errors import SettingsError, counted
from mats_core.storage.clients import READ_ONLY
from mats_core.storage.uris import Uri, local_path, printable, public_uri, scheme, uri_text
from pipelines.pages.charts import PICTURE_MARK
from pipelines.pages.media import height_of

TEMPLATES = Path(__file__).parent / "templates"
MARK = '<meta name="generator" content="MATS">'
"""Stands at the beginning of every page of ours: only such a page is replaced without being asked to."""
HEAD_BYTES = 4096
PITCHES = ((300.0, "300 Hz"), (1000.0, "1 kHz"), (4000.0, "4 kHz"))
"""Frequencies that are marked beside a spectrogram."""


def render_page(template: str, **values: Any) -> bytes:
    """The page that a template of ours makes of these values, in UTF-8.

    Templates have the filters ``clock``, ``at_time``, ``ticks``, and ``pitches``: (height in the picture, label).
    """
    return template_environment(TEMPLATES).get_template(template).render(**values).encode("utf-8")


@lru_cache
def template_environment(*folders: Path) -> jinja2.Environment:
    """Templates of these folders, with our filters; everything is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = clock
    environment.filters["at_time"] = at_time
    environment.filters["ticks"] = _ticks
    environment.filters["counted"] = counted
    environment.globals["generator"] = MARK
    environment.globals["pitches"] = [(height_of(hertz), label) for hertz, label in PITCHES]
    return environment


def clock(seconds: float | None) -> str:
    """3.24 → "3.2 s", 75 → "1:15", 4000 → "1:06:40"; "" for None."""
    if seconds is None:
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def at_time(seconds: float) -> str:
    """A place in a recording: 7.3 → "0:07", 175 → "2:55", 4000 → "1:06:40"."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _ticks(shown_s: float, start_s: float = 0.0) -> list[tuple[float, str]]:
    """Times to write below a spectrogram of this length: (share of the width, text), from its start in the file."""
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if shown_s / s <= 6.5), 60)
    times = np.arange(0, shown_s - step * 0.35, step)
    if start_s + shown_s > 61:
        return [(float(t / shown_s), at_time(start_s + t + 0.5)) for t in times]
    return [(float(t / shown_s), f"{start_s + t:g}" + (" s" if i == 0 else "")) for i, t in enumerate(times)]


def check_page(out: Uri, overwrite: bool = False, setting: str = "out") -> None:
    """Raise SettingsError, named after `setting`, where no page can be written, or a file is that is no page of ours.

    overwrite: whatever is there may be replaced. Leaves nothing there. A store is only asked what it has.
    """
    check_file(out, "page", is_ours, overwrite, setting)


def check_file(out: Uri, what: str, ours: Callable[[str], bool], overwrite: bool = False, setting: str = "out") -> None:
    """As `check_page`, of another kind of file. what: what it is called; ours: whether one, by its URI, is of MATS."""
    out = uri_text(out)
    why = _unwritable(out)
    if why:
        raise SettingsError(setting, f"no {what} can be written to {public_uri(out)}: {why}", "choose another file")
    if not overwrite and storage.exists(out) and not ours(out):
        problem = f"{public_uri(out)} is there, and is no {what} that MATS has written"
        raise SettingsError(setting, problem, "choose another file, or replace this one with --overwrite")


def is_ours(uri: Uri) -> bool:
    """Whether a file is a page that `render_page` made, or a picture of ours; False for one that cannot be read."""
    try:
        with storage.open_binary(uri_text(uri), read_ahead=HEAD_BYTES) as file:
            head = file.read(HEAD_BYTES)
    except (storage.StorageError, OSError):
        return False
    return MARK.encode() in head or PICTURE_MARK.encode() in head


def _unwritable(out: str) -> str:
    path = local_path(out)
    if path is None:
        if scheme(out) in READ_ONLY:
            return f"{scheme(out)}:// is read-only"
        try:
            return "this is a folder" if storage.is_dir(out) else ""
        except storage.StorageError as error:
            return str(error)
    if os.path.exists(path) and not os.path.isfile(path):
        return "this is a folder or a device"
    folder = os.path.dirname(path)
    while not os.path.exists(folder):  # these are made with the page
        folder = os.path.dirname(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):  # note: permissions do not tell, as in /proc
            return ""
    except OSError:
        return f"none can be made in {printable(folder)}"
