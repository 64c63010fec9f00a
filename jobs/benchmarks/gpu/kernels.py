"""What the card itself gives, whether its answers are right, and how fast CLAP hears on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.benchmarks.gpu.section import BEAMS, Section, name_of, number, repeated, share_equal

if TYPE_CHECKING:
    import torch

    from mats_core.model.model import MatsModel


def ceilings(section: Section) -> None:
    """The rates that everything else is held against: matrix products, memory, transfers, launches."""
    import torch

    size, device = section.size, section.device
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        section.attempt(f"matrix product, {name_of(dtype)}", partial(_square, size.matrix, device, dtype))
    hidden, inner = size.llama.get("hidden_size", 4096), size.llama.get("intermediate_size", 11008)
    for slots in size.slots:  # a decoding step's own shape
        shape = (slots * BEAMS, hidden, inner)
        section.attempt(f"matrix product, {shape[0]} rows", partial(_product, shape, device, number(device)))
    section.attempt("copy on the device", partial(_copy, size.copy_mb, device))
    section.attempt("copy from pinned memory", partial(_fetch, size.copy_mb // 4, device))
    section.attempt("launches", partial(_launches, device))


def _square(rows: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    return _product((rows, rows, rows), device, dtype)


def _product(shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """On random numbers: zeros are multiplied faster."""
    import torch

    rows, inner, columns = shape
    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(inner, columns, device=device).to(dtype)
    seconds = repeated(lambda: [a @ b for _ in range(10)], device) / 10
    return {"shape": list(shape), "tflops": 2 * rows * inner * columns / seconds / 1e12, "us": seconds * 1e6}


def _copy(megabytes: int, device: torch.device) -> dict[str, Any]:
    import torch

    given = torch.randint(0, 255, (megabytes * 2**20,), dtype=torch.uint8, device=device)
    taken = torch.empty_like(given)
    seconds = repeated(lambda: taken.copy_(given), device)
    return {"gb_per_s": 2 * given.numel() / seconds / 1e9, "counted": "bytes read and written"}


def _fetch(megabytes: int, device: torch.device) -> dict[str, Any]:
    import torch

    given = torch.zeros(megabytes * 2**20, dtype=torch.uint8, pin_memory=device.type == "cuda")
    taken = torch.empty(given.shape, dtype=torch.uint8, device=device)
    seconds = repeated(lambda: taken.copy_(given, non_blocking=True), device)
    return {"gb_per_s": given.numel() / seconds / 1e9}


def _launches(device: torch.device) -> dict[str, Any]:
    """How long a kernel takes that does nearly nothing: what an eager step of 2 000 of them is bound by."""
    import torch

    number = torch.zeros(1, device=device)
    seconds = repeated(lambda: [number.add_(1) for _ in range(1000)], device)
    return {"us_each": seconds * 1e3}


def parity(section: Section) -> None:
    """The recorded runs of the authors' code; answers across batch sizes; CLAP here beside CLAP on the CPU."""
    from jobs.benchmarks.core import RECORDED
    from jobs.benchmarks.core import parity as recorded_runs

    section.attempt("recorded runs, float32", lambda: recorded_runs(RECORDED, str(section.device)))
    for dtype in ("bfloat16", "float16") if section.device.type == "cuda" else ("float32",):
        section.attempt(f"answers across batch sizes, {dtype}", partial(across_batches, section, dtype))
    if section.size.official_clap:
        section.attempt("log-mel of a loud tone over quiet noise", partial(_mel_differences, section))
    section.attempt("CLAP here and on the CPU", partial(_clap_difference, section))


def across_batches(section: Section, dtype: str) -> dict[str, Any]:
    """The share of answers of the shipped model that are token for token those of the first batch size."""
    import torch

    from jobs.benchmarks.inputs import world_captions
    from mats_core import inject_noise, load_model

    model: MatsModel = load_model("builtin", device=str(section.device), dtype=dtype)
    assert model.encoder is not None
    count = section.size.requests
    heard = model.encoder.embed_text(list(world_captions(count)))  # [count, D], with noise as a sound's
    noise = torch.randn(heard.shape, generator=torch.Generator().manual_seed(3)).to(heard.device)
    heard = inject_noise(heard, 0.003, noise=noise)
    prompts = [model.prompt("caption")] * count

    def answered(batch: int, asked: int = count) -> list[list[int]]:
        rows: list[list[int]] = []
        for at in range(0, asked, batch):
            rows += model.generate(heard[at : at + batch], prompts[at : at + batch], return_ids=True)[1]
        return rows

    first = answered(16)
    shares = {f"{batch} beside 16": share_equal(first, answered(batch)) for batch in (64, count)}
    alone = min(16, count)
    shares["1 beside 16"] = share_equal(first[:alone], answered(1, alone))
    return {"answers": count, "equal": shares, "least_equal": min(shares.values())}


def tones(count: int, rate: int, seconds: float) -> np.ndarray:
    """int16 [count, samples]: a loud tone over noise nearly 60 dB below it; eight different rows, then the same again."""
    time = np.arange(round(rate * seconds)) / rate
    noise = np.random.default_rng(0).standard_normal((8, len(time)))
    loud = np.stack([0.9 * np.sin(2 * np.pi * (200 + 150 * row) * time) for row in range(8)])
    samples = (32767 * (loud + 9e-4 * noise)).clip(-32768, 32767).astype(np.int16)
    return samples[np.arange(count) % 8]


def clap_uri(section: Section) -> str:
    """Microsoft CLAP with random weights, written once a run; the shipped encoder where sizes are small."""
    if not section.size.official_clap:
        from mats_core.model.directory import BUILTIN

        return str(BUILTIN / "encoder")
    from jobs.benchmarks.core import write_gpt2_tokens
    from jobs.benchmarks.inputs import random_clap

    tokens = Path(section.folder) / "gpt2"
    if not tokens.exists():
        write_gpt2_tokens(tokens)
    return f"msclap:{random_clap(Path(section.folder) / 'clap.pth')}"


def _allow_tf32(allowed: bool) -> None:
    import torch

    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def _mel_differences(section: Section) -> dict[str, Any]:
    """Largest and mean difference, in dB, of the package's log-mel to that in float64, with TF32 and without."""
    import torch

    from mats_core.encoders.msclap import build_model, package_settings

    settings = package_settings()
    sound = torch.from_numpy(tones(4, settings["sampling_rate"], settings["duration"])) / 32768.0
    with torch.inference_mode():
        htsat = build_model(settings).audio_encoder.base.htsat
        parts = torch.nn.Sequential(htsat.spectrogram_extractor, htsat.logmel_extractor)
        exact = parts.double()(sound.double())
        parts.float().to(section.device)
        found: dict[str, Any] = {}
        for name, allowed in (("tf32_on", True), ("tf32_off", False)):
            _allow_tf32(allowed)
            off = (parts(sound.to(section.device)).cpu().double() - exact).abs()
            found[name] = {"largest_db": float(off.max()), "mean_db": float(off.mean())}
    return found


def _clap_difference(section: Section) -> dict[str, Any]:
    """Embeddings of the same windows, as a run makes them: least cosine and largest difference to the CPU's."""
    import torch

    from mats_core.encoders.load import load_encoder

    uri = clap_uri(section)
    found: dict[str, Any] = {}
    encoder = load_encoder(uri, device="cpu")
    sound = torch.from_numpy(tones(4, encoder.sample_rate, encoder.window_seconds)) / 32768.0
    exact = encoder.embed_audio(sound).double()
    del encoder
    here = load_encoder(uri, device=str(section.device))
    for name, allowed in (("tf32_on", True), ("tf32_off", False)):  # what a user's program may have turned on before
        _allow_tf32(allowed)
        other = here.embed_audio(sound).cpu().double()
        cosine = torch.nn.functional.cosine_similarity(exact, other)
        found[name] = {"least_cosine": float(cosine.min()), "largest": float((exact - other).abs().max())}
    return found


def clap(section: Section) -> None:
    """Windows a second from int16 in pinned memory to embeddings: float32, bfloat16, both compiled."""
    from mats_core.encoders.load import load_encoder

    uri = clap_uri(section)
    dtypes = ("bfloat16", "float32") if section.device.type == "cuda" else ("float32",)
    encoders: dict[str, Any] = {}
    for dtype in dtypes:
        encoders[dtype] = load_encoder(uri, device=str(section.device), dtype=dtype)
        for windows in section.size.windows:
            section.attempt(f"{windows} windows, {dtype}", partial(window_rate, encoders[dtype], windows))
    for dtype, encoder in encoders.items():  # last: compiling may take longer than there is time
        compile_audio(encoder)
        for windows in reversed(section.size.windows):
            section.attempt(f"{windows} windows, {dtype}, compiled", partial(window_rate, encoder, windows))


def compile_audio(encoder: Any) -> None:
    """Let torch compile the audio tower, in place; on a CPU, where that needs a C++ compiler, only its tracing."""
    backend = "inductor" if encoder.device.type == "cuda" else "eager"
    tower = getattr(encoder.model, "audio_encoder", None) or encoder.model.audio_model
    tower.compile(backend=backend, dynamic=False)


def window_rate(encoder: Any, windows: int) -> dict[str, Any]:
    """Windows a second, the transfer included, and what the transfer alone takes."""
    import torch

    device = encoder.device
    sound = torch.from_numpy(tones(windows, encoder.sample_rate, encoder.window_seconds))
    if device.type == "cuda":
        sound = sound.pin_memory()
    seconds = repeated(lambda: encoder.embed_audio(sound), device)
    moved = repeated(lambda: sound.to(device, non_blocking=True), device, 0.2)
    return {"windows_per_s": windows / seconds, "ms": 1e3 * seconds, "transfer_ms": 1e3 * moved}
