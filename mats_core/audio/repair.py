"""Headers that say wrongly where the sound begins or ends, put right: of every kind (`repair`), and tags.

The file itself stays as it is: a `SourceFile` presents it to decoders with the right length.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import pairwise

from mats_core.audio.chunks import present_sound
from mats_core.audio.ends import ASF, ASF_FILE, EBML, ebml_end, find_end, is_adx
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
    head = file.head(HEAD_BYTES)
    file.links = file.links or _joined_files(file, head) or _joined_programs(file, head) or _joined_wavpack(file)
    if not file.links and (until_s is None or not file.far):
        find_end(file, head)


def skip_tag(file: SourceFile) -> None:
    """Let a file read without the ID3 tags in front of its sound: they may stand before any format, and hide it. What
    nobody knows behind them may still be MP3: `tagged`."""
    if place := id3_bytes(file):
        behind = sniff(file.head(HEAD_BYTES, offset=place))
        file.tagged = behind.name == UNKNOWN
        if behind.kind == "audio" or file.tagged:
            file.present(b"", place, file.size)


def _joined_files(file: SourceFile, head: bytes) -> list[tuple[int, int]]:
    """[begin, end) of the Matroska, WebM, ASF, FLV, NUT, RealMedia, ADX, VOC or SWF files that stand one behind the
    other in `file`, as live segments do: their times begin anew, and FFmpeg hears the first alone, or two. Empty where
    there is one."""
    end = 0  # where the first ends by its header
    if head[:4] == EBML:
        known, end = ebml_end(head)
        begin = head[:known]
    elif head[:8] == ASF:
        begin, at = head[:16], head.find(ASF_FILE)
        end = int.from_bytes(head[at + 40 : at + 48], "little") if at > 0 else 0
    elif is_adx(head):
        begin = head[:12]
    else:
        begin = head[: {b"FLV\x01": 13, b"nut/": 25, b".RMF": 18, b"Crea": 26, b"FWS\4": 16}.get(head[:4], 0)]
    if not begin or file.size > _SEARCHED_BYTES or (end and file.head(len(begin), offset=end) != begin):
        return []
    return _behind_one_another(_found(file, re.compile(re.escape(begin)), len(begin)), file.size)


def _behind_one_another(begins: list[int], end: int) -> list[tuple[int, int]]:
    return list(zip(begins, [*begins[1:], end], strict=True)) if len(begins) > 1 else []


def _joined_wavpack(file: SourceFile) -> list[tuple[int, int]]:
    """[begin, end) of the WavPack files that stand one behind the other in a local `file`: FFmpeg hears no more where
    there are tags between them. Empty where there is one, whose blocks tell places that grow."""
    if file.far or file.head(4) != b"wvpk":
        return []
    if file.size > _LOOK * 6:
        looks = [file.head(_LOOK, offset=(file.size - _LOOK) * part // 5) for part in range(6)]
        places = [int.from_bytes(match[1], "little") for look in looks if (match := _WV_BLOCK.search(look))]
        if file.size > _SEARCHED_BYTES or all(one < other for one, other in pairwise(places)):
            return []
    return _behind_one_another(_found(file, _WV_BEGIN, 32), file.size)


def _found(file: SourceFile, begin: re.Pattern[bytes], size: int) -> list[int]:
    """Where what begins a file stands in one, of `size` bytes."""
    places: list[int] = []
    for offset in range(0, file.size, _BLOCK):
        data = file.head(_BLOCK + size - 1, offset=offset)
        places += [offset + match.start() for match in begin.finditer(data)]
    return places


# A block with samples (version, their number in all, where it begins, how many), and one that begins at 0.
_INITIAL = b"".join(rb"\x%02x-\x%02x" % (at, at + 7) for at in range(8, 256, 16))  # bit 11 of its flags
_WV_BLOCK = re.compile(rb"wvpk.{4}[\x02-\x10]\x04.{6}(.{4})(?!\0{4}).{4}", re.DOTALL)
_WV_BEGIN = re.compile(rb"wvpk.{4}[\x02-\x10]\x04.{6}(\0{4})(?!\0{4}).{4}.[%s]" % _INITIAL, re.DOTALL)


def _joined_programs(file: SourceFile, head: bytes) -> list[tuple[int, int]]:
    """[begin, end) of the stretches of an MPEG transport stream whose tables name other tracks of sound, none of those
    before: FFmpeg hears the first alone. Empty where there is one."""
    if file.size > _SEARCHED_BYTES or sniff(head).name != "MPEG transport stream":
        return []
    looks = [file.head(_LOOK, offset=max(0, (file.size - _LOOK) * part // 4)) for part in range(5)]
    seen = [tracks for look in looks for _, tracks in _programs(look)]
    if all(tracks & seen[0] for tracks in seen):
        return []
    begins, heard = [0], seen[0]
    for offset in range(0, file.size, _BLOCK):
        for place, tracks in _programs(file.head(_BLOCK + _BETWEEN_TABLES, offset=offset)):
            if not tracks & heard:
                begins.append(offset + place)
            heard = tracks
    return _behind_one_another(begins, file.size)


def _programs(data: bytes) -> Iterator[tuple[int, frozenset[int]]]:
    """(place, PIDs of the sound) of the tables in a piece of an MPEG transport stream (ISO 13818-1, 2.4.4)."""
    for match in re.finditer(rb"G[\x40\x60]\0[\x10-\x1f\x30-\x3f]", data):
        programs = _section(data, match.start())
        pids = [programs[at + 2 : at + 4] for at in range(8, len(programs) - 4, 4) if any(programs[at : at + 2])]
        if not pids or programs[0] != 0:
            continue
        high, low = pids[0][0] & 0x1F, pids[0][1:]
        header = b"G[" + re.escape(bytes([0x40 | high, 0x60 | high])) + b"]" + re.escape(low)
        there = re.compile(header, re.DOTALL).search(data, match.start(), match.start() + _BETWEEN_TABLES)
        table = _section(data, there.start()) if there else b""
        if len(table) < 16 or table[0] != 2:
            continue
        tracks, at = set(), 12 + (table[10] << 8 & 0xF00 | table[11])
        while at + 5 <= len(table) - 4:
            if table[at] in _SOUND_TYPES:
                tracks.add(table[at + 1] << 8 & 0x1F00 | table[at + 2])
            at += 5 + (table[at + 3] << 8 & 0xF00 | table[at + 4])
        if tracks:
            yield match.start(), frozenset(tracks)


def _section(data: bytes, at: int) -> bytes:
    """The table in the packet of a transport stream at data[at], with its checksum; empty where it is not whole."""
    packet = data[at : at + 188]
    begin = 4 + (1 + packet[4] if packet[3] & 0x20 else 0) if len(packet) == 188 else 188
    begin += 1 + packet[begin] if begin < 188 else 0
    section = packet[begin:]
    section = section[: 3 + (section[1] << 8 & 0xF00 | section[2])] if len(section) > 3 else b""
    return section if zlib.crc32(section.translate(_REVERSED)) == 0xFFFFFFFF else b""


_LOOK, _BETWEEN_TABLES = 1 << 18, 1 << 16  # bytes looked at here and there, and at most between the tables
_SOUND_TYPES = frozenset({0x03, 0x04, 0x06, 0x0F, 0x11, 0x80, 0x81, 0x82, 0x83, 0x84, 0x86, 0x87, 0x8A})
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # its checksum takes the highest bit first


_SEARCHED_BYTES, _BLOCK = 256 << 20, 1 << 20
