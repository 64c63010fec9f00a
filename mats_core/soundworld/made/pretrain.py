"""Pretraining of the embedded CLAP and LLM, with their tokenizers.

The CLAP is the only part of the embedded world that sees audio. Its audio tower learns three things at once: which
caption of the batch belongs to a clip, against the others and against its own caption with the order of its sounds
turned round (contrastive); and which kinds of sound are there (a linear layer that is thrown away afterwards, as audio
towers of released CLAPs are pretrained on labels).

The LLM stands for Vicuna: a language model that can already describe, label and answer once it knows what there is to
hear. First what is heard stands in the prompt in words, where the MATS mapper's vectors will stand later: at first as
lists, which are told apart sooner than sentences, then as captions. Then vectors do, and all its weights are trained
with a mapper that is thrown away, on embeddings of text. An LLM of billions of weights needs no such thing, LoRA gives
it room enough; this one has 0.7 million, and a mapper and LoRA alone take it 1 400 steps to name two sounds of three.
It goes on to vectors when it can answer every kind of question: of vectors alone it never learns what comes first.
Most answers to questions are one word, and captions would drown them: in words every record counts alike, with vectors
by the root of its answer's length, and by all of it in a last pass, which is for captions.
It never meets an embedding of audio, nor noise: what noise and Santa do is left to the training that is measured.
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
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, linear, normalize
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    ClapConfig,
    ClapModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)  # fmt: skip

from mats_core.model.config import MapperConfig
from mats_core.model.model import MatsModel
from mats_core.model.prompts import SPEECH, training_prompt
from mats_core.soundworld.corpus import text_content_and_record
from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import Content, caption, facts_list
from mats_core.soundworld.made.spectrograms import MELS, feature_extractor_config
from mats_core.soundworld.made.text_training import MAPPER, Corpus, asked_for
from mats_core.soundworld.recipe import clip_recipe
from mats_core.training.muon import Muon
from mats_core.training.schedule import sample_batch

Log = Callable[[str], None]
BOS, PAD, EOS, UNK = "<s>", "<pad>", "</s>", "<unk>"
DIM = 128
SPEC_SIZE = 128
READING_SEED = 7


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


def _of_the_llm(name: str) -> bool:
    return "embed" not in name


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


def clap_config(vocabulary: int) -> ClapConfig:
    """Sizes of the embedded CLAP: 5 s at 16 kHz as 16 × 16 patches of 8 × 8, 128-d joint space."""
    text = {
        "vocab_size": vocabulary, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256, "max_position_embeddings": 98, "projection_dim": DIM, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "type_vocab_size": 1, "pad_token_id": 1,
    }  # fmt: skip
    audio = {
        "spec_size": SPEC_SIZE, "num_mel_bins": MELS, "patch_size": 8, "patch_stride": [8, 8],
        "patch_embeds_hidden_size": 48, "hidden_size": 192, "depths": [1, 1, 3], "num_attention_heads": [4, 4, 8],
        "window_size": 4, "mlp_ratio": 2.0, "projection_dim": DIM, "drop_path_rate": 0.0, "hidden_dropout_prob": 0.0,
        "num_classes": len(KINDS), "enable_fusion": False, "num_hidden_layers": 3,
    }  # fmt: skip
    return ClapConfig(text_config=text, audio_config=audio, projection_dim=DIM)


class _Tower(nn.Module):
    """A CLAP under training, with the label layer that is not kept."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        self.clap = ClapModel(config)
        self.kinds = nn.Linear(config.audio_config.hidden_size, len(KINDS))
        self.joint_kinds = nn.Linear(DIM, len(KINDS))

    def audio(self, mels: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 1, frames, mels] → unit embeddings [B, dim], label logits [B, kinds]."""
        pooled = self.clap.audio_model(input_features=mels).pooler_output
        return normalize(self.clap.audio_projection(pooled), dim=-1), self.kinds(pooled)

    def text(self, ids: Tensor, mask: Tensor) -> Tensor:
        pooled = self.clap.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return normalize(self.clap.text_projection(pooled), dim=-1)


def pretrain_clap(
    mels: np.ndarray,
    out: Path,
    tokenizer: PreTrainedTokenizerFast,
    steps: int = 2000,
    batch: int = 128,
    learning_rate: float = 1e-2,
    seed: int = 0,
    log: Log = print,
) -> dict[str, float]:
    """Train a ``ClapModel`` on spectrograms and captions of the ``pretrain`` split and save it in float16.

    mels: float16 [N, frames, mels], row i of recipe i of the split.
    out: the encoder directory to write (weights, config, feature extractor settings, tokenizer).
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    count = len(mels)
    recipes = [clip_recipe("pretrain", i) for i in range(count)]
    targets = torch.zeros(count, len(KINDS))
    index = {kind: i for i, kind in enumerate(KINDS)}
    for row, recipe in enumerate(recipes):
        targets[row, [index[k] for k in recipe.labels()]] = 1
    tower = _Tower(clap_config(len(tokenizer)))
    # The per-mel normalisation keeps its running mean and variance but no learned scale: without it nothing
    # before the patches needs a gradient, which saves a sixth of a step.
    tower.clap.audio_model.audio_encoder.batch_norm.requires_grad_(False)
    down = Steps(
        tower, lambda name: name.startswith("clap.") and "embeddings" not in name and "table" not in name, decay=0.05,
        rate=learning_rate, steps=steps, warmup=100, last=0.01,
    )  # fmt: skip
    recent: dict[str, float] = {}
    tower.train()
    order = np.concatenate([rng.permutation(count) for _ in range(math.ceil(steps * batch / count))])
    for step in range(steps):
        rows = np.sort(order[step * batch : (step + 1) * batch])
        contents = [Content.of(recipes[i], rng) for i in rows]
        turned = [c.swapped() for c in contents if len(c.in_order) >= 2]
        texts = [caption(c, rng) for c in contents + turned]
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        mel = torch.from_numpy(mels[rows].astype(np.float32))
        mel = mel + torch.from_numpy(rng.normal(0, 4, (batch, 1, 1)).astype(np.float32))
        audio, logits = tower.audio(_masked(mel, rng)[:, None])
        text = tower.text(tokens["input_ids"], tokens["attention_mask"])
        matching, right = contrastive(audio, text, contents, tower.clap.logit_scale_a)
        labels = binary_cross_entropy_with_logits(logits, targets[rows])
        joint = tower.joint_kinds
        for embedding in (audio, text[:batch]):
            labels = labels + 0.5 * binary_cross_entropy_with_logits(
                linear(embedding * 8, joint.weight, joint.bias), targets[rows]
            )
        down.take(matching + 4 * labels)
        with torch.no_grad():
            tower.clap.logit_scale_a.clamp_(max=math.log(50))
        now = {"contrastive": matching.item(), "labels": labels.item(), "right": right}
        recent = {k: 0.98 * recent.get(k, v) + 0.02 * v for k, v in now.items()}
        if (step + 1) % 50 == 0:
            log(f"clap step {step + 1}/{steps} " + " ".join(f"{k} {v:.3f}" for k, v in recent.items()))
    with torch.no_grad():
        tower.clap.logit_scale_t.copy_(tower.clap.logit_scale_a)
    save(tower.clap.eval(), tokenizer, out, feature_extractor_config())
    return recent


def _masked(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """One random band of up to 8 mels replaced by the clip's mean, half of the time."""
    mel = mel.clone()
    for row in range(len(mel)):
        if rng.random() < 0.5:
            width, low = int(rng.integers(1, 9)), int(rng.integers(0, MELS - 8))
            mel[row, :, low : low + width] = mel[row].mean()
    return mel


def contrastive(audio: Tensor, text: Tensor, contents: list[Content], log_scale: Tensor) -> tuple[Tensor, float]:
    """InfoNCE both ways; texts beyond the batch are further wrong captions for the audio.

    Clips of the same sounds in the same layout do not count against each other.
    """
    n = len(audio)
    logits = log_scale.exp() * audio @ text.T
    same: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for i, c in enumerate(contents):
        key = (c.layout, tuple(c.kinds) if c.in_order else tuple(sorted(c.kinds)))
        same.setdefault(key, []).append(i)
    mask = torch.zeros(n, n, dtype=torch.bool)
    for rows in same.values():
        if len(rows) > 1:
            mask[np.ix_(rows, rows)] = True
    mask.fill_diagonal_(False)
    square = logits[:, :n].masked_fill(mask, -1e4)
    target = torch.arange(n)
    wide = torch.cat([square, logits[:, n:]], dim=1)
    right = (wide.argmax(dim=1) == target).float().mean().item()
    return 0.5 * (cross_entropy(wide, target) + cross_entropy(square.T, target)), right


def llm_config(vocabulary: int) -> LlamaConfig:
    """Sizes of the embedded LLM (about 0.7 M parameters)."""
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


def teach_naming_once(
    start: Path, out: Path, tokenizer: PreTrainedTokenizerFast, steps: int = 400, batch: int = 64,
    learning_rate: float = 4e-3, first_record: int = 200_000, log: Log = print,
) -> float:  # fmt: skip
    """Train the LLM of ``start`` on with the words of half the captions in any order; save it in float16 as ``out``.

    Who copies one word after another names every sound once without knowing it. Here that does not serve, nor does it
    with vectors, which hold all sounds at the same time. Questions keep their captions: of shuffled words nobody can
    tell what comes first. Returns the loss over answer tokens, averaged over the last steps.
    """
    model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)

    def records(step: int) -> WordsBatch:
        first = first_record + step * batch
        return _words_batch(tokenizer, range(first, first + batch), listed=0.0, shuffled=0.5)

    return _teach_words(model, tokenizer, out, records, steps, learning_rate, log)


def _teach_words(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, records: Callable[[int], WordsBatch],
    steps: int, learning_rate: float, log: Log,
) -> float:  # fmt: skip
    """Steps on prompts in words, saved as ``out``. Returns the loss over answer tokens, every record counting alike."""
    down = Steps(model, _of_the_llm, decay=0.01, rate=learning_rate, steps=steps, warmup=60, last=0.02)
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


def _words_batch(
    tokenizer: PreTrainedTokenizerFast, indices: range, listed: float, shuffled: float = 0.0
) -> WordsBatch:
    """Records of the text corpus. listed: the share of them that has a list in its caption's place; shuffled: the share
    of those that are no questions whose captions' words stand in any order."""
    ids: list[Tensor] = []
    weights: list[Tensor] = []
    of_answer: list[Tensor] = []
    names: list[str] = []
    for index in indices:
        content, record = text_content_and_record(index)
        rng = np.random.default_rng([29, index])
        heard = facts_list(content) if rng.random() < listed else record["caption"]
        if record["task"] != "QA" and rng.random() < shuffled:
            heard = " ".join(rng.permutation(heard.split()))
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


def pretrain_reading(
    corpus: Corpus,
    encoder: Path,
    llm: Path,
    out: Path,
    steps: int = 2500,
    power: float = 0.5,
    seed: int = READING_SEED,
    batch: int = 64,
    learning_rate: float = 5e-3,
    mapper: MapperConfig = MAPPER,
    log: Log = print,
) -> float:
    """Train the LLM of ``llm`` to read vectors made of text embeddings, and save it in float16 as ``out``.

    power: a record counts by the length of its answer to this power: at 0 all alike, at 1 every token alike.
    Returns the loss over answer tokens, every record counting alike, averaged over the last steps.
    """
    model = MatsModel.new(
        str(llm), encoder=str(encoder), mapper=mapper, adapter=None, seed=seed, device="cpu", dtype="float32"
    )
    model.llm.requires_grad_(True)
    model.mapper.requires_grad_(True)
    trained = nn.ModuleDict({"llm": model.llm, "mapper": model.mapper})
    down = Steps(trained, _of_the_llm, decay=0.01, rate=learning_rate, steps=steps, warmup=50, last=0.02)
    answer_loss, answers = 0.0, Answers()
    for step in range(steps):
        drawn = sample_batch(seed, step, batch, [len(corpus.prompts)], [1.0])
        rows = [row for _, row in drawn]
        prompts, outputs = [corpus.prompts[row] for row in rows], [corpus.outputs[row] for row in rows]
        prefix = model.prefix(corpus.embeddings[rows])  # [B, vectors, width of the LLM]
        scores = model.score(prefix, model.tokens.for_loss(prompts, outputs, model.device))  # of each record, [B]
        shares = scores.tokens**power  # [B]
        down.take((scores.loss * shares).sum() / shares.sum())
        now = scores.loss.mean().item()
        answer_loss = now if step == 0 else 0.95 * answer_loss + 0.05 * now
        answers.add([corpus.asked[row] for row in rows], (scores.correct == scores.tokens).tolist())
        if (step + 1) % 50 == 0:
            log(f"llm reading step {step + 1}/{steps} loss {answer_loss:.3f}; right: {answers}")
    save(model.causal_lm, model.tokenizer, out)
    return answer_loss
