"""What is wrong with a model ends every command with code 2 and one clear line, and nothing in it is executed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from jobs.cli import app

Change = Callable[[Path], None]


class _Runs:
    marker = ""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(_Runs.marker),))


@pytest.fixture
def model(tiny_model_dir: str, tmp_path: Path) -> Path:
    _Runs.marker = str(tmp_path / "executed")
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


@pytest.fixture
def sound(tmp_path: Path) -> str:
    (tmp_path / "archive").mkdir()
    soundfile.write(tmp_path / "archive" / "a.wav", np.zeros(8000), 8000)
    return str(tmp_path / "archive" / "a.wav")


def refused(*arguments: Any) -> str:
    """What a command says that ends with code 2."""
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("mats: ") and done.stderr.count("\n") == 1
    assert not Path(_Runs.marker).exists()
    return done.stderr


def _tensors(name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    def run(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return run


def _cut(name: str) -> Change:
    def run(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-100])

    return run


def _settings(name: str, **values: Any) -> Change:
    def run(folder: Path) -> None:
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **values}))

    return run


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def _moved_layer(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if ".layers.1." in name]:
        tensors[name.replace(".layers.1.", ".layers.7.")] = tensors.pop(name)


def _wider_rank(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if ".lora_A." in name]:
        tensors[name] = tensors[name].repeat(2, 1)


ADAPTER, MAPPER, LLM = "adapter/adapter_model.safetensors", "mapper.safetensors", "llm/model.safetensors"
KNOWN_FROM_FILES: dict[str, tuple[Change, str]] = {
    "truncated mapper": (_cut(MAPPER), "a whole safetensors file"),
    "truncated adapter": (_cut(ADAPTER), "a whole safetensors file"),
    "truncated LLM": (_cut(LLM), "a whole safetensors file"),
    "NaN in the mapper": (_tensors(MAPPER, lambda t: t["linear.bias"].fill_(float("nan"))), "linear.bias holds NaN"),
    "NaN in the adapter": (_tensors(ADAPTER, lambda t: next(iter(t.values())).fill_(float("inf"))), "holds NaN"),
    "LLM of another width": (
        _settings("llm/config.json", hidden_size=32),
        "is 32 wide, and this model needs an LLM 64 wide",
    ),
    "mapper for another LLM": (
        _tensors(MAPPER, lambda t: t.update({"projector.weight": torch.zeros(16, 32)})),
        "projector.weight is [16, 32], expected [64, …]",
    ),
    "adapter for more layers": (_tensors(ADAPTER, _moved_layer), "and the LLM has 2 layers"),
    "adapter of another rank": (_tensors(ADAPTER, _wider_rank), "expected [4, …]"),
    "memory of another encoder": (
        _settings("memory/memory.json", encoder_fingerprint="0" * 64),
        'rebuild it with "mats build-memory"',
    ),
    "memory of another size": (
        _settings("memory/memory.json", dim=16),
        "has 16 dimensions, and the model's embeddings have 32",
    ),
    "memory.json of a list": (lambda m: _write(m / "memory/memory.json", b"[1]"), "holds a list, not a JSON object"),
    "memory of no encoder": (_settings("memory/memory.json", encoder_fingerprint=None), "is None, not text"),
    "memory of a number": (_settings("memory/memory.json", encoder_fingerprint=5), "is 5, not text"),
    "truncated captions": (_cut("memory/captions.parquet"), "captions.parquet is no whole Parquet file"),
    "captions of another memory": (_settings("memory/memory.json", count=7), "should have 7 of caption and source"),
    "layers of the LLM as text": (
        _settings("llm/config.json", num_hidden_layers="2"),
        "is '2', not a whole number",
    ),
    "a mapper too wide for anything": (
        _settings("mats.json", mapper={"width": 8 * 10**7}),
        "mats.json.mapper.width: 80000000 is too large; give a number of at most 100000",
    ),
}


@pytest.mark.parametrize("case", KNOWN_FROM_FILES)
def test_what_files_tell_is_told_before_anything_is_loaded(
    model: Path, sound: str, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("mats_core.load_model", load, raising=False)
    change, says = KNOWN_FROM_FILES[case]
    change(model)
    out = tmp_path / "out"
    assert says in refused("ask", sound, "--model", model)
    for command in ("caption", "embed-audio"):
        assert says in refused(command, Path(sound).parent, out, "--model", model)
    assert not out.exists()


def _means(tensors: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    """Buffers of batch norms: no parameters, and as much a part of every answer."""
    return (tensor for name, tensor in tensors.items() if name.endswith("running_mean"))


def _malicious_llm(model: Path) -> None:
    (model / LLM).unlink()
    torch.save({"lm_head.weight": _Runs()}, model / "llm" / "pytorch_model.bin")


def _malicious_clap(model: Path) -> None:
    shutil.rmtree(model / "encoder")
    (model / "encoder").mkdir()
    torch.save({"model": {"caption_encoder.base.wte.weight": _Runs()}}, model / "encoder" / "CLAP_weights_2023.pth")


KNOWN_BY_LOADING: dict[str, tuple[Change, str]] = {
    "malicious LLM": (_malicious_llm, "cannot be loaded"),
    "NaN in the LLM": (_tensors(LLM, lambda t: t["lm_head.weight"].fill_(float("nan"))), "lm_head.weight holds NaN"),
    "another LLM of this width": (
        _tensors(LLM, lambda t: t["lm_head.weight"].mul_(2)),
        "the llm this model was made with",
    ),
    "another encoder": (
        _settings("encoder/preprocessor_config.json", hop_length=400),
        "the encoder this model was made with",
    ),
    "NaN in the encoder's running mean": (
        _tensors("encoder/model.safetensors", lambda t: next(_means(t)).fill_(float("nan"))),
        "running_mean holds NaN",
    ),
    "adapter for other layers": (
        _tensors(ADAPTER, lambda t: t.update({n.replace("q_proj", "o_proj"): t.pop(n) for n in list(t) if "q_p" in n})),
        "the adapter does not fit the LLM",
    ),
}


@pytest.mark.processes
@pytest.mark.parametrize("case", KNOWN_BY_LOADING)
def test_what_only_loading_tells(model: Path, sound: str, case: str) -> None:
    change, says = KNOWN_BY_LOADING[case]
    change(model)
    assert says in refused("ask", sound, "--model", model, "--device", "cpu")


@pytest.mark.msclap
@pytest.mark.processes
def test_a_malicious_clap_inside_a_model(model: Path, sound: str) -> None:
    pytest.importorskip("torchlibrosa", reason="needs the msclap package")
    from tests.official_clap import write_tokenizer

    _malicious_clap(model)
    write_tokenizer(model / "encoder" / "gpt2")
    assert "nothing in it was run" in refused("ask", sound, "--model", model, "--device", "cpu")


@pytest.mark.long
def test_what_only_a_ray_worker_finds_ends_the_run_with_code_2(model: Path, sound: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.e2e.conftest import ENV, ROOT

    KNOWN_BY_LOADING["NaN in the LLM"][0](model)
    command = [sys.executable, "-m", "jobs", "caption", str(Path(sound).parent), str(tmp_path / "out")]
    done = subprocess.run([*command, "--model", str(model)], capture_output=True, text=True, env=ENV, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert "lm_head.weight holds NaN" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("of_the_model", "given", "says"),
    [
        ({}, ["--min-length", "50", "--max-new-tokens", "5"], "min_length: 50 is more than an answer can have, 6: "),
        ({"max_new_tokens": 12}, ["--min-length", "14"], "min_length: 14 is more than an answer can have, 13: "),
        ({"min_length": 10}, ["--max-new-tokens", "5"], "min_length: 10 is more than an answer can have, 6: "),
        (
            {},
            ["--max-new-tokens", "100000"],
            "max_new_tokens: 100000 tokens do not fit the LLM, which reads",
        ),
    ],
)
def test_an_answer_cannot_be_longer_than_the_longest(
    model: Path, sound: str, tmp_path: Path, of_the_model: dict[str, int], given: list[str], says: str
) -> None:
    _settings("mats.json", decoding=of_the_model)(model)
    assert says in refused("caption", Path(sound).parent, tmp_path / "out", "--model", model, *given)
    assert not (tmp_path / "out").exists()
