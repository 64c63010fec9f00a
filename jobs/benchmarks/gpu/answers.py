"""The LLM's answers on one card: `generate` of transformers, and the engine with its slots, on the same lengths."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from jobs.benchmarks.gpu.section import (
    BEAMS,
    END,
    Section,
    answer_lengths,
    clip_flops,
    name_of,
    number,
    random_prompts,
    share_equal,
)
from jobs.benchmarks.inputs import random_llama
from jobs.benchmarks.measuring import timed, wait_for
from jobs.benchmarks.train import matrix_rate
from mats_core.generation.beam_search import BeamSearch
from mats_core.generation.graphs import GraphedBeamSearch, beam_search, compile_body
from mats_core.generation.rules import apply_rules
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
    """Answers of these lengths to prompts of the section's size, by `transformers`, with the rules that are fastest."""
    from transformers import GenerationConfig, LogitsProcessorList

    hidden = llm.config.hidden_size
    prompts = random_prompts(len(lengths), section.size.prompt, hidden, section.device, number(section.device))
    words, real = padded(prompts)
    head.lengths = torch.tensor(lengths, device=section.device).repeat_interleave(BEAMS)[:, None]
    head.written, head.counts = 0, True
    try:
        made = llm.generate(
            inputs_embeds=words,
            attention_mask=real.long(),
            logits_processor=LogitsProcessorList([_rules]),
            generation_config=GenerationConfig(
                num_beams=BEAMS, do_sample=False, max_new_tokens=max(lengths),
                pad_token_id=END, bos_token_id=1, eos_token_id=END,
            ),
        )  # fmt: skip
    finally:
        head.lengths, head.counts = None, False
    return [row[: row.index(END) + 1] if END in row else row for row in made.tolist()]


def _rules(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The engine's own rules as a logits processor."""
    count, width = ids.shape
    steps = torch.full((count,), width, device=scores.device)
    written = ids[:, None] if width else ids.new_zeros((count, 1, 1))
    return apply_rules(scores[:, None], written, steps, decoding(1), END)[:, 0]


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
    """The engine at each number of slots and both lengths; then what graphs and a compiled body are worth."""
    llm, head = adapted_llama(section)
    llm.merge_adapter()
    bare = llm.get_base_model()
    peak = matrix_rate(section.device, name_of(number(section.device)))
    short, long = section.size.means
    middle = section.size.slots[len(section.size.slots) // 2]
    first: dict[int, list[list[int]]] = {}

    def run(slots: int, mean: int, how: str, graphs: bool = True) -> None:
        what = f"{slots} slots, {mean} tokens{how}"
        section.attempt(what, partial(engine_rate, section, bare, head, slots, mean, peak, first, graphs))

    for mean in (short, long):
        for slots in sorted(section.size.slots, key=lambda slots: slots != middle):
            run(slots, mean, "")
    run(middle, short, ", without graphs", graphs=False)
    section.attempt(f"profile of {middle} slots", partial(profile_steps, section, bare, middle))
    compile_body(bare, backend="inductor" if section.device.type == "cuda" else "eager")
    run(middle, short, ", compiled norms and MLPs")


def open_search(llm: Any, slots: int, longest: int, graphs: bool = True) -> BeamSearch:
    """The engine as a run opens it; or with every step launched kernel by kernel, in the same shapes."""
    search = beam_search(llm, decoding(longest), end=END, slots=slots)
    if not graphs and isinstance(search, GraphedBeamSearch):
        search.eager = "as asked"
    return search


def engine_rate(
    section: Section, llm: Any, head: ScheduledHead, slots: int, mean: int, peak: float,
    first: dict[int, list[list[int]]], graphs: bool,
) -> dict[str, Any]:  # fmt: skip
    """Answers a second while all slots are taken, and over the whole run with its beginning and its end.

    peak: operations a second of the card. first: answers of the first such run of each length, which these are
    compared with: with random weights near ties are many, so it is the least that a trained model's would agree.
    """
    count = slots * section.size.refills
    lengths, hidden = answer_lengths(count, mean), llm.config.hidden_size
    prompts = random_prompts(count, section.size.prompt, hidden, section.device, number(section.device))
    search = open_search(llm, slots, max(lengths), graphs)
    run = _Run(search, head, [max(lengths)] * count, section.device)
    run.answers(sorted(prompts, key=len)[-slots:])  # kernels are chosen, memory is taken, every length is captured
    run.lengths = lengths
    began, run.steps, run.prefill_s = time.perf_counter(), 0, 0.0
    rows = run.answers(prompts)
    whole = time.perf_counter() - began
    rate = run.full_rate or count / whole
    known = first.setdefault(mean, rows)
    both = min(len(known), count)
    return {
        "slots": slots,
        "tokens": mean,
        "answers_per_s": rate,
        "whole_answers_per_s": count / whole,
        "roofline": rate * clip_flops(llm.config, section.size.prompt, mean) / peak,
        "step_ms": 1e3 * (whole - run.prefill_s) / run.steps,
        "prefill_ms_a_clip": 1e3 * run.prefill_s / count,
        "row_steps_over_useful": run.steps * slots / sum(lengths),
        "lengths_kept": sum(len(row) == n for row, n in zip(rows, lengths, strict=True)) / count,
        "equal_to_first": share_equal(known[:both], rows[:both]),
        "graphs": getattr(search, "graphs", 0),
        "eager": getattr(search, "eager", None) or "",
    }


class _Run:
    """Requests through a search whose answers have the lengths of a schedule; request i's is lengths[i].

    steps: decoding steps made; prefill_s: seconds of reading prompts; full_rate: answers a second as long as requests
    waited, those that were not finished then counted by what of them was written. 0 where none ever waited.
    """

    def __init__(self, search: BeamSearch, head: ScheduledHead, lengths: Sequence[int], device: torch.device) -> None:
        self.search, self.head, self.lengths, self.device = search, head, lengths, device
        self.steps, self.prefill_s, self.full_rate = 0, 0.0, 0.0
        self._places = torch.ones((search.slots, 1), dtype=torch.int64, device=device)  # read by the captured steps
        self._keys: list[Any] = []
        self._decode, self._prefill = search._decode, search._prefill
        search._decode, search._prefill = self._counted, self._timed  # type: ignore[method-assign]

    def answers(self, prompts: Sequence[torch.Tensor]) -> list[list[int]]:
        """The ids of every answer."""
        search, found = self.search, dict[int, list[int]]()
        self.head.lengths, self.head.written = self._places, search._beams.steps[:, None]
        mean = sum(self.lengths[: len(prompts)]) / len(prompts)
        began, self.full_rate, self._keys = time.perf_counter(), 0.0, []
        try:
            for key, prompt in enumerate(prompts):
                search.add(key, prompt)
            while search.busy:
                found.update((key, answer.ids) for key, answer in search.step())
                if search._waiting:
                    running = sum(n for n, key in zip(search._steps, search._keys, strict=True) if key is not None)
                    written = running + sum(map(len, found.values()))
                    self.full_rate = written / mean / (time.perf_counter() - began)
        finally:
            self.head.lengths = None
        return [found[key] for key in range(len(prompts))]

    def _counted(self, rows: int, columns: int, width: int) -> None:
        if self._keys != self.search._keys:
            self._keys = list(self.search._keys)
            now = [[self.lengths[key[0]] if key is not None else 1] for key in self._keys]
            self._places.copy_(torch.tensor(now))
        self.steps += 1
        self._decode(rows, columns, width)

    def _timed(self, group: Any) -> None:
        wait_for(self.device)
        _, seconds = timed(lambda: self._prefill(group), self.device)
        self.prefill_s += seconds


def profile_steps(section: Section, llm: Any, slots: int) -> dict[str, Any]:
    """Where the time of eight steps goes, all slots taken, launched one by one; nothing ends meanwhile."""
    search = open_search(llm, slots, 64, graphs=False)
    given = random_prompts(slots, section.size.prompt, llm.config.hidden_size, section.device, number(section.device))
    for key, prompt in enumerate(given):
        search.add(key, prompt)
    search.step()  # reads the prompts
    return profiled(lambda: [search.step() for _ in range(max(1, 8 // search.look_every))], section.device)
