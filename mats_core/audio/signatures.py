"""What a file is by its name and its first bytes: enough to refuse playlists, and to name what is not audio."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Literal

HEAD_BYTES = 4096
_EXTENSIONS = (
    ".wav .wave .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .caf .w64 .rf64 .m4a .m4b .aac .mp4 "
    ".m4v .mov .mkv .mka .webm .wma .wmv .asf .amr .awb .3gp .ac3 .eac3 .dts .wv .ape .tta .mpc .voc .sph .avi "
    ".flv .mpg .mpeg .ts .m2ts"
)
FFMPEG_FORMATS = (
    "aac,ac3,adp,adx,aiff,amr,amrnb,amrwb,ape,apm,argo_asf,asf,ast,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,gxf,iff,"
    "ircam,kvag,loas,matroska,mlp,mmf,mov,mp3,mpc,mpc8,mpeg,mpegts,nistsphere,nut,ogg,oma,rm,sbc,smjpeg,sox,spdif,swf,"
    "tak,truehd,tta,voc,w64,wav,wsaud,wtv,wv,xwma"
)  # that hold their own media
NAMING_FORMATS = frozenset(
    {"concat", "dash", "hls", "imf", "rtsp", "sdp", "image2", "smoothstreaming", "webm_dash_manifest"}
)
AUDIO_EXTENSIONS = frozenset(_EXTENSIONS.split())  # what is looked at in a folder

# Text that names other media. None of it is ever followed.
_PLAYLISTS = (
    (b"#extm3u", "M3U playlist"),
    (b"[playlist]", "PLS playlist"),
    (b"[reference]", "ASX reference file"),
    (b"ffconcat version", "ffconcat list"),
    (b"<asx", "ASX playlist"),
    (b"<smil", "SMIL playlist"),
    (b"<mpd", "DASH manifest"),
    (b"<playlist", "XSPF playlist"),
    (b"<smoothstreamingmedia", "Smooth Streaming manifest"),
    (b"rtsptext", "RTSP reference file"),
    (b"v=0\r\no=", "SDP session"),
    (b"v=0\no=", "SDP session"),
)
_PLAYLIST_NAMES = (".m3u", ".m3u8", ".pls", ".asx", ".wax", ".wvx", ".ram", ".xspf", ".cue", ".mpd", ".smil")
_AUDIO = (
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"FORM", "AIFF"),
    (0, b".snd", "AU"),
    (0, b"caff", "CAF"),
    (0, b"riff", "W64"),
    (0, b"\x1aE\xdf\xa3", "Matroska/WebM"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "ASF/WMA"),
    (0, b"#!AMR", "AMR"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"TTA1", "TTA"),
    (0, b"STRM", "AST"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"FLV\x01", "FLV"),
    (0, b"NIST_1A", "NIST Sphere"),
    (0, b"PVF1", "PVF"),
    (0, b"Creative Voice File", "VOC"),
    (0, b"ALawSoundFile", "WVE"),
    (0, b"ID3", "MP3"),
    (0, b"\x0bw", "AC-3"),
    (0, b"\0\0\x01\xba", "MPEG program stream"),
    (0, b".RMF", "RealMedia"),
    (0, b"nut/multimedia container", "NUT"),
    (0, b"\xb7\xd8\0\x20\x37\x49\xda\x11", "WTV"),
    (0, b"\x7f\xfe\x80\x01", "DTS"),
    (4, b"ftyp", "MP4"),
    (4, b"moov", "MP4"),
    (4, b"mdat", "MP4"),
    (4, b"wide", "MP4"),
    (4, b"free", "MP4"),
)
_OTHER = (
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ", "xz-compressed data"),
    (b"(\xb5/\xfd", "zstd-compressed data"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x7fELF", "a program"),
    (b"PAR1", "a Parquet table"),
    (b"SQLite format 3", "a database"),
    (b"MThd", "MIDI, which holds notes and no sound"),
    (b"\x00\x05\x16\x07", "a macOS resource fork"),
)
UNKNOWN = "bytes of no known audio format"
_PRINTABLE = frozenset(string.printable)


@dataclass(frozen=True)
class Signature:
    """`kind`: what to do with the file; `name`: what it is, in words for a message ("FLAC", "text")."""

    kind: Literal["audio", "playlist", "other", "unknown"]
    name: str


def sniff(head: bytes, file_name: str = "") -> Signature:
    """Name a file by its first `HEAD_BYTES` bytes; `file_name` tells a playlist that is but a list of
    paths."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and len(head) >= 12:
        form = {b"WAVE": "WAV", b"AVI ": "AVI", b"WEBP": ""}.get(head[8:12], "RIFF")
        return Signature("audio", form) if form else Signature("other", "a WebP picture")
    if head[:4] == b"OggS" and head[28:36] == b"OpusHead":
        return Signature("audio", "Opus")
    if head[:4] == b"\x1aE\xdf\xa3" and b"webm" in head[:64]:
        return Signature("audio", "WebM")
    for offset, magic, name in _AUDIO:
        if head[offset : offset + len(magic)] == magic:
            return Signature("audio", name)
    if head[:1] == b"G" and set(head[188 : 188 * 8 : 188]) == set(b"G"):
        return Signature("audio", "MPEG transport stream")
    if head[:2] == b"\xff\xfe" and _as_text(head) is not None:  # UTF-16 starts like an MPEG frame
        return Signature("other", "text")
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[:3] != b"\xff\xd8\xff":
        if head[1] & 0xF6 == 0xF0:
            return Signature("audio", "AAC")
        if head[1] & 0x06:  # layer bits 00 are reserved: not MPEG audio, maybe a UTF-16 text
            return Signature("audio", "MP3")
    for magic, name in _OTHER:
        if head.startswith(magic):
            return Signature("other", name)
    text = _as_text(head)
    if text is not None:
        start = text.lower().encode()[:1024]
        for magic, name in _PLAYLISTS:
            if start.startswith(magic) or (magic[:1] == b"<" and magic in start):
                return Signature("playlist", name)
        if file_name.lower().endswith(_PLAYLIST_NAMES):
            return Signature("playlist", "playlist")
        what = "HTML" if b"<html" in start or start.startswith(b"<!doctype") else "text"
        return Signature("other", what)
    if head and not any(head):
        return Signature("unknown", "zero bytes")
    return Signature("unknown", UNKNOWN)


_WEAK = frozenset({"MP3", "AAC", "AC-3", "Musepack", "RIFF", "MPEG transport stream", "MPEG program stream"})


def begins_a_file(data: bytes) -> bool:
    """Whether bytes in the midst of others are the beginning of a file with sound, by a name of four bytes or more."""
    signature = sniff(data)
    return signature.kind == "audio" and signature.name not in _WEAK and data[4:8] not in (b"moov", b"mdat", b"free")


def _as_text(head: bytes) -> str | None:
    """The head as text without leading space, or None where it is binary."""
    sample = head[:1024]
    if sample[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = sample[: len(sample) // 2 * 2].decode("utf-16", "replace")
    else:
        text = sample.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        if len(sample) == 1024:
            text = text[:-4]  # the cut may split a character
    if not text or "\ufffd" in text:
        return None
    is_text = all(letter in _PRINTABLE or letter.isprintable() for letter in text)
    return text.lstrip() if is_text else None
