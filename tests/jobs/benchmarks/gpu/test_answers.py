"""The LLM's sections on a CPU, at small sizes: both ways write answers of the same lengths."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.benchmarks.gpu import answers
from jobs.benchmarks.gpu.answers import ScheduledHead
from jobs.benchmarks.gpu.section import END, Section

CPU = torch.device("cpu")


def measured(section: str, tmp_path: Path) -> list[dict[str, Any]]:
    """The lines of one section."""
    tmp_path.mkdir(exist_ok=True)
    one = Section(section, "small", CPU, tmp_path / "results", tmp_path, time.monotonic() + 300)
    getattr(answers, section)(one)
    return [json.loads(line) for line in one.results.read_text().splitlines()]


def test_generate_is_measured_beside_and_merged(tmp_path: Path) -> None:
    lines = measured("generate", tmp_path)
    assert [line["what"] for line in lines] == [
        *(f"batch {batch}, 4 tokens, adapter {place}" for place in ("beside", "merged") for batch in (2, 4)),
        "profile of batch 4",
    ]
    for line in lines[:-1]:
        assert line["answers_per_s"] > 0 < line["step_ms"]
        assert line["lengths_kept"] == 1.0
    assert lines[-1]["calls"] > 1000 and len(lines[-1]["ms_and_calls"]) == 12


def test_the_engine_is_measured_at_every_number_of_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(answers, "compile_body", lambda llm, backend: compiled.append(backend))
    lines = measured("engine", tmp_path)
    assert [line["what"] for line in lines] == [
        *(f"{slots} slots, {mean} tokens" for mean in (4, 8) for slots in (4, 2)),
        "4 slots, 4 tokens, compiled norms and MLPs",
    ]
    profile, *both = measured("eager", tmp_path / "eager")
    whats = ["profile of 4 slots", "4 slots, 4 tokens", "4 slots, 4 tokens, with graphs"]
    assert [line["what"] for line in (profile, *both)] == whats
    for line in [*lines, *both]:
        assert "error" not in line
        assert line["answers_per_s"] > 0 < line["roofline"]
        assert line["lengths_kept"] == line["equal_to_first"] == 1.0
        assert line["row_steps_over_useful"] >= 1.0
    assert profile["calls"] > 1000 and compiled == ["eager"]


def test_the_schedule_decides_the_end_token_alone() -> None:
    head = ScheduledHead(torch.nn.Linear(3, 5, bias=False))
    hidden = torch.randn(2, 1, 3)
    plain = head.head(hidden)
    head.lengths, head.counts = torch.tensor([[1], [3]]), True
    ends = [(head(hidden).argmax(-1) == END).flatten().tolist() for _ in range(3)]
    assert ends == [[True, False], [True, False], [True, True]]
    head.lengths = None
    free = head(hidden)
    others = [at for at in range(5) if at != END]
    assert torch.equal(free[..., others], plain[..., others]) and bool((free.argmax(-1) != END).all())


def test_prompts_are_padded_on_the_left() -> None:
    words, real = answers.padded([torch.ones(2, 3), torch.ones(1, 3)])
    assert real.tolist() == [[True, True], [False, True]]
    assert words.sum(-1).tolist() == [[3.0, 3.0], [0.0, 3.0]]


def test_a_profile_counts_what_ran() -> None:
    found = answers.profiled(lambda: torch.ones(10).exp(), CPU)
    assert found["ms_and_calls"]["aten::exp"][1] == 1
    assert found["wall_ms"] >= 0 < found["busy_ms"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_small_sizes_on_a_gpu(tmp_path: Path) -> None:
    one = Section("engine", "small", torch.device("cuda"), tmp_path / "results", tmp_path, time.monotonic() + 300)
    answers.engine(one)
    lines = [json.loads(line) for line in one.results.read_text().splitlines()]
    assert not [line for line in lines if "error" in line or line.get("eager")]
    assert lines[0]["graphs"] > 0
