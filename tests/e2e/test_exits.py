"""Every command, many times: it ends with the code that it should, and never by a signal.

A thread of a native library that still runs when the interpreter is gone ends a process with 134 (or 139), once in many
times, after all work is done. So each command is run MATS_EXITS times (2 when nothing is said), for real, on inputs as
small as they come; those that start Ray or train (~), a tenth as often. A line a command is printed (`-s`): how often,
how long, with which codes.

    MATS_EXITS=50 python -m pytest -m long -s tests/e2e/test_exits.py
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mats_core.model.directory import BUILTIN
from tests.e2e.conftest import ENV

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.e2e]

TIMES = int(os.environ.get("MATS_EXITS", "2"))

# A command a line; `=> 2` where it is to end with another code than 0. {n} is another number each time, {run} the run
# that the history has.
COMMANDS = """
--version
help caption
soundworld clip clip-{n}.wav --seed 7
soundworld corpus text-{n}.jsonl --records 20 --rounds 1
~ soundworld evaluate --clips 10 --scenes 0
~ soundworld silence --clips 10
~ soundworld rerank --clips 10
~ soundworld calibrate --model model --clips 50
corpus --list
corpus clotho --data nowhere --out records-{n} => 2
scan sounds scanned-{n}
caption sounds answers-{n}
caption sounds answers
caption sounds answers-{n} --dry-run
~ caption sounds answers-ray-{n} --actors 1
caption embedded asked-{n} --task QA --question Which?
caption broken broken-{n} => 3
caption sounds unsure-{n} --model plain --min-confidence 0.5 => 2
~ calibrate --model model --data judged.csv --overwrite
calibrate --model model --data pairs.csv => 2
caption nowhere answers-{n} => 2
embed-audio sounds heard-{n}
search embedded rain
sample answers --n 2 --out sample-{n}.csv
sample answers --judge nowhere.csv => 2
serve nowhere => 2
serve --demo --host 0.0.0.0 => 2
compact answers compacted-{n}
report answers --out report-{n}.html
ask sounds/a.wav
ask sounds/a.wav --json
compare answers answers --out compare-{n}.html
compare evaluated evaluated --out compare-evaluated-{n}.html
~ embed-text text.jsonl texts-{n}
~ build-memory texts memory-{n} --clusters 4
noise texts --pairs pairs.csv
train --settings
~ train train.yaml --output trained-{n}
train train.yaml --output trained
train train.yaml --set training.steps=no => 2
~ adapt --model builtin --text sentences.txt --out adapted-{n} --steps 2 --batch-size 2 --replay-captions 20
import-reference --checkpoint nowhere.pth --llm nowhere --out imported => 2
evaluate --list
evaluate --settings
~ evaluate --benchmarks soundworld --limit 2 --out evaluated-{n}
evaluate --benchmarks soundworld --limit 2 --out evaluated
evaluate --suite paper --data nowhere --out paper-{n} => 2
history show --history runs
history show soundworld/cider_d --history runs
history accept {run} --history runs
history pin {run} --history runs
history reject {run} --history runs
~ demo demo-{n}
doctor
doctor --benchmarks --model builtin
submit --address http://127.0.0.1:9 caption a b => 2
soundworld card --work nowhere --numbers numbers.json => 2
soundworld probe --work probed --encoder nowhere => 2
"""

PARTED = [line.partition(" => ") for line in COMMANDS.strip().splitlines()]
CASES = [(command.removeprefix("~ "), int(code or 0), command[0] == "~") for command, _, code in PARTED]
NOT_HERE = {"soundworld build", "soundworld ablate", "soundworld noise", "soundworld adapt"}
"""Minutes to hours each, and made of the same parts, as all benchmarks are."""


def _mats(words: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *shlex.split(words)],
        cwd=folder, env={**ENV, "MATS_HISTORY": ""}, capture_output=True, timeout=600, stdin=subprocess.DEVNULL,
    )  # fmt: skip


TRAINING = """
output: trained
llm: builtin
encoder: builtin
embeddings: texts
data: [{name: text, corpus: text.jsonl}]
validation: 4
mapper: {kind: mlp, vectors: 2, width: 8}
adapter: {rank: 2, alpha: 4, dropout: 0.0, target_modules: [q_proj]}
training: {steps: 2, batch_size: 4, learning_rate: 0.001, noise_variance: 0.003}
workers: 1
device: cpu
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands need, made by the commands."""
    folder = tmp_path_factory.mktemp("exits")
    (folder / "sounds").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "text.wav").write_text("this is no sound")
    (folder / "train.yaml").write_text(TRAINING)
    (folder / "sentences.txt").write_text("A kettle sings.\nA kettle boils and is put down.\nTwo kettles.\n")
    (folder / "pairs.csv").write_text("uri,caption\nsounds/a.wav,rain\nsounds/b.wav,a bell\nsounds/c.wav,a horn\n")
    judged = [f"sounds/{name}.wav,caption,{right}" for name in "abc" for right in ("true", "false")] * 4
    (folder / "judged.csv").write_text("\n".join(["uri,task,right", *judged]) + "\n")
    for name in ("model", "plain"):
        shutil.copytree(BUILTIN, folder / name)
    (folder / "plain" / "calibration.json").unlink(missing_ok=True)
    prepared = """
    soundworld clip sounds/a.wav --seed 3
    soundworld clip sounds/b.wav --seed 7
    soundworld clip sounds/c.wav --seed 8
    caption sounds answers
    embed-audio sounds embedded
    soundworld corpus text.jsonl --records 40 --rounds 1
    embed-text text.jsonl texts
    train train.yaml
    evaluate --benchmarks soundworld --limit 2 --out evaluated --history runs
    """
    for words in prepared.strip().splitlines():
        done = _mats(words, folder)
        assert done.returncode == 0, f"{words}: {done.stderr.decode()[-600:]}"
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> str:
    """The run that the history has."""
    return _mats("history show --history runs", folder).stdout.decode().split()[1]


@pytest.mark.parametrize(("command", "code", "slow"), CASES, ids=[command for command, *_ in CASES])
def test_a_command_ends_with_its_code(folder: Path, run: str, command: str, code: int, slow: bool) -> None:
    codes, line, wrong = ended(folder, run, command, code, -(-TIMES // 10) if slow else TIMES)
    print(f"\n{line}", flush=True)
    assert set(codes) == {code}, wrong


def ended(folder: Path, run: str, command: str, code: int, times: int) -> tuple[Counter[int], str, str]:
    """The codes that a command ended with, a line about them, and what it said when the code was another."""
    codes: Counter[int] = Counter()
    took: list[float] = []
    wrong = ""
    for n in range(times):
        started = time.monotonic()
        done = _mats(command.format(n=n, run=run), folder)
        took.append(time.monotonic() - started)
        codes[done.returncode] += 1
        if done.returncode != code:
            wrong = (done.stderr or done.stdout).decode(errors="replace")[-1500:]
    return codes, f"{times:4} × {sorted(took)[times // 2]:5.1f} s  {dict(codes)}  mats {command}", wrong


def test_every_command_is_among_them() -> None:
    """A new command is to be run here too."""
    import typer

    from jobs.cli import app

    def names(command: Any, name: str = "") -> Iterator[str]:
        inner = getattr(command, "commands", None)
        yield from [name] if inner is None else (each for key in inner for each in names(inner[key], f"{name} {key}"))

    run = tuple(f" {command} " for command, *_ in CASES)
    every = {name for name in names(typer.main.get_command(app)) if not name.startswith(" benchmark ")}
    assert {name.strip() for name in every if not any(each.startswith(f"{name} ") for each in run)} == NOT_HERE
