"""`mats evaluate --list`, `mats history` and `mats compare` as they are typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.evaluate.datasets import list_evaluation_sets, load_evaluation_set
from pipelines.evaluate.history import History
from tests.pipelines.evaluate.datasets.test_readers import write
from tests.pipelines.evaluate.test_history import run_rows


def mats(*words: str, code: int = 0) -> str:
    """What a command prints; it must end with `code`."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done.output


def test_the_list_says_what_is_ready_and_what_is_missing(tmp_path: Path) -> None:
    table = "filename,fold,target,category,esc10,src_file,take\na.wav,1,0,dog,True,1,A\n"
    root = write(tmp_path, {"esc50/meta/esc50.csv": table, "esc50/audio/a.wav": ""})
    lines = {line.split()[0]: line for line in mats("evaluate", "--list", "--data", root).splitlines()}
    assert list(lines) == list_evaluation_sets()
    assert lines["esc50"].split() == ["esc50", "label", "2,000", "ready"]
    assert lines["soundworld"].endswith("ready")
    assert "missing: no folder gtzan/. Get it: http://marsyas.info" in lines["gtzan"]


def test_the_list_has_a_benchmark_of_ones_own_and_knows_its_folder(tmp_path: Path) -> None:
    own = load_evaluation_set("esc50").model_dump(exclude_unset=True) | {"name": "mine"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own))
    said = mats("evaluate", "--list", "--benchmarks", f"{tmp_path}/mine.yaml,esc50", "--data", f"mine={tmp_path}")
    lines = [line.split()[0] for line in said.splitlines()]
    assert lines == [*list_evaluation_sets(), "mine"] and "missing" in said.splitlines()[-1]
    mats("evaluate", "--list", "--data", f"mine={tmp_path}", code=2)


def test_runs_are_shown_accepted_pinned_and_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    history = History(str(tmp_path / "history"))
    for day, (run_id, right) in enumerate((("a", 0.8), ("b", 0.9)), start=1):
        history.add(run_rows(run_id, right, day=day))
    monkeypatch.setenv("MATS_HISTORY", history.url)
    assert mats("history", "accept", "a") == "accepted: a\n"
    assert mats("history", "accept", "last") == "accepted: b\n"
    assert mats("history", "pin", "b") == "pinned: b\n"
    assert (history.accepted(), history.pinned()) == (["a", "b"], "b")
    shown = mats("history", "show").splitlines()
    assert shown[0].endswith("a  m  accepted")
    assert shown[3] == "    bells: accuracy 0.900"
    drawn = mats("history", "show", "bells/accuracy", "--out", str(tmp_path / "trend.svg"))
    assert "2026-11-02T03:00:00Z  b  0.9000  0.8800 – 0.9200     400  pinned" in drawn
    assert (tmp_path / "trend.svg").read_text().startswith("<svg")
    mine = ["history", "show", "bells/accuracy", "--out", str(tmp_path / "mine.svg")]
    (tmp_path / "mine.svg").write_text("<svg></svg>")
    assert "is no picture that MATS has written; choose another" in mats(*mine, code=2).replace("\n", " ")
    assert (tmp_path / "mine.svg").read_text() == "<svg></svg>"
    for more in ("--overwrite",), ():  # then it is one of ours
        mats(*mine, *more)
    assert mats("history", "reject", "b") == "rejected: b\n"
    assert (history.accepted(), history.pinned()) == (["a"], "a")
    assert mats("history", "show", "accuracy") == mats("history", "show", "bells/accuracy")
    assert "of 2 data sets; choose bells/accuracy, gongs/accuracy" in _in_two(history, tmp_path)
    mats("history", "show", "bells/f1", code=2)
    assert "no picture can be written to" in mats("history", "show", "bells/accuracy", "--out", str(tmp_path), code=2)
    mats("history", "accept", "c", code=2)


def _in_two(history: History, tmp_path: Path) -> str:
    """What is said of a metric that two data sets have."""
    both = History(str(tmp_path / "both"))
    both.add(
        [row for name in ("bells", "gongs") for row in ({**each, "benchmark": name} for each in run_rows("a", 0.8))]
    )
    return mats("history", "show", "accuracy", "--history", both.url, code=2)


@pytest.mark.processes
def test_two_runs_of_caption_are_compared(tmp_path: Path) -> None:
    """In the columns of `mats caption`: one answer stays, one changes, one fails now, one sound is new."""
    for name in ("0", "1", "2", "3"):
        tone = 0.3 * np.sin(np.arange(8000) * (0.1 + int(name)))
        soundfile.write(tmp_path / f"{name}.wav", tone, 16_000)
    texts = {"old": ["Rain.", "A dog barks.", "Wind."], "new": ["Rain.", "A siren wails.", None, "A bell."]}
    for run, answers in texts.items():
        rows = [
            {
                "row_id": i, "chunk_id": str(i), "uri": str(tmp_path / f"{i}.wav"), "start_s": 0.0, "duration_s": 0.5,
                "task": "caption", "question": None, "tag": None, "text": text,
                "error_code": None if text else "decode_failed",
            }
            for i, text in enumerate(answers)
        ]  # fmt: skip
        (tmp_path / run / "answers").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / run / "answers" / "part-0.parquet")
    page = tmp_path / "compare.html"
    shown = mats("compare", str(tmp_path / "old"), str(tmp_path / "new"), "--out", str(page))
    assert "3 answers in both: 1 the same, 2 changed; 0 only in" in shown
    assert f"1 only in {tmp_path / 'new'}" in shown
    table = pq.read_table(tmp_path / "compare.parquet").to_pylist()
    assert [(row["chunk_id"], row["text_b"]) for row in table] in (
        [("2", None), ("1", "A siren wails.")],
        [("1", "A siren wails."), ("2", None)],
    )
    assert {row["chunk_id"]: row["distance"] for row in table}["2"] == 1.0
    assert page.read_text().count("data:audio/mpeg;base64,") == 2
    mats("compare", str(tmp_path / "old"), str(tmp_path / "new"), "--out", str(page))  # its own table is replaced
    for other in (pa.table({"uri": ["x"], "text": ["mine"]}), None):
        path = tmp_path / "answers.parquet"
        path.write_bytes(b"mine") if other is None else pq.write_table(other, path)
        before = path.read_bytes()
        told = mats("compare", "nowhere", "nowhere", "--out", str(tmp_path / "answers.html"), code=2)
        assert "not of `mats compare`" in told.replace("\n", " ")
        assert path.read_bytes() == before
