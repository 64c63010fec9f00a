"""The command: what it prints, where values come from, and that wrong inputs end with code 2 and say what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import mats_core
from jobs.cli import app
from jobs.import_reference import PARTS, ImportSettings
from mats_core.memory.santa import SantaMemory
from mats_core.model.asking import Request
from mats_core.model.release import SETTINGS
from tests.conftest import writable_copy


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["import-reference", *map(str, arguments)])


def test_flags_are_the_settings_the_tensors_do_not_tell() -> None:
    assert set(ImportSettings.model_fields) - set(PARTS) == set(SETTINGS)


def test_it_says_where_everything_came_from(reference_dir: Path, tmp_path: Path) -> None:
    checkpoint, llm, out = reference_dir / "checkpoint_29.pth", reference_dir / "llm", tmp_path / "model"
    done = run("--checkpoint", checkpoint, "--llm", llm, "--out", out, "--beams", "2")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    for line in (
        "vectors 8 (from the tensors)",
        "lora_rank 8 (from the tensors)",
        "beams 2 (from: given)",
        "neighbors 8 (from: checkpoint)",
        "repetition_penalty 2.0 (from: default)",
        "skipped ln_audio.weight: the reference never applies it",
        f"wrote {out}",
    ):
        assert line in lines
    assert sum(line.endswith("inv_freq: a buffer the LLM computes itself") for line in lines) == 2
    told = json.loads((out / "mats.json").read_text())
    assert (told["decoding"]["beams"], told["answer_style"], told["encoder"]) == (2, "reference", None)
    assert Path(told["llm"]["uri"]) == llm.resolve()


def test_a_memory_makes_santa_part_of_the_model(reference_dir: Path, tmp_path: Path) -> None:
    rows = load_file(reference_dir / "santa.safetensors")["kmeans_bank"]
    SantaMemory.build(rows, clusters=10).save(str(tmp_path / "memory"))
    SantaMemory.build(rows[:, :64], clusters=10).save(str(tmp_path / "small"))
    given = ["--checkpoint", reference_dir / "checkpoint_29.pth", "--llm", reference_dir / "llm"]
    assert run(*given, "--out", tmp_path / "model", "--memory", tmp_path / "memory").exit_code == 0
    model = mats_core.load_model(str(tmp_path / "model"), device="cpu")
    (reply,) = model.answer_embeddings(rows[:1], [Request("caption")], explain=True)
    assert len(reply.neighbors or []) == 8  # as the checkpoint's own config says
    refused = run(*given, "--out", tmp_path / "other", "--memory", tmp_path / "small")
    assert (refused.exit_code, "has 64 dimensions, and the checkpoint takes 1024" in refused.stderr) == (2, True)


@pytest.fixture
def world(reference_dir: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """(checkpoint to change, LLM to change, out)."""
    writable_copy(reference_dir / "llm", tmp_path / "llm")
    shutil.copyfile(reference_dir / "checkpoint_29.pth", tmp_path / "changed.pth")
    return tmp_path / "changed.pth", tmp_path / "llm", tmp_path / "out"


def _state(change: Any) -> Any:
    def edit(checkpoint: Path, llm: Path) -> None:
        found = torch.load(checkpoint, weights_only=True)
        change(found["model"])
        torch.save(found, checkpoint)

    return edit


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _other_width(checkpoint: Path, llm: Path) -> None:
    from tests.tiny import make_tiny_llm

    shutil.rmtree(llm)
    make_tiny_llm(llm, hidden=32)


def _other_adapter(state: dict[str, Any]) -> None:
    for name in [name for name in state if ".q_proj.lora_" in name]:
        state[name.replace("layers.0.", "layers.7.")] = state.pop(name)


class _Runs:
    marker = ""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(_Runs.marker),))


def _malicious(checkpoint: Path, llm: Path) -> None:
    _Runs.marker = str(checkpoint.with_name("executed"))
    torch.save({"model": {"audio_mapper.prefix_const": _Runs()}}, checkpoint)


BAD = {
    "malicious": (_malicious, "nothing in it was run"),
    "a text": (lambda checkpoint, llm: checkpoint.write_bytes(b"hello"), "it begins with b'hell'"),
    "truncated checkpoint": (lambda checkpoint, llm: _cut(checkpoint), "checkpoint: "),
    "truncated safetensors": (lambda checkpoint, llm: _cut(llm / "model.safetensors"), "a whole safetensors file"),
    "another width": (_other_width, "is 32 wide, and the checkpoint was trained with an LLM 64 wide"),
    "NaN": (_state(lambda s: s["audio_mapper.linear.bias"].fill_(float("nan"))), "audio_mapper.linear.bias holds NaN"),
    "missing": (
        _state(lambda s: s.pop("audio_mapper.linear.bias")),
        "audio_mapper.linear.bias is missing, expected [512]",
    ),
    "adapter of another model": (_state(_other_adapter), "layers.7.self_attn.q_proj.lora_A.default.weight is unknown"),
    "no LLM weights": (
        lambda checkpoint, llm: (llm / "model.safetensors").unlink(),
        "give a complete LLM",
    ),
    "no such checkpoint": (lambda checkpoint, llm: checkpoint.unlink(), "checkpoint: "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_end_with_code_2(world: tuple[Path, Path, Path], case: str) -> None:
    checkpoint, llm, out = world
    change, says = BAD[case]
    change(checkpoint, llm)
    done = run("--checkpoint", checkpoint, "--llm", llm, "--out", out)
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not checkpoint.with_name("executed").exists()


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("heads", "7", "mats: heads: 7 does not divide the mapper's width 64; "),
        ("beams", "1000", "mats: beams: 1000 is too large; give a number of at most 64"),
        ("scale", "inf", "mats: scale: inf is no finite number; give a finite number"),
        ("length-penalty", "nan", "mats: length_penalty: nan is no finite number; give a finite number"),
    ],
)
def test_a_flag_no_model_can_have_is_named(
    reference_dir: Path, tmp_path: Path, flag: str, value: str, says: str
) -> None:
    given = ["--checkpoint", reference_dir / "checkpoint_29.pth", "--llm", reference_dir / "llm", "--out", tmp_path]
    done = run(*given, f"--{flag}", value)
    assert (done.exit_code, done.stderr.startswith(says), done.stderr.count("\n")) == (2, True, 1), done.output


def test_a_missing_or_wrong_flag_is_named(reference_dir: Path, tmp_path: Path) -> None:
    done = run("--checkpoint", "x.pth", "--out", tmp_path)
    assert (
        done.exit_code,
        done.stderr.startswith("mats: llm: it is missing; give it: the LLM it was trained with"),
    ) == (2, True)
    done = run("--checkpoint", "x.pth", "--llm", "l", "--out", tmp_path, "--mix", "7")
    assert (done.exit_code, done.stderr.startswith("mats: mix: 7.0 is too large; give a number of at most 1")) == (
        2,
        True,
    )


def test_a_folder_with_something_in_it_is_never_written_over(reference_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mats.json").write_text("mine")
    given = ["--checkpoint", reference_dir / "checkpoint_29.pth", "--llm", reference_dir / "llm"]
    done = run(*given, "--out", tmp_path / "model")
    assert (done.exit_code, done.stderr.startswith(f"mats: out: {tmp_path / 'model'} is not empty")) == (2, True)
    assert [(path.name, path.read_text()) for path in (tmp_path / "model").iterdir()] == [("mats.json", "mine")]


def test_a_model_that_cannot_be_written_whole_is_not_there(
    reference_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(self: Any, uri: str) -> None:
        Path(uri).mkdir()
        (Path(uri) / "mapper.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mats_core.model.model.MatsModel.save", half)
    with pytest.raises(OSError, match="No space left"):
        mats_core.import_reference(
            str(reference_dir / "checkpoint_29.pth"), str(reference_dir / "llm"), str(tmp_path / "model")
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["model"]  # and nothing in it
