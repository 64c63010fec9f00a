"""What sections measure with: results at once, failures told, lengths and operations that can be checked by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from jobs.benchmarks.gpu.section import (
    Section,
    answer_lengths,
    clip_flops,
    random_prompts,
    repeated,
    share_equal,
    write_line,
)

CPU = torch.device("cpu")


@pytest.fixture
def section(tmp_path: Path) -> Section:
    return Section("engine", "small", CPU, tmp_path / "results.jsonl", tmp_path, time.monotonic() + 60)


def lines(section: Section) -> list[dict]:
    return [json.loads(line) for line in section.results.read_text().splitlines()]


def test_a_result_is_a_line_at_once_on_stdout_too(section: Section, capsys: pytest.CaptureFixture[str]) -> None:
    found = section.attempt("a step", lambda: {"ms": 1.23456789, "by_size": {"a": [0.000123456]}})
    (line,) = lines(section)
    assert json.loads(capsys.readouterr().out) == line
    assert (line["section"], line["what"], line["ms"], line["by_size"]) == (
        "engine",
        "a step",
        1.235,
        {"a": [0.0001235]},
    )
    assert found["ms"] == 1.23456789
    assert line["took_s"] >= 0


def test_a_failure_is_told_with_its_place_and_ends_nothing(section: Section) -> None:
    def fails() -> dict:
        raise RuntimeError("no kernel")

    def too_large() -> dict:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert section.attempt("fails", fails) == section.attempt("too large", too_large) == {}
    section.attempt("small", lambda: {"ms": 1})
    first, second, third = lines(section)
    assert first["error"] == "RuntimeError: no kernel" and "in fails" in first["traceback"]
    assert second["skipped"] == "out of memory: CUDA out of memory" and "error" not in second
    assert third["ms"] == 1


def test_nothing_begins_after_the_deadline(section: Section) -> None:
    section.deadline = time.monotonic() - 1
    section.attempt("late", lambda: pytest.fail("began"))
    assert lines(section) == [{"section": "engine", "what": "late", "skipped": "no time left"}]


def test_what_json_does_not_know_is_text(tmp_path: Path) -> None:
    write_line(tmp_path / "r", {"what": torch.float32})
    assert json.loads((tmp_path / "r").read_text()) == {"what": "torch.float32"}


@pytest.mark.parametrize("mean", [30, 60])
def test_answers_spread_as_real_ones(mean: int) -> None:
    """The longest of a batch over the mean: 1.7 of 16, 1.9 of 64, 2.0 of 128 (measured: 1.72, 1.89, 2.04)."""
    lengths = np.array(answer_lengths(128 * 200, mean))
    assert lengths.mean() == pytest.approx(mean, rel=0.02) and lengths.min() >= 2
    for batch, spread in ((16, 1.7), (64, 1.9), (128, 2.0)):
        longest = lengths.reshape(-1, batch).max(1).mean() / mean
        assert longest == pytest.approx(spread, abs=0.1)
    assert answer_lengths(10, mean) == answer_lengths(20, mean)[:10]


def test_operations_of_a_clip() -> None:
    """13.2 GFLOP a position in the 7 B model's weights: 2.7 TFLOP for 76 + 4 · 30 positions, 4.4 for 76 + 4 · 60."""
    config = LlamaConfig()
    assert clip_flops(config, 1, 0) == pytest.approx(1.05 * 13.2e9, rel=0.01)
    assert clip_flops(config, 76, 30) == pytest.approx(2.7e12, rel=0.02)
    assert clip_flops(config, 76, 60) == pytest.approx(4.4e12, rel=0.02)


def test_prompts_are_the_same_however_many_there_are() -> None:
    many, few = random_prompts(8, 12, 16, CPU, torch.float32), random_prompts(3, 12, 16, CPU, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(many, few, strict=False))
    assert {len(each) for each in many} <= set(range(9, 16)) and many[0].shape[1] == 16


def test_a_median_of_at_least_three() -> None:
    ran: list[int] = []
    assert repeated(lambda: ran.append(1), CPU, seconds=0.0) >= 0
    assert len(ran) == 4  # one that does not count


def test_shares() -> None:
    assert share_equal([[1], [2, 3]], [[1], [2, 4]]) == 0.5
