"""Where the sound of a file that FFmpeg reads ends, by what its header promises or by its last whole frame.

FFmpeg hears what stands behind that (tags, zeros) as damage, and does not tell that a file breaks off before it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mats_core.audio.chunks import tell_another, without_tag
from mats_core.audio.file import SourceFile

_TAIL = 1 << 17  # bytes in which the last frames are looked for
_MOST_ZEROS = 1 << 20  # bytes of padding
_FEWEST = 3  # frames one behind the other that are no chance
EBML = b"\x1aE\xdf\xa3"
ASF, ASF_FILE = b"0&\xb2u\x8ef\xcf\x11", b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"


def find_end(file: SourceFile, head: bytes) -> None:
    """Let a file of one stream that begins with `head` end with its sound, and mark it as `cut` (and what is `missing`)
    where it breaks off.

    Raises AudioError with a storage code where reading fails.
    """
    if frame := _frame_of(head):
        _end_with_a_frame(file, frame)
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        _end_avi(file, int.from_bytes(head[4:8], "little") + 8)
    elif head[:4] == b"\0\0\1\xba":
        file.cut = _ends_in_a_packet(file)
    elif head[:4] == EBML:
        end = ebml_end(head)[1]
        file.cut = file.size < end or (0 < end < file.size and tell_another(file, end))
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"styp", b"moof"):
        file.cut = _breaks_off(file) or file.cut
    elif head[:8] == ASF:
        _end_asf(file, head)
    elif head[:4] == b"TTA1" and len(head) >= 22:
        _end_tta(file, head)
    elif head[:4] == b"STRM" and len(head) >= 64:  # AST
        _end_at(file, 64 + int.from_bytes(head[4:8], "big"))
    elif size := next((size for begin, size in _PROMISING.items() if head.startswith(begin)), 0):
        _tell_another(file, head[:size])
    elif head[:4] in (b".SoX", b"XoS."):
        order = "<" if head[:1] == b"." else ">"
        size, samples = struct.unpack(order + "IQ", head[4:16]) if len(head) >= 16 else (0, 0)
        _end_at(file, 4 + size + 4 * samples if samples else 0)
    elif head[:4] == b"MMMD":
        _end_at(file, 8 + int.from_bytes(head[4:8], "big"))
    elif head[16:20] == b"\xaf\xde\0\0" and head[11] in (1, 99):  # Westwood's AUD
        _end_at(file, 12 + int.from_bytes(head[2:6], "little"))
    elif is_adx(head):
        _end_adx(file, head)
    elif head[:19] == b"Creative Voice File":
        _end_voc(file, head)
    elif head[:1] == b"G" and set(head[: 188 * 8 : 188]) == {ord("G")}:
        rest = file.size % 188
        file.cut = rest > 0 and file.head(1, offset=file.size - rest) == b"G"
    elif head[:4] in (b"nut/", b"FLV\x01"):
        file.present(b"", 0, without_tag(file, file.size))


def _promise(file: SourceFile, size: int) -> None:
    """Mark the file as `cut` where it has fewer bytes than its header promises, but for a few."""
    if 0 < file.size < size - 8 and size < 0xFFFFF000:
        file.cut, file.missing = True, size / file.size - 1


def _end_at(file: SourceFile, size: int) -> None:
    """Leave out tags and zeros behind what its header promises, or tell that it breaks off."""
    if 0 < size < file.size and (tell_another(file, size) or _only_padding(file, size)):
        file.present(b"", 0, size)
        return
    _promise(file, size)


# What WTV, SMJPEG and Argo's ASF begin with, and as many bytes of it as come a second time in another file of the kind.
_PROMISING = {b"\xb7\xd8\0\x20\x37\x49\xda\x11": 16, b"\0\x0aSMJPEG": 12, b"ASF\0": 16}


def _tell_another(file: SourceFile, begin: bytes) -> None:
    """Tell where a local file begins a second time: what it promises ends before."""
    for place in range(len(begin), 0 if file.far else file.size, 1 << 20):
        at = file.head((1 << 20) + len(begin) - 1, offset=place).find(begin)
        if at >= 0:
            file.is_followed(place + at, alike=True)
            return


def _end_tta(file: SourceFile, head: bytes) -> None:
    """By the table of the lengths of its frames, of 256 / 245 of a second each."""
    rate, samples = struct.unpack("<II", head[10:18])
    frames = -(-samples // max(1, 256 * rate // 245))
    table = file.head(min(4 * frames, _MOST_ZEROS), offset=22)
    sizes = struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4])
    if frames == len(sizes):
        _end_at(file, 22 + 4 * frames + 4 + sum(sizes))


def _only_padding(file: SourceFile, end: int) -> bool:
    """Whether what stands from `end` on is tags and zeros."""
    end = max(end, 0)
    left = without_tag(file, file.size) - end
    return left <= 0 or (left <= _MOST_ZEROS and not any(file.head(left, offset=end)))


def _end_avi(file: SourceFile, size_declared: int) -> None:
    """By the list of its packets. The index, which stands behind it, may be missing without any sound."""
    place = 12
    for _ in range(_LISTS):
        name, size, kind = struct.unpack("<4sI4s", file.head(12, offset=place).ljust(12, b"\0"))
        if (name, kind) == (b"LIST", b"movi"):
            end = place + 8 + size
            there = end >= file.size or file.head(4, offset=end + end % 2) in (b"idx1", b"JUNK", b"RIFF", b"LIST")
            _promise(file, end if there else size_declared)
            if 0 < size_declared < file.size and file.head(12, offset=size_declared)[8:] != b"AVI ":
                tell_another(file, size_declared)
        if not any(name) or kind == b"movi":
            return
        place += 8 + size + size % 2


_LISTS = 20


def _ends_in_a_packet(file: SourceFile) -> bool:
    """Whether the chain of the last packets of an MPEG program stream leads beyond its end (ISO 13818-1, 2.5)."""
    tail = file.head(_TAIL, offset=max(0, file.size - _TAIL))
    place = tail.find(b"\0\0\1\xba")
    while 0 <= place <= len(tail) - 4:
        head = tail[place : place + 14]
        if head[:3] != b"\0\0\1" or head[3] < 0xB9:
            place = tail.find(b"\0\0\1\xba", place + 1)  # damage
            continue
        if head[3] == 0xB9:  # the end
            return False
        if head[3] == 0xBA:  # the header of a pack, of MPEG-2 or MPEG-1
            place += 14 + (head[13] & 7 if len(head) == 14 else 0) if head[4:5] >= b"\x40" else 12
        else:
            place += 6 + int.from_bytes(head[4:6], "big")
    return place >= 0 and place != len(tail)


def _end_asf(file: SourceFile, head: bytes) -> None:
    """By the file properties object, which tells FFmpeg how long the sound is only where its size is true."""
    at = head.find(ASF_FILE)
    size = int.from_bytes(head[at + 40 : at + 48], "little") if at > 0 else 0
    live = at > 0 and head[at + 88 : at + 89] != b"" and head[at + 88] & 1
    if not size or live or size == file.size or size > 1 << 62:
        return
    end = file.size
    if size < file.size and (tell_another(file, size) or _only_padding(file, size)):
        end = size
    file.cut = file.cut or size > file.size
    file.present(head[: at + 40] + end.to_bytes(8, "little") + head[at + 48 :], len(head), end)


def _breaks_off(file: SourceFile) -> bool:
    """Whether the boxes of an MP4 lead elsewhere than to its end, as far as they are looked at. Another MP4 behind it,
    of which nothing is heard, is told; parts (`moof`) are heard one behind the other."""
    seen = set()
    for name, place, end in _boxes(file):
        if name == b"ftyp" and b"moov" in seen and b"moof" not in seen:
            file.is_followed(place, alike=True)
            return True
        seen.add(name)
        if end < 0 or end > file.size:
            return tell_another(file, place) or not _only_padding(file, place)
    return False


def lacks_index(file: SourceFile) -> bool:
    """Whether an MP4 is without the box that tells where its sound is, or breaks off in it."""
    boxes = list(_boxes(file))
    whole = any(name in (b"moov", b"moof") and 0 < end <= file.size for name, _, end in boxes)
    return not whole and boxes[0][2] > 0


def _boxes(file: SourceFile) -> Iterator[tuple[bytes, int, int]]:
    """(name, begin, end) of the boxes of an MP4, as far as they are looked at: the last may end behind the file, or be
    none (-1)."""
    place = 0
    for _ in range(_FAR_BOXES if file.far else _BOXES):
        data = file.head(16, offset=place)
        size = int.from_bytes(data[:4], "big")
        if place == file.size or (size == 0 and len(data) >= 8 and any(data)):
            return  # this one goes up to the end
        size = int.from_bytes(data[8:], "big") if size == 1 else size
        named = all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in data[4:8])
        yield data[4:8], place, place + size if size >= 8 and named else -1
        if size < 8 or not named or place + size > file.size:
            return
        place += size


_BOXES, _FAR_BOXES = 100_000, 16  # looked at in a local file, and in one of a store, where each costs a read


def ebml_end(head: bytes) -> tuple[int, int]:
    """Of Matroska: where its own header ends, and its segment (0: that is not known)."""
    place, known, size, count = 4, len(head), 0, 0
    for name in (4, 0):  # its own header, then the segment
        count = 9 - (head[place] if place < len(head) else 0).bit_length()
        size = int.from_bytes(head[place : place + count], "big") & (1 << 7 * count) - 1
        place += count
        if name:
            known, place = place + size, place + size + name
    return known, 0 if size == (1 << 7 * count) - 1 else place + size


def is_adx(head: bytes) -> bool:
    """Whether a file is CRI ADX."""
    return head[:2] == b"\x80\0" and head[int.from_bytes(head[2:4], "big") - 2 :][:6] == b"(c)CRI"


def _end_adx(file: SourceFile, head: bytes) -> None:
    block, samples = head[5] * head[7], int.from_bytes(head[12:16], "big")
    size = int.from_bytes(head[2:4], "big") + 4 + -(-samples // 32) * block
    if not samples or not block:
        return
    # note: FFmpeg counts the block that ends the sound with the others
    end = next((at for at in (size, size - block) if file.head(2, offset=at) == b"\x80\1"), 0)
    if end:
        file.present(b"", 0, min(file.size, end + block))
    else:
        _promise(file, size)


def _end_voc(file: SourceFile, head: bytes) -> None:
    """By its blocks, the last of which has no size; where they lead nowhere, all that follows is missing."""
    place = int.from_bytes(head[20:22], "little")
    data, begin = b"", 0
    while 0 < place < file.size:
        if not begin <= place <= begin + len(data) - 4:
            data, begin = file.head(1 << 20, offset=place), place
        kind, size = data[place - begin], int.from_bytes(data[place - begin + 1 : place - begin + 4], "little")
        if kind in (0, ord("C")) or kind > 9:
            behind = place if kind else place + 1
            if not tell_another(file, behind) and not _only_padding(file, behind):
                file.cut, file.missing = True, file.size / place - 1
            return
        place += 4 + size
    file.cut = place > file.size


class _Frames(NamedTuple):
    """Frames that tell how long they are. `begin`: what one begins with; `length`: of its first bytes, that of the
    frame, 0 where they are none."""

    begin: re.Pattern[bytes]
    length: Callable[[bytes], int]


def _ac3_bytes(head: bytes) -> int:
    if head[:2] != b"\x0bw" or len(head) < 6:
        return 0
    if head[5] >> 3 > 10:  # E-AC-3
        return 2 * ((head[2] << 8 & 0x700 | head[3]) + 1)
    rate, code = head[4] >> 6, head[4] & 63
    if rate == 3 or code >= 2 * len(_AC3_KBITS):
        return 0
    kbits = _AC3_KBITS[code // 2]
    return (4 * kbits, 2 * (kbits * 96000 // 44100 + code % 2), 6 * kbits)[rate]


def _adts_bytes(head: bytes) -> int:
    there = len(head) >= 6 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 if there else 0


def _latm_bytes(head: bytes) -> int:
    there = len(head) >= 3 and head[0] == 0x56 and head[1] & 0xE0 == 0xE0
    return ((head[1] & 0x1F) << 8 | head[2]) + 3 if there else 0


def _dts_bytes(head: bytes) -> int:
    there = len(head) >= 8 and head[:4] == b"\x7f\xfe\x80\1"
    return ((head[5] & 3) << 12 | head[6] << 4 | head[7] >> 4) + 1 if there else 0


def _mlp_bytes(head: bytes) -> int:
    return 2 * (head[0] << 8 & 0xF00 | head[1]) if len(head) >= 4 else 0


_AC3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_KINDS = tuple(
    _Frames(re.compile(begin, re.DOTALL), length)
    for begin, length in (
        (rb"\xff[\xf0\xf1\xf8\xf9]", _adts_bytes),
        (rb"\x0bw", _ac3_bytes),
        (rb"\x56[\xe0-\xff]", _latm_bytes),
        (rb"\x7f\xfe\x80\x01", _dts_bytes),
        (rb"....\xf8\x72\x6f[\xba\xbb]", _mlp_bytes),
    )
)


def _frame_of(head: bytes) -> _Frames | None:
    """What frames a bare stream is made of, by its first two."""
    for frames in _KINDS:
        size = frames.length(head) if frames.begin.match(head) else 0
        if size and (size >= len(head) - 16 or frames.length(head[size:])):
            return frames
    return None


def _end_with_a_frame(file: SourceFile, frames: _Frames) -> None:
    """By the chain of the last frames: each tells where the next one is."""
    stop = without_tag(file, file.size)
    offset, end = max(0, stop - _TAIL), 0
    data = file.head(stop - offset, offset=offset)
    if not any(data[-_TAIL // 2 :]):
        offset = max(0, stop - _MOST_ZEROS - _TAIL)
        data = file.head(stop - offset, offset=offset)
    place = max(0, len(data.rstrip(b"\0")) - _TAIL // 2)
    while begun := frames.begin.search(data, place):
        at, count = begun.start(), 0
        while 0 < (size := frames.length(data[at : at + 16])) <= len(data) - at:
            at, count = at + size, count + 1
        place = at if count >= _FEWEST else begun.start() + 1
        end = at if count >= _FEWEST else end
    rest = data[end:]
    if not end:
        return
    if frames.length(rest[:16]) > len(rest) or (len(rest) < 16 and any(rest)):
        file.cut = True
    elif tell_another(file, offset + end) or not any(rest) or rest.startswith((b"TAG", b"APETAGEX", b"ID3")):
        file.present(b"", 0, offset + end)
