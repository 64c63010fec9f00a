"""`calibration.json` of a model directory: how signs of an answer become the chance that it is right. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mats_core.errors import checked
from mats_core.storage.descriptions import read_json
from mats_core.storage.fingerprint import hash_settings
from mats_core.storage.writing import write_bytes

FILE = "calibration.json"
ALL = "all"
"""The curve of a task that was not judged by itself: fitted on the answers of all tasks."""


CENTRED = {"clap_centred": ("answer", "sound"), "question_centred": ("question", "sound")}
"""Signs that a curve makes of vectors: cosines of two, each less the mean of those it was fitted on, for what all
answers, or all sounds, have in common says nothing of any."""


@dataclass(frozen=True)
class Signs:
    """What is known of an answer. values: numbers by name, None where not known, and 1 for words; vectors: embeddings
    [D] of the "answer", the "question" and, before Santa, the "sound", those there are."""

    values: dict[str, float | None]
    vectors: dict[str, np.ndarray] = field(default_factory=dict)


def with_centred(signs: Signs, centres: Mapping[str, Sequence[float] | np.ndarray]) -> dict[str, float | None]:
    """The values with those of CENTRED, None where a vector or its centre is not known, or of another size."""
    found = dict(signs.values)
    for name, pair in CENTRED.items():
        apart = [
            signs.vectors[each] - np.asarray(centres[each])
            for each in pair
            if each in signs.vectors and each in centres and len(signs.vectors[each]) == len(centres[each])
        ]
        length = float(np.prod([np.linalg.norm(each) for each in apart]))
        found[name] = float(apart[0] @ apart[1]) / max(1e-9, length) if len(apart) == 2 else None
    return found


def value_of(values: Mapping[str, float | None], name: str) -> float | None:
    """A sign's value: a number, a word ("answer:bell", 0 where it does not stand there), or a number that counts where
    a word stands ("question:is*share")."""
    word, _, number = name.partition("*")
    if number:
        return values.get(number) if word in values else 0.0
    return values.get(name, 0.0 if ":" in name else None)


class Curve(BaseModel):
    """Signs → a chance: σ(bias + Σ weight · (sign − mean) / scale), and where there are `steps`, what they make of that
    sum. A number that is not known counts as its mean, a word that does not stand in the answer as 0.

    centres: of the vectors of CENTRED, [D] each. steps: (log-odds, chance), rising. answers: how many it was fitted on;
    right: the share of them that was right; ece, auroc, brier: of held-out folds.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    signs: list[str]
    means: list[float]
    scales: list[float]
    weights: list[float]
    bias: float
    centres: dict[str, list[float]] = Field(default_factory=dict)
    steps: list[tuple[float, float]] = Field(default_factory=list)
    answers: int = Field(ge=0)
    right: float = Field(ge=0, le=1)
    ece: float | None = None
    auroc: float | None = None
    brier: float | None = None

    @model_validator(mode="after")
    def _of_one_size(self) -> Curve:
        if {len(self.means), len(self.scales), len(self.weights)} != {len(self.signs)}:
            raise ValueError("signs, means, scales and weights are not of one size")
        if len({len(centre) for centre in self.centres.values()}) > 1:
            raise ValueError("the centres are not of one size")
        if any(scale <= 0 for scale in self.scales) or self.steps != sorted(self.steps):
            raise ValueError("a scale is not above 0, or the steps do not rise")
        return self

    def log_odds(self, signs: Signs) -> float:
        """Of the answer with these signs, before the steps."""
        total = self.bias
        values = with_centred(signs, self.centres)
        for name, mean, scale, weight in zip(self.signs, self.means, self.scales, self.weights, strict=True):
            value = value_of(values, name)
            if value is not None and math.isfinite(value):
                total += weight * (value - mean) / scale
        return total

    def chance(self, signs: Signs) -> float:
        """That the answer is right, 0 to 1."""
        odds = self.log_odds(signs)
        if self.steps:
            at, chances = zip(*self.steps, strict=True)
            return float(np.interp(odds, at, chances))
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, odds))))


class Calibration(BaseModel):
    """What `mats calibrate` found out about a model. model: its fingerprint; data, judged_by: what was judged and how,
    in words; rerank: of how many beams the answers were the best, as in `ask_clips`; tasks: a curve each,
    and one for ALL.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    model: str
    data: str = ""
    judged_by: str = ""
    rerank: int = Field(0, ge=0)
    tasks: dict[str, Curve]

    @property
    def fingerprint(self) -> str:
        """Which calibration it is."""
        return hash_settings(self.model_dump(mode="json"))

    def knows(self, task: str) -> bool:
        """Whether answers of a task get a confidence."""
        return task in self.tasks or ALL in self.tasks

    def confidence(self, task: str, signs: Signs) -> float | None:
        """The chance that an answer with these signs is right; None where nothing of the kind was judged."""
        curve = self.tasks.get(task) or self.tasks.get(ALL)
        return None if curve is None else curve.chance(signs)

    def save(self, folder: Path) -> None:
        """Write it into a model directory, at once or not at all. Raises StorageError."""
        write_bytes(str(folder / FILE), (self.model_dump_json(indent=1) + "\n").encode())


NONE = "there is no calibration"


def read_calibration(folder: Path, model: str) -> tuple[Calibration | None, str]:
    """The calibration of a local model directory, and why there is none ("" where there is one).

    model: the model's fingerprint; a calibration of another one is left alone. Raises SettingsError for a broken file.
    """
    path = folder / FILE
    if not path.is_file():
        return None, NONE
    given: Any = read_json(path, "model", f"{FILE} in {folder}")
    found: Calibration = checked(Calibration, given, FILE)
    if found.model != model:
        return None, f"{FILE} is of another model ({found.model[:12]}, this is {model[:12]})"
    return found, ""
