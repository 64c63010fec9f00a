"""The LLM's answers on one card: `generate` of transformers, and the engine with its slots, on the same lengths."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from jobs.benchmarks.gpu.section import BEAMS, END, Section, answer_lengths, number, random_prompts
from jobs.benchmarks.inputs import random_llama
from jobs.benchmarks.measuring import timed
from mats_core.generation.settings import DecodingSettings

_FAR = 1e4
"""Added to a logit, it decides; a half-precision number holds it."""


class ScheduledHead(torch.nn.Module):
    """The LLM's output layer, and over it a schedule: each answer has the length that it is to have.

    Random weights write the end token never or at random. Here its logit is above all others at a clip's last token,
    and below all others before. lengths: tokens of each answer, int64 [rows, 1]; written: those it has by now, a tensor
    of that shape or a number. `generate` and the engine both see the logits that come out, so both write as much.
    """

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head
        self.lengths: torch.Tensor | None = None
        self.written: torch.Tensor | int = 0
        self.counts = False  # whether each pass is a further token of every row

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: [rows, n, H], of the first rows → logits [rows, n, vocabulary]."""
        logits = self.head(hidden)
        logits[..., END] = -_FAR
        if self.lengths is not None:
            ends = (self.lengths <= self.written + 1)[: len(hidden)]  # [rows, 1]
            logits[..., END] = torch.where(ends, _FAR, -_FAR).to(logits.dtype).expand(logits.shape[:-1])
        if self.counts:
            self.written += 1
        return logits


def adapted_llama(section: Section) -> tuple[Any, ScheduledHead]:
    """A LLaMA of the section's sizes with an adapter, all of random weights, made on the device; and its schedule."""
    from mats_core.model.config import AdapterConfig
    from mats_core.model.llm import add_adapter

    bare = random_llama(section.device, **section.size.llama)
    bare.generation_config.eos_token_id = bare.generation_config.bos_token_id = None
    head = ScheduledHead(bare.lm_head)
    bare.lm_head = head
    llm = add_adapter(bare, AdapterConfig()).eval().requires_grad_(False)
    for name, weight in llm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1e-3)
    return llm, head


def decoding(longest: int) -> DecodingSettings:
    """The reference's: four beams, no 2-gram twice, penalty 2."""
    return DecodingSettings(beams=BEAMS, max_new_tokens=longest)


def padded(prompts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts [T, H] as one batch [B, T, H], padded on the left, and which positions are real: bool [B, T]."""
    longest = max(len(prompt) for prompt in prompts)
    words = prompts[0].new_zeros(len(prompts), longest, prompts[0].shape[1])
    real = torch.zeros(len(prompts), longest, dtype=torch.bool, device=words.device)
    for row, prompt in enumerate(prompts):
        words[row, longest - len(prompt) :] = prompt
        real[row, longest - len(prompt) :] = True
    return words, real


def generate(section: Section) -> None:
    """`generate` at each batch size, the adapter beside the weights and merged into them; one profile."""
    llm, head = adapted_llama(section)
    mean = section.size.means[0]
    for place in ("beside", "merged"):
        if place == "merged":
            llm.merge_adapter()
        for batch in section.size.batches:
            what = f"batch {batch}, {mean} tokens, adapter {place}"
            section.attempt(what, partial(generate_rate, section, llm.get_base_model(), head, batch, mean))
    middle = section.size.batches[len(section.size.batches) // 2]
    section.attempt(f"profile of batch {middle}", partial(profile, section, llm.get_base_model(), head, middle))


def generate_rate(section: Section, llm: Any, head: ScheduledHead, batch: int, mean: int) -> dict[str, Any]:
    """Prefill, step, and answers a second of a batch that runs until its slowest row."""
    lengths = answer_lengths(batch, mean)
    run_generate(section, llm, head, [2] * batch)  # kernels are chosen, memory is taken
    _, prefill = timed(lambda: run_generate(section, llm, head, [1] * batch), section.device)
    rows, seconds = timed(lambda: run_generate(section, llm, head, lengths), section.device)
    steps = max(lengths) - 1
    return {
        "batch": batch,
        "tokens": mean,
        "answers_per_s": batch / seconds,
        "prefill_ms": 1e3 * prefill,
        "step_ms": 1e3 * (seconds - prefill) / steps,
        "steps": steps,
        "row_steps_over_useful": max(lengths) * batch / sum(lengths),
        "lengths_kept": sum(len(row) == n for row, n in zip(rows, lengths, strict=True)) / batch,
    }


@torch.inference_mode()
def run_generate(section: Section, llm: Any, head: ScheduledHead, lengths: Sequence[int]) -> list[list[int]]:
    """Answers of these lengths to prompts of the section's size, by `transformers`."""
    from mats_core.generation.generate import generate as by_transformers

    hidden = llm.config.hidden_size
    prompts = random_prompts(len(lengths), section.size.prompt, hidden, section.device, number(section.device))
    words, real = padded(prompts)
    every = torch.tensor(lengths, device=section.device).repeat_interleave(BEAMS)[:, None]
    head.lengths, head.written, head.counts = every, 0, True
    try:
        return by_transformers(llm, words, real, decoding(max(lengths)), bos=1, end=END)
    finally:
        head.lengths, head.counts = None, False


def profile(section: Section, llm: Any, head: ScheduledHead, batch: int) -> dict[str, Any]:
    """Where the time of eight tokens goes: the most expensive kernels (operations on a CPU), and how many there are."""
    return profiled(lambda: run_generate(section, llm, head, [8] * batch), section.device)


def profiled(run: Any, device: torch.device, shown: int = 12) -> dict[str, Any]:
    """Milliseconds and calls of what takes most of `run()`."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    cuda = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    run()
    with profiler(activities=kinds) as seen:
        _, seconds = timed(run, device)
    own = "self_device_time_total" if cuda else "self_cpu_time_total"
    # note: on a GPU an operation counts its kernels' time as its own, and they stand in the list as well
    events = [each for each in seen.key_averages() if str(each.device_type).endswith("CUDA" if cuda else "CPU")]
    events.sort(key=lambda each: -getattr(each, own))
    busy = sum(getattr(each, own) for each in events) / 1e3
    most = {each.key[:70]: [round(getattr(each, own) / 1e3, 2), each.count] for each in events[:shown]}
    return {"wall_ms": 1e3 * seconds, "busy_ms": busy, "calls": sum(e.count for e in events), "ms_and_calls": most}


def engine(section: Section) -> None:
    """The engine at each number of slots and both lengths."""
    section.tell("engine", skipped="not yet")
