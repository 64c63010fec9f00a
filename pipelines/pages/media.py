"""What pages show of a sound: a spectrogram picture and a short, compressed piece to listen to."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from mats_core.audio.decode import DecodeLimits
from mats_core.audio.file import AudioError
from mats_core.audio.sandbox import DecodeRequest, IsolatedDecoder

SAMPLE_RATE = 16_000
FFT = 1024
PICTURE_WIDTH, PICTURE_HEIGHT = 480, 112
LOW_HZ, HIGH_HZ = 50.0, 7_800.0
RANGE_DB = 70.0
BITRATE_KBPS = 24.0
PREVIEW_SECONDS = 60.0
"""How much of a part can be heard: all of it, since a row is about a minute."""
CHUNK_SECONDS = 60.0
DECODE_BATCH = 8
GONE = "The file is gone since it was answered."

# Night blue to warm white, of steadily growing lightness, so that loud is bright in print as well.
_ANCHORS = ("0b0c1c", "211a4a", "4e2270", "842d74", "bc4063", "e7684c", "f8a058", "fbd38c", "fdf6da")


@lru_cache(maxsize=1)
def _palette() -> np.ndarray:
    """uint8 [256, 3]: the anchors' colours, interpolated."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in _ANCHORS], np.float64)
    at, x = np.linspace(0, 1, len(anchors)), np.linspace(0, 1, 256)
    return np.stack([np.interp(x, at, channel) for channel in anchors.T], axis=1).round().astype(np.uint8)


def hertz_to_mel(hertz: float | np.ndarray) -> np.ndarray:
    """O'Shaughnessy's mel scale: 2595 · log10(1 + f / 700)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hertz, dtype=np.float64) / 700.0)


def height_of(hertz: float) -> float:
    """Where a frequency lies in the picture: 0 at the bottom, 1 at the top."""
    low, high, at = hertz_to_mel(LOW_HZ), hertz_to_mel(HIGH_HZ), hertz_to_mel(hertz)
    return float((at - low) / (high - low))


@lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    """float32 [bins, rows]: triangles even on the mel scale, at least one bin wide, each summing to 1."""
    mels = np.linspace(hertz_to_mel(LOW_HZ), hertz_to_mel(HIGH_HZ), PICTURE_HEIGHT + 2)
    edges = 700.0 * (10 ** (mels / 2595.0) - 1.0)
    bins = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)
    width = SAMPLE_RATE / FFT
    center = edges[1:-1]
    left = np.minimum(edges[:-2], center - width)
    right = np.maximum(edges[2:], center + width)
    rising = (bins[:, None] - left) / (center - left)
    falling = (right - bins[:, None]) / (right - center)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    return (weights / weights.sum(axis=0)).astype(np.float32)


def mel_picture(samples: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram as brightness.

    Args:
        samples: int16 [T] mono at 16 kHz, T ≥ 1.

    Returns:
        uint8 [PICTURE_HEIGHT, PICTURE_WIDTH]; low frequencies at the bottom, time from left to right over the
        whole width, 255 at the loudest point and 0 at 70 dB below it (or below -60 dB of full scale, so that
        silence is dark).
    """
    x = samples.astype(np.float32) / 32768.0
    # Long sounds: as many frames as columns would skip most of the sound, so take four a column and average.
    count = PICTURE_WIDTH * (4 if len(x) > 30 * SAMPLE_RATE else 2)
    padded = np.pad(x, FFT // 2)
    starts = np.linspace(0, len(x), count, endpoint=False).astype(np.int64)
    frames = padded[starts[:, None] + np.arange(FFT)] * np.hanning(FFT).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)).astype(np.float32) ** 2 / (FFT / 4) ** 2
    power = power.reshape(PICTURE_WIDTH, -1, power.shape[1]).mean(axis=1)
    decibels = 10 * np.log10(np.maximum(power @ _mel_filters(), 1e-13))
    top = max(float(decibels.max()), RANGE_DB - 130.0)
    level = np.clip((decibels - top + RANGE_DB) / RANGE_DB, 0, 1)
    return np.flipud((level * 255).round().astype(np.uint8).T)


def spectrogram_webp(samples: np.ndarray) -> bytes:
    """The spectrogram of int16 [T] at 16 kHz as a coloured WebP picture of a few kilobytes."""
    image = Image.fromarray(_palette()[mel_picture(samples)])
    file = io.BytesIO()
    image.save(file, "WEBP", quality=72, method=4)
    return file.getvalue()


def preview_mp3(samples: np.ndarray, seconds: float) -> bytes:
    """The first ``seconds`` of int16 [T] at 16 kHz as a mono MP3 of about 24 kbit/s."""
    # libsndfile turns a level of 0…1 into 160…8 kbit/s at this rate.
    level = (160.0 - BITRATE_KBPS) / (160.0 - 8.0)
    constant: dict[str, Any] = {"compression_level": level, "bitrate_mode": "CONSTANT"}
    file, piece = io.BytesIO(), samples[: int(seconds * SAMPLE_RATE)]
    soundfile.write(file, piece, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III", **constant)
    return file.getvalue()


def add_media(files: list[dict[str, Any]], preview_seconds: float, max_bytes: int, workers: int) -> int:
    """Decode the originals and add what can be seen and heard of them to the parts; returns to how many.

    Args:
        files: each with its ``uri`` and ``parts``; a part has ``start`` and ``length`` (s, None: to the end). It gets
            ``picture`` and ``sound`` (data URIs), ``shown_s`` (how much the picture shows) and ``heard_share`` (how
            much of that can be heard); or ``unseen``, why not: the file is gone, say. Parts with an ``error_code`` go
            without.
        preview_seconds: how much of a part can be listened to.
        max_bytes: pictures and sounds together, as they weigh in the page; later parts go without.
        workers: decoding processes.
    """
    parts = [(str(f["uri"]), p) for f in files for p in f["parts"] if not p.get("error_code")]
    weight = count = 0
    if not parts:
        return 0
    with IsolatedDecoder(workers=workers, sample_rate=SAMPLE_RATE, limits=DecodeLimits()) as decoder:
        for at in range(0, len(parts), DECODE_BATCH):
            batch = parts[at : at + DECODE_BATCH]
            asked = [
                DecodeRequest(
                    uri, part["start"], min(part["length"] or CHUNK_SECONDS, CHUNK_SECONDS),
                    channel=part.get("only_channel"),
                )
                for uri, part in batch
            ]  # fmt: skip
            for (_, part), decoded in zip(batch, decoder.decode_many(asked), strict=True):
                if isinstance(decoded, AudioError):
                    gone = decoded.code == "not_found"
                    part["unseen"] = GONE if gone else f"Can be read no more: {decoded.message}"
                    continue
                samples = decoded.samples
                if len(samples) == 0:
                    part["unseen"] = "Holds no sound any more."
                    continue
                picture = _data_uri("image/webp", spectrogram_webp(samples))
                sound = _data_uri("audio/mpeg", preview_mp3(samples, preview_seconds))
                weight += len(picture) + len(sound)
                if weight > max_bytes:
                    return count
                shown_s = len(samples) / SAMPLE_RATE
                heard_share = min(1.0, preview_seconds / shown_s)
                part.update(picture=picture, sound=sound, shown_s=shown_s, heard_share=heard_share)
                count += 1
    return count


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
