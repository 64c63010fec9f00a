"""Checkpoints of a training run: one file each, at any URL, put in place whole or not at all.

A checkpoint holds what is trained, the optimizer's moments, and as JSON the rest: the step, which is also the position
in the data and the state of every random draw (all are functions of seed and step), the curves, and the best loss so
far. A checksum covers all of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.fingerprint import combine, sealed, unsealed
from pipelines.data import generations
from pipelines.output.lease import check_generation

if TYPE_CHECKING:
    import torch

    from mats_core.model.model import MatsModel

_NAME = re.compile(r"step-(\d{9})(-[0-9a-f]{12})?\.ckpt$")
_OPTIMIZER = "optimizer"
log = logging.getLogger(__name__)


class ForeignCheckpoint(SettingsError):
    """A checkpoint that this run cannot go on from, though nothing is wrong with it."""


@dataclass
class TrainState:
    """How far a run is. `step` counts finished steps; `history` holds the points of the curves; `dtype` is the frozen
    LLM's; `threads` of a worker, each number the run was continued with; `compiled`: whether the LLM's layers are."""

    step: int = 0
    tokens: int = 0
    samples: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    dtype: str = ""
    threads: list[int] = field(default_factory=list)
    compiled: bool | None = None


def named_weights(model: MatsModel) -> dict[str, torch.Tensor]:
    """What is trained, by name (`mapper.…`, `llm.…`). The optimizer must be made already."""
    named = {f"mapper.{name}": weight for name, weight in model.mapper.named_parameters()}
    return named | {f"llm.{name}": weight for name, weight in model.llm.named_parameters() if weight.requires_grad}


def save_checkpoint(
    folder: str, state: TrainState, model: MatsModel, optimizer: torch.optim.Optimizer, run_id: str = ""
) -> str:
    """Write a checkpoint, under a name of the run that writes it (`data.generations`), and return its URI.

    Raises LeaseLost, StorageError (a full disk, say); earlier ones stay as they are.
    """
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    for name, weight in named_weights(model).items():
        tensors[f"weight/{name}"] = weight.detach().cpu().contiguous()
        for kind, value in optimizer.state.get(weight, {}).items():
            tensors[f"{_OPTIMIZER}/{kind}/{name}"] = value.detach().cpu().contiguous()
    name = f"step-{state.step:09d}{run_id and '-'}{run_id}.ckpt"
    uri, (output, place) = storage.join(folder, name), generations.place_of(folder)
    facts = sealed({**asdict(state), "tensors": _fingerprint(tensors)})
    check_generation(output, run_id)
    storage.write_bytes(uri, save(tensors, {"state": json.dumps(facts)}))
    check_generation(output, run_id, f"{place}/{name}")
    return uri


def list_checkpoints(folder: str) -> dict[int, str]:
    """Step → URI of those that count, in order."""
    files = generations.counted(folder, list(storage.list_files(folder)) if storage.is_dir(folder) else [])
    return dict(sorted((int(match[1]), info.uri) for info in files if (match := _NAME.search(info.uri))))


def load_newest(
    folder: str, model: MatsModel, optimizer: torch.optim.Optimizer, first_worker: bool = True,
    warn: Callable[[str], None] = log.warning,
) -> TrainState:  # fmt: skip
    """Restore the newest checkpoint that can be read; a fresh state when there is none. A damaged file is passed over,
    and the first worker renames it to `….damaged`, so that `prune` does not count it. Raises ForeignCheckpoint for one
    of other weights."""
    for step, uri in reversed(list_checkpoints(folder).items()):
        try:
            return load_checkpoint(uri, model, optimizer)
        except ForeignCheckpoint:
            raise
        except ValueError as error:
            warn(f"the checkpoint of step {step} is damaged and set aside: {error}")
            if first_worker:
                _set_aside(uri)
        except storage.StorageError as error:
            if first_worker or error.code != "not_found":  # else the first worker was faster
                raise
    return TrainState()


def _set_aside(uri: str) -> None:
    path = storage.local_path(uri)
    if path is not None:
        os.replace(path, path + b".damaged")
    else:
        storage.write_bytes(f"{uri}.damaged", storage.read_bytes(uri))
        storage.remove_tree(uri)


def load_checkpoint(uri: str, model: MatsModel, optimizer: torch.optim.Optimizer | None = None) -> TrainState:
    """Restore one checkpoint into model and, where given, optimizer.

    Raises ForeignCheckpoint when it holds other weights than are trained here, ValueError when it is damaged.
    """
    import torch

    state, tensors = _parse(storage.read_bytes(uri))
    weights = named_weights(model)
    shapes = {f"weight/{name}": weight.shape for name, weight in weights.items()}
    if shapes != {name: tensor.shape for name, tensor in tensors.items() if name.startswith("weight/")}:
        problem = f"its checkpoint {storage.public_uri(uri)} holds other weights than are trained here"
        raise ForeignCheckpoint("output", problem, "choose another OUTPUT, or --overwrite")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[f"weight/{name}"])
    if optimizer is not None:
        kinds = sorted({name.split("/", 2)[1] for name in tensors if name.startswith(f"{_OPTIMIZER}/")})
        fused = bool(optimizer.defaults.get("fused"))
        for name, weight in weights.items():
            moments = {kind: tensors.get(f"{_OPTIMIZER}/{kind}/{name}") for kind in kinds}
            # note: step counts stay on the CPU unless the optimizer's kernels read them on the device
            optimizer.state[weight] = {
                kind: value.to(weight.device) if value.ndim or fused else value
                for kind, value in moments.items()
                if value is not None
            }
    return state


def _parse(data: bytes) -> tuple[TrainState, dict[str, torch.Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = unsealed(json.loads(header["__metadata__"]["state"]))
        told = facts.pop("tensors", None)  # None: written before there were checksums
        state = TrainState(**facts)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a whole checkpoint ({type(error).__name__})") from error
    if told is not None and told != _fingerprint(tensors):
        raise ValueError("its numbers are not those that were written: their checksum is another")
    return state, tensors


def _fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    """Of names, types, shapes and numbers, whatever their order."""
    import torch

    hashes = []
    for name, tensor in sorted(tensors.items()):
        numbers = tensor.reshape(-1).view(torch.uint8).numpy()
        hashes.append((f"{name} {tensor.dtype} {list(tensor.shape)}", hashlib.sha256(numbers).hexdigest()))
    return combine(hashes)


def prune(folder: str, keep: int, best: int | None) -> list[int]:
    """Remove all but the last `keep` checkpoints and the best one; returns the steps that stay."""
    found = list_checkpoints(folder)
    stay = {*list(found)[-keep:], *([best] if best in found else [])}
    for step, uri in found.items():
        if step not in stay:
            storage.remove_tree(uri)
    return sorted(stay)
