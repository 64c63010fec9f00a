"""The model's laws: padding never changes an answer; what is saved is what was."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mats_core
from mats_core.errors import SettingsError
from mats_core.memory.bridges import Bridge, BridgeSettings
from mats_core.model.asking import Request
from mats_core.model.model import MatsModel
from tests.tiny import SAMPLE_RATE

REQUESTS = [
    Request("caption"),
    Request("cla_label", tag="[sound event]"),
    Request("QA", question="What can you hear ?"),
    Request("QA", question="Is there a dog or a bell before the rain and the wind and then a siren ?"),
    Request("music_caption"),
]


@pytest.fixture(scope="module")
def model(tiny_model_dir: str) -> MatsModel:
    return mats_core.load_model(tiny_model_dir, device="cpu")


@pytest.fixture(scope="module")
def questions() -> tuple[torch.Tensor, list[Request]]:
    embedding = F.normalize(torch.randn(32, 32, generator=torch.Generator().manual_seed(4)), dim=-1)
    return embedding, [REQUESTS[i % len(REQUESTS)] for i in range(32)]


@pytest.mark.parametrize("beams", [1, 4])
def test_answers_do_not_depend_on_the_batch(model: MatsModel, questions: tuple, beams: int) -> None:
    embedding, requests = questions
    together = model.answer_embeddings(embedding, requests, {"beams": beams})
    assert len({reply.text for reply in together}) >= 8  # or the law would hold for nothing
    for size in (1, 7):
        parts = [
            reply
            for at in range(0, 32, size)
            for reply in model.answer_embeddings(embedding[at : at + size], requests[at : at + size], {"beams": beams})
        ]
        assert parts == together
    order = random.Random(0).sample(range(32), 32)
    shuffled = model.answer_embeddings(embedding[order], [requests[i] for i in order], {"beams": beams})
    assert shuffled == [together[i] for i in order]


def test_losses_do_not_depend_on_the_batch(model: MatsModel, questions: tuple) -> None:
    embedding, requests = questions
    prompts = [model.prompt(r.task, r.question, r.tag) for r in requests]
    outputs = ["rain", "a dog with two bell over wind", "yes", "a low tone then a loud engine"] * 8
    with torch.no_grad():
        together = model.loss(embedding, prompts, outputs)
        for size in (1, 7):
            parts = [
                model.loss(embedding[at : at + size], prompts[at : at + size], outputs[at : at + size])
                for at in range(0, 32, size)
            ]
            torch.testing.assert_close(torch.cat(parts), together, atol=1e-5, rtol=0)


def test_loss_is_that_of_the_plain_sequence(model: MatsModel, questions: tuple) -> None:
    """One sample by hand: BOS, words, vectors, words, answer, end; cross-entropy of the last two."""
    embedding = questions[0][:1]
    prompt = model.prompt("caption")
    before, after = (
        model.tokenizer(part, add_special_tokens=False)["input_ids"] for part in prompt.split("<SpeechHere>")
    )
    answer = [*model.tokenizer("a dog", add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
    words = model.causal_lm.get_input_embeddings()
    with torch.no_grad():
        inputs = torch.cat(
            [
                words(torch.tensor([[model.tokenizer.bos_token_id, *before]])),
                model.prefix(embedding),
                words(torch.tensor([after + answer])),
            ],
            dim=1,
        )
        logits = model.causal_lm(inputs_embeds=inputs).logits[0, -len(answer) - 1 : -1]
        expected = F.cross_entropy(logits, torch.tensor(answer))
        found = model.loss(embedding, [prompt], ["a dog"])
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_long_target_is_cut(model: MatsModel, questions: tuple) -> None:
    with torch.no_grad():
        scores = model.score(
            model.prefix(questions[0][:1]),
            model.tokens.for_loss([model.prompt("caption")], ["rain " * 400], model.device),
        )
    assert scores.tokens.tolist() == [150]


def test_prefix_ignores_length_and_checks_size(model: MatsModel, questions: tuple) -> None:
    embedding = questions[0]
    torch.testing.assert_close(model.prefix(3 * embedding), model.prefix(embedding))
    with pytest.raises(ValueError, match=r"\[B, 32\]"):
        model.prefix(embedding[:, :31])


def test_windows_int16_and_float_are_the_same_sound(model: MatsModel) -> None:
    pcm = (10_000 * np.sin(np.arange(40_000) / 9)).astype(np.int16)
    one, other = model.embed_windows([pcm]), model.embed_windows([pcm.astype(np.float32) / 32768])
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert model.embed_windows([]).shape == (0, 32)


def test_wrong_requests(model: MatsModel) -> None:
    for task, question in (
        ("transcribe", None),
        ("QA", None),
        ("QA", "  "),
        ("caption", "<SpeechHere>"),
        ("QA", "caf\udce9?"),
    ):
        with pytest.raises(SettingsError):
            model.validate_request(task, question)
    model.validate_request("QA", "What is it?")


def test_explain_and_settings_as_plain_dicts(model: MatsModel, questions: tuple) -> None:
    embedding, requests = questions
    (reply,) = model.answer_embeddings(embedding[:1], requests[:1], {"num_beams": 1}, {"neighbors": 3}, explain=True)
    assert len(reply.neighbors) == 3
    (short,) = model.answer_embeddings(embedding[:1], requests[:1], {"max_new_tokens": 2})
    assert short.tokens <= 2
    for decoding in ({"beams": 0}, {"do_sample": True}, {"nonsense": 1}):
        with pytest.raises(SettingsError, match="decoding"):
            model.answer_embeddings(embedding[:1], requests[:1], decoding)


def test_lengths_that_cannot_be_are_refused(model: MatsModel, questions: tuple) -> None:
    embedding = questions[0][:1]
    (longest,) = model.answer_embeddings(embedding, [Request()], {"min_length": 13})  # with the BOS; the model has 12
    assert longest.tokens == 12
    with pytest.raises(SettingsError, match=r"min_length: 14 is more than .*; choose at most 13"):
        model.answer_embeddings(embedding, [Request()], {"min_length": 14})
    start = len(model.tokens.prompt(model.prompt("QA", "rain"))[0])
    fits = "rain " * (512 - 12 - start + 1)  # the LLM's positions, the answer's tokens
    model.answer_embeddings(embedding, [Request("QA", fits)])
    with pytest.raises(SettingsError, match=r"question: its prompt has 501 tokens .*up to 12 .* made for 512"):
        model.answer_embeddings(embedding, [Request("QA", fits + "rain")])


def test_a_model_and_a_sound_by_their_paths(model: MatsModel, tiny_model_dir: str, tmp_path: Path) -> None:
    model.save(tmp_path / "copy")
    assert mats_core.check_model_dir(tmp_path / "copy").embedding_dim == 32
    assert mats_core.load_model(Path(tiny_model_dir), device="cpu").fingerprint == model.fingerprint
    for source in (np.zeros(SAMPLE_RATE, np.float32), [0.0, 1.0], None):  # a waveform without its rate
        with pytest.raises(SettingsError, match=r"source: it is of type .*; give .*\(waveform, sample_rate\)"):
            model.answer(source)


def test_santa_changes_the_embedding_by_its_share(model: MatsModel, questions: tuple) -> None:
    audio, santa = questions[0], model.config.santa
    bridge = Bridge(BridgeSettings(), model.memory)
    moved = bridge.move(audio, santa)
    off = bridge.move(audio, santa.updated({"mix": 0.0}))
    assert torch.equal(off, F.normalize(audio, dim=-1))
    cosines = (moved * audio).sum(-1)
    assert cosines.min() < 0.9999
    assert cosines.min() > 0.7 / math.hypot(0.7, 0.3) - 0.2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_answers_on_a_gpu_in_float32(tiny_model_dir: str, model: MatsModel, questions: tuple) -> None:
    there = mats_core.load_model(tiny_model_dir, device="cuda", dtype="float32")
    assert there.fingerprint == model.fingerprint
    assert there.answer_embeddings(*questions) == model.answer_embeddings(*questions)
