"""A text tower that has collapsed, a memory or a table whose rows are all alike: told by the mean cosine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mats_core.encoders.load import load_encoder
from mats_core.errors import SettingsError
from mats_core.memory.santa import SantaMemory
from mats_core.model.directory import BUILTIN
from mats_core.spread import (
    COLLAPSED,
    DOUBTFUL,
    LEAST_ROWS,
    SENTENCES,
    doubt,
    mean_cosine,
    refuse_alike,
    refuse_collapsed,
    some_rows,
    text_cosine,
)


def by_pairs(rows: np.ndarray) -> float:
    """The mean over all pairs, pair by pair."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return float(np.mean([unit[i] @ unit[j] for i in range(len(unit)) for j in range(i)]))


def test_mean_cosine_is_the_mean_over_all_pairs() -> None:
    rows = np.random.default_rng(0).normal(1.0, 1.0, (17, 5))
    assert mean_cosine(rows) == pytest.approx(by_pairs(rows), abs=1e-12)
    assert mean_cosine(rows.astype(np.float16)) == pytest.approx(by_pairs(rows), abs=1e-3)
    assert mean_cosine(np.eye(8)) == pytest.approx(0.0, abs=1e-12)
    assert mean_cosine([[1.0, 0.0], [-1.0, 0.0]]) == pytest.approx(-1.0)
    assert mean_cosine(np.ones((9, 3))) == pytest.approx(1.0)
    assert mean_cosine(np.ones((1, 3))) == mean_cosine(np.zeros((0, 3))) == 0.0


def test_rows_that_are_no_vectors_are_alike() -> None:
    assert mean_cosine(np.zeros((5, 4))) == pytest.approx(1.0)
    assert mean_cosine(np.full((5, 4), np.nan)) == pytest.approx(1.0)
    assert mean_cosine([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]) == pytest.approx(1 / 3)


def test_sentences_are_different_ones() -> None:
    assert len(set(SENTENCES)) == len(SENTENCES) == 32
    assert len({word for each in SENTENCES for word in each.lower().strip(".").split()}) > 90
    assert some_rows(3).tolist() == [0, 1, 2]
    assert len(some_rows(10**7)) == 256


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped CLAP with a projection of texts whose bias drowns what the text says."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("collapsed") / "encoder"
    shutil.copytree(BUILTIN / "encoder", folder)
    weights = load_file(folder / "model.safetensors")
    bias = weights["text_projection.linear2.bias"]
    weights["text_projection.linear2.bias"] = bias + 100 * torch.ones_like(bias)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_collapsed_text_tower_is_refused_with_the_figure(collapsed: Path) -> None:
    encoder = load_encoder(str(collapsed), device="cpu")
    assert text_cosine(encoder) > 0.999
    with pytest.raises(SettingsError, match=r"encoder: the text tower of .* has collapsed.*cosine of 0\.99") as caught:
        refuse_collapsed(encoder, str(collapsed))
    assert "another checkpoint" in caught.value.remedy


def test_the_shipped_one_passes_without_a_word() -> None:
    found = refuse_collapsed(load_encoder(str(BUILTIN / "encoder"), device="cpu"), "builtin")
    assert 0 < found < 0.75 < DOUBTFUL < COLLAPSED
    assert doubt(found) == ""
    assert "hardly told apart" in doubt(0.9)


def test_random_weights_are_refused(tmp_path: Path) -> None:
    import torch
    from transformers import ClapConfig, ClapModel

    shutil.copytree(BUILTIN / "encoder", tmp_path / "encoder")
    torch.manual_seed(0)
    ClapModel(ClapConfig.from_pretrained(str(BUILTIN / "encoder"))).save_pretrained(tmp_path / "encoder")
    with pytest.raises(SettingsError, match="has collapsed"):
        refuse_collapsed(load_encoder(str(tmp_path / "encoder"), device="cpu"), "random")


def alike(count: int, noise: float = 0.01, dim: int = 24) -> np.ndarray:
    draw = np.random.default_rng(3)
    rows = 1.0 + noise * draw.normal(size=(count, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_rows_that_are_all_alike_are_refused_and_few_are_not_judged() -> None:
    with pytest.raises(SettingsError, match=r"the vectors of it are all alike: 32 of them have a mean cosine of 0\.99"):
        refuse_alike(alike(LEAST_ROWS), "it", "embeddings", "embed again")
    assert refuse_alike(alike(LEAST_ROWS - 1), "it", "embeddings", "embed again") > 0.99
    assert refuse_alike(alike(200, noise=0.3), "it", "embeddings", "embed again") < 0.95


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_a_memory_of_zero_spread_is_refused(tmp_path: Path, storage: Any) -> None:
    SantaMemory.build(alike(300), clusters=2, storage=storage).save(tmp_path / "flat")
    with pytest.raises(SettingsError, match=r"memory: the vectors of the memory .*flat are all alike.*0\.99"):
        SantaMemory.load(tmp_path / "flat")
    SantaMemory.build(alike(300, noise=1.0), clusters=2, storage=storage).save(tmp_path / "spread")
    assert SantaMemory.load(tmp_path / "spread").count == 300


def test_a_model_with_another_encoder_says_which_it_wants(collapsed: Path, tmp_path: Path) -> None:
    import mats_core

    shutil.copytree(BUILTIN, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "encoder")
    shutil.copytree(collapsed, tmp_path / "model" / "encoder")
    wanted = json.loads((BUILTIN / "mats.json").read_text())["encoder"]["fingerprint"][:12]
    with pytest.raises(SettingsError, match=rf"encoder: .* is \w{{12}}, and this model was made with {wanted}"):
        mats_core.load_model(str(tmp_path / "model"), device="cpu")
