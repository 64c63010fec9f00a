"""The LLM of the embedded world: taught in words, every record counting alike."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from mats_core.model.directory import BUILTIN
from mats_core.soundworld.corpus import text_record
from mats_core.soundworld.made.pretrain import Answers, _words_batch, pretrain_llm, save, teach_naming_once


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


def test_words_of_captions_are_shuffled_but_not_those_of_questions(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = _words_batch(tokenizer, range(100), listed=0.0, shuffled=1.0)
    as_told = {True: 0, False: 0}
    for index, ids in enumerate(batch.ids):
        record = text_record(index)
        as_told[record["task"] == "QA"] += record["caption"] in tokenizer.decode(ids)
    asked = sum(text_record(index)["task"] == "QA" for index in range(100))
    assert as_told[True] == asked
    assert as_told[False] < 0.2 * (100 - asked)


def test_naming_once_is_taught_to_an_llm_that_is_there(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    teach_naming_once(BUILTIN / "llm", tmp_path / "llm", tokenizer, steps=3, batch=4, log=lambda _: None)
    before, after = (
        LlamaForCausalLM.from_pretrained(each, dtype=torch.float32).model.embed_tokens.weight.detach()
        for each in (BUILTIN / "llm", tmp_path / "llm")
    )
    assert not torch.equal(before, after)
    assert torch.cosine_similarity(before.flatten(), after.flatten(), dim=0) > 0.9, "not an LLM from nothing"


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
