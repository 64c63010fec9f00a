"""Decoding: the right samples at the right times, and a code with a reason for everything that is not audio."""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from mats_core.audio.decode import DecodeLimits, decode, probe
from mats_core.audio.file import AudioError, SourceFile
from mats_core.audio.readers.ffmpeg import FfmpegSource
from mats_core.audio.signatures import sniff
from tests.recordings import clicks, encode, melody


def _decode(data: bytes, rate: int = 16000, **options) -> np.ndarray:
    return decode(io.BytesIO(data), sample_rate=rate, **options).samples.astype(np.int32)


def _error(data: bytes, **options) -> AudioError:
    with pytest.raises(AudioError) as caught:
        decode(io.BytesIO(data), sample_rate=16000, **options)
    return caught.value


# --- the right samples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wav", "flac", "aiff"])
def test_sixteen_bit_samples_at_their_own_rate_come_back_unchanged(kind):
    samples = np.random.default_rng(0).integers(-32768, 32768, 4000).astype(np.int16)
    data = encode(samples.astype(np.float32) / 32768, 16000, kind)
    assert np.array_equal(_decode(data), samples)


@pytest.mark.parametrize("asked", [{"start_s": -3.0}, {"start_s": float("nan")}, {"duration_s": -1.0}])
def test_what_is_no_stretch_is_refused_and_not_called_damaged(asked):
    error = _error(encode(melody(16000, 1.0), 16000, "wav"), **asked)
    assert error.code == "refused" and "which is no stretch of a sound" in error.message


def test_channels_are_averaged():
    wave = np.tile(np.array([[0.5, -0.25]], np.float32), (1000, 1))
    assert set(_decode(encode(wave, 16000, "wavfloat"))) == {4096}  # (0.5 - 0.25) / 2 * 32768


def test_six_channels_are_averaged():
    wave = np.zeros((1000, 6), np.float32)
    wave[:, 3] = 0.75
    assert set(_decode(encode(wave, 16000, "wavfloat"))) == {4096}  # 0.75 / 6 * 32768


def test_floats_beyond_one_are_clipped():
    wave = np.array([2.0, -3.0, 0.5], np.float32)
    assert _decode(encode(wave, 16000, "wavfloat")).tolist() == [32767, -32768, 16384]


def test_nan_and_infinity_are_silence():
    wave = np.array([0.25, np.nan, np.inf, -np.inf, 0.5], np.float32)
    assert _decode(encode(wave, 16000, "wavfloat")).tolist() == [8192, 0, 0, 0, 16384]


def test_a_file_of_nothing_but_nan_is_no_audio():
    error = _error(encode(np.full(2000, np.nan, np.float32), 16000, "wavfloat"))
    assert error.code == "decode_failed"
    assert "NaN" in error.message


def test_one_infinite_sample_does_not_spoil_its_neighbours_when_resampled():
    wave = melody(48000, 1.0)[:, 0]
    expected = _decode(encode(wave, 48000, "wavfloat"))
    wave[24000] = np.inf
    assert np.abs(_decode(encode(wave, 48000, "wavfloat")) - expected)[:7900].max() <= 1


@pytest.mark.parametrize(("hertz", "share"), [(1000, 1.0), (6000, 1.0), (9000, 0.0), (20000, 0.0)])
def test_resampling_keeps_what_the_new_rate_can_hold_and_removes_the_rest(hertz, share):
    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(48000) / 48000)
    heard = _decode(encode(tone.astype(np.float32), 48000, "wavfloat"), 16000)[1000:15000]
    assert np.sqrt(np.mean(heard**2.0)) == pytest.approx(share * 0.5 / np.sqrt(2) * 32768, rel=0.01, abs=2)


# --- at the right times --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wav", "wav24", "flac", "aiff", "ogg", "mp3", "m4a", "opus", "webm"])
@pytest.mark.parametrize("rate", [48000, 44100])
def test_a_click_is_heard_at_its_time(kind, rate):
    if rate == 44100 and kind in ("opus", "webm"):
        pytest.skip("Opus has no 44.1 kHz")
    data = encode(clicks(rate, 4.0, at=(0.5, 3.0)), rate, kind)
    heard = _decode(data, 16000)
    assert abs(int(np.abs(heard[:16000]).argmax()) - 8000) <= 1
    assert abs(int(np.abs(heard[40000:]).argmax()) - 8000) <= 1
    late = _decode(data, 16000, start_s=2.25, duration_s=1.5)  # webm tells its times in whole milliseconds
    assert abs(int(np.abs(late).argmax()) - 12000) <= (8 if kind == "webm" else 1)


def test_raw_aac_does_not_tell_its_delay_and_is_late_by_one_frame():
    data = encode(clicks(44100, 4.0, at=(0.5, 3.0)), 44100, "aac")
    for start_s, click_s in ((0.0, 0.5), (2.0, 3.0)):
        heard = _decode(data, 44100, start_s=start_s, duration_s=1.5)
        assert abs(int(np.abs(heard).argmax()) - round((click_s - start_s) * 44100) - 1024) <= 1


SEEKS = [(0.0, 1.0), (1.234, 2.5), (3.0, None), (5.7, 3.0)]


@pytest.mark.parametrize("kind", ["wav", "flac", "aiff", "ogg", "mp3", "m4a", "aac", "opus"])
@pytest.mark.parametrize("rate", [48000, 44100])
def test_a_stretch_equals_the_same_slice_of_the_whole(kind, rate):
    if rate == 44100 and kind == "opus":
        pytest.skip("Opus has no 44.1 kHz")
    data = encode(melody(rate, 6.0, channels=2), rate, kind)
    whole = _decode(data)
    for start_s, duration_s in SEEKS:
        part = _decode(data, start_s=start_s, duration_s=duration_s)
        first = round(start_s * 16000)
        expected = whole[first:] if duration_s is None else whole[first : first + round(duration_s * 16000)]
        assert len(part) == len(expected)
        assert np.abs(part - expected).max() <= 2, (start_s, duration_s)


def test_webm_stretches_start_within_a_millisecond_of_the_slice():
    data = encode(melody(48000, 6.0), 48000, "webm")
    whole, part = _decode(data), _decode(data, start_s=2.5, duration_s=1.0)
    misfit = [np.abs(whole[40000 + shift : 56000 + shift] - part).mean() for shift in range(-16, 17)]
    assert min(misfit) < 5


@pytest.mark.parametrize(("rate", "kind"), [(44100, "flac"), (11025, "wav"), (8000, "ogg")])
def test_consecutive_stretches_join_without_a_seam(rate, kind):
    data = encode(melody(rate, 5.0), rate, kind)
    joined = np.concatenate([_decode(data, start_s=start, duration_s=0.7) for start in np.arange(8) * 0.7])
    whole = _decode(data)
    assert len(joined) == len(whole)
    assert np.abs(joined - whole).max() <= 1


def test_a_stretch_of_a_three_hour_file_is_sought_and_not_read_through(tmp_path: Path):
    seconds, rate = 3 * 3600, 48000
    path = tmp_path / "long.wav"
    size = seconds * rate * 4
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt ")
        file.write(struct.pack("<IHHIIHH", 16, 1, 2, rate, rate * 4, 4, 16) + b"data" + struct.pack("<I", size))
        file.seek(44 + 10000 * rate * 4)
        file.write(struct.pack("<hh", 16384, 16384))
        file.truncate(44 + size)  # a sparse file: the rest takes no space
    with path.open("rb") as file:
        assert probe(file).duration_s == seconds
        tracemalloc.start()
        decoded = decode(file, sample_rate=48000, start_s=9999.5, duration_s=56)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert int(decoded.samples.argmax()) == 24000
    assert peak < 64 << 20


# --- headers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [("wav", "wav"), ("flac", "flac"), ("aiff", "aiff"), ("ogg", "ogg"), ("mp3", "mp3"), ("m4a", "mp4"),
     ("opus", "opus"), ("webm", "webm")],
)  # fmt: skip
def test_a_header_tells_format_rate_channels_and_duration(kind, name):
    info = probe(io.BytesIO(encode(melody(48000, 2.5, channels=2), 48000, kind)))
    assert (info.format, info.sample_rate, info.channels, info.duration_source) == (name, 48000, 2, "header")
    assert info.duration_s == pytest.approx(2.5, abs=0.02 if kind == "webm" else 1e-6)


@pytest.mark.parametrize(("kind", "name"), [("mp4", "mp4"), ("mov", "mp4"), ("mkv", "matroska")])
def test_of_a_film_the_sound_is_told_and_heard(kind, name):
    data = encode(clicks(48000, 4.0, at=(0.5, 3.0)), 48000, kind, pictures=True)
    with av.open(io.BytesIO(data)) as film:
        assert [stream.type for stream in film.streams] == ["video", "audio"]
    info = probe(io.BytesIO(data))
    assert (info.format, info.sample_rate, info.channels, info.duration_source) == (name, 48000, 1, "header")
    assert info.duration_s == pytest.approx(4.0, abs=0.03)
    assert abs(int(np.abs(_decode(data)[:16000]).argmax()) - 8000) <= 1
    assert abs(int(np.abs(_decode(data, start_s=2.25, duration_s=1.5)).argmax()) - 12000) <= 16  # a millisecond


def test_a_film_without_sound_is_no_audio():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        film = output.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        output.mux(film.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        output.mux(film.encode(None))
    error = _error(file.getvalue())
    assert (error.code, "without a sound track" in error.message) == ("not_audio", True)


@pytest.mark.parametrize("times", [1, 30])
def test_a_raw_aac_is_counted_at_any_size(times):
    data = encode(melody(44100, 2.5), 44100, "aac") * times
    info = probe(io.BytesIO(data))
    assert (info.duration_source, info.duration_s) == ("decoded", pytest.approx(2.53 * times, rel=0.02))


def test_a_header_that_declares_days_in_a_few_kilobytes_is_not_believed():
    data = bytearray(encode(melody(16000, 1.0), 16000, "flac"))
    data[21:26] = bytes([data[21] | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])  # STREAMINFO: 2^36 - 1 samples
    assert probe(io.BytesIO(bytes(data))).duration_s == 1.0
    decoded = decode(io.BytesIO(bytes(data)), sample_rate=16000)
    assert decoded.decoded_s == 1.0


# --- files that break off ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wav", "aiff", "flac", "ogg", "mp3", "opus", "webm"])
def test_a_cut_file_gives_what_is_there_and_says_so(kind):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48000 * 4).astype(np.float32)
    data = encode(noise, 48000, kind)
    whole = decode(io.BytesIO(data), sample_rate=16000)
    cut = decode(io.BytesIO(data[: len(data) // 2]), sample_rate=16000)
    assert whole.complete
    assert not cut.complete
    assert 0.9 < cut.decoded_s < 3.0
    assert cut.decoded_s == len(cut.samples) / 16000
    same = len(cut.samples) - 1600  # near the cut the resampler hears silence, and a codec loses its last frame
    assert np.abs(cut.samples[:same].astype(int) - whole.samples[:same]).max() <= 1


def test_one_damaged_bit_costs_a_part_and_adds_nothing():
    data = encode(melody(48000, 2.0), 48000, "flac")
    whole = _decode(data)
    for place in np.linspace(len(data) // 2, len(data) - 1, 12).astype(int):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        decoded = decode(io.BytesIO(bytes(damaged)), sample_rate=16000)
        assert not decoded.complete
        assert 0.7 < decoded.decoded_s <= 2.0
        assert np.abs(decoded.samples[:10000] - whole[:10000]).max() <= 1


def test_a_stretch_before_the_cut_is_complete_and_one_after_it_is_empty():
    data = encode(melody(16000, 4.0), 16000, "flac")
    data = data[: len(data) // 2]
    before = decode(io.BytesIO(data), sample_rate=16000, start_s=0.5, duration_s=0.25)
    after = decode(io.BytesIO(data), sample_rate=16000, start_s=3.5, duration_s=0.25)
    assert before.complete
    assert len(before.samples) == 4000
    assert not after.complete
    assert len(after.samples) == 0


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "m4a", "opus", "aac"])
def test_a_stretch_past_the_end_is_empty_and_no_error(kind):
    decoded = decode(
        io.BytesIO(encode(melody(48000, 1.0), 48000, kind)), sample_rate=16000, start_s=56.0, duration_s=56.0
    )
    assert (len(decoded.samples), decoded.decoded_s, decoded.complete) == (0, 0.0, True)


def test_a_streamed_wav_without_sizes_is_read_to_its_end():
    data = bytearray(encode(melody(16000, 1.0), 16000, "wav"))
    for sizes in (b"\xff\xff\xff\xff", b"\0\0\0\0"):
        data[4:8] = data[40:44] = sizes
        decoded = decode(io.BytesIO(bytes(data)), sample_rate=16000)
        assert decoded.decoded_s == 1.0
        assert decoded.complete


# --- codes ---------------------------------------------------------------------------------------------------

WAV = encode(melody(16000, 0.1), 16000, "wav")
BAD = {
    "nothing": (b"", "empty_audio", "0 bytes"),
    "a WAV header": (WAV[:40] + b"\0\0\0\0", "empty_audio", "samples"),
    "a WAV header without data chunk": (WAV[:36], "empty_audio", "samples"),
    "text": (b"These are my notes on birds.\n" * 9, "not_audio", "text"),
    "one letter": (b"a", "not_audio", "text"),
    "HTML": (b"<!DOCTYPE html><html><body>404</body></html>", "not_audio", "HTML"),
    "UTF-16 text": ("Notizen über Vögel".encode("utf-16"), "not_audio", "text"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(200), "not_audio", "PNG"),
    "an archive": (b"PK\x03\x04" + bytes(200), "not_audio", "ZIP"),
    "zeros": (bytes(5000), "not_audio", "zero bytes"),
    "noise": (np.random.default_rng(3).bytes(5000), "not_audio", "no known audio format"),
    "an m4a without its end": (encode(melody(48000, 1.0), 48000, "m4a")[:3000], "decode_failed", "MP4"),
    "a FLAC header": (encode(melody(16000, 1.0), 16000, "flac")[:60], "decode_failed", "FLAC"),
    "M3U": (b"#EXTM3U\n#EXTINF:1,\nhttp://example.org/a.mp3\n", "refused", "playlist"),
    "HLS": (b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n", "refused", "playlist"),
    "a concat list": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "refused", "concat"),
    "PLS": (b"[playlist]\nFile1=http://example.org/a.mp3\n", "refused", "playlist"),
    "DASH": (b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>', "refused", "DASH"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_audio_has_a_code_and_a_reason(what):
    data, code, word = BAD[what]
    error = _error(data)
    assert error.code == code
    assert word.lower() in error.message.lower()
    with pytest.raises(AudioError) as caught:
        probe(io.BytesIO(data))
    assert caught.value.code == code


def test_a_bare_list_of_paths_is_a_playlist_by_its_name():
    with pytest.raises(AudioError) as caught:
        probe(io.BytesIO(b"/etc/passwd\n"), "songs.m3u")
    assert caught.value.code == "refused"


def test_a_playlist_that_is_not_recognised_by_its_first_bytes_is_still_not_followed(tmp_path: Path):
    target = tmp_path / "target.wav"
    target.write_bytes(encode(melody(16000, 1.0), 16000, "wav"))
    for text in (f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n", f"ffconcat version 1.0\nfile {target}\n"):
        file = SourceFile(io.BytesIO(text.encode()))
        with pytest.raises(AudioError) as caught:  # FFmpeg itself, without our look at the first bytes
            FfmpegSource(file, sniff(b""))
        assert caught.value.code in ("refused", "decode_failed")


@pytest.mark.parametrize(
    ("limits", "options"),
    [
        ({"max_bytes": 1000}, {}),
        ({"max_sample_rate": 15999}, {}),
        ({"max_channels": 1}, {}),
        ({"max_seconds": 0.5}, {}),
        ({"max_seconds": 0.5}, {"duration_s": 0.6}),
    ],
)
def test_what_is_over_a_limit_is_too_large(limits, options):
    data = encode(melody(16000, 1.0, channels=2), 16000, "wav")
    assert _error(data, limits=DecodeLimits(**limits), **options).code == "too_large"


def test_a_wav_that_declares_absurd_numbers_is_coded():
    data = bytearray(encode(melody(16000, 1.0), 16000, "wav"))
    data[24:28] = struct.pack("<I", 2_000_000_000)
    assert _error(bytes(data)).code in ("too_large", "decode_failed")
    data[24:28] = struct.pack("<I", 1)
    assert _error(bytes(data)).code == "decode_failed"


def test_a_file_that_takes_too_long_is_a_timeout():
    assert _error(WAV, limits=DecodeLimits(deadline_s=1e-9)).code == "timeout"


class _Failing(io.BytesIO):
    """A file whose store stops answering after 100 kB."""

    def read(self, count: int | None = -1) -> bytes:
        if self.tell() > 100_000:
            raise ConnectionResetError("https://user:secret@example.org/a?X-Amz-Signature=secret")
        return super().read(count)


@pytest.mark.parametrize("kind", ["wav", "flac", "webm"])
def test_a_store_that_fails_midway_is_no_short_file(kind):
    noise = np.random.default_rng(0).uniform(-1, 1, 48000 * 60).astype(np.float32)
    file = _Failing(encode(noise, 48000, kind))
    with pytest.raises(AudioError) as caught:
        decode(file, sample_rate=16000)
    assert caught.value.code == "io_error"
    assert "secret" not in str(caught.value)
