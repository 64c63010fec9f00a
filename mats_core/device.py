"""Which device a model runs on, in which number type, and how exact float32 is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from mats_core.errors import SettingsError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str) -> torch.device:
    """The device of that name; "auto" is the first GPU where there is one. SettingsError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise SettingsError("device", f'"{device}" is no device', "choose auto, cpu, cuda, cuda:0, …") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device", f'"{device}" was asked for, and no CUDA device is here', "choose auto or cpu")
    return place


def pick_dtype(dtype: str, device: str, setting: str = "dtype") -> torch.dtype:
    """The number type of that name for an LLM; "auto" is bfloat16 on CUDA and float32 elsewhere."""
    if dtype == "auto":
        return torch.bfloat16 if pick_device(device).type == "cuda" else torch.float32
    if dtype not in _DTYPES:
        raise SettingsError(setting, f'"{dtype}" is no number type', f"choose auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" of torch.float32, and so on."""
    return str(dtype).removeprefix("torch.")


def card_memory(device: torch.device) -> tuple[int, int] | None:
    """(free, all) bytes of a GPU's memory; None of a CPU, which pages."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return int(free), int(total)


def free_bytes(device: torch.device) -> int | None:
    """Bytes of a GPU's memory that new tensors can take: what is free, and what torch keeps for itself unused."""
    memory = card_memory(device)
    if memory is None:
        return None
    return memory[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


# -- float32 without shortcuts -----------------------------------------------------------------------------------------

_lock = threading.Lock()
_inside = 0  # scopes that are open, in all threads: the switches belong to the whole process
_restore: Callable[[], None] | None = None


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within it products and convolutions in float32 are computed in float32; afterwards all is as it was.

    A GPU may round their inputs to TF32 (ten bits) instead, and cuDNN's convolutions do so unless told otherwise:
    a spectrogram made that way is off by several dB in quiet bands. A decorator, too. The first scope that opens turns
    the switches, the last one that closes turns them back, whichever threads they are in.
    """
    global _inside, _restore
    with _lock:
        if _inside == 0:
            _restore = _turn_shortcuts_off()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _restore is not None:
                _restore()


def _turn_shortcuts_off() -> Callable[[], None]:
    """Turn TF32 and its like off; returns what turns them back.

    torch 2.9 has two sets of switches over one state. The older ones cannot be read where a user has turned the newer
    ones, and are left alone then: they would undo what cannot be read.
    """
    old: list[tuple[Callable[[Any], None], Any]] = []
    with suppress(RuntimeError):
        matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        old = [(torch.set_float32_matmul_precision, matmul), (_allow_cudnn, cudnn)]
    new = [(switch, switch.fp32_precision) for switch in _switches()]
    if old:
        torch.set_float32_matmul_precision("highest")
        _allow_cudnn(False)
    for switch, _ in new:
        if switch.fp32_precision not in ("none", "ieee"):  # "none" is float32 where nothing above says otherwise
            switch.fp32_precision = "ieee"

    def restore() -> None:
        for turn, value in old:
            turn(value)
        for switch, value in new:
            if switch.fp32_precision != value:
                switch.fp32_precision = value

    return restore


def _allow_cudnn(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed


def _switches() -> list[Any]:
    """The switches of torch 2.9 and later; none before."""
    backends: Any = torch.backends
    if not hasattr(backends, "fp32_precision"):
        return []
    cpu = backends.mkldnn
    return [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, cpu.matmul, cpu.conv, cpu.rnn]
