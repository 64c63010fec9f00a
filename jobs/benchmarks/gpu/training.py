"""A training step of the 7 B model as a worker makes it: mapper and adapter, eager and with compiled layers."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.benchmarks.gpu.section import END, Section, answer_lengths, name_of, repeated
from jobs.benchmarks.inputs import random_llama
from jobs.benchmarks.measuring import empty_cache
from jobs.benchmarks.train import count_flops, matrix_rate

if TYPE_CHECKING:
    from mats_core.model.model import MatsModel
    from mats_core.training.schedule import TrainingSettings
    from mats_core.training.step import StepBatch
    from pipelines.train.batches import Sample

DIM = 1024
MICRO_BATCHES = (16_384, 8192, 4096, 2048)
"""Tokens that go through the LLM at once: what training takes, then less, until memory suffices."""


def training(section: Section) -> None:
    """Tokens a second and the share of the card's rate (model FLOP utilisation)."""
    from mats_core.training.compiled import compile_layers
    from mats_core.training.schedule import TrainingSettings

    model = untrained_model(section)
    peak = matrix_rate(section.device, "bfloat16" if section.device.type == "cuda" else "float32")
    settings = TrainingSettings(steps=1000, warmup_steps=0, learning_rate=1e-5)
    for how in ("", ", compiled layers"):
        if how:
            problem = compile_layers(model) if section.device.type == "cuda" else "measured on a GPU alone"
            if problem:
                section.tell("compiled layers", skipped=problem)
                return
        for samples in section.size.samples:
            chosen = settings.model_copy(update={"batch_size": samples})
            section.attempt(f"{samples} samples a step{how}", partial(step_rate, section, model, chosen, peak))


def untrained_model(section: Section) -> MatsModel:
    """Mapper, LLM and adapter of the section's sizes with random weights, made on the device."""
    from jobs.benchmarks.core import byte_tokenizer
    from mats_core.model.config import AdapterConfig, MapperConfig, ModelConfig, Part
    from mats_core.model.llm import add_adapter
    from mats_core.model.mapper import build_mapper
    from mats_core.model.model import MatsModel

    llm = random_llama(section.device, **section.size.llama).eval()
    mapper, adapter = MapperConfig(**section.size.mapper), AdapterConfig()
    hidden = int(llm.get_input_embeddings().embedding_dim)
    config = ModelConfig(
        embedding_dim=DIM, hidden_size=hidden, mapper=mapper, adapter=adapter, llm=Part(uri="", fingerprint="")
    )
    network = build_mapper(mapper, DIM, hidden).to(section.device).eval()
    tokenizer = byte_tokenizer({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"})
    assert tokenizer.eos_token_id == END
    return MatsModel(config, network, add_adapter(llm, adapter).to(section.device).eval(), tokenizer)


def drawn_samples(model: MatsModel, count: int, prompt: int, mean: int) -> list[Sample]:
    """`count` samples whose prompts have `prompt` tokens, and whose answers are as long as answers are."""
    from pipelines.train.batches import Sample

    draw = np.random.default_rng(0)
    bare = len(model.tokens.prompt("<SpeechHere>")[0])
    asked = "<SpeechHere>" + "q" * max(prompt - bare, 1)  # a byte is a token
    lengths = answer_lengths(count, mean)
    return [Sample(draw.standard_normal(DIM).astype(np.float32), asked, "a" * (n - 1)) for n in lengths]


def made_batch(model: MatsModel, samples: list[Sample], settings: TrainingSettings) -> StepBatch:
    """A step's samples cut into micro-batches as a run cuts them."""
    import torch

    from mats_core.training.schedule import dropout_key, plan_step
    from mats_core.training.step import MicroBatch, StepBatch

    targets = [len(model.tokens.answer(each.output)) for each in samples]
    lengths = [len(model.tokens.prompt(s.prompt)[0]) + n for s, n in zip(samples, targets, strict=True)]
    (plan,) = plan_step(lengths, 1, settings.micro_batch_tokens)
    cut = [
        MicroBatch(
            torch.from_numpy(np.stack([samples[row].vector for row in rows])),
            model.tokens.for_loss([samples[r].prompt for r in rows], [samples[r].output for r in rows], model.device),
            torch.tensor(rows),
            dropout_key(0, 0, 0, index),
            sum(lengths[row] for row in rows),
        )
        for index, rows in enumerate(plan)
    ]
    return StepBatch(0, cut, sum(targets), len(samples))


def step_rate(section: Section, model: MatsModel, settings: TrainingSettings, peak: float) -> dict[str, Any]:
    """The same step over and over, in micro-batches as large as memory takes."""
    import torch

    from mats_core.training.step import make_optimizer

    samples = drawn_samples(model, settings.batch_size, section.size.prompt, section.size.means[0])
    _, flops = count_flops(model, settings, [samples])
    optimizer = make_optimizer(model, settings)
    for tokens in MICRO_BATCHES:
        chosen = settings.model_copy(update={"micro_batch_tokens": tokens})
        batch = made_batch(model, samples, chosen)
        seconds = None
        with suppress(torch.OutOfMemoryError):
            seconds = _seconds(section, model, optimizer, chosen, batch)
        if seconds is None:
            optimizer.zero_grad(set_to_none=True)
            empty_cache(section.device)
            continue
        return {
            "step_ms": 1e3 * seconds,
            "tokens_per_s": sum(each.tokens for each in batch.micro_batches) / seconds,
            "mfu": flops / seconds / peak,
            "micro_batches": len(batch.micro_batches),
            "number": name_of(model.causal_lm.dtype),
            "matrix_tflops": peak / 1e12,
        }
    return {"error": f"memory suffices for no micro-batch of {MICRO_BATCHES[-1:]} tokens"}


def _seconds(section: Section, model: MatsModel, optimizer: Any, settings: TrainingSettings, batch: StepBatch) -> float:
    from mats_core.training.step import train_step

    return repeated(lambda: train_step(model, optimizer, settings, batch), section.device, 4.0, 20)
