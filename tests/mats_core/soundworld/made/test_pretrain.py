"""The LLM of the embedded world: taught in words, every record counting alike."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from mats_core.encoders.clap import HfClapEncoder
from mats_core.model.directory import BUILTIN
from mats_core.model.tokens import PromptTokens, Sequences
from mats_core.soundworld.corpus import text_record
from mats_core.soundworld.language import parse_kinds
from mats_core.soundworld.made.pretrain import (
    LIST,
    Answers,
    _words_batch,
    add_layer,
    pretrain_llm,
    pretrain_reading,
    save,
)
from mats_core.soundworld.made.text_training import text_corpus


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(BUILTIN / "llm")


def test_every_record_weighs_alike_and_its_answer_is_marked(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = _words_batch(tokenizer, range(40), listed=0.0)
    assert batch.weights.sum(dim=1).tolist() == pytest.approx([1.2] * 40)
    assert (batch.weights * batch.of_answer).sum(dim=1).tolist() == pytest.approx([1.0] * 40)
    for row, index in enumerate(range(40)):
        record = text_record(index)
        answer = batch.ids[row][batch.of_answer[row]]
        assert tokenizer.decode(answer).strip() == f"{record['output']}</s>"
        assert record["caption"] in tokenizer.decode(batch.ids[row])
    assert len(set(batch.names)) > 6


def test_lists_stand_in_the_captions_place(tokenizer: PreTrainedTokenizerBase) -> None:
    def lists(listed: float) -> int:
        batch = _words_batch(tokenizer, range(100), listed)
        return sum(text_record(i)["caption"] not in tokenizer.decode(ids) for i, ids in enumerate(batch.ids))

    assert lists(0.0) == 0
    assert 15 < lists(0.3) < 45
    assert lists(1.0) == 100


def test_an_llm_learns_to_answer_of_words(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    told: list[str] = []
    before = pretrain_llm(tmp_path / "short", tokenizer, steps=2, batch=8, log=told.append)
    after = pretrain_llm(tmp_path / "llm", tokenizer, steps=50, batch=8, log=told.append)
    assert after < before - 1
    assert "step 50/50" in told[-1]
    assert "presence" in told[-1]
    assert LlamaForCausalLM.from_pretrained(tmp_path / "llm", dtype="auto").dtype == torch.float16


def test_another_layer_changes_nothing_at_first(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    add_layer(BUILTIN / "llm", tmp_path / "llm", tokenizer)
    before, after = (
        LlamaForCausalLM.from_pretrained(each, dtype=torch.float32) for each in (BUILTIN / "llm", tmp_path / "llm")
    )
    assert after.config.num_hidden_layers == before.config.num_hidden_layers + 1
    ids = torch.randint(4, 800, (3, 20), generator=torch.Generator().manual_seed(0))
    assert torch.equal(after(ids).logits, before(ids).logits)
    assert (
        after.generate(ids[:1], max_new_tokens=5, do_sample=False).tolist()
        == before.generate(ids[:1], max_new_tokens=5, do_sample=False).tolist()
    ), "its cache holds every layer apart"
    after(ids).logits.sum().backward()
    added = after.model.layers[-2]
    assert added.self_attn.o_proj.weight.grad.abs().max() > 0
    assert added.mlp.down_proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize("lists", [0.0, 1.0])
def test_lists_are_asked_less_and_less(tiny_model_dir: str, tmp_path: Path, lists: float) -> None:
    parts = Path(tiny_model_dir)
    encoder = HfClapEncoder(str(parts / "encoder"), device="cpu")
    corpus = text_corpus(encoder.embed_text, records=40, rounds=1)
    asked: list[tuple[list[str], list[str]]] = []
    for_loss = PromptTokens.for_loss

    def seen(self: PromptTokens, prompts: list[str], outputs: list[str], device: torch.device) -> Sequences:
        asked.append((list(prompts), list(outputs)))
        return for_loss(self, prompts, outputs, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptTokens, "for_loss", seen)
        pretrain_reading(
            corpus, parts / "encoder", parts / "llm", tmp_path / "llm", steps=8, lists=lists, batch=16,
            log=lambda _: None,
        )  # fmt: skip
    steps = [[*zip(*first, strict=True), *zip(*second, strict=True)] for first, second in pairwise_steps(asked)]
    share = [sum(LIST in prompt for prompt, _ in step) / len(step) for step in steps]
    assert all(len(step) == 16 for step in steps)
    if lists:
        assert share[0] == 1.0
        assert 0 < share[4] < 0.9
        assert share[-1] < 0.5
    else:
        assert max(share) == 0.0
    known = {tuple(sorted(parse_kinds(text))) for text in corpus.captions}
    for prompt, output in (record for step in steps for record in step):
        if LIST in prompt:
            assert tuple(sorted(parse_kinds(output))) in known
            assert len(parse_kinds(output)) == len(output.split(", "))


def pairwise_steps(halves: list[tuple[list[str], list[str]]]) -> list[tuple[tuple[list[str], list[str]], ...]]:
    """The two halves of a step's records, which are scored apart."""
    return [(halves[at], halves[at + 1]) for at in range(0, len(halves), 2)]


def test_a_part_is_whole_or_not_there(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """`mats soundworld build` takes a part for finished by its weights, which are not the last that is written."""
    model = LlamaForCausalLM.from_pretrained(BUILTIN / "llm")

    class Interrupted(Exception):
        pass

    def interrupted(*_: object) -> None:
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tokenizer), "save_pretrained", interrupted)
        with pytest.raises(Interrupted):
            save(model, tokenizer, tmp_path / "llm")
    assert not (tmp_path / "llm").exists()
    save(model, tokenizer, tmp_path / "llm", {"a": 1})
    assert {"model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= set(os.listdir(tmp_path / "llm"))
    assert os.listdir(tmp_path) == ["llm"]


def test_shares_right_are_told_apart() -> None:
    answers = Answers()
    answers.add(["first", "last", "last"], [True, False, True])
    assert str(answers) == "first 1.00 last 0.01"
