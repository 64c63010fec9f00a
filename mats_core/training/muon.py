"""Muon: momentum whose step on a matrix is orthogonalised, so that all its directions are learned at one speed.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with the step size that
matches AdamW's (Liu et al., "Muon is Scalable for LLM Training", 2025). ``torch.optim.Muon`` does the same in
bfloat16; on a CPU without bfloat16 arithmetic that takes five times as long a step, so this one keeps the weights'
own precision. What is no matrix is stepped by torch's AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

# Coefficients of the quintic iteration that drives all singular values towards one (Jordan et al.).
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """The matrix [m, n] with its singular values moved to about one (0.7 to 1.2), by five Newton–Schulz steps."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, on groups of hidden matrices; AdamW on the others.

    A group with ``"matrices": True`` holds two-dimensional weights only. Embedding tables, output layers, biases and
    gains belong in groups without it.

    groups: dictionaries with ``params`` and, where they differ, ``matrices``, ``lr``, ``weight_decay`` and so on.
    lr: as one would give AdamW, often several times larger: a step's entries have a root mean square of 0.2 × lr.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "matrices": False}
        super().__init__(groups, defaults)
        for group in self.param_groups:
            if group["matrices"] and any(weight.ndim != 2 for weight in group["params"]):
                raise ValueError("a group of matrices holds something that is none; leave it to AdamW")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on the gradients there are; returns what `closure`, where given, computes."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if group["matrices"]:
                for weight in weights:
                    self._step_matrix(weight, group)
            elif weights:
                self._step_others(weights, group)
        return loss

    def _step_matrix(self, weight: Tensor, group: dict[str, Any]) -> None:
        gradient = weight.grad
        assert gradient is not None
        state = self.state[weight]
        if "momentum" not in state:  # AdamW may have stepped it, before the checkpoint gone on from
            state["momentum"] = torch.zeros_like(weight)
        average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(average, group["momentum"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(orthogonalised(ahead), alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)

    def _step_others(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[weight] for weight in weights]
        for weight, state in zip(weights, states, strict=True):
            if "mean" not in state:
                state.update(step=torch.zeros(()), mean=torch.zeros_like(weight), square=torch.zeros_like(weight))
        adamw(
            weights, [w.grad for w in weights if w.grad is not None],
            [s["mean"] for s in states], [s["square"] for s in states], [], [s["step"] for s in states],
            amsgrad=False, beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"],
            weight_decay=group["weight_decay"], eps=1e-8, maximize=False,
        )  # fmt: skip
