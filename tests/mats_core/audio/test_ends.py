"""What breaks off says so, and what stands behind a whole file is neither heard nor taken for damage."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from mats_core.audio.decode import Decoded, decode
from mats_core.audio.ends import find_end
from mats_core.audio.file import AudioError, SourceFile
from tests.recordings import encode, tone_of_each_second, tones

RATE, SECONDS = 16000, 8
APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(16)
PROMISING = ["avi", "wma", "mkv", "sox", "adx"]  # whose header tells how much there is to be
OTHERS = [
    "aac",
    "ac3",
    "mpg",
    "ts",
    "mp4parts",
    "voc",
]  # which show that they break off, but not how much is missing
KINDS = [*PROMISING, *OTHERS, "m4a", "flv", "nutaac", "cafadpcm", "webm", "wv"]


def heard(data: bytes) -> Decoded:
    return decode(io.BytesIO(data), sample_rate=RATE)


@pytest.fixture(scope="module")
def recording():
    made: dict[tuple[str, bool], bytes] = {}

    def of(kind: str, pictures: bool = False) -> bytes:
        rate = 44100 if kind == "flv" else 48000
        if (kind, pictures) not in made:
            made[kind, pictures] = encode(tones(rate, SECONDS), rate, kind, pictures)
        return made[kind, pictures]

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_complete_whatever_stands_behind_it(recording, kind):
    data = recording(kind)
    whole = heard(data)
    assert (whole.complete, whole.lost_s) == (True, 0.0)
    for behind in (APE + b"TAG" + bytes(125), bytes(50_000)):
        decoded = heard(data + behind)
        assert (decoded.complete, decoded.lost_s) == (True, 0.0)
        assert decoded.decoded_s == pytest.approx(whole.decoded_s, abs=0.001)
        assert np.array_equal(decoded.samples, whole.samples)


@pytest.mark.parametrize("share", [0.413, 0.771])
@pytest.mark.parametrize("kind", [*PROMISING, *OTHERS])
def test_a_file_that_breaks_off_says_so(recording, kind, share):
    data = recording(kind)
    whole, cut = heard(data), heard(data[: round(len(data) * share)])
    assert not cut.complete
    assert tone_of_each_second(cut.samples, RATE)[:2] == [0, 1]
    if kind in PROMISING:
        assert cut.lost_s == pytest.approx(whole.decoded_s - cut.decoded_s, abs=0.5)


def test_bytes_that_are_gone_from_an_avi_are_told_and_a_missing_index_is_not(recording):
    data = recording("avi")
    middle, index = len(data) // 2, data.rfind(b"idx1")
    assert not heard(data[:middle] + data[middle + 500 :]).complete
    for without in (data[:index], data[: (index + len(data)) // 2]):
        decoded = heard(without)
        assert (decoded.complete, decoded.decoded_s) == (True, pytest.approx(SECONDS, abs=0.1))


def test_a_film_that_breaks_off_says_so(recording):
    data = recording("mkv", pictures=True)
    assert heard(data).complete
    cut = heard(data[: len(data) // 2])
    assert not cut.complete
    assert cut.lost_s == pytest.approx(SECONDS - cut.decoded_s, abs=0.3)


@pytest.mark.parametrize("kind", ["nutaac", "wtvmp2", "wv", "asfflac", "ts"])
def test_what_damage_took_is_counted(recording, kind):
    data = bytearray(recording(kind))
    whole = heard(bytes(data))
    assert (whole.complete, whole.lost_s) == (True, 0.0)
    at, size = len(data) // 2, max(3000, len(data) // 20)
    data[at : at + size] = bytes(size)
    decoded = heard(bytes(data))
    assert decoded.decoded_s == pytest.approx(whole.decoded_s, abs=0.1)
    silent = sum(np.abs(part).max() < 300 for part in np.split(decoded.samples[: SECONDS * RATE], SECONDS * 20)) / 20
    assert not decoded.complete
    assert max(0.0, silent - 0.3) < decoded.lost_s < silent + 1.1


def test_voc_whose_blocks_lead_nowhere_says_how_much_that_takes(recording):
    data = bytearray(recording("voc"))
    data[len(data) // 2 : len(data) // 2 + 5000] = bytes(5000)
    decoded = heard(bytes(data))
    assert not decoded.complete
    assert decoded.decoded_s + decoded.lost_s == pytest.approx(SECONDS, abs=0.2)


def test_two_adx_files_are_heard_one_behind_the_other(recording):
    decoded = heard(recording("adx") * 2)
    assert tone_of_each_second(decoded.samples, RATE) == [*range(SECONDS)] * 2
    assert decoded.complete


@pytest.mark.parametrize("kind", ["m4a", "mov"])
def test_an_mp4_that_breaks_off_before_its_index_says_so(recording, kind):
    data = recording(kind)
    index = data.find(b"moov") - 4
    assert index > len(data) // 2  # behind the sound
    for share in (0.3, 0.9, 1.0):
        with pytest.raises(AudioError, match="before its index") as error:
            heard(data[: round(index * share) + 100 * (share == 1.0)])
        assert error.value.code == "decode_failed"


UNHEARD = ["wav", "aiff", "m4a", "mp4", "mov", "g722", "tta", "cafadpcm", "ast", "smjpeg", "argo", "wtv"]


@pytest.mark.parametrize("kind", UNHEARD)
@pytest.mark.parametrize("between", [b"", APE], ids=["", "tag"])
def test_a_file_behind_one_that_promises_its_length_is_told(recording, kind, between):
    """FFmpeg hears the first alone, and so do others."""
    data = recording(kind)
    whole, joined = heard(data), heard(data + between + data)
    assert np.array_equal(joined.samples, whole.samples)
    assert not joined.complete
    assert joined.lost_s == pytest.approx(SECONDS, abs=0.7)
    assert heard(data + between).complete


@pytest.mark.parametrize("kind", ["wv", "gxf"])
def test_a_file_behind_another_is_heard_where_nothing_promises_an_end(recording, kind):
    decoded = heard(recording(kind) + APE * (kind == "wv") + recording(kind))
    assert tone_of_each_second(decoded.samples, RATE) == [*range(SECONDS)] * 2
    assert decoded.complete


@pytest.mark.parametrize("kind", ["flac", "mp3", "ogg", "opus", "webm", "avi", "wma", "ac3", "m4a"])
@pytest.mark.parametrize("other", ["wav", "flac", "webm"])
def test_a_file_of_another_kind_behind_one_is_told(recording, kind, other):
    if kind == other:
        return
    decoded = heard(recording(kind) + recording(other))
    assert tone_of_each_second(decoded.samples, RATE)[: SECONDS - 1] == [*range(SECONDS - 1)]
    assert not decoded.complete
    assert decoded.lost_s < SECONDS


def test_the_size_that_asf_declares_is_made_true(recording):
    data = recording("wma")
    for changed, cut in ((data, False), (data + bytes(3000), False), (data[:-3000], True)):
        file = SourceFile(io.BytesIO(changed))
        find_end(file, changed[:4096])
        assert file.size == min(len(data), len(changed))
        assert file.cut is cut


def test_gsm_in_wav_is_sought_and_complete():
    file = io.BytesIO()
    soundfile.write(file, tones(8000, SECONDS), 8000, format="WAV", subtype="GSM610")
    row = decode(io.BytesIO(file.getvalue()), sample_rate=RATE, start_s=3.0, duration_s=3.0)
    assert (row.complete, tone_of_each_second(row.samples, RATE)) == (True, [3, 4, 5])


def test_frames_with_a_wrong_checksum_are_heard_to_the_end(recording):
    data = bytearray(recording("wv"))
    for at in range(len(data) // 2, len(data), len(data) // 100):
        data[at] ^= 0x01
    damaged = heard(bytes(data))
    assert not damaged.complete
    assert damaged.decoded_s == pytest.approx(SECONDS, abs=0.1)
    assert damaged.lost_s > 1
