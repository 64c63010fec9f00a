"""Decoder layers compiled for training: one kernel where eager torch starts a dozen, and fewer trips to memory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from mats_core.errors import first_line
from mats_core.model.model import MatsModel


def decoder_layers(causal_lm: Any) -> torch.nn.ModuleList:
    """The layers of an LLM: its list of modules that holds most weights."""
    lists = [each for each in causal_lm.modules() if isinstance(each, torch.nn.ModuleList)]
    return max(lists, key=lambda each: sum(weight.numel() for weight in each.parameters()))


def compile_layers(model: MatsModel) -> str | None:
    """Compile the LLM's decoder layers in place, for any batch and length; why not, where this machine cannot.

    Weights keep their names, and dropout draws what it draws uncompiled. Compiling happens in the first steps.
    """
    problem = cannot_compile(model.device)
    if problem is None:
        for layer in decoder_layers(model.causal_lm):
            layer.compile(dynamic=True, options=_OPTIONS)
    return problem


_OPTIONS = {"fallback_random": True}  # dropout's draws from torch's own generator, as without compiling


def cannot_compile(device: torch.device) -> str | None:
    """Why torch cannot compile here, found by trying it on a small function: a compiler is missing, say."""
    try:
        numbers = torch.ones(4, device=device, requires_grad=True)
        torch.compile(lambda x: (x.sin() * x).sum(), options=_OPTIONS)(numbers).backward()
    except Exception as error:  # what a compiler raises, from ImportError to its own
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def uncompiled() -> AbstractContextManager[Any]:
    """Within it, layers run as they are: for answers, whose growing caches would be compiled over and over."""
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
