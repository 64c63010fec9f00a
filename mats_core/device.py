"""Which device a model runs on, and in which number type."""

from __future__ import annotations

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


def pick_dtype(dtype: str, device: str) -> torch.dtype:
    """The number type of that name for an LLM; "auto" is bfloat16 on CUDA and float32 elsewhere."""
    if dtype == "auto":
        return torch.bfloat16 if pick_device(device).type == "cuda" else torch.float32
    if dtype not in _DTYPES:
        raise SettingsError("dtype", f'"{dtype}" is no number type', f"choose auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]
