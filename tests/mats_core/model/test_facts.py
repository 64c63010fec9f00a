"""What a run knows of an encoder or a model without loading it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mats_core.encoders.facts import read_encoder_facts
from mats_core.errors import SettingsError
from mats_core.model.directory import encoder_uri
from mats_core.model.facts import read_model_facts


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr("mats_core.encoders.load.load_encoder", load)
    monkeypatch.setattr("torch.load", load)


@pytest.fixture
def official(tiny_model_dir: str, tmp_path: Path) -> Path:
    """A model directory with the tiny model's LLM and, inside, weights of Microsoft's name."""
    from tests.official_clap import write_tokenizer

    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    shutil.rmtree(folder / "encoder")
    shutil.rmtree(folder / "memory")
    (folder / "encoder").mkdir()
    (folder / "encoder" / "CLAP_weights_2023.pth").write_bytes(b"weights " * 1000)
    write_tokenizer(folder / "encoder" / "gpt2")
    told = json.loads((folder / "mats.json").read_text()) | {"memory": None, "embedding_dim": 32}
    (folder / "mats.json").write_text(json.dumps(told))
    return folder


@pytest.mark.msclap
@pytest.mark.usefixtures("unloaded")
def test_microsofts_clap_inside_a_model_and_by_its_uri(official: Path) -> None:
    pytest.importorskip("torchlibrosa", reason="needs the msclap package")
    facts = read_model_facts(str(official))
    assert (facts.sample_rate, facts.window_s, facts.chunk_s) == (44_100, 7.0, 56.0)
    assert facts.size > 8000
    inside = read_encoder_facts(encoder_uri(str(official)))
    weights = official / "encoder" / "CLAP_weights_2023.pth"
    by_uri = read_encoder_facts(f"msclap:{weights}?tokenizer={official / 'encoder' / 'gpt2'}")
    assert (inside.dim, inside.size) == (1024, 8000)
    assert by_uri.fingerprint == inside.fingerprint
    weights.write_bytes(b"other weights")
    assert read_encoder_facts(encoder_uri(str(official))).fingerprint != inside.fingerprint


@pytest.mark.usefixtures("unloaded")
def test_a_clap_model_by_its_directory_and_by_its_model(tiny_model_dir: str) -> None:
    facts = read_model_facts(tiny_model_dir)
    assert (facts.sample_rate, facts.window_s, facts.dim) == (16_000, 5.0, 32)
    inside = read_encoder_facts(encoder_uri(tiny_model_dir))
    assert inside.fingerprint == facts.encoder_fingerprint
    assert read_encoder_facts(f"{tiny_model_dir}/encoder").fingerprint == inside.fingerprint


def test_weights_that_are_named_and_missing(official: Path) -> None:
    told = json.loads((official / "mats.json").read_text())
    for uri, says in (
        ("msclap:/nowhere/CLAP_weights_2023.pth", "^encoder: .*/nowhere/CLAP"),
        (f"msclap:{official}/encoder?tokenizer=/nowhere", "^encoder.tokenizer: .*/nowhere"),
    ):
        told["encoder"]["uri"] = uri
        (official / "mats.json").write_text(json.dumps(told))
        with pytest.raises(SettingsError, match=says):
            read_model_facts(str(official))
