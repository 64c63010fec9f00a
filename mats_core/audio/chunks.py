"""Files made of chunks (WAV, RF64, BW64, RIFX, W64, AIFF, AIFC, CAF), and AU: where their sound begins and ends.

Sizes in such headers are often untrue: the recorder was stopped before it wrote them, or they wrapped at 4 GiB. And
what stands behind the sound (titles, pictures, tags) must not be heard. So the chunks are walked here, and the sound
is presented to the decoders behind a header that is made anew. The rule, where the file goes on behind the declared
end:

- what follows is a trailer where it is chunks that fit the file to its end, a tag, or zeros: the declared end is true;
- so it is in front of another file, which is not heard, as with other readers, and told as missing;
- it is true as well modulo 4 GiB, where a size has 32 bits: the greatest such end with a trailer behind it is taken;
- else the size is stale, and all up to the end of the file (or a tag there) is sound.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from mats_core.audio.file import AudioError, SourceFile
from mats_core.audio.signatures import HEAD_BYTES, begins_a_file, sniff

_MOST_CHUNKS = 1000  # in front of the sound, and behind it; each may cost a read
_MOST_ZEROS = 1 << 20  # bytes of padding; more of them are digital silence
_NO_SAMPLES = "is a WAV header (or one like it) without samples"
_STRAY = 8  # bytes at the end that are nothing
# What recorders and pipes declare for "not known yet".
_UNKNOWN = (range(-1, 1), range(0x7FFFF000, 0x80000001), range(0xFFFFF000, 0x100000000))
# A chunk of such a name is no sound even where the file breaks off within it.
_TRAILERS = frozenset(
    b"LIST|list|id3 |ID3 |_PMX|iXML|bext|cue |smpl|inst|plst|fact|axml|chna|JUNK|junk|PAD |FLLR|DISP|afsp|LGWV|umid|"
    b"(c) |NAME|AUTH|ANNO|COMT|MARK|INST|MIDI|AESD|APPL|COMM|FVER|CHAN|free|uuid|info|strg|mark|regn|edct|peak".split(
        b"|"
    )
)


class _Layout(NamedTuple):
    """How a format cuts its file into chunks: where the first is, how long a name is, how a size is written, whether it
    counts the chunk's own header, at what multiples chunks begin, and the names of the sound and of its description."""

    first: int
    name: int
    size: str
    counts_header: bool
    align: int
    sound: bytes
    description: bytes


class _Chunk(NamedTuple):
    """`body`: where its content begins; `size`: what it declares, in bytes, which may be anything."""

    name: bytes
    body: int
    size: int


_GUID = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # behind four letters: a name in W64
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_RIFF = _Layout(12, 4, "<I", False, 2, b"data", b"fmt ")
_AIFF = _Layout(12, 4, ">I", False, 2, b"SSND", b"COMM")
_LAYOUTS = {
    (b"RIFF", b"WAVE"): _RIFF,
    (b"RF64", b"WAVE"): _RIFF,
    (b"BW64", b"WAVE"): _RIFF,
    (b"RIFX", b"WAVE"): _RIFF._replace(size=">I"),
    (b"FORM", b"AIFF"): _AIFF,
    (b"FORM", b"AIFC"): _AIFF,
    (b"caff", b"desc"): _Layout(8, 4, ">q", False, 1, b"data", b"desc"),
    (b"riff", b"\xa5\xd6\x28\xdb"): _Layout(40, 16, "<q", True, 8, b"data" + _GUID, b"fmt " + _GUID),
}
_FORMATS = {b"RF64": "rf64", b"BW64": "rf64", b"riff": "w64", b"FORM": "aiff", b"caff": "caf", b".snd": "au"}


class _Pcm(NamedTuple):
    """Samples as they stand in the file. `width` in bytes; 8-bit ones are "int" (signed) or "uint"."""

    rate: float
    channels: int
    kind: Literal["int", "uint", "float", "alaw", "ulaw"]
    width: int
    big: bool  # the most significant byte first


def has_no_sound(file: SourceFile) -> bool:
    """Whether a WAV file has a header and no sample."""
    head = file.head(HEAD_BYTES)
    layout = _LAYOUTS.get((head[:4], head[8:12]))
    return layout is not None and layout.sound not in _find(file, layout)


def present_sound(file: SourceFile) -> None:
    """Let a file of chunks read as a header that is right and its sound, nothing else; another file stays as it is.

    Sets `cut` and `missing` where the file ends before its sound does, and `format`. Raises AudioError: empty_audio,
    decode_failed (chunks without end), and a storage code where reading fails.
    """
    head = file.head(HEAD_BYTES)
    if head[:4] == b".snd" and len(head) >= 24:
        _present_au(file, head)
        return
    layout = _LAYOUTS.get((head[:4], head[8:12]))
    found = _find(file, layout) if layout is not None else {}
    if layout is None or layout.sound not in found or layout.description not in found:
        return
    sound, described = found[layout.sound], found[layout.description]
    description = file.head(min(described.size, 4096), offset=described.body)
    if layout.sound == b"SSND":
        _present_aiff(file, head, layout, sound, description)
    elif head[:4] == b"caff":
        _present_caf(file, layout, sound, description)
    else:
        _present_wav(file, head, layout, found, description)


# --- chunks --------------------------------------------------------------------------------------------------


class _Window:
    """Short stretches of a file, out of reads of 4 kB."""

    def __init__(self, file: SourceFile) -> None:
        self._file, self._from, self._bytes = file, 0, b""

    def at(self, place: int, count: int) -> bytes:
        if place < self._from or place + count > self._from + len(self._bytes):
            self._from, self._bytes = place, self._file.head(max(count, HEAD_BYTES), offset=place)
        return self._bytes[place - self._from :][:count]


def _find(file: SourceFile, layout: _Layout) -> dict[bytes, _Chunk]:
    """The chunks by name, the first of each, up to the sound, and on where its description is still to come."""
    found: dict[bytes, _Chunk] = {}
    for chunk in _walk(file, layout, layout.first):
        found.setdefault(chunk.name, chunk)
        if layout.sound in found and layout.description in found:
            break
    return found


def _walk(file: SourceFile, layout: _Layout, place: int) -> Iterator[_Chunk]:
    """The chunks from `place` on, as far as there are any in the file."""
    window, header = _Window(file), layout.name + struct.calcsize(layout.size)
    for _ in range(_MOST_CHUNKS):
        data = window.at(place, header)
        if len(data) < header or place < 0:
            return
        size = struct.unpack(layout.size, data[layout.name :])[0] - (header if layout.counts_header else 0)
        yield _Chunk(data[: layout.name], place + header, size)
        if size < 0:
            return
        place = _behind(window, layout, place + header, size, file.size)
    raise AudioError("decode_failed", f"has more than {_MOST_CHUNKS} chunks and no end of them")


def _behind(window: _Window, layout: _Layout, body: int, size: int, most: int) -> int:
    """Where the chunk behind the one of `size` bytes at `body` begins. The byte that fills an odd one up is often left
    out. `most`: the size of the file."""
    end, padded = body + size, body + size + -size % layout.align
    if layout.align != 2 or padded == end or end >= most:
        return padded
    there = window.at(end, 9)
    known = (layout.sound, layout.description)
    if there[1:5] in known or there[:1] == b"\0":
        return padded
    if there[:4] in known:
        return end
    fits = len(there) == 9 and struct.unpack(layout.size, there[5:])[0] <= most - padded - 8
    return end if _printable(there[:4]) and not (fits and _printable(there[1:5])) else padded


def _printable(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


# --- where the sound ends ------------------------------------------------------------------------------------


def _sound_end(file: SourceFile, start: int, declared: list[int], layout: _Layout | None, narrow: bool = True) -> int:
    """Where the sound that begins at `start` ends. `declared`: its size, as one or several places tell it; `narrow`:
    these have 32 bits. Marks the file as `cut`, and what is `missing`, where it ends before the sound does."""
    there = file.size - start
    for size in declared:
        wraps = (there - size) >> 32 if narrow else 0
        for candidate in range(size + (max(0, wraps) << 32), size - 1, -(1 << 32)):
            if 0 <= candidate <= there and _ends(file, start, start + candidate, layout):
                return start + candidate
    size = declared[0]
    if size > there and not _is_unknown(size):
        file.cut, file.missing = True, (size - there) / max(1, there)
        return file.size
    return start + max(0, without_tag(file, file.size) - start)


def _is_unknown(size: int) -> bool:
    return any(size in unknown for unknown in _UNKNOWN)


def _ends(file: SourceFile, start: int, end: int, layout: _Layout | None) -> bool:
    """Whether what stands from `end` on is no sound: nothing, chunks to the end of the file, tags, or zeros."""
    if file.size - end <= _STRAY:
        return end > start or file.size == start
    window = _Window(file)
    header = layout.name + struct.calcsize(layout.size) if layout is not None else 0
    place = end if layout is None else _behind(window, layout, start, end - start, file.size)
    for _ in range(_MOST_CHUNKS):
        left = file.size - place
        data = window.at(place, max(header, 32))
        if left <= _STRAY:
            return True
        another = layout is not None and (begins_a_file(data) or _tag_size(data)) and tell_another(file, place)
        if another or _is_tag(data, left):
            return True
        if not any(data):
            # note: a header of size 0 was never filled in: what follows it is silence
            return end > start and left <= _MOST_ZEROS and not any(file.head(left, offset=place))
        if layout is None or len(data) < header or (layout.name == 4 and not _printable(data[:4])):
            return False
        size = struct.unpack(layout.size, data[layout.name : header])[0] - (header if layout.counts_header else 0)
        if not 0 <= size <= left - header:
            return data[: layout.name] in _TRAILERS
        place = _behind(window, layout, place + header, size, file.size)
    return True


def _is_tag(data: bytes, left: int) -> bool:
    return (
        (data[:3] == b"TAG" and left == 128)
        or data[:8] == b"APETAGEX"
        or (data[:3] == b"ID3" and len(data) > 5 and 2 <= data[3] <= 4 and data[4] < 0xFF)
        or data[:11] == b"LYRICSBEGIN"
    )


def tell_another(file: SourceFile, place: int) -> bool:
    """Whether another file begins at `place`, behind the sound, or behind tags there; if so, the file tells it."""
    begin, head = place, file.head(32, offset=place)
    while size := _tag_size(head):
        has_header = head[:3] == b"APE" and file.head(8, offset=place + _size_of_ape(head)) == head[:8]
        place += size + (_size_of_ape(head) if has_header else 0)
        head = file.head(32, offset=place)
    another = sniff(file.head(HEAD_BYTES, offset=place)) if place > begin else sniff(head)
    if not begins_a_file(head) and (place == begin or another.kind != "audio"):
        return False
    file.is_followed(place, another.name == sniff(file.head(HEAD_BYTES)).name)
    return True


def _size_of_ape(head: bytes) -> int:
    """Bytes of an APE tag without its header."""
    return int.from_bytes(head[12:16], "little")


def _tag_size(head: bytes) -> int:
    """Bytes of the ID3 tag, or of the header or footer of an APE tag, that bytes begin with, 0 where they do not."""
    if head[:8] == b"APETAGEX":
        return 32
    return 128 if head[:3] == b"TAG" else id3_size(head)


def id3_size(head: bytes) -> int:
    """Bytes of the ID3 tag that bytes begin with, 0 where they do not."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)


def without_tag(file: SourceFile, end: int) -> int:
    """Where the sound of a file ends that ends at `end`, with or without ID3v1 and APE tags."""
    tail = file.head(128 + 32, offset=max(0, end - 160))
    if tail[-128:-125] == b"TAG":
        end, tail = end - 128, tail[:-128]
    if tail[-32:-24] == b"APETAGEX":
        end -= struct.unpack("<I", tail[-20:-16])[0] + 32 * (tail[-9] >> 7)
    return end


# --- headers made anew ---------------------------------------------------------------------------------------


def _present_pcm(file: SourceFile, pcm: _Pcm, start: int, end: int) -> None:
    """Let the file read as plain samples in W64 (the least significant byte first) or CAF, which know no wrong size."""
    length = (end - start) // (pcm.channels * pcm.width) * pcm.channels * pcm.width
    if length <= 0:
        raise AudioError("empty_audio", _NO_SAMPLES)
    if pcm.kind == "uint" or (not pcm.big and pcm.kind in ("int", "float") and pcm.width > 1):
        frame, rate = pcm.channels * pcm.width, min(0xFFFFFFFF, round(pcm.rate))
        tag = 3 if pcm.kind == "float" else 1
        fmt = struct.pack("<HHIIHH", tag, pcm.channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, pcm.width * 8)
        head = _W64_RIFF + struct.pack("<q", 104 + length) + b"wave" + _GUID
        head += b"fmt " + _GUID + struct.pack("<q", 40) + fmt + b"data" + _GUID + struct.pack("<q", 24 + length)
    else:
        code = {"alaw": b"alaw", "ulaw": b"ulaw"}.get(pcm.kind, b"lpcm")
        flags = int(pcm.kind == "float") | (0 if pcm.big or code != b"lpcm" else 2)
        frame = pcm.channels * pcm.width
        desc = struct.pack(">d4s5I", pcm.rate, code, flags, frame, 1, pcm.channels, pcm.width * 8)
        head = b"caff\0\1\0\0desc" + struct.pack(">q", len(desc)) + desc + struct.pack(">4sqI", b"data", length + 4, 0)
    file.present(head, start, start + length)


def _present_wav(
    file: SourceFile, head: bytes, layout: _Layout, found: dict[bytes, _Chunk], description: bytes
) -> None:
    sound, order = found[layout.sound], layout.size[0]
    if len(description) < 14:
        return
    declared = [sound.size]
    if b"ds64" in found and sound.size == 0xFFFFFFFF:  # the true size stands in another chunk
        wide = file.head(16, offset=found[b"ds64"].body)
        if len(wide) == 16 and 0 < (size := struct.unpack("<Q", wide[8:])[0]) < 1 << 62:
            declared.insert(0, size)
    end = _sound_end(file, sound.body, declared, layout, narrow=layout.name == 4)
    tag, channels, rate, per_second, align = struct.unpack(order + "HHIIH", description[:14])
    bits = struct.unpack(order + "H", description[14:16])[0] if len(description) >= 16 else 8
    extensible = tag == 0xFFFE and len(description) >= 26
    file.format = _FORMATS.get(head[:4], "wavex" if extensible else "wav")
    if extensible:
        tag = struct.unpack(order + "H", description[24:26])[0]
    # note: samples may stand in wider ones; a frame's length is believed where the bytes a second agree with it, but
    # Cool Edit's 24 bits in 32, which are floats
    wider = per_second == rate * align and (extensible or bits != 24)
    pcm = _wav_pcm(tag, channels, rate, align if wider else 0, bits, order == ">")
    if pcm is None and layout.align == 8 and align and 0 < (end - sound.body) % align < 8:
        end -= (end - sound.body) % align  # what fills it up may be counted
    if pcm is not None:
        _present_pcm(file, pcm, sound.body, end)
    elif end <= sound.body:
        raise AudioError("empty_audio", _NO_SAMPLES)
    elif tag in _BARE_TAGS and sniff(file.head(HEAD_BYTES, offset=sound.body)).name in ("MP3", "AAC", "AC-3"):
        file.present(b"", sound.body, end)  # frames that tell their length themselves
    elif order == "<" and tag == _FLAC_TAG and len(description) >= 18 + 34:
        file.format = ""
        file.present(b"fLaC\x80\0\0\x22" + description[18:52], sound.body, end)
    elif order == "<" and tag not in (1, 3):
        length = min(0xFFFFF000, end - sound.body)
        chunk = b"fmt " + struct.pack("<I", len(description)) + description + bytes(len(description) & 1)
        riff = b"RIFF" + struct.pack("<I", 12 + len(chunk) + length) + b"WAVE" + chunk
        file.present(riff + b"data" + struct.pack("<I", length), sound.body, sound.body + length)


_BARE_TAGS = (0x50, 0x55, 0xFF, 0x1600, 0x2000)  # MPEG layers 1 to 3, AAC, AC-3
_FLAC_TAG = 0xF1AC  # its STREAMINFO stands in the description


def _wav_pcm(tag: int, channels: int, rate: int, align: int, bits: int, big: bool) -> _Pcm | None:
    """None where samples are coded, or the numbers mean nothing."""
    if not channels or tag not in (1, 3, 6, 7):
        return None
    if tag in (6, 7):
        return _Pcm(rate, channels, "alaw" if tag == 6 else "ulaw", 1, True)
    width = (bits + 7) // 8
    if align % channels == 0:
        width = max(width, align // channels)
    if tag == 3:
        return _Pcm(rate, channels, "float", width, big) if width in (4, 8) else None
    return _Pcm(rate, channels, "uint" if width == 1 else "int", width, big) if 1 <= width <= 4 and bits >= 8 else None


_AIFC_PCM: dict[bytes, tuple[Literal["int", "uint", "float", "alaw", "ulaw"], int, bool]] = {
    b"in24": ("int", 3, True),
    b"in32": ("int", 4, True),
    b"42ni": ("int", 3, False),
    b"23ni": ("int", 4, False),
    b"raw ": ("uint", 1, True),
    b"fl32": ("float", 4, True),
    b"FL32": ("float", 4, True),
    b"fl64": ("float", 8, True),
    b"FL64": ("float", 8, True),
    b"alaw": ("alaw", 1, True),
    b"ALAW": ("alaw", 1, True),
    b"ulaw": ("ulaw", 1, True),
    b"ULAW": ("ulaw", 1, True),
}


def _present_aiff(file: SourceFile, head: bytes, layout: _Layout, sound: _Chunk, description: bytes) -> None:
    skip = file.head(8, offset=sound.body)
    if len(description) < 18 or len(skip) < 8:
        return
    channels, frames, bits = struct.unpack(">HIH", description[:8])
    exponent, mantissa = struct.unpack(">HQ", description[8:18])
    rate = math.ldexp(mantissa, max(-1000, min((exponent & 0x7FFF) - 16383 - 63, 100)))
    code = description[18:22] if head[8:12] == b"AIFC" else b"NONE"
    kind, width, big = _AIFC_PCM.get(code, ("int", (bits + 7) // 8, code != b"sowt"))
    plain = code in _AIFC_PCM or code in (b"NONE", b"twos", b"sowt")
    start = sound.body + 8 + struct.unpack(">I", skip[:4])[0]  # samples may begin further on, in whole blocks
    file.format = "aiff"
    declared = [sound.size if _is_unknown(sound.size) else sound.size - (start - sound.body)]
    if plain and channels and 0 < frames < 0x7FFFFFFF:
        declared.append(frames * channels * width)
    end = _sound_end(file, start, declared, layout)
    if plain and channels and rate and 1 <= width <= (8 if kind == "float" else 4):
        _present_pcm(file, _Pcm(rate, channels, kind, width, big), start, end)
    elif not plain and end > start:
        if code == b"ima4" and channels:  # counts blocks, each of 34 bytes a channel
            description = description[:2] + struct.pack(">I", (end - start) // (34 * channels)) + description[6:]
        chunk = b"COMM" + struct.pack(">I", len(description)) + description + bytes(len(description) & 1)
        chunk += b"SSND" + struct.pack(">II4x", min(0xFFFFFFFF, end - start + 8), 0)
        size = min(0xFFFFFFFF, 4 + len(chunk) + end - start)
        file.present(b"FORM" + struct.pack(">I", size) + b"AIFC" + chunk, start, end)


def _present_caf(file: SourceFile, layout: _Layout, sound: _Chunk, description: bytes) -> None:
    if len(description) < 32:
        return
    rate, code, flags, packet, _, channels, _ = struct.unpack(">d4s5I", description[:32])
    start = sound.body + 4  # behind the number of edits
    end = _sound_end(file, start, [sound.size - 4 if sound.size > 0 else sound.size], layout, narrow=False)
    plain = code in (b"lpcm", b"alaw", b"ulaw") and 0 < channels <= packet and packet % channels == 0
    if not plain or not 0 < rate < 1e9:
        _end_with_chunks(file, layout)
        return
    width = packet // channels
    kind = {b"alaw": "alaw", b"ulaw": "ulaw"}.get(code, "float" if flags & 1 else "int")
    if width not in {"float": (4, 8), "int": (1, 2, 3, 4)}.get(kind, (1,)):
        return
    file.format = "caf"
    _present_pcm(file, _Pcm(rate, channels, kind, width, not flags & 2), start, end)  # type: ignore[arg-type]


def _end_with_chunks(file: SourceFile, layout: _Layout) -> None:
    """Leave out what stands behind the last chunk: coded sound is read with its table of packets, which may stand
    behind it."""
    end = 0
    for chunk in _walk(file, layout, layout.first):
        if not _printable(chunk.name) or not 0 <= chunk.size <= file.size - chunk.body:
            break
        end = chunk.body + chunk.size
    if layout.first < end < file.size and _ends(file, layout.first, end, layout):
        file.present(b"", 0, end)


def _present_au(file: SourceFile, head: bytes) -> None:
    start, size, encoding, rate, channels = struct.unpack(">5I", head[4:24])
    if start < 24 or not channels:
        return
    file.format = "au"
    end = _sound_end(file, start, [size], None)
    kind, width = {1: ("ulaw", 1), 27: ("alaw", 1), 6: ("float", 4), 7: ("float", 8)}.get(
        encoding, ("int", encoding - 1)
    )
    if encoding in (1, 2, 3, 4, 5, 6, 7, 27):
        _present_pcm(file, _Pcm(rate, channels, kind, width, True), start, end)  # type: ignore[arg-type]
    elif end > start and start <= HEAD_BYTES:
        file.present(head[:8] + struct.pack(">I", min(0xFFFFFFFF, end - start)) + head[12:start], start, end)
