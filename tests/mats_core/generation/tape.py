"""A stand-in for CUDA graphs on a CPU, as strict as they are: operations are taped with their tensors, and played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

Step = Callable[[], None]

SYNCHRONISES = {
    "aten._local_scalar_dense", "aten.item", "aten.is_nonzero", "aten.nonzero", "aten.argwhere", "aten.masked_select",
    "aten.unique_dim", "aten._unique2", "aten.repeat_interleave", "aten.equal", "aten.bincount", "aten.cpu",
}  # fmt: skip
"""Operations that read a number off the GPU, have a shape that depends on one, or bring one there from Python."""
RANDOM = {
    "aten.bernoulli",
    "aten.multinomial",
    "aten.normal",
    "aten.uniform",
    "aten.rand",
    "aten.randn",
    "aten.randint",
}


class NotCapturable(RuntimeError):
    """An operation that a CUDA graph could not hold."""


class Tape(TorchDispatchMode):
    """Runs operations, and notes each with the very tensors that went in and came out."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        check(func, args)
        out = func(*args, **kwargs)
        self.notes.append((func, args, kwargs, out))
        return out


def check(func: Any, args: Any) -> None:
    """Raise NotCapturable for what a CUDA graph could not hold."""
    name = str(func.overloadpacket)
    # note: Python's numbers come by here too on a CPU, where they are written into a tensor; on a GPU they do not
    if name == "aten.lift_fresh" and (args[0].ndim or args[0].device.type == "meta"):
        raise NotCapturable("a tensor made of Python's numbers")
    if name in SYNCHRONISES or name.rstrip("_") in RANDOM:
        raise NotCapturable(name)
    if name in ("aten.index", "aten.index_put", "aten.index_put_"):  # by a mask: how many are chosen is not known
        indices = [each for each in tree_flatten(args[1])[0] if isinstance(each, torch.Tensor)]
        if any(each.dtype in (torch.bool, torch.uint8) for each in indices):
            raise NotCapturable(f"{name} by a mask")


class TapeRecorder:
    """As `graphs.CudaRecorder`. state: all tensors that outlive a step; capturing changes none of them."""

    def __init__(self, state: Callable[[], list[torch.Tensor]]) -> None:
        self.state, self.captures, self.replays, self.operations, self.forgotten = state, 0, 0, 0, 0

    def warm(self, step: Step) -> None:
        step()

    def forget(self) -> None:
        self.forgotten += 1

    def capture(self, step: Step) -> Step:
        tape, kept = Tape(), [(each, each.clone()) for each in self.state()]
        with tape:
            step()
        for tensor, before in kept:
            tensor.copy_(before)
        self.captures += 1
        self.operations = len(tape.notes)

        def replay() -> None:
            self.replays += 1
            for func, args, kwargs, out in tape.notes:
                again = func(*args, **kwargs)
                for old, new in zip(tree_flatten(out)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        return replay
