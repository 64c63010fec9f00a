"""Clips of the embedded world, what is true of them, and a stand-in that knows it."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.evaluate.datasets import load_evaluation_set, load_items
from tests.pipelines.evaluate.stand_in import CLIPS, NAMES, StandIn, install


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="session")
def truth(data: str) -> dict[tuple[str, str], Any]:
    sets = [load_items(load_evaluation_set(name), data, CLIPS) for name in NAMES]
    return {(each.name, item.item_id): item for each in sets for item in each.items}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, truth: dict[tuple[str, str], Any]) -> StandIn:
    """Knows everything, but for one sound it cannot read; a stand-in's `good` is the share of clips it knows."""

    def say(row: dict[str, Any]) -> str | None:
        item = truth[row["benchmark"], row["item"]]
        number = int(row["item"].rsplit("-", 1)[1])
        if number == CLIPS - 1:
            return None
        if number >= model.good * CLIPS or row["bridge"] == "none":
            return next((choice for choice in item.choices if choice != item.answer), "thunder")
        return item.answer or ", ".join(item.labels)

    model = install(StandIn(say), monkeypatch)
    model.good = 1.0  # type: ignore[attr-defined]
    return model
