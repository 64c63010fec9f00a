"""Files of chunks whose headers lie: all of the sound is heard, and nothing else, whatever stands around it."""

from __future__ import annotations

import contextlib
import io
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mats_core.audio.decode import decode, probe
from mats_core.audio.file import AudioError, SourceFile
from mats_core.audio.repair import repair
from tests.recordings import encode, melody

RATE = 8000
SAMPLES = np.random.default_rng(0).integers(-32768, 32768, 10 * RATE).astype("<i2")  # 10 s: 160 kB
SOUND = SAMPLES.tobytes()
HALF = len(SOUND) // 2
GUID = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
FMT = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)


def chunk(name: bytes, data: bytes, size: int | None = None, pad: bool = True, order: str = "<") -> bytes:
    """A chunk as RIFF and AIFF have it, with the size it declares."""
    declared = struct.pack(order + "I", (len(data) if size is None else size) & 0xFFFFFFFF)
    return name + declared + data + bytes(len(data) & 1 if pad else 0)


def wav(
    size: int | None = None, before: bytes = b"", behind: bytes = b"", sound: bytes = SOUND, fmt: bytes = FMT
) -> bytes:
    """A WAV file whose `data` declares `size` bytes."""
    data = chunk(b"fmt ", fmt) + before + chunk(b"data", sound, size) + behind
    return b"RIFF" + struct.pack("<I", len(data) + 4) + b"WAVE" + data


def rf64(size: int | None = None, before: bytes = b"", behind: bytes = b"", form: bytes = b"RF64") -> bytes:
    size = len(SOUND) if size is None else size
    wide = chunk(b"ds64", struct.pack("<QQQI", size + 80, size, size // 2, 0))
    data = wide + chunk(b"fmt ", FMT) + before + chunk(b"data", SOUND, 0xFFFFFFFF) + behind
    return form + b"\xff\xff\xff\xff" + b"WAVE" + data


def bw64(size: int | None = None, before: bytes = b"", behind: bytes = b"") -> bytes:
    return rf64(size, before, behind, b"BW64")


def rifx(size: int | None = None, before: bytes = b"", behind: bytes = b"") -> bytes:
    fmt = chunk(b"fmt ", struct.pack(">HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16), order=">")
    data = fmt + before + chunk(b"data", SAMPLES.astype(">i2").tobytes(), size, order=">") + behind
    return b"RIFX" + struct.pack(">I", len(data) + 4) + b"WAVE" + data


def w64(size: int | None = None, before: bytes = b"", behind: bytes = b"") -> bytes:
    size = len(SOUND) if size is None else size
    data = b"fmt " + GUID + struct.pack("<q", 40) + FMT + before
    data += b"data" + GUID + struct.pack("<Q", (24 + size) & (1 << 64) - 1) + SOUND + behind
    return (
        b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0" + struct.pack("<q", 40 + len(data)) + b"wave" + GUID + data
    )


def aiff(
    size: int | None = None,
    before: bytes = b"",
    behind: bytes = b"",
    frames: int = 10 * RATE,
    form: bytes = b"AIFF",
    code: bytes = b"",
) -> bytes:
    rate = struct.pack(">HQ", 16383 + 12, RATE << (63 - 12))
    comm = chunk(b"COMM", struct.pack(">HIH", 1, frames, 16) + rate + code, order=">")
    sound = SOUND if code == b"sowt" else SAMPLES.astype(">i2").tobytes()
    data = comm + before + chunk(b"SSND", bytes(8) + sound, None if size is None else size + 8, order=">") + behind
    return b"FORM" + struct.pack(">I", len(data) + 4) + form + data


def aifc(size: int | None = None, before: bytes = b"", behind: bytes = b"") -> bytes:
    return aiff(size, before, behind, form=b"AIFC", code=b"sowt")


def caf(size: int | None = None, before: bytes = b"", behind: bytes = b"") -> bytes:
    desc = struct.pack(">d4s5I", RATE, b"lpcm", 2, 2, 1, 1, 16)
    size = len(SOUND) if size is None else size
    head = b"caff\0\1\0\0desc" + struct.pack(">q", 32) + desc + before
    return head + b"data" + struct.pack(">qI", -1 if size < 0 else size + 4, 0) + SOUND + behind


def au(size: int | None = None, before: bytes = b"", behind: bytes = b"") -> bytes:
    size = len(SOUND) if size is None else size
    head = b".snd" + struct.pack(">5I", 24 + len(before), size & 0xFFFFFFFF, 3, RATE, 1) + before
    return head + SAMPLES.astype(">i2").tobytes() + behind


MAKERS: dict[str, Callable[..., bytes]] = {
    "wav": wav, "rf64": rf64, "bw64": bw64, "rifx": rifx, "w64": w64, "aiff": aiff, "aifc": aifc, "caf": caf, "au": au,
}  # fmt: skip
NARROW = ("wav", "rifx", "aiff", "aifc")  # chunks of four letters and 32 bits
TAGS = {
    "ID3v1": b"TAG" + b"title".ljust(125, b"\0"),
    "APE": b"APETAGEX" + struct.pack("<IIII8x", 2000, 24 + 32, 1, 1 << 31) + b"v" * 24
    + b"APETAGEX" + struct.pack("<IIII8x", 2000, 24 + 32, 1, 1 << 31),
}  # fmt: skip
PADDING = {
    "ID3v2": b"ID3\3\0\0\0\0\2\0" + bytes(range(256)),
    "zeros": bytes(5000),
    "stray bytes": b"\1\2\3",
}


def order_of(kind: str) -> str:
    return "<" if kind == "wav" else ">"


def heard(data: bytes) -> npt.NDArray[np.int16]:
    """All of it, where the header tells as much: what is told and what is decoded must be one."""
    info = probe(io.BytesIO(data))
    decoded = decode(io.BytesIO(data), sample_rate=RATE)
    assert (info.sample_rate, info.duration_source) == (RATE, "header")
    assert info.duration_s == len(decoded.samples) / RATE
    assert decoded.complete
    late = decode(io.BytesIO(data), sample_rate=RATE, start_s=7.5, duration_s=600)
    assert np.array_equal(late.samples, decoded.samples[round(7.5 * RATE) :])
    return decoded.samples


@pytest.mark.parametrize("kind", MAKERS)
def test_an_intact_file_is_heard_as_it_is(kind: str) -> None:
    assert np.array_equal(heard(MAKERS[kind]()), SAMPLES)


NAMES = (b"LIST", b"_PMX", b"(c) ", b"id3 ", b"afsp", b"a-!~", b"    ", b"0.1:")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", NARROW)
def test_a_chunk_behind_the_sound_is_not_heard_whatever_its_name(kind: str, name: bytes) -> None:
    text = b"what was heard as noise " * 1000
    for pad in (True, False):  # of odd length, with the byte that fills it up and without
        behind = chunk(name, text + b".", pad=pad, order=order_of(kind)) + chunk(b"DISP", text, order=order_of(kind))
        assert np.array_equal(heard(MAKERS[kind](behind=behind)), SAMPLES)


@pytest.mark.parametrize("kind", NARROW)
def test_a_trailer_that_breaks_off_is_not_heard_either(kind: str) -> None:
    behind = chunk(b"LIST", bytes(range(200)), 9000, order=order_of(kind))
    assert np.array_equal(heard(MAKERS[kind](behind=behind)), SAMPLES)


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "au"])
@pytest.mark.parametrize("between", ["nothing", *TAGS, "ID3v2"])
def test_another_file_behind_the_end_is_not_heard_as_samples_but_told(kind: str, between: str) -> None:
    """As FFmpeg has it: such a file ends where its header says. Of AU files it hears both, and so do we."""
    tag = (TAGS | PADDING).get(between, b"")
    decoded = decode(io.BytesIO(MAKERS[kind](behind=tag + MAKERS[kind]())), sample_rate=RATE)
    assert np.array_equal(decoded.samples, SAMPLES)
    assert not decoded.complete
    assert decoded.lost_s == pytest.approx(10.0, abs=0.1)


def test_a_file_behind_flac_in_wav_is_told() -> None:
    """As a coding of samples, whose own header tells its end too."""
    flac = encode(melody(16000, 10.0), 16000, "flac")
    fmt = struct.pack("<HHIIHHH", 0xF1AC, 1, 16000, 32000, 1, 16, 34) + flac[8:42]
    data = wav(sound=flac[flac.find(b"\xff\xf8") :], fmt=fmt)
    whole, two = (decode(io.BytesIO(data * times), sample_rate=16000) for times in (1, 2))
    assert (whole.decoded_s, whole.complete, whole.lost_s) == (10.0, True, 0.0)
    assert (two.decoded_s, two.complete) == (10.0, False)
    assert two.lost_s == pytest.approx(10.0, abs=0.2)


@pytest.mark.parametrize("other", ["flac", "ogg", "mp3 behind a tag"])
def test_a_file_of_another_kind_behind_the_end_is_told_too(other: str) -> None:
    behind = encode(melody(16000, 3.0), 16000, other[:4].strip())
    decoded = decode(io.BytesIO(wav(behind=PADDING["ID3v2"] * ("tag" in other) + behind)), sample_rate=RATE)
    assert np.array_equal(decoded.samples, SAMPLES)
    assert not decoded.complete


@pytest.mark.parametrize("tag", [*TAGS, *PADDING])
@pytest.mark.parametrize("kind", MAKERS)
def test_tags_and_padding_behind_the_end_are_not_heard(kind: str, tag: str) -> None:
    assert np.array_equal(heard(MAKERS[kind](behind=(TAGS | PADDING)[tag])), SAMPLES)


def test_chunks_behind_the_sound_of_w64_and_caf_are_not_heard() -> None:
    text = b"text" * 2000
    assert np.array_equal(heard(w64(behind=b"bext" + GUID + struct.pack("<q", 24 + len(text)) + text)), SAMPLES)
    assert np.array_equal(heard(caf(behind=b"info" + struct.pack(">q", len(text)) + text)), SAMPLES)


WIDE = ("w64", "caf", "rf64", "bw64")  # with sizes of 64 bits
STALE = [
    *((kind, size) for kind in MAKERS for size in (0, HALF, HALF - 1, 2)),
    *((kind, size) for kind in MAKERS if kind not in WIDE for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFFDC)),
    ("caf", -1),
]


@pytest.mark.parametrize(("kind", "size"), STALE)
def test_of_a_stopped_recorder_all_is_heard(kind: str, size: int) -> None:
    assert np.array_equal(heard(MAKERS[kind](size)), SAMPLES)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_tag_behind_a_stale_size_is_not_heard(kind: str, tag: str) -> None:
    assert np.array_equal(heard(MAKERS[kind](HALF, behind=TAGS[tag])), SAMPLES)


@pytest.mark.parametrize("size", [None, HALF, 0])
@pytest.mark.parametrize("kind", NARROW)
def test_the_sound_is_found_behind_large_and_odd_chunks(kind: str, size: int | None) -> None:
    order = order_of(kind)
    for before in (
        chunk(b"bext", bytes(8000), order=order),
        chunk(b"JUNK", bytes(300_001), order=order) + chunk(b"iXML", b"<xml>" * 5000, order=order),
        chunk(b"iXML", b"<odd>" * 1001, pad=False, order=order),
        chunk(b"iXML", b"<odd>" * 1001, pad=False, order=order) + chunk(b"LIST", b"x" * 77, pad=False, order=order),
        chunk(b"id3 ", b"ID3\3\0\0\0\0\0\1" + b"\1" * 30_000, order=order),
    ):
        assert np.array_equal(heard(MAKERS[kind](size, before=before)), SAMPLES)


def test_the_description_of_an_aiff_may_stand_behind_its_sound() -> None:
    whole = aiff()
    comm, sound = whole[12:38], whole[38:]
    assert np.array_equal(heard(whole[:12] + sound + comm), SAMPLES)


@pytest.mark.parametrize("frames", [0, 5 * RATE, 20 * RATE, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [None, 0, HALF])
def test_the_frames_an_aiff_declares_are_not_believed(frames: int, size: int | None) -> None:
    if size != HALF or frames != 5 * RATE:  # then both are stale
        assert np.array_equal(heard(aiff(size, frames=frames)), SAMPLES)
    assert np.array_equal(heard(aiff(HALF, frames=5 * RATE)), SAMPLES)


def test_a_size_of_zero_and_right_frames_leave_out_what_follows() -> None:
    assert np.array_equal(heard(aiff(-8, behind=chunk(b"(c) ", b"me" * 9, order=">"))), SAMPLES)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_that_breaks_off_gives_what_is_there_and_says_so(kind: str) -> None:
    data = MAKERS[kind]()[: -HALF - 1]
    decoded = decode(io.BytesIO(data), sample_rate=RATE)
    assert not decoded.complete
    assert np.array_equal(decoded.samples, SAMPLES[: len(decoded.samples)])
    assert len(decoded.samples) == len(SAMPLES) // 2 - 1
    assert probe(io.BytesIO(data)).duration_s == decoded.decoded_s


def test_digital_silence_is_sound() -> None:
    silence = bytes(20 * RATE)
    for size in (None, 0, 0xFFFFFFFF):
        assert len(heard(wav(size, sound=silence))) == len(silence) // 2
    assert len(heard(wav(RATE, sound=bytes(3 << 20)))) == 3 << 19  # no padding is as long


@pytest.mark.parametrize("kind", ["wav", "aiff", "au", "rf64"])
@pytest.mark.parametrize("trailer", [b"", b"LIST"])
def test_five_gigabytes_with_a_wrapped_size(kind: str, trailer: bytes, tmp_path: Path) -> None:
    length, rate = 5 << 30, 48000
    path, fmt = tmp_path / "big", struct.pack("<HHIIHH", 1, 2, rate, 4 * rate, 4, 16)
    low, order = length & 0xFFFFFFFF, ">" if kind in ("aiff", "au") else "<"
    if kind == "wav":
        head = b"RIFF" + struct.pack("<I", low + 36) + b"WAVE" + chunk(b"fmt ", fmt) + b"data" + struct.pack("<I", low)
    elif kind == "rf64":
        wide = chunk(b"ds64", struct.pack("<QQQI", length + 80, length, 0, 0))
        head = b"RF64\xff\xff\xff\xffWAVE" + wide + chunk(b"fmt ", fmt) + b"data\xff\xff\xff\xff"
    elif kind == "aiff":
        about = struct.pack(">HIH", 2, length // 4, 16) + struct.pack(">HQ", 16383 + 15, rate << (63 - 15))
        head = b"FORM\0\0\0\0AIFF" + chunk(b"COMM", about, order=">") + b"SSND" + struct.pack(">III", low + 8, 0, 0)
    else:
        head = b".snd" + struct.pack(">5I", 24, low, 3, rate, 2)
    late = 27_900  # seconds
    with path.open("wb") as file:
        file.write(head)
        for second in (1000, late):
            file.seek(len(head) + second * rate * 4)
            file.write(struct.pack(order + "hh", 16384, 16384))
        file.truncate(len(head) + length)  # a sparse file: the rest takes no space
        file.seek(0, io.SEEK_END)
        file.write(chunk(trailer, b"text" * 9, order=order) if trailer and kind != "au" else b"")
    with path.open("rb") as file:
        assert probe(file).duration_s == length / 4 / rate
        decoded = decode(file, sample_rate=rate, start_s=late - 0.5, duration_s=1)
        rest = decode(file, sample_rate=rate, start_s=27_960, duration_s=None)
    assert int(decoded.samples.argmax()) == rate // 2
    assert (rest.decoded_s, rest.complete) == (pytest.approx(length / 4 / rate - 27_960, abs=1e-4), True)


# --- descriptions that lie -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate_factor", "align"), [(1, 1), (1, 4), (1, 0), (3, 2), (0, 2), (0, 0), (0, 0xFFFF)])
def test_a_frame_is_as_long_as_its_samples_are(rate_factor: int, align: int) -> None:
    fmt = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE * rate_factor, align, 16)
    assert np.array_equal(heard(wav(fmt=fmt)), SAMPLES)


def test_24_bits_may_stand_in_32() -> None:
    wide = (SAMPLES.astype("<i4") << 16).tobytes()
    guid = b"\1\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    for bits, valid in ((32, 24), (24, 24), (32, 20)):
        fmt = struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, 4 * RATE, 4, bits, 22, valid, 0) + guid
        assert np.array_equal(heard(wav(sound=wide, fmt=fmt)), SAMPLES)


CODINGS = [
    ("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "ULAW"),
    ("WAV", "ALAW"), ("WAVEX", "PCM_16"), ("WAVEX", "FLOAT"), ("W64", "PCM_U8"), ("W64", "PCM_24"), ("AIFF", "PCM_S8"),
    ("AIFF", "PCM_U8"), ("AIFF", "PCM_24"), ("AIFF", "PCM_32"), ("AIFF", "FLOAT"), ("AIFF", "DOUBLE"), ("AIFF", "ULAW"),
    ("AIFF", "ALAW"), ("AU", "PCM_S8"), ("AU", "PCM_24"), ("AU", "PCM_32"), ("AU", "FLOAT"), ("AU", "DOUBLE"),
    ("AU", "ULAW"), ("AU", "ALAW"), ("CAF", "PCM_S8"), ("CAF", "PCM_24"), ("CAF", "PCM_32"), ("CAF", "FLOAT"),
    ("CAF", "DOUBLE"), ("CAF", "ULAW"), ("CAF", "ALAW"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "GSM610"),
    ("W64", "IMA_ADPCM"), ("W64", "MS_ADPCM"), ("AIFF", "IMA_ADPCM"), ("AU", "G721_32"), ("CAF", "ALAC_16"),
]  # fmt: skip
ONE_CHANNEL = ("GSM610", "G721_32")


@pytest.mark.parametrize(
    ("container", "coding", "channels"),
    [(*pair, channels) for pair in CODINGS for channels in (1, 2) if channels == 1 or pair[1] not in ONE_CHANNEL],
)
def test_every_coding_is_heard_as_libsndfile_itself_hears_it(container: str, coding: str, channels: int) -> None:
    file = io.BytesIO()
    soundfile.write(file, 0.5 * melody(RATE, 3.0, channels), RATE, format=container, subtype=coding)
    file.seek(0)
    expected, _ = soundfile.read(file, dtype="float32", always_2d=True)
    info = probe(file)
    got = decode(file, sample_rate=RATE).samples / 32768
    assert (info.format, info.channels, info.duration_s) == (container.lower(), channels, len(expected) / RATE)
    assert len(got) == len(expected)
    heard_frames = 3 * RATE  # note: libsndfile tells a block of GSM too many, of no certain content
    assert np.abs(got - expected.mean(axis=1))[:heard_frames].max() < 1e-4


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="FFmpeg's program is the oracle; it is not installed")
@pytest.mark.processes
@pytest.mark.parametrize(
    "coding", ["adpcm_ms", "adpcm_ima_wav", "g722", "libmp3lame", "mp2", "ac3", "flac", "pcm_mulaw"]
)
def test_bytes_a_second_that_lie_change_nothing(coding: str, tmp_path: Path) -> None:
    source, path = tmp_path / "source.wav", tmp_path / "coded.wav"
    source.write_bytes(encode(np.tile(melody(16000, 1.0)[:, 0], 75), 16000, "wav"))
    rate = ["-ar", "32000"] if coding == "ac3" else []
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, *rate, "-c:a", coding, path], check=True)
    told = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, "-f", "s16le", "-ar", "16000", "-"], capture_output=True
    )
    seconds = len(told.stdout) / 32000
    data = bytearray(path.read_bytes())
    place = data.find(b"fact")
    if place > 0:  # and so does the number of samples, where there is one
        data[place + 8 : place + 12] = struct.pack("<I", 4711)
    for lie in (100, 1_000_000):
        data[28:32] = struct.pack("<I", lie)
        file = io.BytesIO(bytes(data))
        assert decode(file, sample_rate=16000).decoded_s == pytest.approx(seconds, abs=0.1)
        late = decode(file, sample_rate=16000, start_s=60, duration_s=60)
        assert late.decoded_s == pytest.approx(seconds - 60, abs=0.1)


# --- headers without sense -----------------------------------------------------------------------------------


class Counted(io.BytesIO):
    """Counts the reads."""

    reads = 0

    def read(self, count: int | None = -1) -> bytes:
        self.reads += 1
        return super().read(count)


SMALL = {kind: maker()[: 500 if kind != "w64" else 700] for kind, maker in MAKERS.items()} | {
    "adpcm": encode(melody(RATE, 0.1), RATE, "wav")[:20]
    + struct.pack("<HHIIHHHH", 2, 1, RATE, 9, 256, 4, 2, 500)
    + SOUND
}


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(sorted(SMALL)),
    edits=st.lists(st.tuples(st.integers(0, 130), st.binary(min_size=1, max_size=9)), max_size=6),
    cut=st.integers(0, 700),
)
def test_whatever_the_header_says_there_is_an_answer_or_an_error_with_a_code(kind, edits, cut) -> None:
    data = bytearray(SMALL[kind])
    for place, edit in edits:
        data[place : place + len(edit)] = edit
    file = Counted(bytes(data[: len(data) - cut if cut < 100 else None]))
    checked = SourceFile(file)
    with contextlib.suppress(AudioError):
        repair(checked, None, in_memory=True)
    assert len(checked.head(checked.size)) == checked.size  # what is presented is there
    assert file.reads < 2000


@pytest.mark.parametrize("behind", [False, True])
def test_two_million_tiny_chunks_cost_no_time(behind: bool) -> None:
    crowd = b"tiny\0\0\0\0" * 2_000_000
    file = Counted(wav(behind=crowd) if behind else wav(before=crowd))
    if behind:
        assert probe(file).duration_s == 10.0
    else:
        with pytest.raises(AudioError, match="chunks"):
            probe(file)
    assert file.reads < 50


@pytest.mark.parametrize("kind", ["wav", "aiff", "flac"])
def test_an_intact_file_costs_few_reads(kind: str) -> None:
    """Each may be a request to a store. Before headers were made anew it took 17, 16 and 8."""
    file = Counted(encode(melody(16000, 100.0), 16000, kind))
    probe(file)
    assert file.reads <= (11 if kind == "flac" else 10)


@pytest.mark.parametrize("kind", ["wav", "wav24", "aiff", "g722", "adpcm", "w64", "caf", "au"])
def test_what_a_cut_file_lacks_is_told(kind: str) -> None:
    wave = melody(16000, 10.0)
    if kind == "g722":
        data = encode(wave, 16000, kind)
    else:
        written = io.BytesIO()
        container, codec = {"wav24": ("WAV", "PCM_24"), "adpcm": ("WAV", "MS_ADPCM")}.get(
            kind, (kind.upper(), "PCM_16")
        )
        soundfile.write(written, wave, 16000, format=container, subtype=codec)
        data = written.getvalue()
    cut = decode(io.BytesIO(data[: len(data) * 7 // 10]), sample_rate=16000)
    assert not cut.complete
    assert cut.decoded_s == pytest.approx(7.0, abs=0.1)
    assert cut.decoded_s + cut.lost_s == pytest.approx(10.0, abs=0.05)
    row = decode(io.BytesIO(data[: len(data) * 7 // 10]), sample_rate=16000, start_s=6.0, duration_s=2.0)
    assert row.decoded_s + row.lost_s == pytest.approx(2.0, abs=0.01)
