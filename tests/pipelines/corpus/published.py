"""Small samples of published files, and the clips that are read of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from pipelines.corpus.clips import PublishedClip
from pipelines.corpus.definition import load_corpus_set
from pipelines.corpus.reading import AskedClips, Tally, find_asked, missing, read_clips


def write(root: Path, files: dict[str, str | bytes]) -> str:
    """Files below a folder; audio is a name with nothing in it, which is never opened."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(root)


def clips_of(name: str, root: str, asked: AskedClips | None = None, tally: Tally | None = None) -> list[PublishedClip]:
    """The clips of a set, as records are made of them."""
    definition = load_corpus_set(name)
    assert missing(definition, root) == []
    asked = find_asked(root) if asked is None else asked
    clips = list(read_clips(definition, root, asked, Tally() if tally is None else tally))
    for clip in clips:
        assert (clip.source, clip.split) == (name, definition.split)
    return clips


def refused(name: str, root: str, *words: str) -> None:
    """Reading a set ends with an error that has these words in it."""
    with pytest.raises(SettingsError) as error:
        clips_of(name, root)
    assert str(error.value).startswith(f"corpus: {name}")
    for word in words:
        assert word in str(error.value)
