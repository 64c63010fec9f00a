"""`mats benchmark train`: a training step on stored embeddings beside the same step that runs the CLAP text tower, and
beside itself as it was: before the device was waited for once a step, before layers were compiled.

All are fed as a run is: records drawn from a packed store, looked up, worded and tokenised in a thread, ahead.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.benchmarks.inputs import random_llama
from jobs.benchmarks.measuring import device_name, empty_cache, print_figures, print_table, say, timed
from mats_core.errors import SettingsError
from mats_core.training.schedule import TrainingSettings, sample_batch

if TYPE_CHECKING:
    import torch

    from mats_core.model.model import MatsModel
    from pipelines.train.batches import Sample
    from pipelines.train.mixture import StoredSet

LLAMA = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4}
SIZES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "builtin": ({}, {}),
    "small": (LLAMA, {"width": 256, "layers": 2, "vectors": 16, "clip_tokens": 16}),
    "7b": ({}, {}),
}
"""Sizes of LLM and mapper; what is not named is the 7 B model's: the defaults of their settings."""
WARM_STEPS = 3


def run_benchmark(
    size: str, steps: int, batch: int, device: str, encoder: str, as_json: bool, compiled: bool | None = None
) -> int:
    """Measure the same steps five times over, and print: stored embeddings as a step is and as it was, the text tower
    in every step, both again, and with layers compiled.

    What a shared machine does besides falls on all ways so. compiled: None compiles on a GPU alone, since it takes
    minutes on a CPU. Raises SettingsError.
    """
    if size not in SIZES:
        raise SettingsError("size", f'there is no size "{size}"', f"choose {', '.join(SIZES)}")
    if steps < 1 or batch < 1:
        raise SettingsError("steps, batch", f"one of {steps}, {batch} is less than 1", "give numbers of at least 1")
    from mats_core.device import pick_device
    from mats_core.encoders.load import load_encoder
    from mats_core.model.directory import encoder_uri
    from mats_core.training.compiled import compile_layers
    from pipelines.train.batches import draw_step, wording

    place = pick_device(device)
    say(f"loading: LLM {size}, encoder {encoder}, on {place}")
    listener = load_encoder(encoder_uri(encoder), device=str(place))
    settings = TrainingSettings(
        steps=10 * steps, batch_size=batch, warmup_steps=0, learning_rate=1e-4, noise_variance=0.003, clip_norm=1.0
    )
    with tempfile.TemporaryDirectory(prefix="mats-benchmark-") as place_of_data:
        stored_set, captions = make_store(Path(place_of_data), (WARM_STEPS + steps) * batch, listener)
        whole = WARM_STEPS + steps
        found: dict[str, list[dict[str, Any]]] = {"stored": [], "before": [], "tower": [], "compiled": []}
        turns = ["stored", "before", "tower", "before", "stored"]
        why_not: str | None = "not asked for"
        if compiled or (compiled is None and place.type == "cuda"):
            turns.append("compiled")
        for turn in turns:
            model = make_model(size, listener.dim, place)
            if turn == "compiled" and (why_not := compile_layers(model)) is not None:
                say(f"layers are not compiled: {why_not}")
                continue
            say(f"{turn}: {WARM_STEPS} + {steps} steps of {batch}")
            heard_by = listener if turn == "tower" else None
            as_it_was = turn == "before"
            found[turn].append(timed_steps(model, settings, stored_set, whole, captions, heard_by, as_it_was))
            word = wording(model)
            samples = [draw_step([stored_set], [1.0], settings, step, word) for step in range(WARM_STEPS, whole)]
            trained, flops = count_flops(model, settings, samples)
            del model, word
            empty_cache(place)
    best, before = (min(found[turn], key=lambda each: each["step_s"]) for turn in ("stored", "before"))
    (tower,) = found["tower"]
    losses = [each["losses"] for turn in ("before", "compiled") for each in found[turn]]
    peak = matrix_rate(place, "bfloat16" if place.type == "cuda" else "float32")
    figures = {
        "size": size,
        "device": device_name(place),
        "batch": batch,
        "steps": steps,
        "trained_weights": trained,
        "stored_step_s": round(best["step_s"], 4),
        "tower_step_s": round(tower["step_s"], 4),
        "ratio": round(tower["step_s"] / best["step_s"], 3),
        "stored_tokens_per_s": round(best["tokens_per_s"], 1),
        "tower_tokens_per_s": round(tower["tokens_per_s"], 1),
        "samples_per_s": round(best["samples_per_s"], 2),
        "wait_share": round(max(each["wait_share"] for each in found["stored"]), 4),
        "before_step_s": round(before["step_s"], 4),
        "gain": round(before["step_s"] / best["step_s"], 3),
        "compiled_step_s": round(found["compiled"][0]["step_s"], 4) if found["compiled"] else None,
        "compiled_gain": round(before["step_s"] / found["compiled"][0]["step_s"], 3) if found["compiled"] else None,
        "compiled_mfu": round(flops / found["compiled"][0]["step_s"] / peak, 4) if found["compiled"] else None,
        "not_compiled": why_not,
        "before_loss_difference": max(abs(a - b) for each in losses for a, b in zip(each, best["losses"], strict=True)),
        "largest_loss_difference": max(abs(a - b) for a, b in zip(best["losses"], tower["losses"], strict=True)),
        "first_loss": best["losses"][0],
        "last_loss": best["losses"][-1],
        "matrix_tflops": round(peak / 1e12, 3),
        "mfu": round(flops / best["step_s"] / peak, 4),
    }
    print_figures(figures, as_json, print_comparison)
    return 0


def make_store(folder: Path, count: int, encoder: Any) -> tuple[StoredSet, list[str]]:
    """`count` records of the embedded world, packed as `mats train` packs them, and the caption of each record."""
    import pyarrow.parquet as pq

    from mats_core.soundworld.corpus import text_record
    from pipelines.data.corpus import caption_id, normalize_caption
    from pipelines.settings.train import DataSet, TrainSettings
    from pipelines.text.caption_buckets import Caption, caption_table, embedding_table
    from pipelines.train.mixture import open_store
    from pipelines.train.pack import ensure_store

    records = [text_record(index) for index in range(count)]
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    texts = {caption_id(each["caption"]): normalize_caption(each["caption"]) for each in records}
    rows = [(key, Caption(text, {"world"}, 1)) for key, text in sorted(texts.items())]
    parts = [[caption.caption for _, caption in rows[at : at + 256]] for at in range(0, len(rows), 256)]
    vectors = np.concatenate([encoder.embed_text(part).float().cpu().numpy().astype(np.float16) for part in parts])
    table = folder / "embedded"
    (table / "embeddings").mkdir(parents=True)
    pq.write_table(embedding_table(caption_table(dict(rows)), vectors), table / "embeddings" / "part-00000.parquet")
    (table / "_embeddings.json").write_text(json.dumps({"dim": vectors.shape[1], "status": "complete"}))
    data = DataSet(name="world", corpus=str(folder / "records.jsonl"), validation=0)
    parts_of = {"embeddings": str(table), "llm": "builtin", "encoder": "builtin"}
    settings = TrainSettings(output=str(folder / "out"), data=[data], **parts_of)
    (packed,) = open_store(ensure_store(settings, folder / "store"))
    return packed, [normalize_caption(each["caption"]) for each in records]


def drawn_captions(settings: TrainingSettings, step: int, data: StoredSet, captions: list[str]) -> list[str]:
    """The captions of a step's samples, in the order of `draw_step`."""
    drawn = sample_batch(settings.seed, step, settings.batch_size, [len(data.train)], [1.0], settings.draw)
    return [captions[data.train[row]] for _, row in drawn]


def make_model(size: str, dim: int, device: torch.device) -> MatsModel:
    """The shipped LLM, or a LLaMA of random weights with its tokenizer; bfloat16 on a GPU, float32 on the CPU."""
    import torch

    from mats_core.model.config import AdapterConfig, MapperConfig, ModelConfig, Part
    from mats_core.model.directory import BUILTIN
    from mats_core.model.llm import add_adapter, load_llm
    from mats_core.model.mapper import build_mapper
    from mats_core.model.model import MatsModel
    from mats_core.soundworld.made.text_training import ADAPTER, MAPPER

    torch.manual_seed(0)
    number = torch.bfloat16 if device.type == "cuda" else torch.float32
    llm, tokenizer, part = load_llm(str(BUILTIN / "llm"), device, number)
    mapper, adapter = MAPPER, ADAPTER
    if size != "builtin":
        llm_sizes, mapper_sizes = SIZES[size]
        llm = random_llama(device, **llm_sizes).eval()
        part = Part(uri=size, fingerprint="")
        adapter, mapper = AdapterConfig(dropout=0.0), MapperConfig(**mapper_sizes)
    hidden = int(llm.get_input_embeddings().embedding_dim)
    config = ModelConfig(embedding_dim=dim, hidden_size=hidden, mapper=mapper, adapter=adapter, llm=part)
    network = build_mapper(mapper, dim, hidden).to(device).eval()
    return MatsModel(config, network, add_adapter(llm, adapter).to(device).eval(), tokenizer)


def timed_steps(
    model: MatsModel,
    settings: TrainingSettings,
    data: StoredSet,
    steps: int,
    captions: list[str],
    encoder: Any,
    as_it_was: bool = False,
) -> dict[str, Any]:
    """Steps as a worker makes them and is fed; with `encoder`, embeddings are made in the step. as_it_was: each
    gradient is looked at by itself, and the adapter's inputs are made float32.

    Median seconds a step, tokens and samples a second, the share of the time that was waited, all losses.
    """
    import torch

    from mats_core.training.loop import train
    from mats_core.training.step import StepBatch, StepResult, make_optimizer, sum_here
    from pipelines.train.batches import WorkerShare, prefetched, step_batch

    torch.manual_seed(0)
    optimizer = make_optimizer(model, settings)
    share = WorkerShare(0, 1, 1)
    done: list[StepResult] = []

    def batches() -> Iterator[StepBatch]:
        made = prefetched(
            lambda step: step_batch([data], [1.0], model, settings, step, share, model.device), range(steps)
        )
        with closing(made):
            for batch in made:
                if encoder is not None:
                    texts = drawn_captions(settings, batch.step, data, captions)
                    fresh = encoder.embed_text(texts).to(model.device)  # [batch, D]
                    for one in batch.micro_batches:
                        one.embedding = fresh[(one.noise_rows - batch.step * settings.batch_size).to(fresh.device)]
                yield batch

    if as_it_was:
        for layer in model.llm.modules():
            if hasattr(layer, "cast_input_dtype_enabled"):
                layer._cast_input_dtype = lambda x, dtype: x.to(dtype)
    train(model, optimizer, settings, batches(), done.append, look_at_each if as_it_was else sum_here)
    losses, counted = [each.loss for each in done], done[WARM_STEPS:]
    times = [each.seconds for each in counted]
    tokens, waited = sum(each.tokens for each in counted), sum(each.wait_seconds for each in counted)
    whole = sum(times)
    count = settings.batch_size * len(times)
    rates = {"tokens_per_s": tokens / whole, "samples_per_s": count / whole, "wait_share": waited / whole}
    return {"step_s": statistics.median(times), **rates, "losses": losses}


def look_at_each(weights: Sequence[torch.Tensor], sums: torch.Tensor) -> torch.Tensor:
    """As a step summed before there was one norm for all: the device is waited for once a gradient."""
    import torch

    if not all(bool(torch.isfinite(weight.grad).all()) for weight in weights if weight.grad is not None):
        raise ArithmeticError("a gradient is not finite")
    sums.tolist()
    return sums


def count_flops(model: MatsModel, settings: TrainingSettings, samples: list[list[Sample]]) -> tuple[int, int]:
    """(trained weights, floating-point operations a step that the model needs).

    A frozen weight costs 4 a token (forward, and the gradient passed on); a trained one 6. Attention: 2 products of
    length × width a token and layer forward, twice that backward; half of it under the causal mask. The head counts
    for target tokens only, as logits are made from the first of them on; embedding tables cost nothing.
    """
    tokens = model.tokens
    lengths = [[len(tokens.prompt(s.prompt)[0]) + len(tokens.answer(s.output)) for s in each] for each in samples]
    targets = sum(len(tokens.answer(s.output)) for each in samples for s in each)
    whole = sum(map(sum, lengths))
    squares = sum(n * n for each in lengths for n in each)
    config = model.causal_lm.config
    table = model.causal_lm.get_input_embeddings().weight.numel()
    adapter = sum(w.numel() for name, w in model.llm.named_parameters() if "lora_" in name)
    mapper = sum(w.numel() for w in model.mapper.parameters())
    body = sum(w.numel() for w in model.causal_lm.parameters()) - adapter - table
    if not config.tie_word_embeddings:
        body -= table
    rows = sum(map(len, lengths))
    # note: the first linear layer of the mapper works once a sample, its transformer once a token of its own
    first = next(w for w in model.mapper.parameters() if w.ndim == 2).numel()
    width = model.config.mapper.vectors + (model.config.mapper.clip_tokens if model.config.mapper.kind != "mlp" else 0)
    in_mapper = 6 * rows * (mapper if model.config.mapper.kind == "mlp" else first + width * (mapper - first))
    attention = 6 * config.num_hidden_layers * config.hidden_size * squares
    total = 4 * body * whole + 6 * adapter * whole + 4 * table * targets + attention + in_mapper
    return mapper + adapter, total // len(samples)


def matrix_rate(device: torch.device, dtype: str) -> float:
    """Operations a second of a plain matrix product here: the best of several."""
    import torch

    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    best = min(timed(lambda: [a @ a for _ in range(4)], device)[1] for _ in range(8)) / 4
    return 2 * size**3 / best


def print_comparison(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    f = figures
    rows = [
        ("step (ms, median)", f"{1e3 * f['stored_step_s']:.1f}", f"{1e3 * f['tower_step_s']:.1f}"),
        ("tokens/s", f"{f['stored_tokens_per_s']:,.0f}", f"{f['tower_tokens_per_s']:,.0f}"),
        ("waiting for the next batch", f"{f['wait_share']:.2%}"),
        ("model FLOP utilisation", f"{f['mfu']:.1%}", f"of {f['matrix_tflops']:g} TFLOP/s measured"),
        ("loss, first → last step", f"{f['first_loss']:.4f} → {f['last_loss']:.4f}"),
        ("largest difference of a loss", "", f"{f['largest_loss_difference']:.1e}"),
        ("b/a", "", f"{f['ratio']:.2f}"),
    ]
    title = f"LLM {f['size']}, {f['batch']} samples a step, {f['device']}"
    print_table(title, ("", "stored embeddings (a)", "text tower in the step (b)"), rows)
    compiled = f["compiled_step_s"] is not None
    rows = [
        ("step (ms, median)", *(f"{1e3 * s:.1f}" if s else f["not_compiled"] for s in
                                (f["before_step_s"], f["stored_step_s"], f["compiled_step_s"]))),
        ("gain", "1.00", f"{f['gain']:.2f}", f"{f['compiled_gain']:.2f}" if compiled else ""),
        ("model FLOP utilisation", "", f"{f['mfu']:.1%}", f"{f['compiled_mfu']:.1%}" if compiled else ""),
        ("largest difference of a loss", "", f"{f['before_loss_difference']:.1e}"),
    ]  # fmt: skip
    print_table("The same step as it was and is", ("", "before", "now", "compiled"), rows)
