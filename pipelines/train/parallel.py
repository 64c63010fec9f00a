"""What several workers of one step must agree on: the gradient, a few sums, and where the frozen LLM lies.

The trained weights are few and lie whole on every worker; their gradients are summed in one flat buffer, once a step.
This is what DistributedDataParallel does, but for two things that rule it out here: it lays out its buckets anew after
the first step, so that a resumed run would add in another order; and it requires equally many passes of every worker.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from mats_core.errors import SettingsError
from mats_core.training.compiled import decoder_layers
from mats_core.training.step import sum_here

if TYPE_CHECKING:
    from mats_core.model.model import MatsModel


def sum_gradients(weights: Sequence[torch.Tensor], sums: torch.Tensor) -> torch.Tensor:
    """Sum every weight's gradient, and `sums` float32 [n], over all workers; returns the latter. Every worker gets the
    same numbers."""
    if world_size() == 1:
        return sum_here(weights, sums)
    grads = [w.grad if w.grad is not None else torch.zeros_like(w) for w in weights]
    flat = torch.cat([*(g.reshape(-1) for g in grads), sums])  # [all weights + n]
    dist.all_reduce(flat)
    at = 0
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = flat[at : at + grad.numel()].view_as(grad)
        at += grad.numel()
    return flat[at:]


def sum_numbers(numbers: Sequence[float], device: torch.device) -> list[float]:
    """Sum numbers over all workers, in float64."""
    if world_size() == 1:
        return [float(each) for each in numbers]
    whole = torch.tensor(list(numbers), dtype=torch.float64, device=device)  # [numbers]
    dist.all_reduce(whole)
    return whole.tolist()


def world_size() -> int:
    """How many workers there are now."""
    return dist.get_world_size() if dist.is_initialized() else 1


def shard_llm(model: MatsModel, device: torch.device) -> None:
    """Spread the frozen LLM's layers over all workers (FSDP2); what is trained stays whole on each.

    The layers' weights are gathered for their forward and backward pass and let go again. Embeddings and the head,
    which are used outside of the layers, stay whole too.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if "ignored_params" not in inspect.signature(fully_shard).parameters:
        problem = f"torch {torch.__version__} cannot spread the frozen LLM"
        raise SettingsError("fsdp", problem, "install torch 2.7 or newer, or say fsdp: never")
    llm = model.causal_lm
    layers: Any = decoder_layers(llm)
    frozen = {id(weight) for weight in layers.parameters() if not weight.requires_grad}
    whole = {weight for weight in model.llm.parameters() if id(weight) not in frozen}
    mesh = init_device_mesh(device.type, (world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    for weight in whole:
        weight.data = weight.data.to(device)
    for buffer in model.llm.buffers():
        buffer.data = buffer.data.to(device)
    model.mapper.to(device)
