"""Containers: what is at a time is heard at that time, and a packet that cannot be decoded costs its length alone."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import av
import numpy as np
import pytest

from mats_core.audio.decode import decode, probe
from mats_core.audio.file import AudioError, SourceFile
from mats_core.audio.readers.ffmpeg import FfmpegSource
from mats_core.audio.signatures import Signature
from tests.recordings import bursts, clicks, encode, tone_of_each_second, tones

RATE = 16000
SECONDS = 12
KINDS = ["m4a", "mkv", "webm", "wma", "mpg", "ts", "aac", "opus", "ogg", "avi"]
FLAC_KINDS = ["asfflac", "aviflac", "wtv"]


def _heard(data: bytes, **stretch: float) -> list[int | None]:
    return tone_of_each_second(decode(io.BytesIO(data), sample_rate=RATE, **stretch).samples, RATE)


def _rows(data: bytes) -> list[int | None]:
    return [tone for at in (0.0, 4.0, 8.0) for tone in _heard(data, start_s=at, duration_s=4.0)]


def _remuxed(data: bytes, change: Callable[[float, bytes], tuple[float, bytes] | None], container: str) -> bytes:
    """The packets of a file anew, each as `change` makes it of (its time in seconds, its bytes); None leaves it out."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format=container) as output:
        track = source.streams.audio[0]
        copy = output.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.size and packet.pts is not None:
                made = change(float(packet.pts * packet.time_base), bytes(packet))
                if made is not None:
                    new = av.Packet(made[1])
                    new.pts = new.dts = round(made[0] / packet.time_base)
                    new.time_base, new.duration, new.stream = packet.time_base, packet.duration, copy
                    output.mux(new)
    return file.getvalue()


@pytest.mark.parametrize("kind", [*KINDS, *FLAC_KINDS, "kvag"])
def test_every_second_is_heard_in_its_place_in_rows_and_as_a_whole(kind):
    data = encode(tones(48000, SECONDS), 48000, kind)
    info = probe(io.BytesIO(data))
    assert info.duration_s == pytest.approx(SECONDS, abs=0.1)
    assert info.duration_source in ("header", "decoded")
    most = SECONDS - 1  # of WMA the last frame is shorter
    assert _heard(data)[:most] == list(range(most))
    assert _rows(data)[:most] == list(range(most))


@pytest.mark.parametrize("kind", KINDS)
def test_damage_in_the_middle_ends_nothing(kind):
    data = bytearray(encode(tones(48000, SECONDS), 48000, kind))
    middle = len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(5).bytes(300)
    decoded = decode(io.BytesIO(bytes(data)), sample_rate=RATE)
    assert decoded.decoded_s == pytest.approx(SECONDS, abs=0.15)
    heard = _heard(bytes(data))[: SECONDS - 1]
    lost = 5 if kind in ("mkv", "webm") else 2  # Matroska's packets are found again where a cluster begins
    assert sum(heard[at] == at for at in range(SECONDS - 1)) >= SECONDS - 1 - lost
    assert _heard(bytes(data), start_s=10.0, duration_s=1.0) == [10]


def test_packets_that_do_not_decode_are_silence_of_their_length_and_counted():
    data = encode(tones(48000, SECONDS), 48000, "m4a")
    damaged = _remuxed(data, lambda at, raw: (at, b"\xff" * 20 if 4.0 <= at < 6.0 else raw), "matroska")
    decoded = decode(io.BytesIO(damaged), sample_rate=RATE)
    assert (decoded.complete, decoded.lost_s) == (False, pytest.approx(2.0, abs=0.05))
    assert _heard(damaged)[:4] == [0, 1, 2, 3]
    assert _heard(damaged)[6:SECONDS] == list(range(6, SECONDS))
    before = decode(io.BytesIO(damaged), sample_rate=RATE, start_s=0.0, duration_s=3.5)
    assert (before.complete, before.lost_s) == (True, 0.0)


def test_a_gap_in_the_time_stamps_is_silence_and_nothing_is_lost():
    data = encode(tones(48000, SECONDS), 48000, "webm")
    gap = _remuxed(data, lambda at, raw: None if 3.0 <= at < 7.0 else (at, raw), "webm")
    assert probe(io.BytesIO(gap)).duration_s == pytest.approx(SECONDS, abs=0.1)
    decoded = decode(io.BytesIO(gap), sample_rate=RATE)
    assert (decoded.complete, decoded.lost_s) == (True, 0.0)
    expected = [0, 1, 2, None, None, None, None, 7, 8, 9, 10, 11]
    assert _heard(gap)[:SECONDS] == expected
    assert _rows(gap)[:SECONDS] == expected


@pytest.mark.parametrize(("kind", "pictures"), [("mkv", False), ("webm", False), ("mkv", True)])
def test_what_damage_took_from_matroska_is_told_as_lost(kind, pictures):
    data = bytearray(encode(tones(48000, SECONDS), 48000, kind, pictures))
    assert decode(io.BytesIO(bytes(data)), sample_rate=RATE).complete
    middle = len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(5).bytes(300)
    decoded = decode(io.BytesIO(bytes(data)), sample_rate=RATE)
    silent = sum(tone is None for tone in tone_of_each_second(decoded.samples, RATE))
    assert not decoded.complete
    assert silent - 0.5 < decoded.lost_s < silent + 2
    assert decode(io.BytesIO(bytes(data)), sample_rate=RATE, start_s=0.0, duration_s=3.0).complete


@pytest.mark.parametrize("kind", ["ogg", "opus", *FLAC_KINDS])
def test_a_byte_changed_costs_what_a_checksum_covers_and_is_told(kind):
    data = bytearray(encode(tones(48000, SECONDS), 48000, kind))
    whole = _heard(bytes(data))
    data[len(data) // 2 + 500] ^= 0x55  # note: in the middle, ASF has padding
    decoded = decode(io.BytesIO(bytes(data)), sample_rate=RATE)
    assert (decoded.complete, decoded.decoded_s) == (False, pytest.approx(SECONDS, abs=0.1))
    assert 0 < decoded.lost_s < 3
    others = [at for at, tone in enumerate(_heard(bytes(data))[:SECONDS]) if tone != whole[at]]
    assert len(others) <= 3
    assert decode(io.BytesIO(bytes(data)), sample_rate=RATE, start_s=0.0, duration_s=3.0).complete


def _placed(times: list[float], length_s: float = 1.0) -> list[tuple[float, float]]:
    """(begin, seconds) of what is heard of frames with these time stamps, silence left out."""
    source = FfmpegSource(SourceFile(io.BytesIO(encode(tones(48000, SECONDS), 48000, "webm"))), Signature("audio", ""))
    block = np.ones((round(length_s * 48000), 1), np.float32)
    units = [(round(time * 1000), block, 48000, None) for time in times]
    return [(at / 48000, len(part) / 48000) for at, part, _, _ in source._placed(units, 0) if part.any()]


@pytest.mark.parametrize(
    ("times", "heard"),
    [
        ([0, 1, 2, 5, 6], [(0, 1), (1, 1), (2, 1), (5, 1), (6, 1)]),  # a gap
        ([0, 1, 1.5, 2.5], [(0, 1), (1, 1), (2, 0.5), (2.5, 1)]),  # an overlap
        ([0, 1, 9, 3, 4], [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]),  # one wrong time stamp
        ([0, 1.02, 1.98, 3.01], [(0, 1), (1, 1), (2, 1), (3, 1)]),  # tremble
        ([0, 1, 500, 501], [(0, 1), (1, 1), (2, 1), (3, 1)]),  # far behind the declared end
        ([0, *range(1, 12), 0, 1], [(at, 1) for at in range(14)]),  # begins anew
        ([0, 1, 2, 0, 1, 2], [(at, 1) for at in range(6)]),
    ],
)
def test_time_stamps_say_where_frames_are_heard(times, heard):
    assert _placed(times) == heard


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("kind", ["mkv", "webm", "wma", "ts", "mpg", "avi", "flv", "rm", "voc", "nut"])
def test_files_one_behind_the_other_are_one_sound(kind, live):
    def segment(first: int, seconds: int) -> bytes:
        data = encode(tones(44100 if kind == "flv" else 48000, seconds, first), 44100 if kind == "flv" else 48000, kind)
        return _live(data) if live and kind in ("mkv", "webm") else data

    data = segment(0, 3) + segment(3, 3) + segment(6, 6)
    info = probe(io.BytesIO(data))
    decoded = decode(io.BytesIO(data), sample_rate=RATE)
    assert (info.duration_s, info.duration_source) == (pytest.approx(12.0, abs=0.3), "decoded")
    assert (decoded.decoded_s, decoded.complete) == (pytest.approx(info.duration_s, abs=0.1), True)
    late = {2, 5, 11}  # the last frame of a segment may be padded, so that the next begins late
    assert [at for at in range(12) if _heard(data)[at] != at and at not in late] == []
    assert [at for at in range(12) if _rows(data)[at] != at and at not in late] == []


@pytest.mark.parametrize("seconds", [3, 30])
def test_transport_streams_of_other_tracks_are_heard_behind_one_another(seconds):
    first = encode(tones(48000, seconds), 48000, "ts")
    second = bytearray(encode(tones(48000, 3, 3), 48000, "ts"))
    for at in range(0, len(second), 188):  # its sound is at 0x100: at 0x123 in the table and in the packets
        if second[at + 1] & 0x1F == 1 and second[at + 2] == 0:
            second[at + 2] = 0x23
    second = bytearray(bytes(second).replace(b"\xe1\x00\xf0", b"\xe1\x23\xf0"))
    for at in range(0, len(second), 188):
        table = second[at + 5 : at + 188]
        if second[at + 1] & 0x1F == 0x10 and table[:1] == b"\x02":  # the checksum of the table of its tracks
            end = 3 + (int.from_bytes(table[1:3], "big") & 0xFFF) - 4
            second[at + 5 + end : at + 9 + end] = _mpeg_crc(bytes(table[:end])).to_bytes(4, "big")
    data = first + bytes(second) + first
    decoded = decode(io.BytesIO(data), sample_rate=RATE)
    length = probe(io.BytesIO(data)).duration_s
    assert (decoded.decoded_s, decoded.complete) == (pytest.approx(length, abs=0.01), True)
    assert length == pytest.approx(2 * seconds + 3, abs=0.3)
    middle = _heard(data, start_s=seconds + 0.1, duration_s=6.0)
    assert [middle[at] for at in (0, 1, 3, 4)] == [3, 4, 0, 1]


def _mpeg_crc(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def test_a_time_base_that_lies_gives_no_hours_of_silence():
    data = bytearray(encode(tones(48000, SECONDS), 48000, "avi"))
    place = data.find(b"strh") + 8 + 20  # dwScale, then dwRate
    data[place : place + 4] = (int.from_bytes(data[place : place + 4], "little") << 13).to_bytes(4, "little")
    assert probe(io.BytesIO(bytes(data))).duration_s == pytest.approx(SECONDS, abs=0.1)
    assert _heard(bytes(data))[: SECONDS - 1] == list(range(SECONDS - 1))


@pytest.mark.parametrize("kind", ["mp4", "mkv", "mov"])
def test_sound_that_starts_after_the_picture_is_heard_late(kind):
    film = io.BytesIO(encode(clicks(48000, 6.0, at=(1.0, 4.0)), 48000, kind, pictures=True))
    late = io.BytesIO()
    with av.open(film) as source, av.open(late, "w", format={"mkv": "matroska"}.get(kind, kind)) as output:
        copies = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size and packet.dts is not None:
                if packet.stream.type == "audio":
                    packet.pts += round(2 / packet.time_base)
                    packet.dts += round(2 / packet.time_base)
                packet.stream = copies[packet.stream.index]
                output.mux(packet)
    data = late.getvalue()
    assert probe(io.BytesIO(data)).duration_s == pytest.approx(8.0, abs=0.1)
    whole = np.abs(decode(io.BytesIO(data), sample_rate=RATE).samples.astype(int))
    assert whole[: 2 * RATE - RATE // 20].max() == 0
    assert int(whole[: 4 * RATE].argmax()) == pytest.approx(3 * RATE, abs=RATE // 20)
    row = np.abs(decode(io.BytesIO(data), sample_rate=RATE, start_s=5.0, duration_s=2.0).samples.astype(int))
    assert int(row.argmax()) == pytest.approx(RATE, abs=RATE // 20)


def test_segments_of_aac_with_tags_between_them_are_one_sound():
    segment = encode(tones(48000, 5), 48000, "aac")
    tag = b"ID3\x04\0\0\0\0\x02\0" + bytes(256)
    data = tag + segment + tag + segment
    one = decode(io.BytesIO(segment), sample_rate=RATE).decoded_s
    decoded = decode(io.BytesIO(data), sample_rate=RATE)
    assert (decoded.decoded_s, decoded.complete) == (pytest.approx(2 * one, abs=0.05), True)
    assert probe(io.BytesIO(data)).duration_s == pytest.approx(2 * one, abs=0.05)


def test_speech_that_was_not_sent_is_silence_of_its_length():
    data = encode(bursts(8000, 12.0, at=(1.0, 5.0, 9.0)), 8000, "amr")
    frames = [data[at : at + 32] for at in range(6, len(data), 32)]  # 12.2 kbit/s: 32 bytes each 20 ms
    no_data, comfort_noise = b"\x7c", b"\x44" + bytes(5)
    frames[100:200] = [no_data] * 60 + [comfort_noise] * 40
    decoded = decode(io.BytesIO(data[:6] + b"".join(frames)), sample_rate=8000)
    assert (decoded.complete, decoded.lost_s) == (True, 0.0)
    assert decoded.decoded_s == pytest.approx(12.0, abs=0.05)
    loud = np.abs(decoded.samples.astype(int)) > 8000
    assert [int(loud[at * 8000 :].argmax()) < 800 for at in (1, 5, 9)] == [True, True, True]


def test_bytes_a_second_that_lie_move_nothing():
    data = bytearray(encode(tones(16000, SECONDS), 16000, "g722"))
    place = data.find(b"fmt ") + 16
    data[place : place + 4] = (3000).to_bytes(4, "little")  # of 8000
    assert probe(io.BytesIO(bytes(data))).duration_s == pytest.approx(SECONDS, abs=0.1)
    assert _heard(bytes(data), start_s=7.0, duration_s=3.0) == [7, 8, 9]


def test_a_header_that_promises_hours_gives_no_more_rows_than_there_is_sound():
    data = bytearray(encode(tones(48000, SECONDS), 48000, "webm"))
    place = data.find(b"\x44\x89\x88")  # Duration, eight bytes
    assert place > 0
    data[place + 3 : place + 11] = struct.pack(">d", 36_000_000.0)
    info = probe(io.BytesIO(bytes(data)))
    assert (info.duration_s, info.duration_source) == (pytest.approx(SECONDS, abs=0.1), "decoded")


def _live(data: bytes) -> bytes:
    """A WebM or Matroska file as if it had been sent while it was made: without length and size."""
    changed = bytearray(data)
    place = data.find(b"\x44\x89\x88")
    changed[place : place + 11] = b"\xec\x89" + bytes(9)  # a Void element in its place
    segment = data.find(b"\x18\x53\x80\x67") + 4
    changed[segment : segment + 8] = b"\x01" + b"\xff" * 7
    return bytes(changed)


def test_live_webm_without_duration_is_counted_however_small():
    info = probe(io.BytesIO(_live(encode(tones(48000, SECONDS), 48000, "webm"))))
    assert (info.duration_s, info.duration_source) == (pytest.approx(SECONDS, abs=0.1), "decoded")


def test_digital_silence_is_a_length_like_any_other():
    data = encode(np.zeros(700 * RATE, np.float32), RATE, "flac")
    assert len(data) * 8 / 700 < 500
    assert probe(io.BytesIO(data)).duration_s == 700.0


def test_a_codec_without_decoder_is_named_with_its_container():
    data = bytearray(encode(tones(8000, 1), 8000, "wav"))
    data[34:36] = b"\0\0"  # bits of a sample
    with pytest.raises(AudioError, match=r"no decoder for its codec, PCM .* WAV") as caught:
        decode(io.BytesIO(bytes(data)), sample_rate=RATE)
    assert caught.value.code == "decode_failed"
    data[20:22] = b"\x34\x12"
    with pytest.raises(AudioError, match=r"no decoder for its codec, .*0x1234.* WAV"):
        decode(io.BytesIO(bytes(data)), sample_rate=RATE)
