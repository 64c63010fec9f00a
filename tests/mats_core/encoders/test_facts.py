"""What a job knows of an encoder without loading it, and how another encoder is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mats_core.encoders.facts import read_encoder_facts, read_hearing, refuse_other_encoder
from mats_core.errors import SettingsError

ONE, OTHER = "1" * 64, "2" * 64


def test_another_encoder_is_refused_with_both_names_and_what_to_do() -> None:
    with pytest.raises(SettingsError) as caught:
        refuse_other_encoder("memory", "the memory m", ONE, OTHER, "rebuild it")
    said = "memory: the memory m was made with encoder 111111111111, not with 222222222222; rebuild it"
    assert str(caught.value) == said
    refuse_other_encoder("memory", "the memory m", ONE, ONE, "rebuild it")


@pytest.mark.parametrize(("made_with", "encoder"), [("", OTHER), (ONE, "")])
def test_an_unknown_encoder_passes_only_where_it_may(made_with: str, encoder: str) -> None:
    refuse_other_encoder("memory", "m", made_with, encoder, "rebuild it", unknown_passes=True)
    with pytest.raises(SettingsError, match=r"an encoder that it does not name|not with an unknown one"):
        refuse_other_encoder("memory", "m", made_with, encoder, "rebuild it")


def test_facts_of_a_clap_model(tiny_model_dir: str) -> None:
    folder = Path(tiny_model_dir) / "encoder"
    facts = read_encoder_facts(str(folder))
    assert (facts.uri, facts.dim) == (str(folder), 32)
    assert facts.size == (folder / "model.safetensors").stat().st_size
    rate, window_s = read_hearing(str(folder))
    assert (rate, window_s, type(window_s)) == (16_000, 5.0, float)


def test_what_a_silent_preprocessor_hears_is_claps_default(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"feature_extractor": {}}))
    assert read_hearing(str(tmp_path)) == (48_000, 10.0)
    assert isinstance(read_hearing(str(tmp_path))[1], float)


def test_what_is_no_encoder_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is no CLAP encoder"):
        read_encoder_facts(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(SettingsError, match=r"its config\.json is of a llama"):
        read_encoder_facts(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "clap", "projection_dim": 8}')
    with pytest.raises(SettingsError, match=r"weights of .* are missing"):
        read_encoder_facts(str(tmp_path))
    with pytest.raises(SettingsError, match=r"preprocessor_config\.json is missing"):
        read_hearing(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(SettingsError, match="is not JSON"):
        read_hearing(str(tmp_path))
