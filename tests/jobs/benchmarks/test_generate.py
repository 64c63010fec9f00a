"""`mats benchmark generate`: a LLaMA of random weights that ends its answers, the same by both ways."""

from __future__ import annotations

import pytest

from jobs.benchmarks import generate
from mats_core.errors import SettingsError

SMALL = {"vocab_size": 200, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1}


def test_random_answers_end_at_different_lengths_and_are_equal() -> None:
    found = generate.side_by_side("small", generate.random(12, **SMALL), batches=[6], slots=[3, 5])
    assert found["equal"] == 12
    assert found["tokens"]["p10"] < found["tokens"]["p90"] <= 80  # no answer runs to its longest
    rates = found["answers_per_s"]
    assert found["ratio"] == pytest.approx(max(rates["loop"].values()) / rates["generate"][6], abs=0.02)


def test_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.run_benchmark(["builtin"], 4, [4], [2, 4], False) == 0
    assert "equal: 4 of 4" in capsys.readouterr().out


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(SettingsError, match='llm: there is no "7b"; choose builtin or 100m'):
        generate.run_benchmark(["7b"], 4, [4], [4], True)
    with pytest.raises(SettingsError, match="requests: 0 cannot be measured"):
        generate.run_benchmark(["builtin"], 0, [4], [4], True)
