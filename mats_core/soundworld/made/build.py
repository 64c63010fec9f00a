"""What the embedded model is made of, from scratch: tokenizers, CLAP, LLM; and the measures of a whole model.

MATS itself is then made by `mats soundworld build`, through the same jobs as any other model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mats_core import storage
from mats_core.model.model import MatsModel
from mats_core.model.prompts import SPEECH, training_prompt
from mats_core.scoring.labels import label_f1
from mats_core.soundworld.kinds import SAMPLE_RATE
from mats_core.soundworld.language import Content, corpus_record, parse_kinds
from mats_core.soundworld.made.ablation import saved_text_corpus
from mats_core.soundworld.made.clap import pretrain_clap
from mats_core.soundworld.made.last_stage import teach_facts
from mats_core.soundworld.made.measure import (
    Clips,
    caption_f1,
    chance_f1,
    label_answers,
    modality_gap,
    question_numbers,
    split_recipes,
)  # fmt: skip
from mats_core.soundworld.made.pretrain import (
    READING_SEED,
    add_layer,
    as_transformers,
    pretrain_llm,
    pretrain_reading,
    train_bpe,
)  # fmt: skip
from mats_core.soundworld.made.spectrograms import cached_mels
from mats_core.soundworld.made.text_training import asked_again, minute_corpus
from mats_core.soundworld.made.trust import hear, judged_answers, trust_numbers
from mats_core.soundworld.recipe import clip_recipe
from mats_core.soundworld.synth import render_scene

Log = Callable[[str], None]

PRETRAIN_CLIPS = 48_000
ASSETS = Path(__file__).parents[1] / "assets"


def build_parts(work: Path, log: Log = print) -> tuple[Path, Path]:
    """Make the frozen parts, CLAP and LLM. Every finished step stays in ``work`` and is not repeated.

    work: folder for spectrograms and parts (about 3 GB).
    Returns the directories of the encoder and of the LLM.
    """
    work.mkdir(parents=True, exist_ok=True)
    times = Times(work / "times.json", log)
    for name, texts in (("encoder", _encoder_texts), ("llm", _llm_texts)):
        if not (work / f"bpe-{name}.json").exists():
            with times(f"tokenizer of the {name}"):
                storage.write_bytes(str(work / f"bpe-{name}.json"), train_bpe(texts()).encode())
    if not (work / "encoder" / "model.safetensors").exists():
        with times("clips"):
            mels = cached_mels(work, "pretrain", PRETRAIN_CLIPS, log)
        words = as_transformers(_bpe(work, "encoder"), ends=True, length=96)
        if not (work / "encoder-kinds" / "model.safetensors").exists():
            with times("clap, kinds"):
                pretrain_clap(mels, work / "encoder-kinds", words, log=log)
        with times("clap, order, pitch and rate"):
            teach_facts(mels, work / "encoder-kinds", work / "encoder", words, log=log)
    if not (work / "llm" / "model.safetensors").exists():
        _build_llm(work, times, log)
    return work / "encoder", work / "llm"


def _build_llm(work: Path, times: Times, log: Log) -> None:
    """First on what is heard in words, then on what a throw-away mapper makes of embeddings of captions."""
    words = as_transformers(_bpe(work, "llm"), ends=False, length=512)
    if not (work / "llm-words" / "model.safetensors").exists():
        with times("llm, words"):
            pretrain_llm(work / "llm-words", words, log=log)
    from mats_core.encoders.clap import HfClapEncoder

    with times("text embeddings"):
        encoder = HfClapEncoder(str(work / "encoder"), device="cpu")
        corpus = saved_text_corpus(work, encoder)
        corpus += asked_again(corpus)
    # First what questions ask, which captions would drown; then captions and long sounds, with a mapper that again
    # starts from nothing.
    with times("llm, reading vectors"):
        if not (work / "llm-read" / "model.safetensors").exists():
            pretrain_reading(corpus, work / "encoder", work / "llm-words", work / "llm-read", log=log)
    with times("llm, captions"):
        minutes = minute_corpus(encoder.embed_text)
        corpus += minutes + minutes  # twice, as each clip's caption is asked for two things
        add_layer(work / "llm-read", work / "llm-deeper", words)
        pretrain_reading(
            corpus, work / "encoder", work / "llm-deeper", work / "llm", steps=3000, power=0.7, lists=0.3,
            noise_variance=0.001, seed=READING_SEED + 1, learning_rate=3e-3, log=log,
        )  # fmt: skip


def evaluate(model: MatsModel, clips: int = 1000, scenes: int = 20, log: Log = print) -> dict[str, Any]:
    """All measures of a model on test clips no training met; see ``measure`` for what each number means."""
    if model.encoder is None:
        raise ValueError("the model has no encoder; it cannot be measured on sound")
    santa = model.config.santa
    recipes = split_recipes("test", clips)
    heard = hear(model, "test", clips, log)
    test = Clips(torch.from_numpy(np.concatenate([clip.embeddings for clip in heard])), recipes)
    off = santa.model_copy(update={"mix": 0.0})
    captions = caption_f1(model, test, santa)
    log("captions done")
    without = caption_f1(model, test, off)
    numbers = {
        "model": model.fingerprint,
        "clips": clips,
        "captions": {k: v for k, v in captions.items() if k != "captions"},
        "captions_without_santa": {k: v for k, v in without.items() if k not in ("captions", "per_kind")},
        "chance_f1": chance_f1(captions["captions"], recipes),
        "cla_label_f1": label_answers(model, test, santa),
        "questions": question_numbers(model, test, santa),
        "gap": modality_gap(model, test, santa),
    }
    log("questions done")
    if model.calibration is not None:
        numbers["trust"] = trust_numbers(
            judged_answers(model, heard, recipes, rerank=model.calibration.rerank), model.calibration
        )
        log("confidence done")
    if scenes:
        numbers["scenes"] = scene_numbers(model, scenes)
    return numbers


def scene_numbers(model: MatsModel, scenes: int) -> dict[str, Any]:
    """Label F1 a minute in 3-minute scenes: one answer for the minute's chunk, and one for every window of it."""
    single, segments, true = [], [], []
    for scene in range(scenes):
        waveform, recipes = render_scene(1000 + scene)
        answers = model.answers((waveform, SAMPLE_RATE), task="caption", segments=True)
        per_minute = len(recipes) // 3
        for minute, answer in enumerate(answers):
            stretch = recipes[minute * per_minute : (minute + 1) * per_minute]
            true.append({k for r in stretch for k in r.labels()})
            single.append(parse_kinds(answer.text))
            segments.append({k for s in answer.segments or [] for k in parse_kinds(s.text)})
    return {
        "minutes": len(true),
        "single_answer_f1": label_f1(single, true).micro,
        "segments_f1": label_f1(segments, true).micro,
    }


def _bpe(work: Path, name: str) -> str:
    return (work / f"bpe-{name}.json").read_text()


def _encoder_texts() -> Iterator[str]:
    """What the vocabulary of CLAP's text tower is learned from: captions, questions and answers."""
    for record in _tokenizer_records(20_000):
        yield record["caption"]
        yield f"USER: <Speech></Speech> {record['instruction']}\nASSISTANT: {record['output']}"


def _llm_texts() -> Iterator[str]:
    """What the LLM's vocabulary is learned from: whole prompts with a caption in words, and answers."""
    for index, record in enumerate(_tokenizer_records(12_000)):
        prompt = training_prompt(record["task"], record["instruction"], "", index)
        yield f"{prompt.replace(SPEECH, ' ' + record['caption'])} {record['output']}"


def _tokenizer_records(count: int) -> Iterator[dict[str, str]]:
    tasks = ("QA", "caption", "cla_label", "music_caption")
    for i in range(count):
        rng = np.random.default_rng(i)
        yield corpus_record(Content.of(clip_recipe("tokenizer", i), rng), rng, tasks[i % 4])


def recorded_ablation() -> dict[str, Any] | None:
    """The ablation as it was measured when the shipped model was made, or None."""
    path = ASSETS / "ablation.json"
    return json.loads(path.read_text()) if path.exists() else None


class Times:
    """Wall time of every step, kept as JSON."""

    def __init__(self, path: Path, log: Log) -> None:
        self.path, self.log = path, log

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time this step, in a `with` block, however it ends."""
        started = time.monotonic()
        self.log(f"{step} …")
        try:
            yield
        finally:
            seconds = time.monotonic() - started
            self.log(f"{step}: {seconds / 60:.1f} min")
            earlier = json.loads(self.path.read_text()) if self.path.exists() else {}
            text = json.dumps({**earlier, step: round(seconds, 1)}, indent=1) + "\n"
            storage.write_bytes(str(self.path), text.encode())
