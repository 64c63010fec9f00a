"""What a user gets wrong ends with code 2 and one clear line, before any model is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ENV, ROOT, write_tones

# Runs the command line in one process for all cases, and tells what heavy things it imported.
RUNNER = """
import contextlib, io, json, sys
from jobs.cli import app
results = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app(args=arguments, prog_name="mats")
            code = 0
        except SystemExit as end:
            code = end.code
    results.append([code, out.getvalue(), err.getvalue()])
heavy = [name for name in ("torch", "transformers", "ray") if name in sys.modules]
print(json.dumps({"results": results, "heavy": heavy}))
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: str) -> dict[str, tuple[list[str], str]]:
    """Name → (arguments, what the line must say)."""
    root = tmp_path_factory.mktemp("wrong")
    archive = root / "archive"
    write_tones(archive, 2, 1.0)
    (root / "empty").mkdir()
    (root / "a-file").touch()
    (root / "text.csv").write_text(f"uri,text\n{archive}/0000.wav,mine\n")
    (root / "no-uri.csv").write_text("path\nx.wav\n")
    (root / "row-task.csv").write_text(f"uri,task\n{archive}/0000.wav,sing\n")
    (root / "row-qa.csv").write_text(f"uri,task\n{archive}/0000.wav,QA\n")
    (root / "corpus.jsonl").write_text('{"caption": "rain", "output": "Rain."}\n')
    (root / "bad.yaml").write_text("task: [caption\n")
    (root / "half" / "encoder").mkdir(parents=True)
    (root / "half" / "mats.json").write_text("{}")
    a, o, t, m = str(archive), str(root / "out"), str(root / "text"), ["--model", tiny_model_dir]
    return {
        "unknown task": (["caption", a, o, *m, "--task", "sing"], 'task: "sing" is not a task; choose caption'),
        "QA without question": (["caption", a, o, *m, "--task", "QA"], "question"),
        "missing model": (["caption", a, o, "--model", str(root / "none")], "model: there is no directory"),
        "half a model": (["caption", a, o, "--model", str(root / "half")], "mats.json"),
        "negative batch": (["caption", a, o, *m, "--batch-size", "-1"], "batch_size: -1 is too small"),
        "unknown device": (
            ["caption", a, o, *m, "--device", "gpu"],
            'device: "gpu" is no device; choose auto, cpu, cuda',
        ),
        "tag": (["caption", a, o, *m, "--tag", "<SpeechHere>"], 'tag: "<SpeechHere>" holds'),
        "unknown error code": (
            ["caption", a, o, *m, "--retry-errors", "tiredness"],
            '"tiredness" is no error code',
        ),
        "beams 0": (["caption", a, o, *m, "--beams", "0"], "beams: 0 is too small; give a number greater than 0"),
        "too many beams": (["caption", a, o, *m, "--beams", "1000"], "beams"),
        "output is a file": (["caption", a, str(root / "a-file"), *m], "is a file; choose"),
        "output below a file": (["caption", a, str(root / "a-file" / "x"), *m], "x cannot be written ("),
        "input without audio": (["caption", str(root / "empty"), o, *m], "input: there is no audio file in "),
        "no such input": (["caption", str(root / "nowhere"), o, *m], "nowhere cannot be read ("),
        "no such list": (["caption", str(root / "nowhere.csv"), o, *m], "give a list that exists"),
        "list column text": (["caption", str(root / "text.csv"), o, *m], "`text`"),
        "list without uri": (["caption", str(root / "no-uri.csv"), o, *m], "`uri`"),
        "task in a list row": (["caption", str(root / "row-task.csv"), o, *m], 'task: "sing" is not a task'),
        "QA in a list row": (["caption", str(root / "row-qa.csv"), o, *m], "question"),
        "no output": (["caption", a], "OUTPUT: it is missing; give it: "),
        "broken YAML": (["caption", a, o, "--config", str(root / "bad.yaml")], "cannot be read as YAML"),
        "embed: missing model": (["embed-audio", a, o, "--model", str(root / "none")], "model: there is no directory"),
        "scan: no such input": (["scan", str(root / "nowhere"), o, *m], "nowhere cannot be read ("),
        "ask: unknown task": (["ask", f"{a}/0000.wav", *m, "--task", "sing"], 'task: "sing" is not a task'),
        "ask: a folder": (["ask", a, *m], "is a folder; give files"),
        "corpora: none there": (["embed-text", str(root / "none.jsonl"), t], "none.jsonl cannot be read ("),
        "corpora: audio": (["embed-text", f"{a}/0000.wav", t], "is of no format that is known; give"),
        "columns": (["embed-text", str(root / "corpus.jsonl"), t, "--columns", "caption"], "columns: "),
        "error rate": (["embed-text", str(root / "corpus.jsonl"), t, "--max-error-rate", "2"], "max_error_rate: 2"),
        "no such encoder": (
            ["embed-text", str(root / "corpus.jsonl"), t, "--encoder", str(root / "e")],
            "is not a directory that exists; give the path of one",
        ),
        "embed-text: output": (
            ["embed-text", str(root / "corpus.jsonl"), str(root / "a-file")],
            "is a file; choose",
        ),
        "no embeddings": (["build-memory", str(root / "empty"), t], "holds no embeddings that can be read"),
        "storage": (
            ["build-memory", str(root / "empty"), t, "--storage", "float8"],
            '"float8" is no choice',
        ),
        "no clusters": (["build-memory", str(root / "empty"), t, "--clusters", "0"], "clusters: 0 is too small"),
        "no training config": (["train", str(root / "none.yaml")], "CONFIG: there is no file"),
        "training config": (["train", "soundworld", "--set", "training.steps=0"], "training.steps: 0 is too small"),
        "evaluate: no benchmark": (["evaluate", "--out", o, *m], "benchmarks: none is named"),
        "evaluate: unknown benchmark": (["evaluate", "--out", o, *m, "--benchmarks", "gongs"], '"gongs" is not a'),
        "evaluate: no files": (["evaluate", "--out", o, *m, "--benchmarks", "esc50", "--data", a], "esc50"),
        "evaluate: no out": (["evaluate", *m, "--benchmarks", "soundworld"], "out: no folder was given"),
        "evaluate: grid": (
            ["evaluate", "--out", o, *m, "--benchmarks", "soundworld", "--grid", "santa.mix=0", "sauna.mix=1"],
            'grid: "sauna.mix=1" is not an axis',
        ),
        "evaluate: no history": (
            ["evaluate", "--out", o, *m, "--benchmarks", "soundworld", "--against", "accepted"],
            "history: none was given",
        ),
        "history: no such run": (["history", "accept", "x", "--history", o], "run: x is not a run of this history"),
        "compare: no answers": (["compare", a, o, *m], "RUN_A: no answers in"),
        "caption: bridge": (
            ["caption", a, o, *m, "--bridge", "ferry"],
            'bridge: "ferry" is no bridge; choose santa',
        ),
        "caption: mean-shift": (["caption", a, o, *m, "--bridge", "mean-shift"], "embed-audio"),
        "unknown option": (["caption", a, o, "--colour", "red"], "--colour"),
        "not a number": (["caption", a, o, "--actors", "many"], "--actors"),
    }


def test_wrong_settings_end_with_code_2_and_one_clear_line(cases: dict[str, tuple[list[str], str]]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps([arguments for arguments, _ in cases.values()])],
        capture_output=True,
        text=True,
        env=ENV,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["heavy"] == []
    for (name, (_, said)), (code, out, err) in zip(cases.items(), told["results"], strict=True):
        assert code == 2, (name, code, out, err)
        assert said in err, (name, err)
        assert "Traceback" not in err
        if err.startswith("mats: "):
            assert err.count("\n") == 1, (name, err)
        assert out == ""


def test_a_wrong_command_line_of_a_real_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "caption", "x", "y", "--batch-size", "0"],
        capture_output=True,
        text=True,
        env=ENV,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mats: batch_size: 0 is too small; give a number greater than 0\n"
