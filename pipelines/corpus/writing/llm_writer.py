"""A causal LLM as the writer of captions: asked with the instruction in instruction.txt, checked, and a template where
what comes back is not right."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mats_core.errors import SettingsError
from mats_core.storage.fingerprint import hash_settings
from pipelines.corpus.clips import PublishedClip
from pipelines.corpus.definition import CorpusSet
from pipelines.corpus.writing.checks import MOST_WORDS, wrong_with
from pipelines.corpus.writing.draws import Draws
from pipelines.corpus.writing.phrases import listed
from pipelines.corpus.writing.records import ClipFacts, clip_facts, vocabulary, write_records

INSTRUCTION = Path(__file__).parent / "instruction.txt"
TEMPLATE = "template"
"""The value of `writer` that asks no LLM, and who a text is by where none was asked."""
MOST_TOKENS = 96
BATCH = {"cuda": 64, "cpu": 8}
"""Prompts that the LLM reads at once."""

Write = Callable[[Sequence[str]], list[str]]
"""Prompts → what the LLM wrote to each."""


@cache
def instruction() -> tuple[str, tuple[str, ...]]:
    """The instruction, and the styles that one of is asked for each time."""
    text, _, styles = INSTRUCTION.read_text(encoding="utf-8").partition("\n---\n")
    return text, tuple(styles.split("\n")[:-1])


@dataclass(frozen=True)
class LlmFacts:
    """Which LLM it is, and the bytes that its weights take on a CPU."""

    fingerprint: str
    bytes: int


def llm_facts(uri: str) -> LlmFacts:
    """What must be known of an LLM before a run; SettingsError for one that cannot be loaded."""
    from mats_core.model.llm import load_llm_outline

    try:
        llm, tokenizer, part = load_llm_outline(uri)
        _ends(llm, tokenizer)
    except SettingsError as error:
        raise SettingsError("writer", error.problem, error.remedy) from None
    return LlmFacts(part.fingerprint, 4 * sum(each.numel() for each in llm.parameters()))


def instruction_mark() -> str:
    """Changes with the instruction, as texts then would."""
    return hash_settings([instruction()])[:16]


def prompt(facts: ClipFacts, known: str, draws: Draws) -> str:
    """What the LLM is asked for a clip of which a template says `known`."""
    text, styles = instruction()
    sounds = listed([each.phrases[0].noun if each.phrases else each.word for each in facts.told])
    return text.format(most_words=MOST_WORDS, style=draws.pick(styles), sounds=sounds, known=known)


def rewrite_records(
    clips: Sequence[PublishedClip], definition: CorpusSet, seed: int, write: Write
) -> list[dict[str, str]]:
    """`write_records` of all clips, with captions by an LLM, and `written_by`: who wrote the caption.

    written_by: "llm"; "template: …", why the LLM's text could not be taken; "template", where none was asked for: a
    question's answer follows from what the template says; "publisher".
    """
    records: list[dict[str, str]] = []
    asked: list[tuple[dict[str, str], ClipFacts]] = []
    prompts: list[str] = []
    for clip in clips:
        own = write_records(clip, definition, seed)
        by_labels = definition.publishes == "labels"
        facts = clip_facts(clip, vocabulary(definition)) if by_labels and own else None
        for record in own:
            record["written_by"] = TEMPLATE if by_labels or record["caption"] not in clip.captions else "publisher"
            if facts is not None and not record["instruction"]:
                draws = Draws(f"{seed}\0style\0{clip.source}\0{record['id']}")
                asked.append((record, facts))
                prompts.append(prompt(facts, record["caption"], draws))
        records += own
    for (record, facts), text in zip(asked, write(prompts) if prompts else [], strict=True):
        sentence = first_sentence(text)
        reason = wrong_with(sentence, facts)
        record["written_by"] = f"{TEMPLATE}: {reason}" if reason else "llm"
        if not reason:
            record["caption"] = sentence
    return records


def first_sentence(text: str) -> str:
    """The first line of what came back, without quotes around it, with a capital and a full stop."""
    line = re.sub(r"\s+(?=[.,!?])", "", next((line.strip() for line in text.splitlines() if line.strip()), ""))
    line = line.removeprefix("Sentence:").strip().strip("\"'“”").strip()
    if line and line[-1].isalnum():
        line += "."
    return line[:1].upper() + line[1:]


class LlmWriter:
    """A loaded LLM: prompts → texts. The same prompts give the same texts, whatever else the process has written."""

    def __init__(self, uri: str, device: str = "auto") -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch

        from mats_core.device import pick_device, pick_dtype
        from mats_core.model.llm import load_llm

        self.device = pick_device(device)
        if self.device.type == "cpu":
            torch.set_num_threads(
                1
            )  # with another number sums may be taken in another order: texts must not depend on it
        self.llm, self.tokenizer, self.part = load_llm(uri, self.device, pick_dtype("auto", device))
        self.batch = BATCH.get(self.device.type, BATCH["cpu"])
        self._ends = _ends(self.llm, self.tokenizer)

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """What the LLM writes to each prompt, greedily, to the end of its first line."""
        ids = [self.encode(prompt) for prompt in prompts]
        room = getattr(self.llm.config, "max_position_embeddings", None) or 1 << 30
        texts = [""] * len(prompts)
        fitting = [at for at in range(len(ids)) if len(ids[at]) + MOST_TOKENS <= room]  # else it stays a template's
        order = sorted(fitting, key=lambda at: (len(ids[at]), prompts[at]))  # of like length together: little padding
        start = 0
        while start < len(order):
            chosen = order[start : start + self.batch]
            try:
                written = self._generate([ids[at] for at in chosen])
            except self._torch_memory_error():
                if self.batch == 1:
                    raise
                self.batch = max(1, self.batch // 2)
                continue
            for at, text in zip(chosen, written, strict=True):
                texts[at] = text
            start += len(chosen)
        return texts

    def encode(self, prompt: str) -> list[int]:
        """A prompt as token ids; in the LLM's own form of a conversation where its tokenizer has one."""
        if getattr(self.tokenizer, "chat_template", None):
            turns = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer(prompt, add_special_tokens=True)["input_ids"])

    def _generate(self, rows: Sequence[Sequence[int]]) -> list[str]:
        import torch

        longest = max(map(len, rows))
        ids = torch.zeros(len(rows), longest, dtype=torch.long)  # (B, T), padded on the left
        mask = torch.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, longest - len(row) :] = torch.tensor(row)
            mask[at, longest - len(row) :] = 1
        with torch.inference_mode():
            out = self.llm.generate(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device), do_sample=False, num_beams=1,
                max_new_tokens=MOST_TOKENS, min_new_tokens=2, eos_token_id=self._ends, pad_token_id=self._ends[0],
            )  # fmt: skip
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in out[:, longest:].tolist()]

    @staticmethod
    def _torch_memory_error() -> type[Exception]:
        import torch

        return torch.OutOfMemoryError


def _ends(llm: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a text: the LLM's own, and a line's end."""
    own = getattr(llm.config, "eos_token_id", None)
    ends = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    line = tokenizer("a\n", add_special_tokens=False)["input_ids"][-1:]
    if line and "\n" in tokenizer.decode(line, skip_special_tokens=True):
        ends += line
    found = list(dict.fromkeys(int(each) for each in ends if each is not None))
    if not found:
        raise SettingsError("writer", "this LLM has no token that ends a text", "choose another LLM")
    return found
