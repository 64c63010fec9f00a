"""What a hostile archive may cost: every limit is a setting, and reaches the decoder."""

from __future__ import annotations

import re
import struct
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mats_core.audio.decode import DecodeLimits, decode, probe
from mats_core.audio.file import AudioError
from mats_core.errors import SettingsError
from pipelines.archive.headers import make_decoder
from pipelines.settings.archive import CaptionSettings, LimitSettings
from pipelines.settings.base import build
from tests.recordings import encode, melody

LIMITS = {
    "max_file_bytes": "max_bytes",
    "max_seconds": "max_seconds",
    "decode_memory_bytes": "memory_bytes",
    "decode_deadline": "deadline_s",
    "store_deadline": "store_s",
    "max_sample_rate": "max_sample_rate",
    "min_sample_rate": "min_sample_rate",
    "max_channels": "max_channels",
}


def test_every_limit_is_a_setting_with_a_default_and_reaches_the_decoder() -> None:
    assert set(LIMITS) == set(LimitSettings.model_fields) - {"schemes", "columns", "all_files"}
    assert set(LIMITS.values()) == set(DecodeLimits.model_fields)
    for setting, limit in LIMITS.items():
        chosen = make_decoder(1, 16_000, LimitSettings(**{setting: 7})).limits
        assert getattr(chosen, limit) == 7
        default = getattr(make_decoder(1, 16_000, LimitSettings()).limits, limit)
        told = re.search(r"default: (\d+)( GiB)?\)", LimitSettings.model_fields[setting].description or "")
        assert told is not None and 7 < default == int(told[1]) * (2**30 if told[2] else 1)  # what --help says


@pytest.mark.parametrize("setting", sorted(LIMITS))
def test_a_limit_beyond_reason_is_a_wrong_setting(setting: str) -> None:
    with pytest.raises(SettingsError, match=f"^{setting}: 10+ is too large; give a number of at most [0-9.]+$"):
        build(LimitSettings, {setting: 10**25})


def test_one_value_in_yaml_is_a_list_of_one() -> None:
    settings = build(CaptionSettings, {"input": "a", "output": "b", "retry_errors": "io_error", "schemes": "s3"})
    assert (settings.retry_errors, settings.schemes) == (["io_error"], ["s3"])
    with pytest.raises(SettingsError, match="not_audio"):
        build(CaptionSettings, {"input": "a", "output": "b", "retry_errors": "nonsense"})


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """A process to trace memory in: where other threads run (Ray's), tracing may crash the interpreter."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


def read_traced(path: Path, rate: int, limits: DecodeLimits | None) -> tuple[str | None, int]:
    """Header and sound are read; the error's code, and the most bytes that Python held."""
    found = None
    tracemalloc.start()
    for action in (probe, lambda file: decode(file, sample_rate=rate, limits=limits or DecodeLimits())):
        try:
            with path.open("rb") as file:
                action(file)
        except AudioError as error:
            found = error.code
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found, peak


def header(path: Path, rate: int, channels: int, seconds: float = 0.5) -> Path:
    """A WAV file of silence that declares what it is told to."""
    size = round(rate * seconds) * channels * 2
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt ")
        file.write(struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16))
        file.write(b"data" + struct.pack("<I", size))
        file.truncate(44 + size)
    return path


@pytest.mark.processes
@pytest.mark.parametrize(
    ("rate", "channels", "code"),
    [
        (768_000, 1, None),
        (800_000, 1, "too_large"),
        (2_000_000_000, 1, "too_large"),
        (1000, 1, None),
        (999, 1, "decode_failed"),
        (1, 1, "decode_failed"),
        (16_000, 64, None),
        (16_000, 65, "too_large"),
        (16_000, 1000, "too_large"),
    ],
)
def test_absurd_rates_and_channel_counts_are_refused_without_much_memory(
    tmp_path: Path, elsewhere: ProcessPoolExecutor, rate: int, channels: int, code: str | None
) -> None:
    path = header(tmp_path / "a.wav", rate, channels, seconds=max(2 / rate, 0.5 if rate < 1e6 else 1e-4))
    found, peak = elsewhere.submit(read_traced, path, 16_000, None).result()
    assert found == code
    assert peak < 32 << 20


@pytest.mark.processes
def test_an_hour_of_silence_in_a_few_kilobytes_does_not_fill_the_memory(
    tmp_path: Path, elsewhere: ProcessPoolExecutor
) -> None:
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        for _ in range(60):
            file.write(np.zeros(60 * 8000, np.int16))
    assert path.stat().st_size < 1 << 20
    limits = DecodeLimits(max_seconds=600, deadline_s=600)
    found, peak = elsewhere.submit(read_traced, path, 8000, limits).result()
    assert found == "too_large"
    assert peak < 64 << 20


def test_a_playlist_with_the_name_of_a_sound_is_refused_and_its_target_is_not_read(tmp_path: Path) -> None:
    target = tmp_path / "target.wav"
    target.write_bytes(encode(melody(16_000, 1.0), 16_000, "wav"))
    for name, text in (("a.wav", f"#EXTM3U\n{target}\n"), ("b.mp3", f"ffconcat version 1.0\nfile '{target}'\n")):
        (tmp_path / name).write_text(text)
        with (tmp_path / name).open("rb") as file, pytest.raises(AudioError) as caught:
            probe(file, name)
        assert caught.value.code == "refused"


@pytest.mark.long
def test_a_million_files_in_one_folder_are_listed_in_little_memory(tmp_path: Path) -> None:
    from mats_core import storage

    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1_000_000):
        (folder / f"{number:07d}.wav").touch()
    tracemalloc.start()
    count, last = 0, ""
    for info in storage.list_files(str(folder), frozenset({".wav"})):
        assert info.path > last
        count, last = count + 1, info.path
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 1_000_000
    assert peak < 100 << 20


@pytest.mark.long
@pytest.mark.parametrize("kind", ["flac", "mp3", "m4a", "opus", "wav"])
def test_three_hours_are_decoded_by_seeking_on_several_workers(tmp_path: Path, kind: str) -> None:
    """Every minute on its own, by two workers: all of it, each minute at its place, no process over 1.5 GiB."""
    import av

    from mats_core.audio.sandbox import DecodeRequest, IsolatedDecoder
    from mats_core.audio.windows import chunk_starts

    minutes, rate = 180, 48_000
    path = tmp_path / f"long.{kind}"
    container, codec = {
        "flac": ("flac", "flac"), "mp3": ("mp3", "libmp3lame"), "m4a": ("ipod", "aac"), "opus": ("opus", "libopus"),
        "wav": ("wav", "pcm_s16le"),
    }[kind]  # fmt: skip
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 64_000
        fifo = av.AudioFifo()
        for minute in range(minutes):  # every minute has a pitch of its own: 200 Hz and 10 Hz more each minute
            time = np.arange(60 * rate, dtype=np.float32) / rate
            wave = (0.5 * np.sin(2 * np.pi * (200 + 10 * minute) * time)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.sample_rate = rate
            for each in av.AudioResampler(stream.codec_context.format, "mono", rate).resample(frame):
                each.pts = None
                fifo.write(each)
            while (part := fifo.read(stream.codec_context.frame_size or 4096)) is not None:
                output.mux(stream.encode(part))
        while (part := fifo.read(stream.codec_context.frame_size or 4096, partial=True)) is not None:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    with IsolatedDecoder(2, 16_000) as decoder:
        (info,) = decoder.probe_many([str(path)])
        assert info.duration_s == pytest.approx(minutes * 60, abs=0.1)
        cuts = chunk_starts(info.duration_s, 60.0)
        answers = decoder.decode_many([DecodeRequest(str(path), start, length) for start, length in cuts])
        peaks = [
            int(line.split()[1])
            for child in decoder._children
            for line in Path(f"/proc/{child.process.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM:")
        ]
    assert len(peaks) == 2
    print(f"\n{kind}: {path.stat().st_size / 1e6:.0f} MB, peaks {[round(peak / 1024) for peak in peaks]} MiB")
    assert max(peaks) < 1.5 * (1 << 20)  # KiB
    assert sum(answer.decoded_s for answer in answers) == pytest.approx(minutes * 60, abs=0.1)
    for minute, answer in enumerate(answers):
        middle = answer.samples[16_000 * 20 : 16_000 * 30].astype(np.float32)
        pitch = np.abs(np.fft.rfft(middle)).argmax() / 10
        assert pitch == pytest.approx(200 + 10 * minute, abs=0.2)
