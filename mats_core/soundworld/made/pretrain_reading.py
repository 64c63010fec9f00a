"""Second half of the embedded LLM's pretraining: where the caption stood in words, there may stand vectors.

All its weights are trained, with a mapper that is thrown away, on CLAP embeddings of text. An LLM of billions of
weights needs no such thing, LoRA gives it room enough; this one has half a million, and a mapper and LoRA alone take it
1 400 steps to name two sounds of three. After this, a mapper and adapter that start from nothing need 400.
It never meets an embedding of audio, nor noise: what noise and Santa do is left to the training that is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mats_core.model.config import MapperConfig
from mats_core.model.model import MatsModel
from mats_core.soundworld.made.text_training import MAPPER, Corpus
from mats_core.training.loop import drawn_batches, train
from mats_core.training.muon import Muon
from mats_core.training.schedule import TrainingSettings
from mats_core.training.step import StepResult

Log = Callable[[str], None]
SEED = 7


def pretrain_reading(
    corpus: Corpus,
    encoder: Path,
    llm: Path,
    out: Path,
    steps: int = 1200,
    learning_rate: float = 8e-3,
    mapper: MapperConfig = MAPPER,
    log: Log = print,
) -> float:
    """Train the LLM of ``llm`` to read vectors made of text embeddings, and save it in float16 as ``out``.

    Returns:
        The loss over answer tokens, averaged over the last steps.
    """
    model = MatsModel.new(
        str(llm), encoder=str(encoder), mapper=mapper, adapter=None, seed=SEED, device="cpu", dtype="float32"
    )
    model.llm.requires_grad_(True)
    weights = [*model.llm.named_parameters(), *model.mapper.named_parameters()]
    matrices = [w for name, w in weights if w.ndim == 2 and "embed" not in name]
    rest = [w for name, w in weights if w.ndim != 2 or "embed" in name]
    optimizer = Muon([{"params": matrices, "matrices": True, "weight_decay": 0.01}, {"params": rest}], lr=learning_rate)
    settings = TrainingSettings(
        steps=steps, batch_size=48, learning_rate=learning_rate, warmup_steps=50, warmup_start=1e-5,
        clip_norm=1.0, noise_variance=0.0, seed=SEED,
    )  # fmt: skip
    loss = 0.0

    def show(done: StepResult) -> None:
        nonlocal loss
        loss = done.loss if done.step == 0 else 0.95 * loss + 0.05 * done.loss
        if (done.step + 1) % 50 == 0:
            log(f"llm reading step {done.step + 1}/{steps} loss {loss:.3f} token accuracy {done.token_accuracy:.3f}")

    batches = drawn_batches(model, settings, corpus.embeddings, corpus.prompts, corpus.outputs)
    train(model, optimizer, settings, batches, show)
    out.mkdir(parents=True, exist_ok=True)
    model.causal_lm.half().save_pretrained(out)
    model.tokenizer.save_pretrained(out)
    return loss
