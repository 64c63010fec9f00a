"""Which reader opens a file: libsndfile where it can, FFmpeg for the rest."""

from __future__ import annotations

import soundfile

from mats_core.audio.ffmpeg import FfmpegSource
from mats_core.audio.file import AudioError, Reader, Source, SourceFile
from mats_core.audio.libsndfile import LibsndfileSource
from mats_core.audio.repair import wav_samples
from mats_core.audio.signatures import HEAD_BYTES, Signature, sniff


def reader_order(file: SourceFile, seeks: bool) -> tuple[Reader, ...]:
    """Which readers are to try a file, the best first. `seeks`: whether reading begins behind its start.

    libsndfile 1.2.2 takes raw AAC for broken MP3, shifts the first page of Opus by its pre-skip when a read
    is longer than a packet, and lands up to a block away when it seeks into the last page of Ogg Vorbis. Of joined
    streams it knows the first.
    """
    name = sniff(file.head(HEAD_BYTES)).name
    if name in ("AAC", "Opus") or file.joined:
        return ("ffmpeg",)
    return ("ffmpeg", "libsndfile") if name == "Ogg" and seeks else ("libsndfile", "ffmpeg")


def open_source(file: SourceFile, order: tuple[Reader, ...], name: str = "") -> Source:
    """Open with the first reader that can. Raises AudioError when none can, with the reason of the one that
    knows most."""
    signature = sniff(file.head(HEAD_BYTES), name)
    if signature.kind == "playlist":
        raise AudioError("refused", f"is a {signature.name}; it names other media, which are never followed")
    if signature.kind == "other":
        raise AudioError("not_audio", f"is not audio: {_starts_with(signature)}")
    reason = ""
    for reader in order:
        file.seek(0)
        try:
            return _open_with(reader, file, signature)
        except soundfile.LibsndfileError as error:
            file.check()
            if "not recogni" not in error.error_string:
                reason = error.error_string.strip().rstrip(".")
        except (ValueError, TypeError, OverflowError) as error:  # soundfile's own checks of a header
            file.check()
            reason = str(error)
        except AudioError as error:
            file.check()
            if error.code != "decode_failed":
                raise
            reason = reason or error.message
    if signature.name == "WAV" and wav_samples(file, file.head(HEAD_BYTES)) == 0:
        raise AudioError("empty_audio", "is a WAV header without samples")
    if signature.kind == "audio":
        if reason == _NO_SAMPLES:
            raise AudioError("empty_audio", f"is {signature.name} with a header but no samples")
        detail = "" if any(each in reason for each in _UNHELPFUL_REASONS) else f" ({reason})"
        raise AudioError("decode_failed", f"starts like {signature.name}, but is damaged or cut off{detail}")
    raise AudioError("not_audio", f"is not audio: {_starts_with(signature)}")


_NO_SAMPLES = "no samples"
# What decoders say when they do not know themselves; to a person it would be noise, or wrong.
_UNHELPFUL_REASONS = (
    "Invalid data",
    "End of file",
    "Internal error",
    "unknown error",
    "malformed",
    "does not exist",
    "no frame",
    "Internal psf_fseek",
)


def _open_with(reader: Reader, file: SourceFile, signature: Signature) -> Source:
    if reader == "ffmpeg":
        return FfmpegSource(file, signature)
    source = LibsndfileSource(file, signature)
    if source.frames <= 0:
        source.close()
        raise AudioError("decode_failed", _NO_SAMPLES)
    if source.is_longer_than_declared():
        source.close()
        raise AudioError("decode_failed", "its header tells less than there is")  # FFmpeg reads on to the end
    return source


def _starts_with(signature: Signature) -> str:
    if signature.name in ("text", "HTML", "zero bytes") or signature.kind == "unknown":
        return f"starts with {signature.name}"
    return f"it is {signature.name}"
