"""Ceilings, parity and CLAP on a CPU at small sizes."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.benchmarks import core
from jobs.benchmarks.gpu import kernels
from jobs.benchmarks.gpu.section import Section

CPU = torch.device("cpu")


def section(name: str, tmp_path: Path) -> Section:
    return Section(name, "small", CPU, tmp_path / "results", tmp_path, time.monotonic() + 3000)


def lines(one: Section) -> list[dict[str, Any]]:
    return [json.loads(line) for line in one.results.read_text().splitlines()]


def test_ceilings(tmp_path: Path) -> None:
    one = section("ceilings", tmp_path)
    kernels.ceilings(one)
    found = lines(one)
    assert all("error" not in line for line in found)
    assert sum("tflops" in line for line in found) == 5 and sum("gb_per_s" in line for line in found) == 2
    product = found[2]
    assert product["tflops"] == pytest.approx(2 * 256**3 / product["us"] / 1e6, rel=0.01)


def test_parity_of_recorded_runs_batches_and_clap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded runs themselves are `mats benchmark core`'s, and its test's."""
    monkeypatch.setattr(core, "parity", lambda recorded, device: {"holds": (recorded / "generate.json").is_file()})
    one = section("parity", tmp_path)
    kernels.parity(one)
    recorded, batches, clap = lines(one)
    assert recorded["holds"] is True
    assert batches["least_equal"] == 1.0 and set(batches["equal"]) == {"64 beside 16", "4 beside 16", "1 beside 16"}
    assert clap["tf32_on"]["least_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert clap["tf32_off"]["largest"] < 1e-6


def test_windows_a_second_from_int16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **how: compiled.append(how["backend"]))
    one = section("clap", tmp_path)
    kernels.clap(one)
    plain, after = lines(one)
    assert (plain["what"], after["what"]) == ("2 windows, float32", "2 windows, float32, compiled")
    assert plain["windows_per_s"] == pytest.approx(2e3 / plain["ms"], rel=0.01) and after["windows_per_s"] > 0
    assert compiled == ["eager"]


def test_tones_are_loud_over_quiet_noise() -> None:
    sound = kernels.tones(2, 16_000, 1.0)
    assert sound.dtype == np.int16 and sound.shape == (2, 16_000)
    power = np.abs(np.fft.rfft(sound[1] / 32768)) ** 2
    assert int(power.argmax()) == 350  # a second: a bin is a hertz
    quiet = np.delete(power, range(340, 360)).sum()
    assert 10 * np.log10(power.max() / quiet) == pytest.approx(57, abs=1)


@pytest.mark.long
@pytest.mark.msclap
def test_microsofts_clap_goes_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU is to measure, gone through on a CPU with towers a quarter as wide."""
    for name, module in (("parity", core), ("across_batches", kernels)):
        monkeypatch.setattr(module, name, lambda *given: {})
    pytest.importorskip("torchlibrosa", reason="needs the msclap package")
    from tests.official_clap import narrow_towers

    one = section("clap", tmp_path)
    one.size = dataclasses.replace(one.size, official_clap=True)
    with narrow_towers():
        kernels.parity(one)
        kernels.clap(one)
    found = {line["what"]: line for line in lines(one)}
    assert all("error" not in line for line in found.values())
    mel = found["log-mel of a loud tone over quiet noise"]
    assert mel["tf32_off"]["largest_db"] < 0.1
    assert found["2 windows, float32, compiled"]["windows_per_s"] > 0
