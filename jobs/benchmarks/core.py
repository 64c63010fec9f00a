"""`mats benchmark core`: the model alone, without Ray. Parity with the recorded runs, memory, load time, answers/s."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.benchmarks.inputs import random_clap, random_llama
from jobs.benchmarks.measuring import device_name, empty_cache, memory_gb, print_figures, print_table, say, timed
from mats_core.errors import SettingsError

if TYPE_CHECKING:
    import torch

    from mats_core.model.model import MatsModel

# Sizes of the LLM, as LlamaConfig has them (its own defaults are the 7 B model's), and of the mapper.
LLMS: dict[str, dict[str, int]] = {
    "full": {},
    "small": {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 300},
}
LLMS["small"] |= {"num_hidden_layers": 2, "num_attention_heads": 4}
MAPPERS: dict[str, dict[str, int]] = {
    "small": {"vectors": 8, "clip_tokens": 8, "width": 64, "layers": 2, "heads": 8},
    "full": {"vectors": 40, "clip_tokens": 40, "width": 1024, "layers": 8, "heads": 8},
}
NEW_TOKENS = {"small": 8, "full": 40}
LEAST_GAIN = 1.03
"""A doubled batch that is not this much faster is the last one."""
DIM = 1024
RECORDED = Path(__file__).parent / "reference"


def run_benchmark(size: str, device: str, reference: str | None, clips: int, as_json: bool) -> int:
    """Measure and print; 1 when a recorded run does not come out. Raises SettingsError."""
    if size not in LLMS:
        raise SettingsError("size", f'there is no size "{size}"', f"choose {', '.join(LLMS)}")
    if clips < 1:
        raise SettingsError("clips", f"{clips} cannot be measured", "choose at least 1")
    recorded = Path(reference or RECORDED)
    there = (recorded / "generate.json").is_file()
    if reference and not there:
        remedy = "name a folder of recorded runs, or leave it out"
        raise SettingsError("reference", f'"{reference}" holds no generate.json', remedy)
    from mats_core.device import pick_device

    place = pick_device(device)
    figures: dict[str, Any] = {"size": size, "device": device_name(place)}
    if there:
        say("parity with the recorded runs, float32")
        figures["parity"] = parity(recorded, str(place))
    else:
        say(f"no recorded runs at {recorded}: parity is not measured (--reference)")
    with tempfile.TemporaryDirectory(prefix="mats-core-") as folder:
        figures["model"] = throughput(size, place, clips, Path(folder))
        figures["encoder"] = encoder_speeds(size, place, clips, Path(folder))
    print_figures(figures, as_json, print_report)
    return 0 if figures.get("parity", {}).get("holds", True) else 1


def parity(recorded: Path, device: str) -> dict[str, Any]:
    """Largest differences to the recorded runs of the authors' code, in float32, and how many answers are equal."""
    import torch
    from safetensors.torch import load_file

    from mats_core import import_reference, inject_noise, load_model

    forward, santa = load_file(recorded / "train_forward.safetensors"), load_file(recorded / "santa.safetensors")
    tensors = {name: tensor.to(device) for name, tensor in forward.items()}
    with tempfile.TemporaryDirectory() as out:
        import_reference(str(recorded / "checkpoint_29.pth"), str(recorded / "llm"), out)
        model = load_model(out, device=device, dtype="float32")
    told = json.loads((recorded / "train_forward.json").read_text())
    samples = told["samples"]
    prompts = [
        prompt.replace("</Speech>", f"</Speech> {tag}").replace("{}", question)
        for prompt, tag, question in zip(told["prompts"], samples["special_token"], samples["Q"], strict=True)
    ]
    noised = inject_noise(tensors["text_embedding"], 0.015, noise=tensors["noise"])
    with torch.no_grad():
        prefix, loss = model.prefix(tensors["noised"]), model.loss(tensors["noised"], prompts, samples["output"])
    found: dict[str, Any] = {
        "noise": _difference(noised, tensors["noised"]),
        "prefix": _difference(prefix, tensors["prefix"]),
        "loss": _difference(loss, tensors["loss"]),
        "santa": _santa_difference(santa, device),
    }
    found["answers"], found["answers_equal"] = _answers(model, recorded, santa["audio_embedding"])
    most = {"noise": 1e-6, "prefix": 1e-5, "loss": 1e-4, "santa": 1e-6}
    close = all(found[name] < limit for name, limit in most.items())
    found["holds"] = close and found["answers_equal"] == found["answers"]
    return found


def _answers(model: MatsModel, recorded: Path, audio: torch.Tensor) -> tuple[int, int]:
    """(answers asked, those equal token for token): beams and greedy, alone and in one batch."""
    told = json.loads((recorded / "generate.json").read_text())
    cases, asked, equal = told["cases"], 0, 0
    for name, beams in (("beam4", 4), ("greedy", 1)):
        settings = dict(told["generation"], num_beams=beams)
        for batch in [cases, *([case] for case in cases)]:
            embedding = audio[[case["audio"] for case in batch]]
            _, ids = model.generate(embedding, [case["prompt"] for case in batch], settings, return_ids=True)
            asked += len(batch)
            equal += sum(row == case[f"{name}_ids"][1:] for row, case in zip(ids, batch, strict=True))
    return asked, equal


def _santa_difference(recorded: dict[str, Any], device: str) -> float:
    from mats_core.memory.santa import SantaMemory

    worst = 0.0
    settings: dict[str, Any] = {"neighbors": 8, "scale": 10.0, "mix": 0.3, "noise_variance": 0.015, "normalize": False}
    probes: tuple[tuple[str, Any], ...] = (("kmeans", 1), ("exact", "all"))
    for kind, probe in probes:
        memory = SantaMemory.build(recorded[f"{kind}_bank"], centroids=recorded["kmeans_means"])
        for noise, name in ((None, f"{kind}_mixed"), (recorded[f"{kind}_noise"], f"{kind}_mixed_noisy")):
            noise = None if noise is None else noise.to(device)
            mixed = memory.transfer(recorded["audio_embedding"].to(device), probe=probe, noise=noise, **settings)
            worst = max(worst, _difference(mixed, recorded[name]))
    return worst


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.cpu() - expected.cpu()).abs().max())


def throughput(size: str, device: torch.device, clips: int, folder: Path) -> dict[str, Any]:
    """Load time, memory, and answers/s at batch 1 and at each doubled batch until memory or gain runs out.

    On a CPU, where a process without memory is killed, not told, `clips` is the largest batch.
    """
    from mats_core import load_model

    say(f"writing a {size} model with random weights")
    write_model(size, device, folder)
    empty_cache(device)
    model, load_s = timed(lambda: load_model(str(folder / "model"), device=str(device)), device)
    figures: dict[str, Any] = {
        "dtype": str(next(model.causal_lm.parameters()).dtype).removeprefix("torch."),
        "weights": sum(weight.numel() for part in (model.llm, model.mapper) for weight in part.parameters()),
        "load_s": round(load_s, 2),
        "memory_gb": memory_gb(device),
        "new_tokens": NEW_TOKENS[size],
    }
    most = None if device.type == "cuda" else clips
    rates, figures["stopped_by"] = doubled_batches(partial(answer_rate, model, size), most)
    best = max(rates, key=lambda each: rates[each])
    figures |= {"answers_per_s": rates, "best_batch": best, "peak_memory_gb": memory_gb(device, peak=True)}
    del model
    empty_cache(device)
    return figures


def doubled_batches(rate: Callable[[int], float], most: int | None) -> tuple[dict[int, float], str]:
    """(items a second by batch, why it ended): batches of 1, 2, 4, … while memory lasts and doubling gains 3 %."""
    import torch

    rates: dict[int, float] = {}
    batch = 1
    while most is None or batch <= most:
        say(f"answering in batches of {batch}")
        try:
            rates[batch] = round(rate(batch), 2)
        except torch.OutOfMemoryError:
            return rates, f"memory at {batch}"
        if batch > 1 and rates[batch] < LEAST_GAIN * rates[batch // 2]:
            return rates, f"gain at {batch}"
        batch *= 2
    return rates, f"--clips {most}"


def write_model(size: str, device: torch.device, folder: Path) -> None:
    """A LLaMA of LLMS[size] with random weights and a tokenizer of bytes, in a model directory at folder/model."""
    from mats_core.model.config import AdapterConfig, DecodingSettings, MapperConfig
    from mats_core.model.model import MatsModel

    llm = random_llama(device, **LLMS[size])
    llm.save_pretrained(folder / "llm", max_shard_size="4GB")
    del llm
    byte_tokenizer({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}).save_pretrained(folder / "llm")
    model = MatsModel.new(
        str(folder / "llm"),
        embedding_dim=DIM,
        mapper=MapperConfig(**MAPPERS[size]),
        adapter=AdapterConfig(),
        decoding=DecodingSettings(max_new_tokens=NEW_TOKENS[size], min_length=NEW_TOKENS[size] + 1),
        device=str(device),
    )
    model.save(str(folder / "model"))


def byte_tokenizer(special: dict[str, str]) -> Any:
    """A byte-level tokenizer without merges: special tokens first, then the bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*special.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


def answer_rate(model: MatsModel, size: str, batch: int) -> float:
    """Answers a second in batches of this size, every one of NEW_TOKENS tokens, with the reference's four beams."""
    import torch

    rows = torch.nn.functional.normalize(torch.randn(batch, DIM, generator=torch.Generator().manual_seed(1)), dim=-1)
    prompts = [model.prompt("caption")] * batch
    timed(lambda: model.generate(rows, prompts), model.device)  # kernels are chosen and memory is taken the first time
    times: list[float] = []
    while sum(times) < (5 if size == "full" else 0.2):
        times.append(timed(lambda: model.generate(rows, prompts), model.device)[1])
    return batch * len(times) / sum(times)


def encoder_speeds(size: str, device: torch.device, clips: int, folder: Path) -> dict[str, Any]:
    """`encoder_speed` of Microsoft CLAP's own shapes for "full", of the embedded CLAP for "small", by number type.

    A model runs its encoder in float32; on a GPU bfloat16, which the encoder can do as well, stands beside it.
    """
    import importlib.util

    if size == "small":
        from mats_core.model.directory import BUILTIN

        uri, name = str(BUILTIN / "encoder"), "embedded CLAP"
    elif importlib.util.find_spec("msclap") is None:
        return {"name": "Microsoft CLAP", "skipped": "the msclap package is not installed"}
    else:
        write_gpt2_tokens(folder / "gpt2")
        uri, name = f"msclap:{random_clap(folder / 'clap.pth')}", "Microsoft CLAP 2023"
    dtypes = ("float32", "bfloat16") if device.type == "cuda" else ("float32",)
    return {"name": name} | {dtype: encoder_speed(uri, device, dtype, clips) for dtype in dtypes}


def encoder_speed(uri: str, device: torch.device, dtype: str, clips: int) -> dict[str, Any]:
    """Load time, memory with weights alone and at most, windows/s and texts/s of one encoder."""
    import torch

    from mats_core.encoders.load import load_encoder
    from mats_core.soundworld.corpus import text_record

    say(f"the encoder in {dtype}")
    empty_cache(device)
    encoder, load_s = timed(lambda: load_encoder(uri, device=str(device), dtype=dtype), device)
    weights_gb = memory_gb(device)
    batch = min(clips, 64)
    sound = 0.1 * torch.randn(batch, round(encoder.sample_rate * encoder.window_seconds))
    texts = [text_record(index)["caption"] for index in range(4 * batch)]
    rates = {}
    for what, embed, given in (
        ("windows_per_s", encoder.embed_audio, sound),
        ("texts_per_s", encoder.embed_text, texts),
    ):
        _, (_, seconds) = [timed(partial(embed, given), device) for _ in range(2)]  # the first one makes ready
        rates[what] = round(len(given) / seconds, 1)
    peak_gb = memory_gb(device, peak=True)
    return {"load_s": round(load_s, 2), "memory_gb": weights_gb, "peak_memory_gb": peak_gb, "batch": batch, **rates}


def write_gpt2_tokens(folder: Path) -> None:
    """GPT-2's 256 bytes, "!" first, and its end token: enough for a speed."""
    from tokenizers import pre_tokenizers

    folder.mkdir()
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def print_report(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    rows = [
        (f"parity: {name}", f"{value:.1e}" if isinstance(value, float) else str(value))
        for name, value in figures.get("parity", {}).items()
    ]
    for part in ("model", "encoder"):
        for name, value in figures[part].items():
            shown = ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else str(value)
            rows.append((f"{part}: {name}", shown))
    print_table(f"{figures['size']}, {figures['device']}", ("", ""), rows)
