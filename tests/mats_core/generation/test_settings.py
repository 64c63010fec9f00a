"""Settings of generation: what is given replaces, what cannot be is refused."""

from __future__ import annotations

import pytest

from mats_core.errors import SettingsError
from mats_core.generation.settings import DecodingSettings


def test_a_dict_replaces_what_it_names_and_an_object_everything() -> None:
    settings = DecodingSettings(beams=2, max_new_tokens=7)
    assert settings.updated(None) is settings
    assert settings.updated({"num_beams": 3}) == DecodingSettings(beams=3, max_new_tokens=7)
    assert settings.updated(DecodingSettings()) == DecodingSettings()


def test_what_cannot_be_is_refused() -> None:
    settings = DecodingSettings(max_new_tokens=12)
    assert settings.updated({"min_length": 13}).min_length == 13  # with the BOS
    with pytest.raises(SettingsError, match=r"min_length: 14 .*13.*; choose at most 13, or a larger max_new_tokens"):
        settings.updated({"min_length": 14})
    with pytest.raises(SettingsError, match=r"decoding\.colour: there is no such setting; choose one of beams, "):
        settings.updated({"colour": 1})
    with pytest.raises(SettingsError, match=r"decoding\.do_sample"):
        settings.updated({"do_sample": True})
