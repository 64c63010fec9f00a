"""Headers that say wrongly where the sound begins or ends, put right: of every kind (`repair`), and tags.

The file itself stays as it is: a `SourceFile` presents it to decoders with the right length.
"""

from __future__ import annotations

import re

from mats_core.audio.chunks import present_sound
from mats_core.audio.file import SourceFile
from mats_core.audio.readers.flac import repair_flac
from mats_core.audio.readers.mp3 import id3_bytes
from mats_core.audio.readers.ogg import repair_ogg
from mats_core.audio.signatures import HEAD_BYTES, UNKNOWN, sniff


def repair(file: SourceFile, until_s: float | None, in_memory: bool) -> None:
    """Put right what the header says wrongly of the length, as far as reading up to `until_s` (None: the end) needs it,
    and mark a file of several streams one behind the other as `joined`, or tell their `links`.

    Raises AudioError: empty_audio, decode_failed, or a storage code where reading fails.
    """
    skip_tag(file)
    present_sound(file)
    repair_flac(file, until_s, in_memory)
    repair_ogg(file)
    file.links = file.links or _joined_files(file)


def skip_tag(file: SourceFile) -> None:
    """Let a file read without the ID3 tags in front of its sound: they may stand before any format, and hide it. What
    nobody knows behind them may still be MP3: `tagged`."""
    if place := id3_bytes(file):
        behind = sniff(file.head(HEAD_BYTES, offset=place))
        file.tagged = behind.name == UNKNOWN
        if behind.kind == "audio" or file.tagged:
            file.present(b"", place, file.size)


def _joined_files(file: SourceFile) -> list[tuple[int, int]]:
    """[begin, end) of the Matroska, WebM, ASF, FLV or NUT files that stand one behind the other in `file`, as live
    segments do: their times begin anew, and FFmpeg hears the first alone, or two. Empty where there is one."""
    head = file.head(HEAD_BYTES)
    end = 0  # where the first ends by its header
    if head[:4] == _EBML:
        place, known = 4, len(head)
        for name in (4, 0):  # its own header, then the segment
            first = head[place] if place < len(head) else 0
            count = 9 - first.bit_length()
            size = int.from_bytes(head[place : place + count], "big") & (1 << 7 * count) - 1
            place += count
            if name:
                known, place = place + size, place + size + name
        begin = head[:known]
        end = 0 if size == (1 << 7 * count) - 1 else place + size
    elif head[:8] == _ASF:
        begin, at = head[:16], head.find(_ASF_FILE)
        end = int.from_bytes(head[at + 40 : at + 48], "little") if at > 0 else 0
    else:
        begin = head[: {b"FLV\x01": 13, b"nut/": 25}.get(head[:4], 0)]
    if not begin or file.size > _SEARCHED_BYTES or (end and file.head(len(begin), offset=end) != begin):
        return []
    found: list[int] = []
    for offset in range(0, file.size, _BLOCK):
        data = file.head(_BLOCK + len(begin) - 1, offset=offset)
        found += [offset + match.start() for match in re.finditer(re.escape(begin), data)]
    return list(zip(found, [*found[1:], file.size], strict=True)) if len(found) > 1 else []


_SEARCHED_BYTES, _BLOCK = 256 << 20, 1 << 20
_EBML = b"\x1aE\xdf\xa3"
_ASF, _ASF_FILE = b"0&\xb2u\x8ef\xcf\x11", b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
