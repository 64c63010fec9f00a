"""Reading weights that others made: nothing in them is run, and what does not fit is named."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mats_core.errors import SettingsError
from mats_core.weights import check_finite, compare_keys, load_weights, outline, read_pickle, read_tensors, some

SCRIPT = """
import sys
import mats_core

model = mats_core.load_model("builtin")
assert "sklearn" not in sys.modules
from transformers.generation import candidate_generator
from transformers.utils import is_sklearn_available

assert candidate_generator.is_sklearn_available is is_sklearn_available and is_sklearn_available()
from sklearn.metrics import roc_curve

ours, theirs = (curve([0, 1, 1, 0], [0.1, 0.5, 0.4, 0.3]) for curve in (candidate_generator.roc_curve, roc_curve))
assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))
"""


@pytest.mark.processes
@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_scikit_learn_waits_until_assisted_generation_asks_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


class _Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path: Path) -> None:
    torch.save({"a": _Runs(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(SettingsError, match=r"checkpoint: shown: .*nothing in it was run; give tensors"):
        read_pickle(tmp_path / "bad.pth", "checkpoint", "shown", "tensors")
    assert not (tmp_path / "ran").exists()


def test_tensors_that_are_not_finite_or_not_whole_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(3), "ids": torch.ones(2, dtype=torch.int64)}, file)
    assert sorted(read_tensors(file, "model")) == ["ids", "x"]
    save_file({"x": torch.tensor([1.0, float("inf")])}, file)
    with pytest.raises(SettingsError, match=r"model: in .*a\.safetensors, x holds NaN or infinity"):
        read_tensors(file, "model")
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(SettingsError, match=r"a\.safetensors is not a whole safetensors file"):
        read_tensors(file, "model")
    broken = torch.nn.Linear(2, 2)
    broken.weight.data[0, 0] = float("nan")
    with pytest.raises(SettingsError, match="encoder: in e, weight holds NaN or infinity"):
        check_finite("encoder", "e", broken)


def test_weights_that_do_not_fit_are_all_named() -> None:
    expected = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}
    given = {"a": torch.ones(2), "b": torch.ones(4), "d": torch.ones(1)}
    assert compare_keys(expected, given) == ["c is missing, expected [1]", "b is [4], expected [3]", "d is unknown"]
    assert some(["x"] * 3, 2) == "x; x; and 1 more"
    with pytest.raises(SettingsError, match=r"model: m does not fit mats.json: bias is missing, expected \[2\]"):
        load_weights(torch.nn.Linear(2, 2), {"weight": torch.ones(2, 2)}, "m")


def test_weights_go_into_an_outline_as_copies() -> None:
    with torch.device("meta"):
        outline = torch.nn.Linear(2, 1, bias=False)
    given = {"weight": torch.ones(1, 2, dtype=torch.float16)}
    load_weights(outline, given, "m")
    given["weight"].zero_()
    assert outline.weight.tolist() == [[1.0, 1.0]]
    assert outline.weight.dtype == torch.float32


KINDS = {
    "llama": {"num_key_value_heads": 1}, "mistral": {"num_key_value_heads": 1}, "qwen2": {"num_key_value_heads": 1},
    "gpt2": {}, "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16}, "falcon": {"alibi": True}, "bloom": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_outline_has_the_shapes_and_no_numbers(kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(kind, **sizes, **KINDS[kind])
    made = outline(lambda: AutoModelForCausalLM.from_config(config))
    assert all(weight.is_meta for weight in made.parameters())
    expected = {name: value.shape for name, value in AutoModelForCausalLM.from_config(config).state_dict().items()}
    assert {name: value.shape for name, value in made.state_dict().items()} == expected


def test_an_outline_of_what_computes_its_weights() -> None:
    class Slopes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slopes = torch.nn.Parameter(torch.zeros(4) + torch.arange(4))

    assert outline(Slopes).slopes.is_meta
