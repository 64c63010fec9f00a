"""A run that is frozen (SIGSTOP) at one of its writes, loses its OUTPUT meanwhile, and is let go on.

`Runs` starts a process that has everything imported and forks one child a run. A child counts what it puts in place
or removes below OUTPUT (`os.replace`, `os.link`, `os.rename`, `os.unlink`, `shutil.rmtree`, a file of `Output.put`); at
the number it was given, before or after that write, it stops itself, or dies. It believes to be on a machine of its
own, so that it is not looked up by its process id, and leases expire in half a second.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = {"RENEW_S": 0.1, "EXPIRES_S": 0.6, "LONG_SILENT_S": 600.0, "WATCH_S": 0.02}


class Runs:
    """Starts runs and says how they stand. Use as a context."""

    def __enter__(self) -> Runs:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.freezing"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
        )  # fmt: skip
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(60)

    def _ask(self, **what: Any) -> Any:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(what) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, job: str, settings: dict[str, Any], log: Path, at: int = 0, how: str = "") -> int:
        """Start a run; its process id. at: the write (from 1) at which it is frozen, `before`, `after`, or `killed`."""
        return int(self._ask(job=job, settings=settings, log=str(log), at=at, how=how))

    def wait(self, pid: int) -> int | None:
        """Its exit code when it has ended, None when it is frozen."""
        code = self._ask(wait=pid)
        return None if code is None else int(code)


def main() -> None:
    """Serve `Runs`: a line of JSON asks, a line answers."""
    import pipelines.archive.embed_audio
    import pipelines.archive.scan
    import pipelines.compact
    import pipelines.evaluate.run
    import pipelines.text.build_memory
    import pipelines.text.embed_text
    import pipelines.train.run  # noqa: F401
    from jobs.terminal.commands import guarded  # noqa: F401

    children: list[int] = []
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], os.WUNTRACED)
            print(json.dumps(None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)), flush=True)
            continue
        child = os.fork()
        if child == 0:
            os._exit(run_child(**asked))
        children.append(child)
        print(child, flush=True)
    for child in children:  # where a test failed, frozen ones are left
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)


def run_child(job: str, settings: dict[str, Any], log: str, at: int, how: str) -> int:
    """The child: the job to its end, as the command line ends it."""
    from jobs.terminal.commands import guarded
    from mats_core.storage import fetch
    from pipelines.output import lease

    with open(log, "ab", buffering=0) as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    os.setpgid(0, 0)
    for name, seconds in PATIENCE.items():
        setattr(lease, name, seconds)
    fetch.FROZEN_S = 0.6
    lease.this_machine = lambda: f"machine of {os.getpid()}"  # type: ignore[assignment]
    count_writes(str(settings.get("output") or settings["out"]), at, how)

    def body() -> int:
        JOBS[job](settings)
        return 0

    code = guarded(body)
    sys.stderr.flush()
    return code


def count_writes(output: str, at: int, how: str) -> None:
    """Stop or kill this process at write number `at` below `output`; every write is noted on stdout."""
    from pipelines.output.folder import Output

    numbers = itertools.count(1)

    def counted(function: Callable[..., Any], which: int) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **more: Any) -> Any:
            name = os.fsdecode(args[which]) if isinstance(args[which], (str, bytes, os.PathLike)) else ""
            renewed = "/lease-" in name and threading.current_thread() is not threading.main_thread()
            if not name.startswith(output) or name.endswith(".partial") or renewed or os.getpid() != here:
                return function(*args, **more)
            number = next(numbers)
            print(number, function.__name__, name[len(output) :], flush=True)
            if number == at and how in ("before", "killed"):
                os.kill(os.getpid(), signal.SIGSTOP if how == "before" else signal.SIGKILL)
            try:
                return function(*args, **more)
            finally:
                if number == at and how == "after":
                    os.kill(os.getpid(), signal.SIGSTOP)

        return wrapped

    here = os.getpid()
    for module, name, which in (
        (os, "replace", 1), (os, "link", 1), (os, "rename", 1), (os, "unlink", 0), (shutil, "rmtree", 0),
    ):  # fmt: skip
        setattr(module, name, counted(getattr(module, name), which))
    put = Output.put

    def put_counted(self: Output, name: str, write: Callable[[str], None]) -> None:
        put(self, name, counted(write, 0))

    Output.put = put_counted  # type: ignore[method-assign]


def _answer_list(settings: dict[str, Any]) -> None:
    """`mats caption` of a list, with an answer made of each row's name in place of Ray and a model."""
    import pyarrow as pa

    from pipelines.archive import run, work_list
    from pipelines.archive.caption import ANSWERS
    from pipelines.data.inputs import open_input
    from pipelines.settings.archive import RunSettings

    def answered(self: Any, *_: Any) -> Any:
        fresh = work_list.WorkList(self._work.folder)  # as the workers read it
        for shard in self._work.shards(self._writer.done.mask, 3):
            rows = fresh.unfinished(shard.to_pylist()[0])
            texts = [hashlib.blake2b(uri.encode(), digest_size=6).hexdigest() for uri in rows["uri"].to_pylist()]
            rows = rows.append_column("text", pa.array(texts)).append_column("decoded_s", pa.array([1.0] * len(rows)))
            yield rows

    run._Run._tables_here = answered  # type: ignore[method-assign]
    work_list.FILE_ROWS = 8
    job = run.Job(
        name="caption", folder=ANSWERS, identity={"job": "caption"}, chunk_s=56.0, model_bytes=0,
        defaults={"task": "caption", "question": None, "tag": None}, stages=[],
    )  # fmt: skip
    given = RunSettings(**settings)
    run.run_rows(given, job, open_input(given.input))


def _scan(settings: dict[str, Any]) -> None:
    from pipelines.archive import work_list
    from pipelines.archive.scan import run_scan
    from pipelines.settings.archive import ScanSettings

    work_list.FILE_ROWS = 8
    run_scan(ScanSettings(**settings))


def _compact(settings: dict[str, Any]) -> None:
    from pipelines import compact
    from pipelines.settings.compact import CompactSettings

    compact.MEGABYTE = 20.0
    compact.run_compact(CompactSettings(**settings))


def _caption(settings: dict[str, Any]) -> None:
    from pipelines.archive.caption import run_caption
    from pipelines.settings.archive import CaptionSettings

    run_caption(CaptionSettings(**settings))


def _embed_audio(settings: dict[str, Any]) -> None:
    from pipelines.archive.embed_audio import run_embed_audio
    from pipelines.settings.archive import EmbedSettings

    run_embed_audio(EmbedSettings(**settings))


def _embed_text(settings: dict[str, Any]) -> None:
    from pipelines.settings.text import EmbedTextSettings
    from pipelines.text.embed_text import run_embed_text

    run_embed_text(EmbedTextSettings(**settings))


def _build_memory(settings: dict[str, Any]) -> None:
    from pipelines.settings.text import BuildMemorySettings
    from pipelines.text.build_memory import run_build_memory

    run_build_memory(BuildMemorySettings(**settings))


def _train(settings: dict[str, Any]) -> None:
    from pipelines.settings.train import TrainSettings
    from pipelines.train.run import run_train

    result = run_train(TrainSettings(**settings))
    if result.status == "failed":
        raise RuntimeError(result.message)


def _evaluate(settings: dict[str, Any]) -> None:
    from pipelines.evaluate.run import run_evaluate
    from pipelines.settings.evaluate import EvaluateSettings

    run_evaluate(EvaluateSettings(**settings))


JOBS: dict[str, Callable[[dict[str, Any]], None]] = {
    "list": _answer_list, "scan": _scan, "compact": _compact, "caption": _caption, "embed-audio": _embed_audio,
    "embed-text": _embed_text, "build-memory": _build_memory, "train": _train, "evaluate": _evaluate,
}  # fmt: skip


def thaw(pid: int) -> None:
    """Let a frozen run go on."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    main()
