"""Pretraining of the embedded LLM: a small LLaMA that reads notes in words and answers about them.

It stands for Vicuna: a language model that can already describe, label and answer once it knows what there is to
hear. In its pretraining that stands in the prompt as notes in words, a place for each kind of sound, where the
vectors of the MATS mapper will stand later. It never meets an embedding of CLAP.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mats_core.prompts import SPEECH, training_prompt
from mats_core.soundworld.clips import clip_recipe
from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import WORDS, Content, corpus_record

Log = Callable[[str], None]
TASK_SHARES = {"caption": 0.4, "QA": 0.3, "cla_label": 0.18, "music_caption": 0.12}


NOTHING = "."
PROMPT, NOTE, ANSWER = 0, 1, 2
NOTE_NOISE = 0.02  # standard deviation, on the notes' vectors: the mapper's will not be exact either


def text_record(index: int, round_: int = 0) -> dict[str, str]:
    """Record ``index`` of the text corpus of the embedded world, in wording ``round_``.

    Written from recipes of the ``text`` split, which are never synthesised.
    """
    return _record(index, round_)[1]


def _record(index: int, round_: int) -> tuple[Content, dict[str, str]]:
    rng = np.random.default_rng([17, index, round_])
    task = str(rng.choice(list(TASK_SHARES), p=list(TASK_SHARES.values())))
    content = Content.of(clip_recipe("text", index), rng)
    return content, corpus_record(content, rng, task)


def notes(content: Content) -> list[list[str]]:
    """One place for each kind of sound, in the order of ``KINDS``: the words on it, or "." where it is not heard.

    The words are its name, its part in the layout, and pitch and rate where they are told. Together they are one
    vector, the sum of their embeddings.
    """
    ordered = [s.kind for s in content.in_order]
    places: dict[str, list[str]] = {}
    for sound in content.sounds:
        if sound.kind in ordered:
            at = ordered.index(sound.kind)
            part = "first" if at == 0 else "last" if at == len(ordered) - 1 else "then"
        else:
            part = {"single": "only", "together": "together"}.get(content.layout, "with")
        places[sound.kind] = [w for w in (WORDS[sound.kind].label, part, sound.pitch, sound.rate) if w]
    return [places.get(kind, [NOTHING]) for kind in KINDS]


def llm_config(vocabulary: int) -> LlamaConfig:
    """Sizes of the embedded LLM (about 0.7 M parameters)."""
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=320, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip


def pretrain_llm(
    out: Path, tokenizer: PreTrainedTokenizerFast, steps: int = 500, batch: int = 64, seed: int = 0, log: Log = print
) -> float:
    """Train a ``LlamaForCausalLM`` from scratch on prompts with notes in words; save it in float16.

    Returns:
        The loss over answer tokens, averaged over the last steps.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(llm_config(len(tokenizer)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01, betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / 60) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * s / steps)))
    )
    embed = model.get_input_embeddings()
    answer_loss = 0.0
    for step in range(steps):
        words, weights = _batch(tokenizer, range(step * batch, (step + 1) * batch))
        ids = words[:, :, 0]
        vectors = (embed(words) * (words != tokenizer.pad_token_id)[..., None]).sum(dim=2)
        vectors = vectors + NOTE_NOISE * torch.randn_like(vectors) * (weights == NOTE)[..., None]
        logits = model(inputs_embeds=vectors[:, :-1]).logits
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        w = (weights[:, 1:] == ANSWER).float().flatten()
        loss = (losses * w).sum() / w.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        answer_loss = loss.item() if step == 0 else 0.95 * answer_loss + 0.05 * loss.item()
        if (step + 1) % 50 == 0:
            log(f"llm step {step + 1}/{steps} answer loss {answer_loss:.3f}")
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return answer_loss


def _batch(tokenizer: PreTrainedTokenizerFast, indices: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Words [B, T, 4], padded: a place's words are summed, all others stand alone; and what each place is [B, T]."""
    rows: list[tuple[list[list[int]], list[int]]] = []
    for index in indices:
        content, record = _record(index, 0)
        before, after = training_prompt(record["task"], record["instruction"], "", index).split(SPEECH)
        heard = [[_word_id(tokenizer, word) for word in place] for place in notes(content)]
        head = [[i] for i in tokenizer(before)["input_ids"]]
        tail = [[i] for i in tokenizer(after, add_special_tokens=False)["input_ids"]]
        answer = [[i] for i in tokenizer(" " + record["output"], add_special_tokens=False)["input_ids"]]
        answer.append([int(tokenizer.eos_token_id)])
        what = [PROMPT] * len(head) + [NOTE] * len(heard) + [PROMPT] * len(tail) + [ANSWER] * len(answer)
        rows.append((head + heard + tail + answer, what))
    width = max(len(what) for _, what in rows)
    words = torch.full((len(rows), width, 4), int(tokenizer.pad_token_id))
    kinds = torch.zeros(len(rows), width, dtype=torch.long)
    for i, (places, what) in enumerate(rows):
        for j, place in enumerate(places):
            words[i, j, : len(place)] = torch.tensor(place)
        kinds[i, : len(what)] = torch.tensor(what)
    return words, kinds


def _word_id(tokenizer: PreTrainedTokenizerFast, word: str) -> int:
    """The id of a word that is one token."""
    ids = tokenizer(word if word == NOTHING else f" {word}", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"{word!r} is {len(ids)} tokens; notes need words of one")
    return int(ids[0])
