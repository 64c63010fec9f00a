"""Decoding in processes of its own: what a file does to its decoder costs that file alone."""

from __future__ import annotations

import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mats_core.audio import sandbox
from mats_core.audio.decode import Decoded, DecodeLimits, decode
from mats_core.audio.file import AudioError, AudioInfo
from mats_core.audio.sandbox import DecodeRequest, IsolatedDecoder
from tests.recordings import encode, melody

pytestmark = pytest.mark.processes  # decoding is a child's

# A decoder with bugs to order: the file's name says which.
BUGGY = sandbox.CHILD_PROGRAM.replace(
    "serve(descriptor",
    textwrap.dedent("""
    import os, time, numpy
    from mats_core.audio import sandbox_process as decoder_process
    decode = decoder_process.decode
    def buggy(file, **options):
        name = os.path.basename(options["name"])
        if "hang" in name: time.sleep(60)
        if "crash" in name: os.kill(os.getpid(), 11)
        if "hog" in name: numpy.ones(1 << 31, numpy.uint8)
        if "moody" in name and not os.path.exists(options["name"] + ".seen"):
            open(options["name"] + ".seen", "w").close()
            os.kill(os.getpid(), 11)
        return decode(file, **options)
    decoder_process.decode = buggy
    serve(descriptor"""),
)


@pytest.fixture(scope="module")
def decoder():
    with IsolatedDecoder(2, 16000) as decoder:
        yield decoder


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return _write(tmp_path, "clip.wav")


def _write(folder: Path, name: str, seconds: float = 0.3, kind: str = "wav") -> str:
    path = folder / name
    path.write_bytes(encode(melody(16000, seconds), 16000, kind))
    return str(path)


def _codes(answers: list[Decoded | AudioError]) -> list[str]:
    return [answer.code if isinstance(answer, AudioError) else "ok" for answer in answers]


def test_answers_come_in_order_and_equal_those_of_the_same_process(decoder, tmp_path: Path):
    requests = []
    for place in range(40):
        uri = _write(tmp_path, f"{place}.flac", 0.2 + 0.01 * place, "flac")
        requests.append(DecodeRequest(uri, 0.05, None if place % 2 else 0.1))
    for request, answer in zip(requests, decoder.decode_many(requests), strict=True):
        with open(request.uri, "rb") as file:
            expected = decode(file, sample_rate=16000, start_s=request.start_s, duration_s=request.duration_s)
        assert np.array_equal(answer.samples, expected.samples)
        assert (answer.decoded_s, answer.complete) == (expected.decoded_s, expected.complete)
    assert decoder.cpu_s > 0


def test_headers_are_read_there_too(decoder, clip, tmp_path: Path):
    assert decoder.probe_many([clip, f"{tmp_path}/none.wav"]) == [
        AudioInfo("wav", 16000, 1, 0.3, "header"),
        _Coded("not_found"),
    ]


class _Coded:
    """Equal to any AudioError with this code."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AudioError) and other.code == self.code

    __hash__ = None  # type: ignore[assignment]


def test_bad_files_are_coded_between_good_ones(decoder, clip, tmp_path: Path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound at all")
    (tmp_path / "dangling.wav").symlink_to("gone")
    names = ["empty.wav", "text.wav", "dangling.wav", "none.wav", ""]
    requests = [DecodeRequest(uri) for name in names for uri in (clip, f"{tmp_path}/{name}")]
    expected = ["empty_audio", "not_audio", "not_found", "not_found", "io_error"]
    assert _codes(decoder.decode_many(requests)) == [code for bad in expected for code in ("ok", bad)]


def test_names_that_are_not_utf8_reach_the_child(decoder, tmp_path: Path):
    path = os.fsencode(tmp_path) + b"/\xff.wav"
    with open(path, "wb") as file:
        file.write(encode(melody(16000, 0.3), 16000, "wav"))
    uri = "file://" + os.fsdecode(tmp_path) + "/%FF.wav"
    assert _codes(decoder.decode_many([DecodeRequest(uri)])) == ["ok"]


def test_remote_files_are_opened_in_the_child(decoder):
    assert _codes(decoder.decode_many([DecodeRequest("memory://none.wav")])) == ["not_found"]


def test_a_file_that_crashes_its_decoder_is_tried_twice_and_costs_no_other(monkeypatch, clip, tmp_path: Path):
    monkeypatch.setattr(sandbox, "CHILD_PROGRAM", BUGGY)
    crash, moody = _write(tmp_path, "crash.wav"), _write(tmp_path, "moody.wav")
    with IsolatedDecoder(1, 16000) as decoder:
        answers = decoder.decode_many([DecodeRequest(uri) for uri in (clip, crash, clip, moody, clip, clip)])
    assert _codes(answers) == ["ok", "decode_failed", "ok", "ok", "ok", "ok"]
    assert "SIGSEGV" in answers[1].message


def test_a_file_that_never_ends_is_stopped_at_the_deadline(monkeypatch, clip, tmp_path: Path):
    monkeypatch.setattr(sandbox, "CHILD_PROGRAM", BUGGY)
    with IsolatedDecoder(1, 16000, DecodeLimits(deadline_s=1.0)) as decoder:
        answers = decoder.decode_many([DecodeRequest(uri) for uri in (clip, _write(tmp_path, "hang.wav"), clip)])
    assert _codes(answers) == ["ok", "timeout", "ok"]


def test_a_file_that_takes_too_much_memory_is_stopped(monkeypatch, clip, tmp_path: Path):
    monkeypatch.setattr(sandbox, "CHILD_PROGRAM", BUGGY)
    with IsolatedDecoder(1, 16000) as decoder:
        answers = decoder.decode_many([DecodeRequest(uri) for uri in (clip, _write(tmp_path, "hog.wav"), clip)])
    assert _codes(answers) == ["ok", "decode_failed", "ok"]
    assert "1024 MiB" in answers[1].message


def test_the_memory_limit_leaves_room_for_half_an_hour(tmp_path: Path):
    path = tmp_path / "long.wav"
    path.write_bytes(encode(np.zeros(0, np.float32), 48000, "wav")[:40] + struct.pack("<I", 2 * 1790 * 48000))
    os.truncate(path, 44 + 2 * 1790 * 48000)  # silence that takes no space
    with IsolatedDecoder(1, 48000) as decoder:
        (answer,) = decoder.decode_many([DecodeRequest(str(path))])
    assert isinstance(answer, Decoded)
    assert len(answer.samples) == 1790 * 48000


def test_a_child_killed_from_outside_is_replaced(clip):
    with IsolatedDecoder(2, 16000) as decoder:
        decoder.start()
        killer = threading.Timer(0.3, lambda: os.kill(decoder.process_ids()[0], signal.SIGKILL))
        killer.start()
        deadline = time.monotonic() + 0.8
        while time.monotonic() < deadline:
            assert set(_codes(decoder.decode_many([DecodeRequest(clip)] * 20))) == {"ok"}


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="looks into /proc")
def test_children_load_neither_torch_nor_ray_and_end_with_the_decoder(clip):
    decoder = IsolatedDecoder(1, 16000)
    decoder.decode_many([DecodeRequest(clip)])
    (child,) = decoder.process_ids()
    loaded = Path(f"/proc/{child}/maps").read_text()
    assert "soundfile" in loaded or "sndfile" in loaded
    assert "libtorch" not in loaded
    assert "_raylet" not in loaded
    decoder.close()
    assert not _is_running(child)
    assert decoder.process_ids() == []
    assert _codes(decoder.decode_many([DecodeRequest(clip)])) == ["ok"]  # a closed decoder opens again
    decoder.close()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="looks into /proc")
def test_ctrl_c_in_a_terminal_is_the_parents_alone_from_the_first_moment():
    decoder = IsolatedDecoder(1, 16000)
    decoder.start()
    try:
        (child,) = decoder.process_ids()
        blocked = int(re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{child}/status").read_text())[1], 16)
        assert blocked & 1 << (signal.SIGINT - 1)
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    finally:
        decoder.close()


def test_children_end_when_their_parent_is_killed(tmp_path: Path, clip):
    script = (
        "import os, signal\n"
        "from mats_core.audio.sandbox import *\n"
        "decoder = IsolatedDecoder(1, 16000)\n"
        f"decoder.decode_many([DecodeRequest({clip!r})])\n"
        "print(decoder.process_ids()[0], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    child = int(done.stdout)
    for _ in range(100):
        if not _is_running(child):
            return
        time.sleep(0.1)
    pytest.fail("the child outlived its parent")


def _is_running(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_script_without_main_guard_is_not_run_again(tmp_path: Path, clip):
    script = tmp_path / "script.py"
    script.write_text(
        "print('run')\n"
        "from mats_core.audio.sandbox import *\n"
        f"print(len(IsolatedDecoder(2, 16000).decode_many([DecodeRequest({clip!r})] * 3)))\n"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.stdout.split() == ["run", "3"]


def test_a_decoder_travels_to_another_process(clip):
    with pickle.loads(pickle.dumps(IsolatedDecoder(1, 8000, DecodeLimits(max_seconds=1)))) as decoder:
        (answer,) = decoder.decode_many([DecodeRequest(clip)])
        assert len(answer.samples) == 2400
        assert _codes(decoder.decode_many([DecodeRequest(clip, 0.0, 2.0)])) == ["too_large"]


def test_threads_may_share_one(decoder, clip):
    results: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: results.append(_codes(decoder.decode_many([DecodeRequest(clip)] * 10))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [["ok"] * 10] * 4


def _told_by(program: str, **given: Any) -> list[str]:
    """What another process prints that runs `program`."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, timeout=60, **given)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_fork_has_a_child_of_its_own_even_while_a_thread_decodes(clip):
    """Neither the parent's children nor the lock that its thread holds are the fork's."""
    program = f"""
import os, threading, time
from mats_core.audio.sandbox import *
decoder, asked = warm_decoder(), [DecodeRequest({clip!r})]
decoder.decode_many(asked)
thread = threading.Thread(target=lambda: [decoder.decode_many(asked * 10) for _ in range(30)])
thread.start()
before = decoder.process_ids()
if fork := os.fork():
    print(os.waitpid(fork, 0)[1], *decoder.process_ids() == before and "same")
else:
    (found,) = decoder.decode_many(asked)
    os._exit(0 if len(found.samples) == 13230 and decoder.process_ids() != before else 1)
"""
    assert "".join(_told_by(program)) == "0same"


def test_a_daemon_without_standard_streams_decodes(clip, tmp_path: Path):
    """Forked, its streams closed, in another folder, its parent gone: pipes must not become its streams."""
    told = tmp_path / "told"
    program = f"""
import os, time
from mats_core.audio.sandbox import *
if os.fork():
    os._exit(0)
os.setsid(); os.chdir("/"); os.closerange(0, 3)
(found,) = warm_decoder().decode_many([DecodeRequest({clip!r})])
(pid,) = warm_decoder().process_ids()
with open({str(told) + ".new"!r}, "w") as file:
    file.write(f"{{len(getattr(found, 'samples', []))}} {{pid}}")
os.rename({str(told) + ".new"!r}, {str(told)!r})
"""
    _told_by(program)
    deadline = time.monotonic() + 60
    while not told.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    samples, pid = told.read_text().split()
    assert samples == "13230"
    while _is_running(int(pid)):  # it ended with the daemon
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_files_of_the_folder_one_stands_in_are_no_modules_of_the_child(clip, tmp_path: Path):
    for name in ("json", "numpy", "soundfile", "random"):
        (tmp_path / f"{name}.py").write_text("1 / 0")
    program = f"""
import os
from mats_core.audio.sandbox import *
os.chdir({str(tmp_path)!r})
print(len(warm_decoder().decode_many([DecodeRequest({clip!r})])[0].samples))
"""
    assert _told_by(program) == ["13230"]


def test_one_child_serves_every_rate(clip):
    with IsolatedDecoder() as decoder:
        found = [len(decoder.decode_many([DecodeRequest(clip)], rate)[0].samples) for rate in (8000, 16000, 44100)]
        assert found == [2400, 4800, 13230]
        assert len(decoder.process_ids()) == 1


def test_credentials_that_come_later_reach_the_child(clip, monkeypatch: pytest.MonkeyPatch):
    with IsolatedDecoder() as decoder:
        decoder.decode_many([DecodeRequest(clip)])
        first = decoder.process_ids()
        monkeypatch.setenv("AWS_SESSION_TOKEN", "new")
        decoder.decode_many([DecodeRequest(clip)])
        assert decoder.process_ids() == first  # a file on disk needs none
        decoder.decode_many([DecodeRequest("memory://none.wav")])
        assert b"AWS_SESSION_TOKEN=new" in Path(f"/proc/{decoder.process_ids()[0]}/environ").read_bytes()
