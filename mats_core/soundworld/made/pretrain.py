"""Tokenizers of the embedded CLAP and LLM, what both are pretrained with, and the pretraining of the LLM.

The LLM stands for Vicuna: a language model that can already describe, label and answer once it knows what there is to
hear. First what is heard stands in the prompt in words, where the MATS mapper's vectors will stand later: at first as
lists, which are told apart sooner than sentences, then as captions. Then vectors do, and all its weights are trained
with a mapper that is thrown away, on embeddings of text. An LLM of billions of weights needs no such thing, LoRA gives
it room enough; this one has 0.9 million, and a mapper and LoRA alone take it 1 400 steps to name two sounds of three.
It goes on to vectors when it can answer every kind of question: of vectors alone it never learns what comes first.
Most answers to questions are one word, and captions would drown them: in words every record counts alike, with vectors
by the root of its answer's length, and by its power 0.7 in a last pass, which is for captions and for long sounds. In
that pass it has one more layer, and is asked for lists as well: who lists sounds in any order has to know which have
been named, and in a caption three tokens of twenty tell that. A little noise keeps it from reading what is the
sentence's alone. It never meets an embedding of audio.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)  # fmt: skip
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from mats_core.memory.noise import inject_noise
from mats_core.model.config import MapperConfig
from mats_core.model.model import MatsModel
from mats_core.model.prompts import SPEECH, training_prompt
from mats_core.soundworld.corpus import text_content_and_record
from mats_core.soundworld.language import facts_list, named_once
from mats_core.soundworld.made.text_training import MAPPER, Corpus, asked_for
from mats_core.training.muon import Muon
from mats_core.training.schedule import sample_batch

Log = Callable[[str], None]
BOS, PAD, EOS, UNK = "<s>", "<pad>", "</s>", "<unk>"
READING_SEED = 7
LIST = "List all sounds."


def train_bpe(texts: Iterable[str], vocabulary: int = 1024) -> str:
    """Train byte-level BPE (it takes any text); the tokenizer as JSON (special ids 0 to 3: BOS, PAD, EOS, UNK)."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, PAD, EOS, UNK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def as_transformers(bpe: str, ends: bool, length: int) -> PreTrainedTokenizerFast:
    """A ``transformers`` tokenizer of trained BPE: BOS before every text and, with ``ends``, EOS behind it."""
    tokenizer = Tokenizer.from_str(bpe)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}" if ends else f"{BOS} $A", special_tokens=[(BOS, 0), (EOS, 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, pad_token=PAD, eos_token=EOS, unk_token=UNK, model_max_length=length
    )


class Steps:
    """Muon on hidden matrices, AdamW on the rest, with a warm-up and a cosine down to `last` of the learning rate."""

    def __init__(
        self, module: nn.Module, hidden: Callable[[str], bool], decay: float, rate: float, steps: int, warmup: int,
        last: float,
    ) -> None:  # fmt: skip
        self._module, self._optimizer = module, muon(module.named_parameters(), hidden, decay, rate)
        self._scheduler = LambdaLR(
            self._optimizer,
            lambda s: min(1.0, (s + 1) / warmup) * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * s / steps))),
        )

    def take(self, loss: Tensor) -> None:
        """One step down the loss, its gradient clipped to a norm of 1."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._module.parameters(), 1.0)
        self._optimizer.step()
        self._scheduler.step()


def muon(named: Iterable[tuple[str, nn.Parameter]], hidden: Callable[[str], bool], decay: float, rate: float) -> Muon:
    """Muon on the matrices with the name of a `hidden` layer; AdamW on tables, biases, gains and the like."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in named:
        if weight.requires_grad:
            (matrices if weight.ndim == 2 and hidden(name) else rest).append(weight)
    groups = [{"params": matrices, "matrices": True, "weight_decay": decay}, {"params": rest, "lr": 0.4 * rate}]
    return Muon(groups, lr=rate)


def _hidden(name: str) -> bool:
    """Of an LLM and a mapper before it: neither the table of tokens nor the mapper's output layer, as wide as all its
    vectors together, which would take a third of a step to orthogonalise."""
    return "embed" not in name and "fc2" not in name


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path, extractor: dict[str, object] | None = None
) -> None:
    """A directory of `transformers`, its weights in float16; whole, or not there at all. extractor: the settings of a
    feature extractor, where it has one."""
    draft = out.with_name(f".{out.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    model.half().save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    if extractor is not None:
        (draft / "preprocessor_config.json").write_text(json.dumps(extractor, indent=1) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)


def llm_config(vocabulary: int) -> LlamaConfig:
    """Sizes of the embedded LLM as it begins (about 0.7 M parameters, 0.9 with the layer of ``add_layer``)."""
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=320, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip


class Answers:
    """Running shares of answers whose every token is right, of each kind of question and each task."""

    def __init__(self) -> None:
        self._shares: dict[str, float] = {}

    def add(self, names: Sequence[str], right: Sequence[bool]) -> None:
        """What the records of a batch ask for, and whether each answer is right."""
        for name, good in zip(names, right, strict=True):
            before = self._shares.get(name, float(good))
            self._shares[name] = 0.99 * before + 0.01 * good

    def __str__(self) -> str:
        return " ".join(f"{name} {share:.2f}" for name, share in sorted(self._shares.items()))


def pretrain_llm(
    out: Path, tokenizer: PreTrainedTokenizerFast, steps: int = 3000, batch: int = 64, learning_rate: float = 8e-3,
    seed: int = 0, log: Log = print,
) -> float:  # fmt: skip
    """Train a ``LlamaForCausalLM`` on prompts with what is heard in words; save it in float16.

    The first tenth of the steps has lists (``facts_list``) in the captions' place, the rest for 3 records of 10.
    Returns the loss over answer tokens, every record counting alike, averaged over the last steps.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(llm_config(len(tokenizer)))

    def records(step: int) -> WordsBatch:
        listed = 1.0 if step < steps // 10 else 0.3
        return _words_batch(tokenizer, range(step * batch, (step + 1) * batch), listed)

    return _teach_words(model, tokenizer, out, records, steps, learning_rate, log)


def _teach_words(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, records: Callable[[int], WordsBatch],
    steps: int, learning_rate: float, log: Log,
) -> float:  # fmt: skip
    """Steps on prompts in words, saved as ``out``. Returns the loss over answer tokens, every record counting alike."""
    down = Steps(model, _hidden, decay=0.01, rate=learning_rate, steps=steps, warmup=60, last=0.02)
    answer_loss, answers = 0.0, Answers()
    for step in range(steps):
        words = records(step)
        ids, weights = words.ids, words.weights[:, 1:]  # [B, T], [B, T-1]
        logits = model(input_ids=ids[:, :-1], attention_mask=(ids[:, :-1] != 1).long()).logits  # [B, T-1, vocabulary]
        losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")  # [B, T-1]
        down.take((losses * weights).sum() / len(ids))
        of_answer = words.of_answer[:, 1:]  # [B, T-1]
        now = ((losses * of_answer).sum(dim=1) / of_answer.sum(dim=1)).mean().item()
        answer_loss = now if step == 0 else 0.95 * answer_loss + 0.05 * now
        wrong = (logits.argmax(-1) != ids[:, 1:]) & of_answer  # [B, T-1]
        answers.add(words.names, (~wrong.any(dim=1)).tolist())
        if (step + 1) % 50 == 0:
            log(f"llm step {step + 1}/{steps} answer loss {answer_loss:.3f}; right: {answers}")
    save(model, tokenizer, out)
    return answer_loss


@dataclass
class WordsBatch:
    """Prompts with what is heard in words: token ids [B, T] padded right, the loss weight of each token [B, T] (the
    answer weighs 1 in all, what is heard 0.2), whether it is the answer's [B, T], and what each record asks for."""

    ids: Tensor
    weights: Tensor
    of_answer: Tensor
    names: list[str]


def _words_batch(tokenizer: PreTrainedTokenizerFast, indices: range, listed: float) -> WordsBatch:
    """Records of the text corpus; `listed`: the share of them that has a list in its caption's place."""
    ids: list[Tensor] = []
    weights: list[Tensor] = []
    of_answer: list[Tensor] = []
    names: list[str] = []
    for index in indices:
        content, record = text_content_and_record(index)
        rng = np.random.default_rng([29, index])
        heard = facts_list(content) if rng.random() < listed else record["caption"]
        before, after = training_prompt(record["task"], record["instruction"], "", index).split(SPEECH)
        row, shares = [tokenizer.bos_token_id], [0.0]
        for text, share in ((before, 0.0), (" " + heard, 0.2), (after, 0.0), (" " + record["output"], 1.0)):
            new = tokenizer(text, add_special_tokens=False)["input_ids"]
            ending = [tokenizer.eos_token_id] if share == 1.0 else []
            row += new + ending
            shares += [share / len(new + ending)] * len(new + ending)
        answer = len(new) + 1
        ids.append(torch.tensor(row))
        weights.append(torch.tensor(shares))
        of_answer.append(torch.arange(len(row)) >= len(row) - answer)
        names.append(asked_for(record))
    pad = float(tokenizer.pad_token_id)
    return WordsBatch(
        pad_sequence(ids, True, pad), pad_sequence(weights, True), pad_sequence(of_answer, True), names
    )  # fmt: skip


def add_layer(llm: Path, out: Path, tokenizer: PreTrainedTokenizerFast, seed: int = READING_SEED) -> None:
    """Write the LLM of ``llm`` with one more layer before its last as ``out``: at first one that changes nothing."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(llm, dtype=torch.float32)
    layers, at = model.model.layers, len(model.model.layers) - 1
    added = LlamaDecoderLayer(model.config, at)
    for weight in added.parameters():
        if weight.ndim == 2:
            nn.init.normal_(weight, std=0.05)
    nn.init.zeros_(added.self_attn.o_proj.weight)
    nn.init.zeros_(added.mlp.down_proj.weight)
    layers.insert(at, added)
    layers[at + 1].self_attn.layer_idx = at + 1
    model.config.num_hidden_layers = len(layers)
    save(model, tokenizer, out)


def pretrain_reading(
    corpus: Corpus,
    encoder: Path,
    llm: Path,
    out: Path,
    steps: int = 2500,
    power: float = 0.5,
    lists: float = 0.0,
    noise_variance: float = 0.0,
    seed: int = READING_SEED,
    batch: int = 64,
    learning_rate: float = 5e-3,
    mapper: MapperConfig = MAPPER,
    log: Log = print,
) -> float:
    """Train the LLM of ``llm`` to read vectors made of text embeddings, and save it in float16 as ``out``.

    power: a record counts by the length of its answer to this power: at 0 all alike, at 1 every token alike.
    lists: the share of records, falling to none at the last step, that ask for the sounds of their caption instead,
    each once and in any order.
    noise_variance: of the noise that embeddings are given, in each coordinate.
    Returns the loss over answer tokens, every record counting alike, averaged over the last steps.
    """
    model = MatsModel.new(
        str(llm), encoder=str(encoder), mapper=mapper, adapter=None, seed=seed, device="cpu", dtype="float32"
    )
    model.llm.requires_grad_(True)
    model.mapper.requires_grad_(True)
    trained = nn.ModuleDict({"llm": model.llm, "mapper": model.mapper})
    down = Steps(trained, _hidden, decay=0.01, rate=learning_rate, steps=steps, warmup=50, last=0.02)
    answer_loss, answers = 0.0, Answers()
    draws = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rng = np.random.default_rng([seed, 37, step])
        records = []
        for _, row in sample_batch(seed, step, batch, [len(corpus.prompts)], [1.0]):
            asked = corpus.prompts[row], corpus.outputs[row], corpus.asked[row]
            if rng.random() < lists * (1 - step / steps):
                asked = training_prompt("QA", LIST, "", row), named_once(corpus.captions[row], rng), "list"
            records.append((row, *asked))
        records.sort(key=lambda r: len(model.tokens.prompt(r[1])[0]) + len(model.tokens.answer(r[2])))
        scores = []
        for half in (records[: batch // 2], records[batch // 2 :]):  # short and long apart: a fifth less padding
            rows, prompts, outputs, names = zip(*half, strict=True)
            heard = inject_noise(corpus.embeddings[list(rows)], noise_variance, generator=draws)  # [B / 2, D]
            prefix = model.prefix(heard)  # [B / 2, vectors, width of the LLM]
            scores.append(model.score(prefix, model.tokens.for_loss(prompts, outputs, model.device)))
            answers.add(names, (scores[-1].correct == scores[-1].tokens).tolist())
        losses = torch.cat([each.loss for each in scores])  # [B]
        shares = torch.cat([each.tokens for each in scores]) ** power  # [B]
        down.take((losses * shares).sum() / shares.sum())
        now = losses.mean().item()
        answer_loss = now if step == 0 else 0.95 * answer_loss + 0.05 * now
        if (step + 1) % 50 == 0:
            log(f"llm reading step {step + 1}/{steps} loss {answer_loss:.3f}; right: {answers}")
    save(model.causal_lm, model.tokenizer, out)
    return answer_loss
