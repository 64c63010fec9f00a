"""What the headers of WAV and Ogg files tell about where their sound ends, and where they tell it wrongly."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

from mats_core.errors import CodedError
from mats_core.sniff import HEAD_BYTES

if TYPE_CHECKING:
    from mats_core.source import SourceFile


def wav_samples(file: SourceFile, head: bytes) -> int | None:
    """Bytes in the data chunk of a WAV file; 0 where there is none; None where it declares more than there
    is.

    Streamed files declare 0 or the largest number; what follows the header is theirs then.
    """
    position, big = 12, head[:4] == b"RIFX"
    while position + 8 <= file.size:
        if position + 8 <= len(head):
            chunk = head[position : position + 8]
        else:
            with contextlib.suppress(CodedError):
                chunk = file.head(8, offset=position)
        if len(chunk) < 8:
            return 0
        size = struct.unpack(">I" if big else "<I", chunk[4:8])[0]
        if chunk[:4] == b"data":
            there = file.size - position - 8
            if size == 0 or size >= 0x7FFFF000 or head[:4] == b"RF64":
                return there
            return None if size > there and there else min(size, there)
        position += 8 + size + (size & 1)
    return 0


def mend_wav(file: SourceFile) -> None:
    """Let a WAV file whose sizes are stale (its recorder was stopped) read as if they reached to its end.

    They are stale where what follows the declared samples is no chunk: a name of four letters and a size that fits.
    """
    head = file.head(HEAD_BYTES)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return
    place = 12
    while head[place : place + 4] != b"data":
        if place + 8 > len(head):
            return
        size = struct.unpack("<I", head[place + 4 : place + 8])[0]
        place += 8 + size + (size & 1)
    if place + 8 > len(head):
        return
    declared = struct.unpack("<I", head[place + 4 : place + 8])[0]
    end = place + 8 + declared + (declared & 1)
    left = file.size - end
    if declared == 0 or left <= 8:
        return
    name, size = struct.unpack("<4sI", file.head(8, offset=end))
    if size <= left - 8 and all(byte < 0x80 and (byte == 0x20 or chr(byte).isalnum()) for byte in name):
        return
    whole = min(file.size - place - 8, 0xFFFFFFFF - place - 8)
    file.patch(place + 4, struct.pack("<I", whole))
    file.patch(4, struct.pack("<I", place + whole))


def ogg_has_end(file: SourceFile) -> bool:
    """Whether the last page of an Ogg file carries the end-of-stream flag."""
    tail = file.head(1 << 16, offset=max(0, file.size - (1 << 16)))
    page = tail.rfind(b"OggS")
    return page >= 0 and len(tail) > page + 5 and bool(tail[page + 5] & 4)
