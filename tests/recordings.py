"""Small recordings in many formats, made on the spot: what goes in is known, so what must come out is too."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
import soundfile

# kind → (container, codec): written by libsndfile where the second is one of its subtypes, else by FFmpeg
KINDS = {
    "wav": ("WAV", "PCM_16"),
    "wav24": ("WAV", "PCM_24"),
    "wavfloat": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "m4a": ("ipod", "aac"),
    "opus": ("opus", "libopus"),
    "webm": ("webm", "libopus"),
    "aac": ("adts", "aac"),
    "mp4": ("mp4", "aac"),
    "mov": ("mov", "aac"),
    "mkv": ("matroska", "libopus"),
    "wma": ("asf", "wmav2"),
    "amr": ("amr", "libopencore_amrnb"),
    "3gp": ("3gp", "libopencore_amrnb"),
    "mp2": ("mp2", "mp2"),
    "mpg": ("mpeg", "mp2"),
    "ts": ("mpegts", "mp2"),
    "avi": ("avi", "mp2"),
    "flv": ("flv", "adpcm_swf"),
    "g722": ("wav", "g722"),
    "asfflac": ("asf", "flac"),
    "aviflac": ("avi", "flac"),
    "aviadpcm": ("avi", "adpcm_ms"),
    "wtv": ("wtv", "flac"),
    "rm": ("rm", "ac3"),
    "nut": ("nut", "wavpack"),
    "voc": ("voc", "pcm_s16le"),
    "kvag": ("kvag", "adpcm_ima_ssi"),
    "adx": ("adx", "adpcm_adx"),
    "ast": ("ast", "pcm_s16be_planar"),
    "ircam": ("ircam", "pcm_s16le"),
    "ac3": ("ac3", "ac3"),
    "sox": ("sox", "pcm_s32le"),
    "nutaac": ("nut", "aac"),
    "wtvmp2": ("wtv", "mp2"),
    "wv": ("wv", "wavpack"),
    "cafadpcm": ("caf", "adpcm_ima_qt"),
    "mp4parts": ("ismv", "aac"),
    "tta": ("tta", "tta"),
    "cafalac": ("caf", "alac"),
    "smjpeg": ("smjpeg", "pcm_s16le"),
    "argo": ("argo_asf", "adpcm_argo"),
    "gxf": ("gxf", "pcm_s16le"),
}


_BIT_RATES = {"wmav2": 96_000, "libopencore_amrnb": 12_200}  # the encoders have no default


def bursts(rate: int, seconds: float, at: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """Mono float32 [T]: silence with 60 ms of a 1 kHz tone from each of the times on, which speech codecs keep."""
    wave = np.zeros(round(rate * seconds))
    tone = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(round(rate * 0.06)) / rate)
    for time in at:
        wave[round(rate * time) :][: len(tone)] = tone
    return wave.astype(np.float32)


def tones(rate: int, seconds: int, first: int = 0) -> npt.NDArray[np.float32]:
    """Mono float32 [T]: every second has a tone of its own, (300 + 50 n) Hz from n = first on."""
    time = np.arange(rate * seconds) / rate
    return (0.4 * np.sin(2 * np.pi * (300 + 50 * (first + np.floor(time))) * time)).astype(np.float32)


def tone_of_each_second(samples: npt.NDArray[np.int16], rate: int) -> list[int | None]:
    """The n of `tones` in the middle of each whole second; None where it is silent."""
    found: list[int | None] = []
    for at in range(len(samples) // rate):
        middle = samples[at * rate + rate // 4 : at * rate + 3 * rate // 4].astype(np.float64)
        hertz = 2.0 * float(np.abs(np.fft.rfft(middle)).argmax())
        found.append(round((hertz - 300) / 50) if np.abs(middle).max() > 300 else None)
    return found


def clicks(rate: int, seconds: float, at: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """Mono float32 [T]: quiet noise with a loud click of one sample at each of the times, in seconds."""
    wave = 0.01 * np.random.default_rng(1).standard_normal(round(rate * seconds))
    wave[[round(rate * time) for time in at]] = 0.9
    return wave.astype(np.float32)


def melody(rate: int, seconds: float, channels: int = 1) -> npt.NDArray[np.float32]:
    """Float32 [T, C]: a gliding tone, so that every moment differs from every other."""
    time = np.arange(round(rate * seconds)) / rate
    glide = 0.4 * np.sin(2 * np.pi * (200 * time + 40 * time**2))
    return np.stack([glide * (channel + 1) / channels for channel in range(channels)], axis=1).astype(np.float32)


def encode(wave: npt.NDArray[np.float32], rate: int, kind: str, pictures: bool = False) -> bytes:
    """A whole file of float32 [T] or [T, C]; with `pictures` beside it a film of ten small ones a second."""
    container, codec = KINDS[kind]
    file = io.BytesIO()
    if pictures:
        _encode_with_ffmpeg(file, wave.reshape(len(wave), -1), rate, container, codec, pictures)
    elif codec.isupper():
        soundfile.write(file, wave, rate, format=container, subtype=codec)
    else:
        _encode_with_ffmpeg(file, wave.reshape(len(wave), -1), rate, container, codec)
    return file.getvalue()


def _encode_with_ffmpeg(
    file: io.BytesIO, wave: npt.NDArray[np.float32], rate: int, container: str, codec: str, pictures: bool = False
) -> None:
    layout = {1: "mono", 2: "stereo"}[wave.shape[1]]
    # note: without AAC's noise substitution, whose noise depends on how much was decoded before
    options = {"aac_pns": "0"} if codec == "aac" else {}
    with av.open(file, "w", format=container) as output:
        film = output.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p") if pictures else None
        stream = output.add_stream(codec, rate=rate, options=options)
        stream.layout = layout
        if codec in _BIT_RATES:
            stream.bit_rate = _BIT_RATES[codec]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        fifo = av.AudioFifo()
        sample_format = stream.codec_context.format
        for each in av.AudioResampler(sample_format, layout, rate).resample(frame):
            fifo.write(each)
        while (part := fifo.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
        if film is not None:
            for number in range(round(len(wave) / rate * 10)):
                grey = np.full((32, 32, 3), number % 256, np.uint8)
                output.mux(film.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            output.mux(film.encode(None))
