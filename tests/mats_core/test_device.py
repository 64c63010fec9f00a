"""Names of devices and number types."""

from __future__ import annotations

import pytest
import torch

from mats_core.device import pick_device, pick_dtype
from mats_core.errors import SettingsError


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
