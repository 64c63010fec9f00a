"""Reading weights that others made: nothing in them is run, and nothing broken in them gets far.

Also what `transformers` is to leave alone while it loads them.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from mats_core.errors import SettingsError
from mats_core.pretrained import check_zip
from mats_core.storage.descriptions import read_shapes

_NEW = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_FILLED = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.fill_, torch.Tensor.zero_)
Module = TypeVar("Module", bound=torch.nn.Module)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_pickle(file: Path, setting: str, shown: str, expected: str, mapped: bool = False) -> Any:
    """What a file of `torch.save` holds, read with `weights_only`: nothing in it is executed.

    mapped: read each tensor when it is used, where the file is of the kind that allows it. Raises SettingsError that
    says what was `expected` and why the file could not be read.
    """
    check_zip(file, setting, shown)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch also warns of what it then refuses
            mapped = mapped and zipfile.is_zipfile(file)
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a truncated zip, not a pickle, a pickle that wants to run something
        raise SettingsError(setting, f"{shown}: {_why_unread(file, error)}", f"give {expected}") from None


def read_tensors(path: Path, setting: str) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file; SettingsError when it is broken or holds NaN."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_shapes(path, setting)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        why = f"{path} is no whole safetensors file ({error})"
        raise SettingsError(setting, why, "copy or make it again") from error
    for name, tensor in tensors.items():
        _refuse_not_finite(setting, str(path), name, tensor)
    return tensors


def check_finite(setting: str, uri: str, module: torch.nn.Module) -> None:
    """SettingsError naming the first weight or stored buffer (a batch norm's means) that holds NaN or infinity."""
    for name, weight in module.state_dict().items():
        _refuse_not_finite(setting, uri, name, weight)


def _refuse_not_finite(setting: str, uri: str, name: str, tensor: torch.Tensor) -> None:
    if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        raise SettingsError(setting, f"in {uri}, {name} holds NaN or infinity", "give weights that are finite")


def outline(make: Callable[[], Module]) -> Module:
    """The module that `make` makes, of which each weight has a shape and no numbers."""
    try:
        with _WithoutNumbers():
            return make()
    except RuntimeError:  # its weights are computed from tensors that have numbers: then none has any
        with torch.device("meta"):
            return make()


class _WithoutNumbers(TorchFunctionMode):
    """New tensors are on the meta device, but for sequences of numbers; nothing is drawn or filled in.

    On that device alone (`torch.device("meta")`) a module is several times slower to make: what computes a sequence
    there imports torch's compiler.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _NEW and kwargs.get("device") is None:
            return function(*args, **kwargs | {"device": "meta"})
        if function in _FILLED:
            return args[0]
        if getattr(function, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def load_weights(module: torch.nn.Module, state: dict[str, torch.Tensor], name: str) -> None:
    """Put `state` in place of the weights of `module`, which may be an outline on the meta device.

    SettingsError lists every key that is missing, unknown or misshapen.
    """
    expected = module.state_dict()
    wrong = compare_keys(expected, state)
    if wrong:
        why = f"{name} does not fit mats.json: {some(wrong)}"
        raise SettingsError("model", why, "give the weights it was saved with")
    # copies: what was read may be a view of the file, and the file may be written again
    copies = {key: tensor.to(expected[key].dtype, copy=True) for key, tensor in state.items()}
    module.load_state_dict(copies, assign=True)


def compare_keys(expected: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> list[str]:
    """What does not fit, and what was expected, in words; empty when all does."""
    wanted, found = ({key: list(tensor.shape) for key, tensor in each.items()} for each in (expected, given))
    wrong = [f"{key} is missing, expected {wanted[key]}" for key in sorted(wanted.keys() - found.keys())]
    both = sorted(wanted.keys() & found.keys())
    wrong += [f"{key} is {found[key]}, expected {wanted[key]}" for key in both if found[key] != wanted[key]]
    return wrong + [f"{key} is unknown" for key in sorted(found.keys() - wanted.keys())]


def tensor_fault(name: Any, value: Any, floating: bool = True) -> str | None:
    """What keeps an entry of a state dict from being a dense, finite tensor under a name; None where nothing does.

    floating=False lets whole numbers pass as well.
    """
    if not isinstance(name, str):
        return f"the key {name!r:.80} is of type {type(name).__name__}, not a name"
    if not isinstance(value, torch.Tensor):
        return f"{name} is of type {type(value).__name__}, not a tensor"
    if value.layout is not torch.strided or value.is_nested or value.is_quantized:
        return f"{name} is a sparse, nested or quantized tensor, not a dense one"
    if value.device.type != "cpu" or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return f"{name} is a tensor without numbers of its own"
    if value.dtype not in _FLOATS:
        kind = str(value.dtype).removeprefix("torch.")
        return f"{name} is of {kind}, not of floating-point numbers" if floating or value.is_complex() else None
    return None if torch.isfinite(value.float()).all() else f"{name} holds NaN or infinity"


def some(wrong: list[str], most: int = 20) -> str:
    """A list of what is wrong in one line, cut to `most`, with how many more there are."""
    return "; ".join(wrong if len(wrong) <= most else [*wrong[:most], f"and {len(wrong) - most} more"])


def _why_unread(file: Path, error: Exception) -> str:
    """Why torch did not read a file. Torch has one message for a stray byte and for a pickle that wants to run
    something, so what the file begins with decides first: a zip, or the protocol mark of a pickle."""
    with file.open("rb") as opened:
        head = opened.read(4)
    if not head:
        return "this file is empty"
    if not head.startswith((b"PK", b"\x80")):
        return f"this file is broken or not a PyTorch file (it begins with {head!r})"
    text = str(error)
    if "weights only" in text.lower() or "weights_only" in text:
        asked = re.search(r"GLOBAL ([\w.]+)", text)
        what = f" (it asks for {asked[1]})" if asked else ""
        return f"this file holds more than tensors and plain values{what} and was refused, nothing in it was run"
    return "this file is cut short or broken"


@contextmanager
def no_bars() -> Iterator[None]:
    """Keep transformers 5 from drawing a progress bar for every model it loads: a job draws one, of its own work."""
    from transformers.utils import logging

    were_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_on:
            logging.enable_progress_bar()


def defer_sklearn() -> None:
    """Keep transformers 4 from importing scikit-learn with every model: a quarter of what a process takes to start.

    Only assisted generation needs it, and imports it when it is first used, as transformers 5 does by itself.
    """
    name = "transformers.generation.candidate_generator"
    if name in sys.modules:
        return
    import transformers.utils as utils

    is_there = utils.is_sklearn_available
    utils.is_sklearn_available = lambda: False
    try:
        module: Any = importlib.import_module(name)
    finally:
        utils.is_sklearn_available = is_there
    module.is_sklearn_available = is_there
    module.roc_curve = lambda *given, **options: importlib.import_module("sklearn.metrics").roc_curve(*given, **options)
