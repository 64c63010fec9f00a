"""The embedded model from scratch: tokenizer, CLAP, LLM, MATS on text alone, memory; and the table that measures it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mats_core.config import Part
from mats_core.metrics import label_f1
from mats_core.model import MatsModel, load_model
from mats_core.prompts import SPEECH, training_prompt
from mats_core.santa import SantaMemory
from mats_core.soundworld.ablation import Run, build_memory, santa_settings, saved_text_corpus, train_run
from mats_core.soundworld.clips import WINDOW_SECONDS, cached_mels, clip_recipe
from mats_core.soundworld.kinds import SAMPLE_RATE
from mats_core.soundworld.language import Content, corpus_record, parse_kinds
from mats_core.soundworld.measure import (
    Clips,
    caption_f1,
    chance_f1,
    label_answers,
    modality_gap,
    question_numbers,
    split_recipes,
)
from mats_core.soundworld.pretrain_clap import pretrain_clap
from mats_core.soundworld.pretrain_llm import pretrain_llm
from mats_core.soundworld.pretrain_reading import pretrain_reading
from mats_core.soundworld.synth import render, render_scene
from mats_core.soundworld.tokenizer import as_transformers, train_bpe

Log = Callable[[str], None]

PRETRAIN_CLIPS = 48_000
NOISE_VARIANCE, MIX, SEED = 0.003, 0.2, 1  # chosen on validation clips
ASSETS = Path(__file__).parent / "assets"
PARTS = ("encoder", "llm", "memory")


def build(work: Path, out: Path, log: Log = print) -> None:
    """Make the embedded model. Every finished step stays in ``work`` and is not repeated.

    Args:
        work: folder for spectrograms, parts and runs (about 3 GB).
        out: the model directory to write, with encoder, LLM and memory inside.
    """
    work.mkdir(parents=True, exist_ok=True)
    times = _Times(work / "times.json", log)
    for name, texts in (("encoder", _encoder_texts), ("llm", _llm_texts)):
        if not (work / f"bpe-{name}.json").exists():
            with times(f"tokenizer of the {name}"):
                (work / f"bpe-{name}.json").write_text(train_bpe(texts()))
    if not (work / "encoder" / "model.safetensors").exists():
        with times("clips"):
            mels = cached_mels(work, "pretrain", PRETRAIN_CLIPS, log)
        with times("clap"):
            pretrain_clap(mels, work / "encoder", as_transformers(_bpe(work, "encoder"), ends=True, length=96), log=log)
    if not (work / "llm-words" / "model.safetensors").exists():
        with times("llm, words"):
            words = as_transformers(_bpe(work, "llm"), ends=False, length=512)
            pretrain_llm(work / "llm-ordered", words, log=log)
            pretrain_llm(
                work / "llm-words", words, start=work / "llm-ordered", steps=250, learning_rate=4e-3, shuffled=0.5,
                first_record=100_000, log=log,
            )  # fmt: skip
    from mats_core.clap import HfClapEncoder

    encoder = HfClapEncoder(str(work / "encoder"), device="cpu")
    with times("text embeddings and memory"):
        corpus = saved_text_corpus(work, encoder)
        build_memory(work, corpus, encoder.fingerprint)
    if not (work / "llm" / "model.safetensors").exists():
        with times("llm, reading vectors"):
            pretrain_reading(corpus, work / "encoder", work / "llm-words", work / "llm", log=log)
    run = Run("text", NOISE_VARIANCE, SEED)
    with times("mats"):
        train_run(work, run)
    export(work, run, MIX, out)
    log(f"{out}: {sum(f.stat().st_size for f in out.rglob('*') if f.is_file()) / 1e6:.1f} MB")


def export(work: Path, run: Run, mix: float, out: Path) -> None:
    """Write one run as a model directory that needs nothing outside itself."""
    model = load_model(str(work / "runs" / run.name / "model"), device="cpu", dtype="float32", merge_adapter=False)
    model.memory = SantaMemory.load(str(work / "memory"))
    model.parts["memory"] = str(work / "memory")
    model.config = model.config.model_copy(
        update={
            "memory": Part(uri="memory", fingerprint=model.memory.fingerprint),
            "santa": santa_settings(mix, run.noise_variance),
        }
    )
    model.save(str(out), include=PARTS, weights="float16")


def evaluate(model: MatsModel, clips: int = 1000, scenes: int = 20, log: Log = print) -> dict[str, Any]:
    """All measures of a model on test clips no training met; see ``measure`` for what each number means."""
    if model.encoder is None:
        raise ValueError("the model has no encoder; it cannot be measured on sound")
    santa = model.config.santa
    recipes = split_recipes("test", clips)
    parts = []
    for at in range(0, clips, 32):
        parts.append(model.embed_windows([_int16(render(r)) for r in recipes[at : at + 32]]))
        if at % 320 == 0:
            log(f"heard {at}/{clips} clips")
    heard = Clips(torch.from_numpy(np.concatenate(parts)), recipes)
    off = santa.model_copy(update={"mix": 0.0})
    captions = caption_f1(model, heard, santa)
    log("captions done")
    without = caption_f1(model, heard, off)
    numbers = {
        "model": model.fingerprint,
        "clips": clips,
        "captions": {k: v for k, v in captions.items() if k != "captions"},
        "captions_without_santa": {k: v for k, v in without.items() if k not in ("captions", "per_kind")},
        "chance_f1": chance_f1(captions["captions"], recipes),
        "cla_label_f1": label_answers(model, heard, santa),
        "questions": question_numbers(model, heard, santa),
        "gap": modality_gap(model, heard, santa),
    }
    log("questions done")
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


def _int16(waveform: np.ndarray) -> np.ndarray:
    """As audio travels between the stages of a run."""
    return np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)[: WINDOW_SECONDS * SAMPLE_RATE]


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


class _Times:
    """Wall time of every step, kept as JSON."""

    def __init__(self, path: Path, log: Log) -> None:
        self.path, self.log, self.step, self.started = path, log, "", 0.0

    def __call__(self, step: str) -> _Times:
        self.step = step
        return self

    def __enter__(self) -> None:
        self.started = time.monotonic()
        self.log(f"{self.step} …")

    def __exit__(self, *failed: object) -> None:
        seconds = time.monotonic() - self.started
        self.log(f"{self.step}: {seconds / 60:.1f} min")
        kept = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.path.write_text(json.dumps({**kept, self.step: round(seconds, 1)}, indent=1) + "\n")
