"""Names of devices and number types, and float32 without shortcuts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import mats_core
from mats_core.device import exact_float32, pick_device, pick_dtype
from mats_core.errors import SettingsError
from mats_core.model.asking import Request


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(SettingsError, match='device: "gpu7" is no device; choose auto, cpu, cuda'):
        pick_device("gpu7")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match=r"device: .*no CUDA device is here; choose auto or cpu"):
        pick_device("cuda")


def test_number_types() -> None:
    assert pick_dtype("auto", "cpu") is torch.float32
    assert pick_dtype("bfloat16", "cpu") is torch.bfloat16
    with pytest.raises(SettingsError, match='dtype: "int3" is no number type; choose auto, float32'):
        pick_dtype("int3", "cpu")


# -- float32 without shortcuts -----------------------------------------------------------------------------------------

EXACT = ["highest", False, False]


def shortcuts() -> list[Any]:
    """What may be rounded: products, products on a GPU, cuDNN's convolutions."""
    found: list[Any] = []
    for read in (
        torch.get_float32_matmul_precision,
        lambda: torch.backends.cuda.matmul.allow_tf32,
        lambda: torch.backends.cudnn.allow_tf32,
    ):
        try:
            found.append(read())
        except RuntimeError:  # torch's newer switches were used, and its older ones cannot say what that means
            found.append(None)
    return found


@pytest.fixture(params=["high", "medium"])
def rounding(request: pytest.FixtureRequest) -> Iterator[list[Any]]:
    """A process in which all may be rounded."""
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(request.param)
    torch.backends.cudnn.allow_tf32 = True
    yield [request.param, True, True]
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = cudnn


def test_float32_is_exact_within_and_as_it_was_afterwards(rounding: list[Any]) -> None:
    assert shortcuts() == rounding
    with exact_float32():
        assert shortcuts() == EXACT
        with exact_float32():
            assert shortcuts() == EXACT
        assert shortcuts() == EXACT
    assert shortcuts() == rounding
    with pytest.raises(ZeroDivisionError), exact_float32():
        _ = 1 / 0
    assert shortcuts() == rounding


def test_the_last_thread_turns_the_switches_back(rounding: list[Any]) -> None:
    """The first that comes leaves first: the other is still at work."""
    second_in, first_out = threading.Event(), threading.Event()
    seen: list[Any] = []

    def second() -> None:
        with exact_float32():
            second_in.set()
            first_out.wait(10)
            seen.extend(shortcuts())

    thread = threading.Thread(target=second)
    with exact_float32():
        thread.start()
        assert second_in.wait(10)
    first_out.set()
    thread.join()
    assert seen == EXACT
    assert shortcuts() == rounding


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="switches of torch 2.9")
@pytest.mark.parametrize("place", ["everywhere", "products and convolutions"])
def test_torchs_newer_switches(place: str) -> None:
    backends: Any = torch.backends
    leaves = [backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul]
    # note: cuDNN's other switch too, or the older switches cannot be read afterwards
    before = [(each, each.fp32_precision) for each in (backends, *leaves, backends.cudnn.rnn)]
    for each in leaves:
        each.fp32_precision = "none" if place == "everywhere" else "tf32"
    if place == "everywhere":
        backends.fp32_precision = "tf32"
    try:
        rounded = [each.fp32_precision for each in leaves]
        assert rounded[:2] == ["tf32", "tf32"]
        with exact_float32():
            assert [each.fp32_precision in ("ieee", "none") for each in leaves] == [True] * 3
        assert [each.fp32_precision for each in leaves] == rounded
    finally:
        for each, value in before:
            each.fp32_precision = value


def test_everything_that_is_compared_with_the_reference_is_exact(rounding: list[Any], tiny_model_dir: str) -> None:
    """Spectrogram, both towers, mapper, LLM and loss, as the model calls them, and what a training step calls."""
    from mats_core.training.loop import whole_batch
    from mats_core.training.schedule import TrainingSettings
    from mats_core.training.step import make_optimizer, train_step

    model = mats_core.load_model(tiny_model_dir, device="cpu", merge_adapter=False)
    parts = {
        "spectrogram": model.encoder.mel,
        "audio tower": model.encoder.model.audio_model,
        "text tower": model.encoder.model.text_model,
        "mapper": model.mapper,
        "LLM": model.causal_lm,
    }
    seen: dict[str, list[Any]] = {name: [] for name in parts}
    for name, module in parts.items():
        module.register_forward_pre_hook(lambda *given, name=name: seen[name].append(shortcuts()))
    vectors = torch.from_numpy(model.embed_windows([torch.zeros(16_000).numpy()]))
    model.encoder.embed_text(["rain"])
    model.answer_embeddings(vectors, [Request("caption")], {"max_new_tokens": 2})
    prompts = [model.prompt("caption")]
    settings = TrainingSettings(steps=2, batch_size=1)
    optimizer = make_optimizer(model, settings)
    backward: list[Any] = []
    next(model.mapper.parameters()).register_hook(lambda gradient: backward.append(shortcuts()))
    train_step(model, optimizer, settings, whole_batch(model, 0, vectors, prompts, ["rain"]))
    assert all(values and all(each == EXACT for each in values) for values in seen.values()), seen
    assert backward == [EXACT]
    assert shortcuts() == rounding
