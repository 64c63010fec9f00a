"""Tags in front of the sound, whatever its format."""

from __future__ import annotations

import io

import numpy as np
import pytest

from mats_core.audio.decode import decode, probe
from mats_core.audio.file import SourceFile
from mats_core.audio.repair import repair
from tests.recordings import encode, melody


def id3(length: int, footer: bool = False) -> bytes:
    """An ID3v2 tag that holds `length` bytes, as of a picture."""
    size = bytes(length >> shift & 0x7F for shift in (21, 14, 7, 0))
    head = b"ID3\4\0" + bytes([0x10 if footer else 0]) + size
    return head + b"\1\2\3\4" * (length // 4) + bytes(length % 4) + (b"3DI" + head[3:] if footer else b"")


@pytest.mark.parametrize(
    "kind", ["flac", "wav", "aiff", "ogg", "opus", "m4a", "webm", "aac", "mp3", "ircam", "adx", "ast"]
)
@pytest.mark.parametrize("tag", [id3(40), id3(90_000), id3(70) + id3(5000, footer=True)])
def test_a_tag_in_front_of_any_format_hides_nothing(kind: str, tag: bytes) -> None:
    data = encode(melody(48000, 2.0), 48000, kind)
    bare, tagged = probe(io.BytesIO(data)), probe(io.BytesIO(tag + data))
    assert tagged == bare
    for start_s in (0.0, 1.25):
        expected = decode(io.BytesIO(data), sample_rate=16000, start_s=start_s)
        got = decode(io.BytesIO(tag + data), sample_rate=16000, start_s=start_s)
        assert np.array_equal(got.samples, expected.samples)
        assert got.complete


def test_a_tag_without_sound_behind_it_stays_what_it_is() -> None:
    file = SourceFile(io.BytesIO(id3(100) + b"no sound at all"))
    repair(file, None, in_memory=True)
    assert file.size == 110 + 15
