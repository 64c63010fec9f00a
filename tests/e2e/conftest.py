"""Archives for the commands, and how to run one and read what it wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}


def write_tones(folder: Path, count: int, longest_s: float, seed: int = 0) -> None:
    """`count` WAV files, 8 or 16 kHz, of a tone in noise."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        rate = (16_000, 8_000)[index % 2]
        time = np.arange(round(draw.uniform(0.3, longest_s) * rate)) / rate
        sound = 0.3 * np.sin(2 * np.pi * draw.uniform(100, 3500) * time) + 0.05 * draw.standard_normal(len(time))
        soundfile.write(folder / f"{index:04d}.wav", sound, rate)


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 short files."""
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder, 120, 3.0)
    return folder


@pytest.fixture(scope="session")
def mats() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m jobs …` to its end."""

    def run(*arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobs", *arguments], capture_output=True, text=True, env=ENV, timeout=300, **given
        )

    return run


def read_answers(out: Path) -> list[dict[str, Any]]:
    """All rows of an OUTPUT by row_id."""
    import pyarrow.parquet as pq

    return sorted(pq.read_table(out / "answers").to_pylist(), key=lambda row: row["row_id"])


def without(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Rows less some columns."""
    return [{key: value for key, value in row.items() if key not in names} for row in rows]
