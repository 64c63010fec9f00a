"""Mutated files through the decoders, as many as one likes: `make fuzz FILES=1000000`. Goes on where it stopped.

Seeds are short sounds in every container and codec that PyAV can write here. File number n is a function of n and the
seeds alone. The state folder holds the seeds, `state.json` (how far it is, and counts) and `findings.jsonl`, with the
files found below `findings/`: what hung, took too much memory, ended its decoder, was answered with the name of an
exception, or has another length in its header than in a complete decode.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from mats_core.audio.decode import Decoded, DecodeLimits
from mats_core.audio.file import AudioError, AudioInfo
from mats_core.audio.sandbox import DecodeRequest, IsolatedDecoder
from pipelines.cluster.plan import usable_cores

BATCH = 256
SECONDS = 1.5
KINDS = ((48_000, "stereo"), (8_000, "mono"), (16_000, "mono"))  # the first that a codec takes
CONTAINERS_A_CODEC = 4
# Devices, networks, folders of pieces, and sums of what was written.
NO_FILES = (
    "alsa chromaprint crc dash fifo framecrc framehash framemd5 hash hds hls image2 md5 null oss pulse rtp rtp_mpegts "
    "rtsp sap segment smoothstreaming sndio stream_segment streamhash tee uncodedframecrc webm_chunk whip"
)
COMMON = "matroska webm mp4 mov ogg wav mp3 adts flac aiff caf au avi asf mpegts w64 amr mpeg"
EXCEPTION = re.compile(r"\b[A-Z]\w+(Error|Exception)\b|Traceback")
SAME_S = 0.1
EDGES = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x01", b"\x01\0\0\0", b"\x80\0\0\0")


def main() -> int:
    """Mutate, decode and report; the exit code is 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000, help="how many in all, those done before included")
    parser.add_argument("--state", type=Path, default=Path(".fuzz"), help="folder to go on from")
    parser.add_argument("--workers", type=int, default=usable_cores())
    given = parser.parse_args()
    seeds = read_seeds(given.state / "seeds")
    print(f"{len(seeds)} seeds, {sum(map(len, seeds.values())) >> 10} KiB", flush=True)
    place = given.state / "state.json"
    state = {"next": 0, "seconds": 0.0, "peak_mb": 0, "counts": {}}
    if place.is_file():
        state = json.loads(place.read_text())
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: stopped.append(got))
    with IsolatedDecoder(given.workers, 16_000, DecodeLimits(deadline_s=30.0)) as decoder:
        while state["next"] < given.files and not stopped:
            began = time.monotonic()
            stop = min(state["next"] + BATCH, given.files)
            counts = Counter(state["counts"])
            for finding in try_files(range(state["next"], stop), seeds, decoder, given.state, counts):
                with (given.state / "findings.jsonl").open("a") as file:
                    file.write(json.dumps(finding) + "\n")
            state["counts"], state["next"] = dict(counts), stop
            state["seconds"] += time.monotonic() - began
            state["peak_mb"] = max(state["peak_mb"], *map(peak_mb, decoder.process_ids()))
            draft = place.with_suffix(".new")
            draft.write_text(json.dumps(state, indent=1))
            draft.replace(place)
            if stop % (BATCH * 40) == 0:
                print(told(state), flush=True)
    print(told(state))
    return 1 if any(name.startswith("found: ") for name in state["counts"]) else 0


def told(state: dict[str, Any]) -> str:
    """How far it is, in a line."""
    rate = state["next"] / max(state["seconds"], 1e-9)
    counts = ", ".join(f"{name} {count}" for name, count in sorted(state["counts"].items()))
    return f"{state['next']} files, {rate:.0f} a second, at most {state['peak_mb']} MB a decoder: {counts}"


def try_files(
    numbers: range, seeds: dict[str, bytes], decoder: IsolatedDecoder, folder: Path, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Decode some mutated files; counts their codes, and yields what should not have happened."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    names = []
    for number in numbers:
        kind, ending, data = mutated(number, seeds)
        path = work / f"{number % BATCH}.{ending}"
        path.write_bytes(data)
        names.append((number, kind, path))
    uris = [str(path) for _, _, path in names]
    heads, found = decoder.probe_many(uris), decoder.decode_many([DecodeRequest(uri) for uri in uris])
    for (number, kind, path), head, decoded in zip(names, heads, found, strict=True):
        counts[decoded.code if isinstance(decoded, AudioError) else "decoded"] += 1
        for each in {wrong(head, decoded), wrong(head, None)} - {None}:
            counts[f"found: {each[0]}"] += 1
            kept = folder / "findings" / f"{number}{path.suffix}"
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(path.read_bytes())
            yield {"file": number, "mutation": kind, "found": each[0], "said": each[1], "kept": kept.name}
    for _, _, path in names:
        path.unlink()


def wrong(head: AudioInfo | AudioError, decoded: Decoded | AudioError | None) -> tuple[str, str] | None:
    """What should not have happened to a file, in a word and as it was said; `decoded` None: of its header alone."""
    for answer in (head if decoded is None else decoded,):
        if isinstance(answer, AudioError):
            if answer.code == "timeout":
                return "hang", answer.message
            if "MiB to decode" in answer.message:
                return "memory", answer.message
            if "decoder process ended" in answer.message:
                return "crash", answer.message
            if EXCEPTION.search(answer.message):
                return "exception's name", answer.message
    if isinstance(head, AudioInfo) and isinstance(decoded, Decoded) and decoded.complete:
        declared = head.duration_s
        if head.duration_source == "header" and declared and abs(declared - decoded.decoded_s) > SAME_S:
            return "another length", f"header {declared:.2f} s, {decoded.decoded_s:.2f} s decoded"
    return None


def mutated(number: int, seeds: dict[str, bytes]) -> tuple[str, str, bytes]:
    """(mutation, ending of the name, bytes) of file `number`."""
    draw = random.Random(number)
    name = draw.choice(sorted(seeds))
    data, kinds = bytearray(seeds[name]), []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        kind = draw.choice(("flips", "zeros", "cut", "doubled", "header", "splice", "moved"))
        at, size = draw.randrange(len(data) + 1), min(len(data), draw.choice((1, 4, 16, 64, 300, 1500, 6000)))
        if kind == "flips":
            for _ in range(draw.choice((1, 2, 8, 64))):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        elif kind == "zeros":
            data[at : at + size] = bytes(min(size, len(data) - at))
        elif kind == "cut":
            del data[max(at, 1) :]
        elif kind == "doubled":
            data[at:at] = data if draw.random() < 0.3 else data[at : at + size]
        elif kind == "header":
            place = draw.randrange(min(len(data), 256))
            data[place : place + 4] = draw.choice(EDGES)
        elif kind == "splice":
            other = seeds[draw.choice(sorted(seeds))]
            data[at:] = other[draw.randrange(len(other)) :]
        else:
            piece = data[at : at + size]
            del data[at : at + size]
            place = draw.randrange(len(data) + 1)
            data[place:place] = piece
        data = data or bytearray(b"\0")
        kinds.append(kind)
    return f"{name}: {', '.join(kinds)}", name.rpartition(".")[2], bytes(data)


def read_seeds(folder: Path) -> dict[str, bytes]:
    """Name → bytes of one sound in every container and codec that is read back whole; written once."""
    if not (folder / "done").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in write_seeds():
            (folder / name).write_bytes(data)
        paths = sorted(folder.iterdir())
        with IsolatedDecoder(usable_cores(), 16_000) as decoder:
            found = decoder.decode_many([DecodeRequest(str(path)) for path in paths])
        for path, decoded in zip(paths, found, strict=True):
            if isinstance(decoded, AudioError) or abs(decoded.decoded_s - SECONDS) > SAME_S:
                path.unlink()
        (folder / "done").touch()
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix}


def write_seeds() -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each pair of a container and a codec that PyAV writes, some containers a codec."""
    av.logging.set_level(av.logging.PANIC)
    containers = []
    for name in sorted(av.formats_available):
        try:
            container = av.ContainerFormat(name, "w")
        except ValueError:
            continue
        if not {*NO_FILES.split()} & {*name.split(",")}:
            containers.append(container)
    random.Random(0).shuffle(containers)
    containers.sort(key=lambda each: each.name not in COMMON.split())
    for codec in sorted(av.codecs_available):
        try:
            if av.Codec(codec, "w").type != "audio":
                continue
        except ValueError:
            continue
        written = 0
        for container in containers:
            data = b"" if written == CONTAINERS_A_CODEC else encoded(container.name, codec)
            if data:
                written += 1
                ending = min(container.extensions or {"bin"})
                yield f"{container.name}-{codec}.{ending}", data


def encoded(container: str, codec: str) -> bytes:
    """A tone and its second channel as a file; b"" where the two do not go together."""
    for rate, layout in KINDS:
        file = io.BytesIO()
        try:
            with av.open(file, "w", container) as out:
                stream: Any = out.add_stream(codec, rate, layout=layout, options={"strict": "-2"})
                time_s = np.arange(round(SECONDS * rate)) / rate
                tone = (9000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(np.repeat(tone, 2)[None], "s16", "stereo")
                frame.sample_rate, frame.pts = rate, 0
                for each in (frame, None):
                    out.mux(stream.encode(each))
        except (av.FFmpegError, OSError, ValueError, TypeError, RuntimeError, AttributeError):
            continue
        if file.tell() > 200:
            return file.getvalue()
    return b""


def peak_mb(process: int) -> int:
    """The most memory that a process has held, in MB."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) // 1000 if found else 0


if __name__ == "__main__":
    sys.exit(main())
