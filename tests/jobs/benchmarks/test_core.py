"""The benchmark without Ray, at small shapes on a CPU; a recorded run that does not come out closes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.benchmarks.core import byte_tokenizer, doubled_batches, run_benchmark
from mats_core.errors import SettingsError
from tests.conftest import writable_copy


def test_small_shapes_on_a_cpu(reference_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_benchmark("small", "cpu", str(reference_dir), 2, True) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["parity"]["holds"] is True
    assert (figures["parity"]["answers"], figures["parity"]["answers_equal"]) == (60, 60)
    assert set(figures["model"]["answers_per_s"]) == {"1", "2"}
    assert figures["model"]["stopped_by"]
    assert all(rate > 0 for rate in figures["model"]["answers_per_s"].values())
    assert figures["model"]["dtype"] == "float32"
    encoder = figures["encoder"]["float32"]
    assert encoder["windows_per_s"] > 0 < encoder["texts_per_s"]
    assert encoder["peak_memory_gb"] >= encoder["memory_gb"] > 0


@pytest.mark.parametrize(
    ("speeds", "most", "batches", "why"),
    [
        ([10, 20, 30, 30.8, 99], None, [1, 2, 4, 8], "gain at 8"),
        ([10, 20, 40], None, [1, 2, 4], "memory at 8"),
        ([10, 20, 40, 80], 4, [1, 2, 4], "--clips 4"),
    ],
)
def test_batches_double_until_memory_or_gain_runs_out(
    speeds: list[float], most: int | None, batches: list[int], why: str
) -> None:
    def rate(batch: int) -> float:
        if batch.bit_length() > len(speeds):
            raise torch.OutOfMemoryError
        return speeds[batch.bit_length() - 1]

    rates, stopped_by = doubled_batches(rate, most)
    assert (list(rates), stopped_by) == (batches, why)


@pytest.mark.long
@pytest.mark.msclap
def test_the_way_of_full_sizes_with_small_ones(
    reference_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a GPU is to measure, gone through on a CPU: Microsoft's CLAP, a model written, loaded and asked."""
    pytest.importorskip("torchlibrosa", reason="needs the msclap package")
    from jobs.benchmarks import core
    from tests.official_clap import narrow_towers

    for sizes in (core.LLMS, core.MAPPERS, core.NEW_TOKENS):
        monkeypatch.setitem(sizes, "full", sizes["small"])
    with narrow_towers():
        assert run_benchmark("full", "cpu", str(reference_dir), 2, True) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["encoder"]["name"] == "Microsoft CLAP 2023"
    encoder = figures["encoder"]["float32"]
    assert encoder["windows_per_s"] > 0 < encoder["texts_per_s"]
    assert figures["model"]["load_s"] > 0 < figures["model"]["memory_gb"]
    assert figures["model"]["best_batch"] in (1, 2)


def test_a_recorded_run_that_differs_is_told(
    reference_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = writable_copy(reference_dir, tmp_path / "reference")
    tensors = load_file(copy / "train_forward.safetensors")
    tensors["loss"] += 0.01
    save_file(tensors, copy / "train_forward.safetensors")
    assert run_benchmark("small", "cpu", str(copy), 1, True) == 1
    parity = json.loads(capsys.readouterr().out)["parity"]
    assert (parity["holds"], round(parity["loss"], 3)) == (False, 0.01)


def test_the_byte_tokenizer_brings_every_text_back() -> None:
    tokenizer = byte_tokenizer({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"})
    text = "Dog, 雨!\n"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert (len(tokenizer), tokenizer.eos_token_id) == (259, 2)


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    for size, reference, clips, said in (("13b", None, 1, "size"), ("small", str(tmp_path), 1, "reference")):
        with pytest.raises(SettingsError, match=said):
            run_benchmark(size, "cpu", reference, clips, False)
    with pytest.raises(SettingsError, match="clips"):
        run_benchmark("small", "cpu", None, 0, False)
