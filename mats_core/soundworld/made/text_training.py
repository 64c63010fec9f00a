"""MATS of the embedded world, trained on its text alone.

Nothing here can reach audio: the corpus is written from recipes that are never synthesised, and the encoder
comes in as its text half only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mats_core.encoders.base import embed_captions
from mats_core.model.config import AdapterConfig, DecodingSettings, MapperConfig
from mats_core.model.model import MatsModel
from mats_core.model.prompts import training_prompt
from mats_core.soundworld.corpus import MINUTES, RECORDS, ROUNDS, minute_record, text_record
from mats_core.soundworld.language import question_kind
from mats_core.training.loop import drawn_batches, train
from mats_core.training.schedule import TrainingSettings
from mats_core.training.step import StepResult, make_optimizer

Log = Callable[[str], None]
EmbedText = Callable[[Sequence[str]], Tensor]

MAPPER = MapperConfig(kind="mlp", vectors=12, width=256)
_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTER = AdapterConfig(rank=16, alpha=32, dropout=0.0, target_modules=_PROJECTIONS)
DECODING = DecodingSettings(beams=4, max_new_tokens=48, no_repeat_ngram=0, repetition_penalty=2.0)
LONG_TAG = "[long]"
STEPS, ABLATION_STEPS = 2000, 500
"""Of the shipped model, and of every run of the ablation, which compares runs with one another."""


def training_settings(noise_variance: float, seed: int, steps: int = ABLATION_STEPS) -> TrainingSettings:
    """The settings every model of the embedded world is trained with; noise, seed and steps differ."""
    return TrainingSettings(
        steps=steps, batch_size=48, learning_rate=4e-3, warmup_steps=50, warmup_start=1e-5, weight_decay=0.01,
        clip_norm=1.0, noise_variance=noise_variance, seed=seed, optimizer="muon",
    )  # fmt: skip


@dataclass
class Corpus:
    """What a model is trained on: unit embeddings [N, D] and, row by row, prompt, answer and what is asked for.

    captions: of a long sound, a line for each of its windows.
    """

    embeddings: Tensor
    prompts: list[str]
    outputs: list[str]
    captions: list[str]
    asked: list[str]

    def __add__(self, other: Corpus) -> Corpus:
        """The rows of both."""
        return Corpus(
            torch.cat([self.embeddings, other.embeddings]), self.prompts + other.prompts, self.outputs + other.outputs,
            self.captions + other.captions, self.asked + other.asked,
        )  # fmt: skip


def asked_for(record: dict[str, str]) -> str:
    """What a record asks for: its kind of question, or its task."""
    return question_kind(record["instruction"]) if record["task"] == "QA" else record["task"]


def text_corpus(embed_text: EmbedText, records: int = RECORDS, rounds: int = ROUNDS) -> Corpus:
    """The text corpus, its captions embedded by the text half of a CLAP.

    embed_text: ``encoder.embed_text``.
    records: recipes of the ``text`` split; each is written up ``rounds`` times in other words.
    """
    rows = [text_record(i, r) for r in range(rounds) for i in range(records)]
    return corpus_of(rows, embed_text([row["caption"] for row in rows]).float().cpu())


def asked_again(corpus: Corpus, rounds: int = ROUNDS) -> Corpus:
    """The captions of a ``text_corpus``, each asked for something else; nothing is embedded."""
    records = len(corpus.captions) // rounds
    rows = [text_record(index, turn, asking=1) for turn in range(rounds) for index in range(records)]
    return corpus_of(rows, corpus.embeddings)


def minute_corpus(embed_text: EmbedText, minutes: int = MINUTES) -> Corpus:
    """Records of long sounds, each embedded as the mean of its windows' captions, its prompt with LONG_TAG."""
    rows = [minute_record(index) for index in range(minutes)]
    embeddings = embed_captions(embed_text, [row["caption"] for row in rows])
    return corpus_of([{**row, "caption": "\n".join(row["caption"])} for row in rows], embeddings, LONG_TAG)


def corpus_of(rows: Sequence[dict[str, str]], embeddings: Tensor, tag: str = "") -> Corpus:
    """Records and their embeddings [N, D], each record in the next wording of its prompt, with this tag in it."""
    prompts = [training_prompt(row["task"], row["instruction"], tag, i) for i, row in enumerate(rows)]
    outputs, captions = [row["output"] for row in rows], [row["caption"] for row in rows]
    return Corpus(embeddings, prompts, outputs, captions, [asked_for(row) for row in rows])


def train_mats(
    corpus: Corpus, encoder: Path, llm: Path, settings: TrainingSettings, log: Log = print, name: str = "mats"
) -> MatsModel:
    """Train mapper and adapter; encoder and LLM stay frozen. Returns the model, without a memory."""
    model = MatsModel.new(
        str(llm), encoder=str(encoder), mapper=MAPPER, adapter=ADAPTER, noise_variance=settings.noise_variance,
        decoding=DECODING, seed=settings.seed, device="cpu", dtype="float32",
    )  # fmt: skip
    torch.manual_seed(settings.seed)
    loss = accuracy = 0.0

    def show(done: StepResult) -> None:
        nonlocal loss, accuracy
        loss = done.loss if done.step == 0 else 0.95 * loss + 0.05 * done.loss
        accuracy = 0.95 * accuracy + 0.05 * done.token_accuracy
        if (done.step + 1) % 100 == 0:
            log(f"{name} step {done.step + 1}/{settings.steps} loss {loss:.3f} token accuracy {accuracy:.3f}")

    batches = drawn_batches(model, settings, corpus.embeddings, corpus.prompts, corpus.outputs)
    train(model, make_optimizer(model, settings), settings, batches, show)
    return model


def memory_captions(count: int, corpus: Corpus) -> list[int]:
    """Rows of the corpus whose captions Santa's memory holds: the first ``count`` distinct ones."""
    first = {text: row for row, text in reversed([*enumerate(corpus.captions)])}
    return sorted(first.values())[:count]
