from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from mats_core.errors import SettingsError
from mats_core.soundworld.recipe import clip_recipe
from mats_core.soundworld.synth import render
from pipelines.search.asking import Asker, echoed
from pipelines.search.shards import centred
from tests.pipelines.search.made_up import unit_vectors


class Nearest:
    """An index of vectors that is searched exactly."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.rows, self.dim = vectors, vectors.shape[1]

    def search(self, queries: np.ndarray, most: int, allowed: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """As `Index.search`."""
        scores = queries @ self.rows.T
        windows = np.argsort(-scores, axis=1)[:, :most]
        return np.take_along_axis(scores, windows, 1), windows

    def vectors(self, windows: np.ndarray) -> np.ndarray:
        """As `Index.vectors`."""
        return self.rows[windows]


def test_an_echo_goes_halfway_to_what_is_nearest() -> None:
    rows = np.eye(4, dtype=np.float32)
    query = np.array([0.8, 0.6, 0.0, 0.0], np.float32)
    weights = np.exp(30.0 * (np.array([0.8, 0.6, 0.0, 0.0]) - 0.8))
    expected = 0.5 * query + 0.5 * weights / weights.sum()
    found = echoed(query, Nearest(rows))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)


@pytest.fixture(scope="module")
def asker() -> Asker:
    return Asker("builtin", "cpu")


def test_words_come_without_the_mean_of_texts(asker: Asker) -> None:
    plain = asker.text("rain", "none")
    np.testing.assert_allclose(plain, asker.encoder.embed_text(["the sound of rain"]).numpy()[0], atol=1e-6)
    assert asker.text_mean is not None
    np.testing.assert_allclose(asker.text(" rain ", "echo"), centred(plain, asker.text_mean), atol=1e-6)


@pytest.mark.processes
def test_a_sound_is_heard_whole_or_at_a_moment(asker: Asker, tmp_path: Path) -> None:
    sounds = [np.asarray(render(clip_recipe("test", index)), np.float32) for index in (1, 2)]
    padded = [asker.encoder.pad(each)[: 5 * 16_000] for each in sounds]
    soundfile.write(tmp_path / "two.wav", np.concatenate(padded), 16_000, subtype="PCM_16")
    mean = unit_vectors(1, dim=128)[0]
    import torch

    alone = asker.encoder.embed_audio(torch.from_numpy(np.stack(padded))).numpy()
    second = asker.sound(str(tmp_path / "two.wav"), 5.0, mean)
    assert float(second @ centred(alone[1], mean)) > 0.999
    whole = asker.sound(str(tmp_path / "two.wav"), None, mean)
    pooled = alone.sum(axis=0) / np.linalg.norm(alone.sum(axis=0))
    assert float(whole @ centred(pooled, mean)) > 0.999


@pytest.mark.processes
def test_what_cannot_be_heard_is_said(asker: Asker, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "short.wav", np.zeros(16_000), 16_000)
    for name, moment in (("text.wav", None), ("gone.wav", None), ("short.wav", 7.0)):
        with pytest.raises(SettingsError, match=r"like.*cannot be heard"):
            asker.sound(str(tmp_path / name), moment, np.zeros(128, np.float32))


def test_a_run_of_another_encoder_is_refused(asker: Asker) -> None:
    asker.check(asker.encoder.fingerprint, "run")
    asker.check("", "run")
    with pytest.raises(SettingsError, match="--model"):
        asker.check("another", "run")


def test_words_are_refused_by_a_collapsed_text_tower_and_sounds_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asker = Asker("builtin", "cpu")
    alike = torch.ones(32, 128) / 128**0.5
    monkeypatch.setattr(asker.encoder, "embed_text", lambda texts: alike[: len(texts)])
    with pytest.raises(SettingsError, match=r"^model: the text tower of builtin has collapsed.*cosine of 1\.0000"):
        asker.text("a dog")
    asker.check(asker.encoder.fingerprint, "a run")  # what --like needs
