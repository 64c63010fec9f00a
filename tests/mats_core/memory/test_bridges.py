"""Ways across the gap, worked by hand in the plane, and laws that hold in any space."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mats_core.errors import SettingsError
from mats_core.memory.bridges import KINDS, Bridge, BridgeSettings, SantaSettings, prompt_with_captions, text_mean
from mats_core.memory.santa import SantaMemory


@pytest.fixture(scope="module")
def plane() -> SantaMemory:
    """Three texts in the plane: east, north, west."""
    return SantaMemory.build([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], ["east", "north", "west"], clusters=1)


def bridge(memory: SantaMemory | None, **values: object) -> Bridge:
    return Bridge(BridgeSettings(**values), memory)


def test_none_leaves_the_audio_as_it_is() -> None:
    moved = bridge(None, kind="none").move([[3.0, 4.0]])
    np.testing.assert_allclose(moved, [[0.6, 0.8]], atol=1e-7)


def test_mean_shift_adds_the_difference_of_the_means(plane: SantaMemory) -> None:
    """Texts have the mean (0, 1/3). Audio with the mean (1, 1/3) is moved by (−1, 0): (1, 0) + (−1, 0) … north-west."""
    np.testing.assert_allclose(text_mean(plane), [0.0, 1 / 3], atol=1e-7)
    moved = bridge(plane, kind="mean-shift", audio_mean=[1.0, 1 / 3]).move([[0.0, 1.0]])
    np.testing.assert_allclose(moved, [[-math.sqrt(0.5), math.sqrt(0.5)]], atol=1e-6)


def test_projection_is_the_softmax_weighted_sum_of_all_texts(plane: SantaMemory) -> None:
    """For audio in the east, scale ln 2: weights ∝ (2, 1, 1/2), so the sum is (1.5, 1) / 3.5, of direction (3, 2)."""
    moved = bridge(plane, kind="projection", scale=math.log(2)).move([[1.0, 0.0]])
    np.testing.assert_allclose(moved, [[3 / math.sqrt(13), 2 / math.sqrt(13)]], atol=1e-6)


def test_projection_does_not_depend_on_the_batch_nor_on_how_much_is_read_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    memory = SantaMemory.build(rng.standard_normal((300, 16)), clusters=4)
    audio = torch.from_numpy(rng.standard_normal((9, 16)).astype(np.float32))
    together = bridge(memory, kind="projection", scale=30).move(audio)
    alone = torch.cat([bridge(memory, kind="projection", scale=30).move(one[None]) for one in audio])
    assert torch.equal(together, alone)
    monkeypatch.setattr("mats_core.memory.bridges.ROWS_AT_ONCE", 7)
    torch.testing.assert_close(bridge(memory, kind="projection", scale=30).move(audio), together, atol=1e-6, rtol=0)


def test_a_sharp_projection_is_the_nearest_text(plane: SantaMemory) -> None:
    moved = bridge(plane, kind="projection", scale=1e4).move([[0.5, 0.6]])
    np.testing.assert_allclose(moved, [[0.0, 1.0]], atol=1e-6)


def test_santa_is_the_memory_s_transfer(plane: SantaMemory) -> None:
    santa = SantaSettings(neighbors=2, mix=0.5, noise_variance=0.01, seed=3)
    audio = torch.tensor([[1.0, 0.2]])
    wanted = plane.transfer(audio, 2, santa.scale, 0.5, 1, "keyed", 0.01, seed=3)
    torch.testing.assert_close(bridge(plane, kind="santa").move(audio, santa), wanted)
    off = bridge(plane, kind="santa").move(audio, santa.model_copy(update={"mix": 0.0}))
    torch.testing.assert_close(off, audio / audio.norm())


def test_retrieval_finds_the_nearest_captions_and_leaves_the_embedding(plane: SantaMemory) -> None:
    retrieval = bridge(plane, kind="retrieval", captions=2)
    near = retrieval.nearest(torch.tensor([[0.9, 0.5], [-0.9, 0.5]]))
    assert [[each["caption"] for each in row] for row in near] == [["east", "north"], ["west", "north"]]
    np.testing.assert_allclose(retrieval.move([[0.6, 0.8]]), [[0.6, 0.8]], atol=1e-7)


def test_the_prompt_names_each_caption_once() -> None:
    asked = prompt_with_captions("Describe it.", ["A dog barks.", " rain", "A dog barks.", ""])
    assert asked == "Similar sounds: A dog barks; rain. Describe it."
    assert prompt_with_captions("Describe it.", []) == "Describe it."


@pytest.mark.parametrize("kind", ["mean-shift", "projection", "retrieval"])
def test_what_needs_a_memory_says_so(kind: str) -> None:
    with pytest.raises(SettingsError, match=f"bridge: {kind} needs a memory of texts.*; choose santa or none"):
        bridge(None, kind=kind)


def test_mean_shift_needs_means_of_the_right_size(plane: SantaMemory) -> None:
    with pytest.raises(SettingsError, match="audio_mean"):
        bridge(plane, kind="mean-shift")
    with pytest.raises(ValueError, match=r"means must be \[2\]"):
        bridge(plane, kind="mean-shift", audio_mean=[0.0]).move([[1.0, 0.0]])


def test_every_bridge_answers_through_the_model(tiny_model_dir: str) -> None:
    from mats_core import load_model
    from mats_core.model.asking import Request

    model = load_model(tiny_model_dir, device="cpu")
    audio = torch.nn.functional.normalize(torch.randn(3, 32, generator=torch.Generator().manual_seed(5)), dim=-1)
    requests = [Request("caption")] * 3
    said = {}
    for kind in KINDS:
        mean = audio.mean(dim=0).tolist() if kind == "mean-shift" else None
        crossing = bridge(model.memory, kind=kind, audio_mean=mean)
        said[kind] = [reply.text for reply in model.answer_embeddings(audio, requests, bridge=crossing)]
    assert said["santa"] == [reply.text for reply in model.answer_embeddings(audio, requests)]
    assert said["none"] == [reply.text for reply in model.answer_embeddings(audio, requests, santa={"mix": 0})]
    assert len({tuple(texts) for texts in said.values()}) == len(KINDS)  # each does something of its own
