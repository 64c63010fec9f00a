"""What the README and the documents tell one to type can be typed, and prints what they show.

Quick: every command is known with its arguments and options, every Python block imports what there is, every target of
make exists, and the conversation of the README is as it stands. Long: what can run here runs, on small inputs, and what
is printed has the shape of what the document shows: its words, whatever the numbers.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
import soundfile
import typer

from mats_core.soundworld.archive import write_archive
from mats_core.soundworld.corpus import write_corpus
from tests.e2e.conftest import write_tones
from tests.house import ROOT
from tests.store_servers import MotoStore

PAGES = ("README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")))
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "COLUMNS": "120"}
ELSEWHERE = {"aws", "docker", "kubectl", "pip", "ray", "export", "printf"}
"""Programs that are not ours."""


class Block(NamedTuple):
    """A fenced block: where it stands, its language, its lines."""

    place: str
    language: str
    lines: list[str]


def blocks() -> Iterator[Block]:
    """All fenced blocks of the README and the documents."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
            line = text[: found.start()].count("\n") + 1
            yield Block(f"{page}:{line}", found[1], found[2].rstrip().splitlines())


def commands(block: Block) -> Iterator[str]:
    """The commands of a block, each on a line of its own; `$ ` begins one where what it prints is shown as well."""
    shown = any(line.startswith("$ ") for line in block.lines)
    lines = [line[2:] for line in block.lines if line.startswith("$ ")] if shown else block.lines
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        for each in re.split(r" {2,}(?=mats )", line):
            yield each.rsplit("| ", 1)[-1] if "| mats " in each else each


ALL = [(block, command) for block in blocks() for command in commands(block) if block.language == ""]
OURS = [(block, command) for block, command in ALL if command.startswith("mats ")]


def test_every_program_of_a_block_is_known() -> None:
    """A block is commands, or what a command prints, or a drawing; which of them begins with a program shows."""
    programs = {command.split()[0] for _, command in ALL if re.match(r"[a-z]+ [\w$-]", command)}
    assert {"mats", "make"} <= programs
    assert len(OURS) > 60


@pytest.mark.parametrize(("block", "command"), OURS, ids=[f"{block.place} {command[:40]}" for block, command in OURS])
def test_every_command_is_known_with_its_options(block: Block, command: str) -> None:
    from jobs.cli import app

    _, *words = shlex.split(command, comments=True)
    words = [word for word in words if word != "…"]
    known: Any = typer.main.get_command(app)
    context = click.Context(known, info_name="mats")
    try:
        while isinstance(known, click.Group):
            name = words.pop(0)
            known = known.get_command(context, name)
            assert known is not None, f"there is no command {name}"
        if words and words[0] == "--help":
            return
        known.make_context(known.name, words, parent=context)
    except click.UsageError as error:
        pytest.fail(f"{block.place}: {error.format_message()}")


def test_every_target_of_make_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = {command.split()[1] for _, command in ALL if command.startswith("make ")}
    assert len(named) > 5 and named <= targets


def test_every_python_block_uses_what_there_is() -> None:
    """It compiles, and each name that it imports of ours is there."""
    written = [block for block in blocks() if block.language == "python"]
    assert written
    for block in written:
        for node in ast.walk(ast.parse("\n".join(block.lines))):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), block.place


@pytest.mark.processes
def test_the_conversation_of_the_readme(tmp_path: Path) -> None:
    """Word for word: its sound is synthesised, its answers do not depend on the machine."""
    (block,) = [block for block in blocks() if any("soundworld clip street.wav" in line for line in block.lines)]
    assert ran(block, tmp_path) == [line for line in block.lines if not line.startswith("$ ")]


def ran(block: Block, folder: Path) -> list[str]:
    """What the commands of a block print, whose words are `mats` of this checkout."""
    told: list[str] = []
    for line in block.lines:
        if line.startswith("$ "):
            told += typed(line[2:], folder).splitlines()
    return told


def typed(command: str, folder: Path, **more: str) -> str:
    """What a command line prints on standard output; it ends with 0."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "mats"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jobs "$@"\n')
    program.chmod(0o755)
    env = {**ENV, **more, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done.stdout


# -- the shape of what is printed --------------------------------------------------------------------------------------


def shape(line: str) -> str:
    """A line without what differs from run to run: numbers, times, ids, the width of columns."""
    line = re.sub(r"\b[0-9a-f]{12}\b", "#", line)
    line = re.sub(r"\w+://\S+|(?<=[ (])/?[\w.-]+/[\w./-]*", "PLACE", line)
    line = re.sub(r"\d+(?:[.,]\d+)*", "#", line)
    line = re.sub(r"# (?:h|min|s)(?: # (?:min|s))?(?=\W|$)", "# s", line)
    return re.sub(r"\s+", " ", line).strip()


def missing(told: str, document: list[str]) -> str | None:
    """The first line of a document's block that nothing in `told` looks like, in its order; … stands for any lines."""
    found = [shape(line) for line in told.splitlines() if line.strip()]
    at, near = 0, False
    for line in document:
        if line.strip() in ("…", ""):
            near = False
            continue
        wanted = shape(line)
        places = [i for i in range(at, len(found)) if found[i] == wanted][:1]
        if not places or (near and places[0] != at):
            return line
        at, near = places[0] + 1, True
    return None


def test_a_shape_is_that_of_other_numbers_and_not_of_other_words() -> None:
    document = ["files   12, 0.5 h", "…", "time    44 s", "run 61b350c168ad: scores 18 s"]
    told = "files 3, 1.25 h\nerrors 1\n\ntime  2 min 3 s\nrun 0123456789ab: scores 1 s\n"
    assert missing(told, document) is None
    assert missing(told.replace("scores", "answers"), document) == document[-1]
    assert missing(told.replace("time  2 min 3 s\n", "time  2 min 3 s\nmore\n"), document) == document[-1]
    assert missing(told.replace("files", "file"), document) == document[0]


# -- what runs here ----------------------------------------------------------------------------------------------------

NOT_HERE = {
    "mats submit": "a cluster with a dashboard; tests/e2e/test_submit.py",
    "mats benchmark": "minutes to hours, each",
    "mats soundworld build": "an hour",
    "mats soundworld evaluate": "minutes",
    "mats train": "ten minutes; tests/test_examples.py trains",
    "mats import-reference --checkpoint checkpoint_29.pth": "the authors' checkpoint, 13 GB of Vicuna",
    "mats corpus all": "the published sets; tests/pipelines/corpus",
    "mats adapt": "minutes; tests/e2e/test_adapt.py",
    "mats noise": "pairs of sound and caption; tests/pipelines/text/test_noise.py",
    "mats evaluate --model models/mine": "published sets; tests/pipelines/evaluate",
    "mats evaluate --suite": "published sets; tests/pipelines/evaluate/test_suite.py",
    "mats evaluate --benchmarks soundworld_labels": "grids of minutes; tests/pipelines/evaluate",
    "mats history": "a history; tests/pipelines/evaluate/test_history.py",
    "mats ask street.wav --interactive": "somebody who types",
    "mats caption /data/archive out/ --model": "a model that was trained",
    "mats caption s3://sounds/shards": "shards; tests/e2e",
}
"""Commands that do not run here → what keeps them, and what runs them or the like."""
SMALLER = (
    ("/data/archive", "archive"),
    ("mats soundworld corpus world/text.jsonl", "mats soundworld corpus world/text.jsonl --records 300 --rounds 1"),
    ("--cap 16384", "--cap 200"),
    ("mats evaluate --benchmarks soundworld --out", "mats evaluate --benchmarks soundworld --limit 8 --out"),
)
"""What a command says → what it says here."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with the files that the documents name, and the environment of a store with their buckets."""
    folder = tmp_path_factory.mktemp("typed")
    write_tones(folder / "archive", 3, 2.0)
    for name in ("street.wav", "a.wav", "b.wav", "c.wav", "concert.flac"):
        soundfile.write(folder / name, 0.1 * np.sin(np.arange(32_000) / 9), 16_000)
    (folder / "list.csv").write_text("uri\n" + f"{folder / 'street.wav'}\n")
    for name in ("out-old", "out-new"):
        typed(f"mats caption archive {name}", folder)
    store = MotoStore()
    client = store.client()
    for bucket in ("bucket", "sounds", "answers"):
        client.create_bucket(Bucket=bucket)
    for key in ("2024/05/a.flac", "archive/a.flac"):
        for bucket in ("bucket", "sounds"):
            client.put_object(Bucket=bucket, Key=key, Body=(folder / "concert.flac").read_bytes())
    yield folder, {**store.keys, "MATS_STORAGE": json.dumps({"s3://": {"endpoint": store.endpoint}})}
    store.close()


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.parametrize("page", ["README.md", "docs/archives.md", "docs/embedded-world.md", "docs/evaluation.md"])
def test_commands_run_in_their_order(page: str, place: tuple[Path, dict[str, str]]) -> None:
    """Of other pages all commands are in NOT_HERE, or on these. Alternatives into one OUTPUT get one each."""
    folder, env = place
    ended: list[str] = []
    outputs: set[str] = set()
    for block, command in OURS:
        line = " ".join(shlex.split(command, comments=True, posix=False))
        if not block.place.startswith(f"{page}:") or any(line.startswith(each) for each in NOT_HERE):
            continue
        for said, here in SMALLER:
            line = line.replace(said, here)
        output = re.match(r"mats (?:caption|embed-audio|compact|evaluate).* ((?:out|compacted|run)\S*/)", line)
        if output is not None:
            name = f"{page.rpartition('/')[2][:3]}-{output[1]}"
            if name in outputs:
                name = f"{len(outputs)}-{name}"
            outputs.add(name)
            line = line.replace(f" {output[1]}", f" {name}")
        line = line.replace("mats compact out/", "mats compact out-old/").replace("report out/", "report REA-out/")
        typed(line, folder, **env)
        ended.append(line)
    assert len(ended) >= 2


@pytest.mark.long
@pytest.mark.processes
def test_what_is_printed_has_the_shape_of_what_is_shown(tmp_path: Path) -> None:
    """The blocks that show what a command prints, by words that only they have."""
    shown = {
        " ".join(block.lines[0].split()[:3]): block for block in blocks() if not block.lines[0].startswith("mats ")
    }
    write_archive(tmp_path / "archive", 0)
    scanned = typed("mats scan archive here/manifest", tmp_path)
    # note: a bucket has no broken links, which this folder has
    wanted = ["…" if line.startswith("errors") else line for line in shown["53 files new"].lines]
    assert missing(scanned, wanted) is None
    dry = typed("mats caption archive out --dry-run", tmp_path)
    wanted = [line for line in shown["files 56 new"].lines if not line.startswith(("errors", "formats"))]
    assert missing(dry, [each for line in wanted for each in (line, "…")]) is None
    (tmp_path / "world").mkdir()
    write_corpus(tmp_path / "world" / "text.jsonl", 400, 1)
    told = typed("mats embed-text world/text.jsonl world/embeddings", tmp_path)
    told += typed("mats build-memory world/embeddings world/memory --cap 200", tmp_path)
    assert missing(told, [*shown["records 32000 in"].lines[:11], "…"]) is None
    told = typed("mats evaluate --benchmarks soundworld --limit 8 --out run", tmp_path)
    block = shown["soundworld value 95"].lines
    last = next(line for line in block if line.startswith("run "))
    assert missing(told, [*block[:4], "…", last]) is None


@pytest.mark.long
@pytest.mark.processes
def test_the_import_that_is_shown(tmp_path: Path) -> None:
    (block,) = [block for block in blocks() if block.lines[0].startswith("$ mats import-reference")]
    for name in ("jobs",):
        (tmp_path / name).symlink_to(ROOT / name)
    assert missing(typed(block.lines[0][2:], tmp_path), block.lines[1:]) is None
