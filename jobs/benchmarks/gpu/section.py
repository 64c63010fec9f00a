"""What a section of `mats benchmark gpu` measures with: its deadline, a place for results, sizes, inputs."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.benchmarks.measuring import empty_cache, memory_gb, wait_for

if TYPE_CHECKING:
    import torch

END = 2
"""The end token of LLaMA."""
BEAMS = 4


@dataclass(frozen=True)
class Size:
    """Shapes to measure.

    llama: of `LlamaConfig`, whose defaults are the 7 B model's. prompt: tokens of one, on average; means: tokens of an
    answer, on average. batches, slots: of `generate` and of the engine, and how often each slot is filled. windows,
    samples: a batch of CLAP, a training step. matrix: rows and columns of the product that sets the ceiling.
    """

    llama: dict[str, int]
    mapper: dict[str, int]
    prompt: int
    means: tuple[int, int]
    batches: tuple[int, ...]
    slots: tuple[int, ...]
    refills: int
    windows: tuple[int, ...]
    samples: tuple[int, ...]
    requests: int
    matrix: int
    copy_mb: int
    official_clap: bool


SMALL_LLAMA = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 300}
SMALL_LLAMA |= {"num_hidden_layers": 2, "num_attention_heads": 4}
SIZES = {
    "7b": Size(
        {}, {}, 76, (30, 60), (16, 64, 128), (64, 128, 192), 5, (64, 256), (48, 256), 256, 8192, 4096, True,
    ),
    "small": Size(
        SMALL_LLAMA, {"vectors": 8, "clip_tokens": 8, "width": 64, "layers": 2, "heads": 8},
        12, (4, 8), (2, 4), (2, 4), 2, (2,), (4,), 4, 256, 4, False,
    ),
}  # fmt: skip


class Section:
    """One section of a run. Every result goes as a JSON line to a file and to stdout, as soon as it is there.

    deadline: of `time.monotonic()`. results: where the lines go; folder: to work in, shared by all sections.
    """

    def __init__(
        self, name: str, size: str, device: torch.device, results: Path, folder: Path, deadline: float
    ) -> None:
        self.name, self.size, self.device = name, SIZES[size], device
        self.results, self.folder, self.deadline = results, folder, deadline

    def tell(self, what: str, **figures: Any) -> None:
        """Write a result."""
        write_line(self.results, {"section": self.name, "what": what, **figures})

    def left(self) -> float:
        """Seconds to the deadline."""
        return self.deadline - time.monotonic()

    def attempt(self, what: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measure and tell; {} where that failed, which is told with its traceback, or where no time or memory is left.

        A failure is that of `what` alone. Memory that nothing holds any more is given back.
        """
        import torch

        if self.left() <= 0:
            self.tell(what, skipped="no time left")
            return {}
        began = time.monotonic()
        found: dict[str, Any] = {}
        try:
            empty_cache(self.device)
            found = measure()
            wait_for(self.device)
            peak = {"peak_gb": memory_gb(self.device, peak=True)} if self.device.type == "cuda" else {}
            self.tell(what, **found, **peak, took_s=round(time.monotonic() - began, 2))
        except torch.OutOfMemoryError as error:  # a finding, not a failure
            found = {}
            self.tell(what, skipped=f"out of memory: {str(error)[:200]}", took_s=round(time.monotonic() - began, 2))
        except Exception as error:
            found = {}
            self.tell(what, **told(error), took_s=round(time.monotonic() - began, 2))
        gc.collect()
        return found


def told(error: BaseException) -> dict[str, str]:
    """An exception as fields of a result."""
    return {
        "error": f"{type(error).__name__}: {str(error)[:500]}",
        "traceback": "".join(traceback.format_exception(error))[-4000:],
    }


def write_line(results: Path, line: dict[str, Any]) -> None:
    """Append a result to the file, and print it; numbers are rounded to four figures."""
    text = json.dumps({name: _rounded(value) for name, value in line.items()}, ensure_ascii=False, default=str)
    with results.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
    print(text, flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return value


def repeated(run: Callable[[], Any], device: torch.device, seconds: float = 1.0, most: int = 50) -> float:
    """Median seconds of `run()`, a GPU's work included, over at least three and about so many seconds' worth (on a CPU,
    where it is only tried, a twentieth)."""
    seconds *= 1.0 if device.type == "cuda" else 0.05
    run()
    wait_for(device)
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < most):
        began = time.perf_counter()
        run()
        wait_for(device)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def number(device: torch.device) -> torch.dtype:
    """The number type measured in: bfloat16 on a GPU, float32 on a CPU."""
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32


def name_of(dtype: torch.dtype) -> str:
    """ "float32" of torch.float32."""
    return str(dtype).removeprefix("torch.")


def random_prompts(count: int, mean: int, hidden: int, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    """`count` prompts as the LLM's input vectors [T, H], T about `mean` (a twelfth of it up or down)."""
    import torch

    lengths = np.clip(np.random.default_rng(1).normal(mean, mean / 12, count).round().astype(int), 2, 2 * mean)
    draw = torch.Generator(device=device).manual_seed(1)
    return [0.02 * torch.randn(int(n), hidden, generator=draw, device=device, dtype=dtype) for n in lengths]


def answer_lengths(count: int, mean: int, seed: int = 2) -> list[int]:
    """Tokens of `count` answers, the end token included, with the spread that answers have.

    Their deviation is 0.38 of the mean: of 16, 64 and 128 such answers the longest is about 1.7, 1.9 and 2.0 times the
    mean, as it was measured on answers of a trained model.
    """
    drawn = np.random.default_rng(seed).normal(mean, 0.38 * mean, count)
    return [int(n) for n in np.clip(drawn.round(), 2, 3 * mean)]


def clip_flops(config: Any, prompt: float, tokens: float) -> float:
    """Floating-point operations that a clip needs: its prompt once, and every token of its four beams.

    13.2 GFLOP a position of the 7 B model in its weights, and a twentieth more for attention.
    """
    layer = config.hidden_size * (2 * config.hidden_size + 2 * kv_width(config) + 3 * config.intermediate_size)
    weights = config.num_hidden_layers * layer + config.vocab_size * config.hidden_size
    return 1.05 * 2 * weights * (prompt + BEAMS * tokens)


def kv_width(config: Any) -> int:
    """How wide a token's keys are."""
    return config.hidden_size * config.num_key_value_heads // config.num_attention_heads


def share_equal(ours: list[list[int]], theirs: list[list[int]]) -> float:
    """The share of rows that are equal."""
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours)
