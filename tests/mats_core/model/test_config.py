"""What `mats.json` may say."""

from __future__ import annotations

from typing import Any

import pytest

from mats_core.errors import SettingsError, checked
from mats_core.model.config import ModelConfig

LEAST = {"embedding_dim": 8, "hidden_size": 16, "llm": {"uri": "llm", "fingerprint": ""}}


def test_defaults_are_the_released_models_and_survive_being_written() -> None:
    config: ModelConfig = checked(ModelConfig, LEAST, "mats.json")
    assert (config.mapper.vectors, config.decoding.beams, config.santa.neighbors) == (40, 4, 32)
    assert checked(ModelConfig, config.model_dump(mode="json"), "mats.json") == config


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"tasks": {"sing": {}}}, r"mats\.json: there is no task sing; choose from caption, "),
        ({"prompt_template": "none"}, "<SpeechHere> exactly once"),
        ({"mapper": {"width": 10, "heads": 4}}, "width 10 is not a multiple of heads 4"),
        ({"santa": {"probe": 0}}, "probe is less than 1; give at least 1"),
        ({"noise_variance": float("nan")}, r"noise_variance: nan is no finite number; give a finite number"),
        ({"format": 2}, r"mats\.json\.format: 2 is no choice; choose 1"),
    ],
)
def test_what_cannot_be_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        checked(ModelConfig, LEAST | values, "mats.json")
