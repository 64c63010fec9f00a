"""Pretraining of the embedded LLM: a small LLaMA that reads a caption in words and answers about it.

It stands for Vicuna: a language model that can already describe, label and answer once it knows what there is to
hear. The caption stands in the prompt where the MATS mapper's vectors will stand later (``pretrain_reading`` goes on
from here).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mats_core.model.prompts import SPEECH, training_prompt
from mats_core.soundworld.corpus import text_record
from mats_core.training.muon import Muon

Log = Callable[[str], None]


def llm_config(vocabulary: int) -> LlamaConfig:
    """Sizes of the embedded LLM (about 0.7 M parameters)."""
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=320, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip


def pretrain_llm(
    out: Path,
    tokenizer: PreTrainedTokenizerFast,
    start: Path | None = None,
    steps: int = 600,
    batch: int = 64,
    learning_rate: float = 8e-3,
    shuffled: float = 0.0,
    first_record: int = 0,
    seed: int = 0,
    log: Log = print,
) -> float:
    """Train a ``LlamaForCausalLM`` on prompts with captions in words; save it in float16.

    Args:
        start: an LLM to go on from; from scratch by default.
        shuffled: share of captions whose words stand in any order. Copying them one after another no longer
            serves then: the LLM learns to say each sound once, which it needs when vectors hold all at the same time.
        first_record: where in the text corpus training begins.

    Returns:
        The loss over answer tokens, averaged over the last steps.
    """
    torch.manual_seed(seed)
    if start is None:
        model = LlamaForCausalLM(llm_config(len(tokenizer)))
    else:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    weights = list(model.named_parameters())
    matrices = [w for name, w in weights if w.ndim == 2 and "embed" not in name]
    rest = [w for name, w in weights if w.ndim != 2 or "embed" in name]
    optimizer = Muon(
        [{"params": matrices, "matrices": True, "weight_decay": 0.01}, {"params": rest, "lr": 0.4 * learning_rate}],
        lr=learning_rate,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / 60) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * s / steps)))
    )
    answer_loss = 0.0
    for step in range(steps):
        first = first_record + step * batch
        ids, weights = _batch(tokenizer, range(first, first + batch), shuffled)  # [B, T], [B, T]
        logits = model(input_ids=ids[:, :-1], attention_mask=(ids[:, :-1] != 1).long()).logits  # [B, T-1, vocabulary]
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        w = weights[:, 1:].flatten()  # [B * (T-1)], as losses
        loss = (losses * w).sum() / w.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        answers = (losses * (w == 1)).sum().item() / max(1.0, (w == 1).sum().item())
        answer_loss = answers if step == 0 else 0.95 * answer_loss + 0.05 * answers
        if (step + 1) % 50 == 0:
            log(f"llm step {step + 1}/{steps} answer loss {answer_loss:.3f}")
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return answer_loss


def _batch(tokenizer: PreTrainedTokenizerFast, indices: range, shuffled: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [B, T] padded right, and loss weights: 1 on the answer, 0.2 on the caption as it reads, 0 elsewhere."""
    rows = []
    for index in indices:
        record = text_record(index)
        prompt = training_prompt(record["task"], record["instruction"], "", index)
        before, after = prompt.split(SPEECH)
        caption, share = record["caption"], 0.2
        rng = np.random.default_rng([29, index])
        if rng.random() < shuffled:
            caption, share = " ".join(rng.permutation(caption.split())), 0.0
        weighted = [(before, 0.0), (" " + caption, share), (after, 0.0), (" " + record["output"], 1.0)]
        ids, weights = [tokenizer.bos_token_id], [0.0]
        for text, weight in weighted:
            new = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += new
            weights += [weight] * len(new)
        rows.append(([*ids, tokenizer.eos_token_id], [*weights, 1.0]))
    width = max(len(ids) for ids, _ in rows)
    ids_out = torch.full((len(rows), width), int(tokenizer.pad_token_id))
    weights_out = torch.zeros(len(rows), width)
    for i, (ids, weights) in enumerate(rows):
        ids_out[i, : len(ids)] = torch.tensor(ids)
        weights_out[i, : len(ids)] = torch.tensor(weights)
    return ids_out, weights_out
