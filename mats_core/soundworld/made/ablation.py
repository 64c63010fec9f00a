"""Does each step of the method help? No noise, noise, noise and Santa, and the same model trained on audio.

Every run is (what it is trained on, noise variance, seed) and leaves its result as JSON, so that an interrupted
ablation goes on where it was. Noise variance and Santa's mix are chosen on validation clips; test clips are only
measured.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mats_core import storage
from mats_core.encoders.clap import HfClapEncoder
from mats_core.memory.noise import estimate_noise
from mats_core.memory.santa import SantaMemory
from mats_core.model.config import SantaSettings
from mats_core.model.model import load_model
from mats_core.soundworld.corpus import text_record
from mats_core.soundworld.language import recipe_caption
from mats_core.soundworld.made.measure import Clips, caption_f1, split_recipes
from mats_core.soundworld.made.spectrograms import cached_mels
from mats_core.soundworld.made.text_training import (
    Corpus,
    corpus_of,
    memory_captions,
    text_corpus,
    train_mats,
    training_settings,
)  # fmt: skip

Log = Callable[[str], None]
Result = dict[str, Any]

NOISE_VARIANCES = (0.003, 0.001)
NOISE_GRID = (0.0, 0.001, 0.003, 0.01, 0.03)
NOISE_PAIRS = 30
"""As many as the paper's."""
MIXES = (0.2, 0.3, 0.5)
SEEDS = (0, 1, 2)
VALIDATION_CLIPS, TEST_CLIPS, UPPER_BOUND_CLIPS = 500, 1200, 8000
MEMORY_ENTRIES = 16_384


def santa_settings(mix: float, noise_variance: float) -> SantaSettings:
    """Santa of the embedded world: the reference's, but sharper, as cosines of 128 dimensions lie further apart."""
    return SantaSettings(neighbors=32, scale=40.0, mix=mix, probe=4, noise_variance=noise_variance, seed=0)


@dataclass(frozen=True)
class AblationRun:
    """One training of the ablation: on `text` or `audio` embeddings, to which noise (0: none) is added."""

    trained_on: str
    noise_variance: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder in the work folder, and in the log."""
        return f"{self.trained_on}-noise{self.noise_variance:g}-seed{self.seed}"


def embed_mels(encoder: HfClapEncoder, mels: np.ndarray, batch: int = 64) -> torch.Tensor:
    """Unit audio embeddings [N, D] of spectrograms made by ``spectrograms.log_mel``."""
    embedded = []
    with torch.inference_mode():
        for at in range(0, len(mels), batch):
            mel = torch.from_numpy(mels[at : at + batch].astype(np.float32))[:, None]  # [B, 1, frames, mels]
            pooled = encoder.model.audio_model(input_features=mel).pooler_output
            embedded.append(torch.nn.functional.normalize(encoder.model.audio_projection(pooled), dim=-1))
    return torch.cat(embedded)


def audio_embeddings(work: Path, encoder: HfClapEncoder, split: str, count: int, log: Log = print) -> torch.Tensor:
    """Unit audio embeddings [N, D] of a split's first clips, made once for an encoder and kept beside it."""
    path = work / f"audio-{split}-{count}-{encoder.fingerprint[:12]}.npy"
    if not path.exists():
        _write_array(path, embed_mels(encoder, cached_mels(work, split, count, log)).numpy())
    return torch.from_numpy(np.load(path))


def _write_array(path: Path, array: np.ndarray) -> None:
    """A .npy file, whole or not there at all."""
    whole = io.BytesIO()
    np.save(whole, array)
    storage.write_bytes(str(path), whole.getvalue())


def audio_corpus(embeddings: torch.Tensor, rounds: int = 4) -> Corpus:
    """The upper bound's corpus: the same texts as ever, but the clip's own audio embedding in the caption's place."""
    rows = [text_record(i, r, "upper_bound", 19) for r in range(rounds) for i in range(len(embeddings))]
    return corpus_of(rows, embeddings.repeat(rounds, 1))


def saved_text_corpus(work: Path, encoder: HfClapEncoder) -> Corpus:
    """The text corpus; its embeddings are made once for an encoder and kept beside it."""
    path = work / f"text-corpus-{encoder.fingerprint[:12]}.npy"
    if path.exists():
        return _saved_text_corpus(path)
    corpus = text_corpus(encoder.embed_text)
    _write_array(path, corpus.embeddings.numpy())
    return corpus


@lru_cache(maxsize=1)
def _saved_text_corpus(path: Path) -> Corpus:
    """Its texts are written anew, which takes most of a minute: once a process."""
    embeddings = torch.from_numpy(np.load(path))  # [N, D]
    return text_corpus(lambda captions: embeddings)


def build_memory(work: Path, corpus: Corpus, encoder_fingerprint: str) -> None:
    """Santa's memory: captions of the training corpus, in float16."""
    rows = memory_captions(MEMORY_ENTRIES, corpus)
    SantaMemory.build(
        corpus.embeddings[rows], [corpus.captions[i] for i in rows], ["soundworld"] * len(rows),
        seed=0, storage="float16", encoder_fingerprint=encoder_fingerprint,
    ).save(str(work / "memory"))  # fmt: skip


def _to_stderr(text: str) -> None:
    """Standard output is the result's."""
    print(text, file=sys.stderr, flush=True)


def train_run(work: Path, run: AblationRun) -> None:
    """Train one run and measure its captions on validation clips, without Santa and at every mix."""
    torch.set_num_threads(1)
    folder = work / "runs" / run.name
    if (folder / "validation.json").exists():
        return
    encoder = HfClapEncoder(str(work / "encoder"), device="cpu")
    if run.trained_on == "text":
        corpus = saved_text_corpus(work, encoder)
    else:
        corpus = audio_corpus(audio_embeddings(work, encoder, "upper_bound", UPPER_BOUND_CLIPS))
    settings = training_settings(run.noise_variance, run.seed)
    model = train_mats(corpus, work / "encoder", work / "llm", settings, _to_stderr, run.name)
    model.save(str(folder / "model"))
    _measure(work, run, encoder, "validation", VALIDATION_CLIPS, (0.0, *MIXES), folder / "validation.json")


def test_run(work: Path, run: AblationRun, mix: float) -> None:
    """Measure one run's captions on test clips, without Santa and, for text, with the chosen mix."""
    torch.set_num_threads(1)
    path = work / "runs" / run.name / f"test-{mix:g}.json"
    if not path.exists():
        _measure(work, run, HfClapEncoder(str(work / "encoder"), "cpu"), "test", TEST_CLIPS, (0.0, mix), path)


def _measure(
    work: Path, run: AblationRun, encoder: HfClapEncoder, split: str, count: int, mixes: tuple[float, ...], out: Path
) -> None:
    clips = Clips(audio_embeddings(work, encoder, split, count), split_recipes(split, count))
    model = load_model(str(work / "runs" / run.name / "model"), device="cpu", dtype="float32")
    model.memory = SantaMemory.load(str(work / "memory"))
    result = {}
    for mix in mixes if run.trained_on == "text" else (0.0,):
        numbers = caption_f1(model, clips, santa_settings(mix, run.noise_variance))
        result[f"{mix:g}"] = {k: numbers[k] for k in ("label_f1", "label_f1_macro", "order", "precision", "recall")}
    storage.write_bytes(str(out), json.dumps(result).encode())


def run_ablation(work: Path, log: Log = print, processes: int = 2) -> Result:
    """Train and measure all runs; returns (and leaves in ``ablation.json``) choices, means and spreads.

    ``work`` holds ``encoder`` and ``llm``. The noise variance is chosen by the best validation F1 over mixes, with the
    first seed, the mix by the mean over all seeds; the upper bound is given noise too if that helps it on validation.
    """
    encoder = HfClapEncoder(str(work / "encoder"), device="cpu")
    build_memory(work, saved_text_corpus(work, encoder), encoder.fingerprint)
    for split, count in (("validation", VALIDATION_CLIPS), ("test", TEST_CLIPS), ("upper_bound", UPPER_BOUND_CLIPS)):
        audio_embeddings(work, encoder, split, count, log)

    def runs(trained_on: str, noise: float, seeds: tuple[int, ...] = SEEDS) -> list[AblationRun]:
        return [AblationRun(trained_on, noise, seed) for seed in seeds]

    def validation(trained_on: str, noise: float, seed: int = SEEDS[0]) -> Result:
        return _validation(work, AblationRun(trained_on, noise, seed))

    first, others = SEEDS[:1], SEEDS[1:]
    _train_all(work, [run for v in NOISE_VARIANCES for run in runs("text", v, first)], processes, log)
    best = {v: max(s["label_f1"] for s in validation("text", v).values()) for v in NOISE_VARIANCES}
    variance = max(best, key=lambda v: best[v])
    log(f"noise variance {variance:g} chosen on validation: {best}")
    bounds = [*runs("audio", 0.0, first), *runs("audio", variance, first)]
    _train_all(work, [*runs("text", variance, others), *runs("text", 0.0), *bounds], processes, log)
    bound = max((0.0, variance), key=lambda v: validation("audio", v)["0"]["label_f1"])
    _train_all(work, runs("audio", bound, others), processes, log)
    noisy = [validation("text", variance, s) for s in SEEDS]
    by_mix = {m: float(np.mean([each[f"{m:g}"]["label_f1"] for each in noisy])) for m in MIXES}
    mix = max(by_mix, key=lambda m: by_mix[m])
    log(f"Santa's mix {mix:g} chosen on validation: {by_mix}")
    rows = {
        "text, no noise": runs("text", 0.0),
        "text, noise": runs("text", variance),
        "audio (upper bound)": runs("audio", bound),
    }
    with _pool(processes) as pool:
        pool.starmap(test_run, [(work, run, mix) for each in rows.values() for run in each], chunksize=1)
    table = {}
    for name, each in rows.items():
        table[name] = _mean_and_spread(work, each, mix, "0")
        if each[0].trained_on == "text":
            table[f"{name} and Santa"] = _mean_and_spread(work, each, mix, f"{mix:g}")
    result = {
        "noise_variance": variance, "validation_by_noise": {f"{v:g}": f for v, f in best.items()},
        "mix": mix, "validation_by_mix": {f"{m:g}": f for m, f in by_mix.items()}, "upper_bound_noise": bound,
        "seeds": list(SEEDS), "test_clips": TEST_CLIPS, "validation_clips": VALIDATION_CLIPS, "table": table,
    }  # fmt: skip
    storage.write_bytes(str(work / "ablation.json"), (json.dumps(result, indent=1) + "\n").encode())
    return result


def run_noise_grid(
    work: Path, grid: Sequence[float] = NOISE_GRID, log: Log = print, processes: int = 2
) -> dict[str, Any]:
    """How near is the noise that 30 pairs ask for to the best of a grid? Returns (and leaves in ``noise-grid.json``)
    the estimate, and label F1 on validation clips of a model trained with each variance: without Santa, and with the
    best of its mixes. Among them are the paper's estimate and the mean square a dimension.
    """
    encoder = HfClapEncoder(str(work / "encoder"), device="cpu")
    build_memory(work, saved_text_corpus(work, encoder), encoder.fingerprint)
    audio_embeddings(work, encoder, "validation", VALIDATION_CLIPS, log)
    sounds = audio_embeddings(work, encoder, "upper_bound", NOISE_PAIRS, log)  # [30, D], of no measured clip
    texts = encoder.embed_text([recipe_caption(each) for each in split_recipes("upper_bound", NOISE_PAIRS)])
    estimate = estimate_noise(sounds, texts.cpu())
    asked = {float(f"{value:.2g}") for value in (estimate.variance, estimate.mean_square)}
    runs = [AblationRun("text", variance, SEEDS[0]) for variance in sorted({*grid, *asked})]
    _train_all(work, runs, processes, log)
    rows = []
    for run in runs:
        scores = {mix: each["label_f1"] for mix, each in _validation(work, run).items()}
        rows.append({"noise_variance": run.noise_variance, "without_santa": scores["0"], "best": max(scores.values())})
    result = {"estimate": asdict(estimate), "grid": rows, "clips": VALIDATION_CLIPS}
    storage.write_bytes(str(work / "noise-grid.json"), (json.dumps(result, indent=1) + "\n").encode())
    return result


def noise_grid_table(result: Result) -> str:
    """What `run_noise_grid` found, for people, in Markdown."""
    estimate, rows = result["estimate"], result["grid"]
    named = {
        float(f"{estimate['variance']:.2g}"): f"the estimate of {estimate['pairs']} pairs, as the paper's",
        float(f"{estimate['mean_square']:.2g}"): "their mean squared difference a dimension",
    }
    best = max(rows, key=lambda row: row["best"])
    named[best["noise_variance"]] = ", ".join(filter(None, [named.get(best["noise_variance"], ""), "the best"]))
    lines = ["| noise variance | label F1 without Santa | with the best mix | |", "|---|---|---|---|"]
    for row in rows:
        cells = (f"{row['noise_variance']:g}", f"{row['without_santa']:.4f}", f"{row['best']:.4f}")
        lines.append(f"| {' | '.join(cells)} | {named.get(row['noise_variance'], '')} |")
    return "\n".join(lines)


def _pool(processes: int) -> Pool:
    """Fresh processes; leaving the context, also by an interruption, ends them."""
    return multiprocessing.get_context("spawn").Pool(processes)


def _train_all(work: Path, runs: list[AblationRun], processes: int, log: Log) -> None:
    with _pool(processes) as pool:
        for run, _ in zip(runs, pool.imap(partial(train_run, work), runs), strict=True):
            log(f"{run.name} validation { ({m: round(s['label_f1'], 4) for m, s in _validation(work, run).items()}) }")


def _validation(work: Path, run: AblationRun) -> Result:
    return json.loads((work / "runs" / run.name / "validation.json").read_text())


def _mean_and_spread(work: Path, runs: list[AblationRun], mix: float, column: str) -> Result:
    """Mean and standard deviation over seeds, and the values themselves."""
    found = [json.loads((work / "runs" / r.name / f"test-{mix:g}.json").read_text())[column] for r in runs]
    values = [f["label_f1"] for f in found]
    return {
        "label_f1": float(np.mean(values)), "spread": float(np.std(values, ddof=1)), "seeds": values,
        "order": float(np.mean([f["order"] for f in found])),
    }  # fmt: skip
