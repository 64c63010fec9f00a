"""The pieces of a container's sound track, whatever its demuxer stumbles over."""

from __future__ import annotations

import io

from mats_core.audio.file import SourceFile
from mats_core.audio.readers.container import Container
from tests.recordings import encode, melody


def test_a_packet_of_a_track_that_began_on_the_way_is_passed_over() -> None:
    """PyAV ends its generator with IndexError there (an MPEG transport stream with a new track)."""
    opened = Container(SourceFile(io.BytesIO(encode(melody(16000, 3.0), 16000, "mp3"))))
    whole, failed = opened.container, []

    class Stumbling:
        def demux(self, stream: object) -> object:
            for packet in whole.demux(stream):
                yield packet
                if len(failed) < 5:
                    failed.append(packet)
                    raise IndexError("list index out of range")

    expected = sum(1 for packet in Container(opened._file).packets() if packet.size)
    opened = Container(opened._file)
    whole, opened.container = opened.container, Stumbling()
    assert sum(1 for packet in opened.packets() if packet.size) == expected
    assert len(failed) == 5
