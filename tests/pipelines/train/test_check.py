"""What can hardly be meant of a training run, and defaults that follow its length."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.settings.train import TrainSettings
from pipelines.train.check import doubts


def settings(steps: int, **given: Any) -> TrainSettings:
    training = {"steps": steps, **{name: given.pop(name) for name in ("warmup_steps",) if name in given}}
    data = [{"name": "a", "corpus": "c"}]
    return TrainSettings(output="o", llm="l", encoder="e", embeddings="e", data=data, training=training, **given)


@pytest.mark.parametrize(
    ("steps", "warmup", "checkpoint", "validate"),
    [(90_000, 3000, 500, 1000), (3000, 100, 300, 600), (100, 3, 10, 20), (1, 0, 1, 1), (500_000, 3000, 500, 1000)],
)
def test_what_is_not_given_follows_the_steps(steps: int, warmup: int, checkpoint: int, validate: int) -> None:
    found = settings(steps)
    assert (found.training.warmup_steps, found.checkpoint_every, found.validate_every) == (warmup, checkpoint, validate)
    assert not list(doubts(found))


def test_what_is_given_stands_and_is_doubted_where_it_can_hardly_be_meant() -> None:
    found = settings(100, warmup_steps=100, checkpoint_every=500, validate_every=7)
    assert (found.training.warmup_steps, found.checkpoint_every, found.validate_every) == (100, 500, 7)
    warmup, checkpoint = doubts(found)
    assert warmup.startswith("training.warmup_steps is 100 and the run has 100 steps")
    assert checkpoint.startswith("checkpoint_every is 500: no checkpoint before the end, after 100 steps")
    assert not list(doubts(settings(100, warmup_steps=99, checkpoint_every=99)))
