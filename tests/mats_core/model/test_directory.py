"""The model directory: round trips, and what is wrong with one is said, quickly."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mats_core
from mats_core.errors import SettingsError
from mats_core.model.asking import Request
from mats_core.model.config import ModelConfig
from mats_core.model.directory import check_model_dir, model_fingerprint
from mats_core.model.facts import read_model_facts
from mats_core.model.model import MatsModel


@pytest.fixture
def copy(tiny_model_dir: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "copy"))


def _answers(model: MatsModel) -> list[Any]:
    embedding = np.random.default_rng(0).standard_normal((6, 32)).astype(np.float32)
    return model.answer_embeddings(embedding, [Request("caption")] * 6)


def test_round_trip_keeps_answers_and_fingerprint(tiny_model_dir: str, tmp_path: Path) -> None:
    first = mats_core.load_model(tiny_model_dir, device="cpu")
    first.save(str(tmp_path / "again"), include=("encoder", "llm", "memory"))
    second = mats_core.load_model(str(tmp_path / "again"), device="cpu")
    assert second.fingerprint == first.fingerprint
    assert second.config == first.config
    assert _answers(second) == _answers(first)


def test_parts_may_lie_elsewhere(tiny_model_dir: str, tmp_path: Path) -> None:
    first = mats_core.load_model(tiny_model_dir, device="cpu")
    first.save(str(tmp_path / "outside"))
    assert not (tmp_path / "outside" / "llm").exists()
    second = mats_core.load_model(str(tmp_path / "outside"), device="cpu")
    assert Path(second.config.llm.uri).is_absolute()
    assert second.fingerprint == first.fingerprint
    assert _answers(second) == _answers(first)


def test_parts_elsewhere_need_a_word_where_nobody_named_them(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mats_core.load_model(tiny_model_dir, device="cpu").save(str(tmp_path / "outside"), include=("memory",))
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "another-machine"))
    with pytest.raises(SettingsError, match=rf"^encoder: .*; where .* --allow-parts {tiny_model_dir}/e"):
        check_model_dir(tmp_path / "outside")
    with pytest.raises(SettingsError, match=r"^llm: "):
        check_model_dir(tmp_path / "outside", [f"{tiny_model_dir}/encoder"])
    for allowed in ([f"{tiny_model_dir}/encoder", f"{tiny_model_dir}/llm/"], [str(Path(tiny_model_dir).parent)]):
        assert read_model_facts(str(tmp_path / "outside"), allowed).elsewhere == (
            f"{tiny_model_dir}/encoder", f"{tiny_model_dir}/llm",
        )  # fmt: skip
        mats_core.load_model(str(tmp_path / "outside"), device="cpu", allow_parts=allowed)
    beside = str(Path(tiny_model_dir).parent / "mod")  # a name's beginning is no folder
    with pytest.raises(SettingsError, match=r"^encoder: "):
        check_model_dir(tmp_path / "outside", [beside])


def test_a_url_of_a_part_must_be_allowed_and_lead_elsewhere(
    tiny_model_dir: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"inside.example": "127.0.0.1", "far.example": "93.184.216.34"}
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: [(2, 1, 6, "", (found[host], 0))])
    for uri, allowed, says in (
        ("https://far.example/parts/llm", "https://far.example/parts", None),
        ("https://far.example/parts/llm", "https://far.example/par", "lies outside"),
        ("https://far.example/parts/../llm", "https://far.example/parts", "climbs"),
        ("https://far.example/parts/%2e%2e/llm", "https://far.example/parts", "climbs"),
        ("https://far.example@inside.example/parts/llm", "https://far.example/parts", "lies outside"),
        ("https://inside.example/parts/llm", "https://inside.example/", "this machine itself"),
        ("http://127.0.0.1:9000/llm", "http://127.0.0.1:9000/", None),  # the user's own word
        ("http://127.0.0.1:9001/llm", "http://127.0.0.1:9000/", "this machine itself"),
        ("s3://bucket/parts/llm", "s3://bucket/parts/", None),
        ("s3://bucket/other/llm", "s3://bucket/parts/", "lies outside"),
    ):
        _edit("mats.json", lambda values, uri=uri: values["llm"].update(uri=uri))(copy)
        if says is None:
            assert check_model_dir(copy, [allowed]).llm.uri == uri
            continue
        with pytest.raises(SettingsError, match=f"^llm: .*{says}"):
            check_model_dir(copy, [allowed])


def test_half_the_size_in_float16(tiny_model_dir: str, tmp_path: Path) -> None:
    model = mats_core.load_model(tiny_model_dir, device="cpu")
    model.save(str(tmp_path / "half"), include=("encoder", "llm", "memory"), weights="float16")
    assert load_file(tmp_path / "half" / "mapper.safetensors")["linear.weight"].dtype == torch.float16
    read = mats_core.load_model(str(tmp_path / "half"), device="cpu")
    assert next(read.mapper.parameters()).dtype == torch.float32
    embedding = torch.eye(32)[:4]
    with torch.no_grad():
        torch.testing.assert_close(read.prefix(embedding), model.prefix(embedding), atol=5e-3, rtol=5e-3)


def test_merged_adapter_says_the_same(tiny_model_dir: str) -> None:
    merged = mats_core.load_model(tiny_model_dir, device="cpu", merge_adapter=True)
    apart = mats_core.load_model(tiny_model_dir, device="cpu", merge_adapter=False)
    assert _answers(merged) == _answers(apart)
    prompts, outputs = [merged.prompt("caption")] * 2, ["rain", "a dog"]
    with torch.no_grad():
        one, other = (m.loss(torch.eye(32)[:2], prompts, outputs) for m in (merged, apart))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_directory_names_no_place_of_the_machine_it_was_made_on(tiny_model_dir: str) -> None:
    for file in Path(tiny_model_dir).rglob("*.json"):
        assert str(Path(tiny_model_dir).parent) not in file.read_text(), file


def test_fingerprint_follows_what_changes_answers(copy: Path) -> None:
    before = mats_core.load_model(str(copy), device="cpu", encoder=False).fingerprint
    settings = json.loads((copy / "mats.json").read_text())
    settings["wordings"] = "fixed"  # how it was trained: answers stay
    (copy / "mats.json").write_text(json.dumps(settings))
    assert mats_core.load_model(str(copy), device="cpu", encoder=False).fingerprint == before
    assert settings.pop("long_tag") == ""  # as it is in models made before there was one
    (copy / "mats.json").write_text(json.dumps(settings))
    assert mats_core.load_model(str(copy), device="cpu", encoder=False).fingerprint == before
    config = ModelConfig(**settings)
    assert model_fingerprint(copy, config) == before
    assert model_fingerprint(copy, config.model_copy(update={"long_tag": "[long]"})) != before
    settings["decoding"]["beams"] = 2
    (copy / "mats.json").write_text(json.dumps(settings))
    assert mats_core.load_model(str(copy), device="cpu", encoder=False).fingerprint != before


def _edit(name: str, change: Any) -> Any:
    def run(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        change(values)
        (folder / name).write_text(json.dumps(values))

    return run


def _weights(name: str, change: Any) -> Any:
    def run(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return run


def _cut(name: str) -> Any:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:300])


CHEAP = {
    "no mats.json": (lambda folder: (folder / "mats.json").unlink(), "mats.json"),
    "not JSON": (lambda folder: (folder / "mats.json").write_text("{"), "JSON"),
    "no mapper": (lambda folder: (folder / "mapper.safetensors").unlink(), "mapper.safetensors is missing"),
    "no adapter": (lambda folder: shutil.rmtree(folder / "adapter"), "adapter/adapter_config.json is missing"),
    "no llm": (lambda folder: shutil.rmtree(folder / "llm"), "llm is missing"),
    "empty encoder": (
        lambda folder: (folder / "encoder/config.json").unlink(),
        "CLAP_weights_2023.pth is missing",
    ),
    "unknown setting": (_edit("mats.json", lambda v: v.update(colour=1)), "mats.json.colour"),
    "wrong setting": (_edit("mats.json", lambda v: v["mapper"].update(vectors=-1)), "mats.json.mapper.vectors"),
}
LOADED = {
    "truncated mapper": (_cut("mapper.safetensors"), "whole safetensors"),
    "truncated adapter": (_cut("adapter/adapter_model.safetensors"), "whole safetensors"),
    "truncated llm": (_cut("llm/model.safetensors"), "llm"),
    "misshapen mapper": (_edit("mats.json", lambda v: v["mapper"].update(vectors=5)), "expected [5, 32]"),
    "far wider mapper": (
        _edit("mats.json", lambda v: v["mapper"].update(width=99_968, vectors=10_000, clip_tokens=10_000)),
        "linear.weight is [64, 32], expected [999680000, 32]",
    ),
    "adapter of a far higher rank": (
        _edit("mats.json", lambda v: v["adapter"].update(rank=10_000)),
        "the adapter's rank is 10000 in mats.json",
    ),
    "nan mapper": (_weights("mapper.safetensors", lambda t: t["linear.bias"].fill_(float("nan"))), "linear.bias holds"),
    "nan llm": (_weights("llm/model.safetensors", lambda t: t["lm_head.weight"].fill_(float("inf"))), "lm_head"),
    "incomplete llm": (_weights("llm/model.safetensors", lambda t: t.pop("lm_head.weight")), "lm_head.weight"),
    "incomplete adapter": (
        _weights("adapter/adapter_model.safetensors", lambda t: t.pop(sorted(t)[0])),
        "the adapter does not fit the LLM",
    ),
    "another llm": (
        _weights("llm/model.safetensors", lambda t: t["lm_head.weight"].mul_(2)),
        "the llm this model was made with",
    ),
    "another encoder": (
        _edit("encoder/preprocessor_config.json", lambda v: v.update(hop_length=400)),
        "the encoder this model was made with",
    ),
    "memory of another encoder": (
        _edit("memory/memory.json", lambda v: (v.pop("checksum"), v.update(encoder_fingerprint="0" * 64))),
        'rebuild it with "mats build-memory',
    ),
}


@pytest.mark.parametrize("case", CHEAP)
def test_broken_directory_found_before_loading(copy: Path, case: str) -> None:
    change, says = CHEAP[case]
    change(copy)
    with pytest.raises(SettingsError) as caught:
        check_model_dir(str(copy))
    assert says in str(caught.value)


@pytest.mark.parametrize("case", LOADED)
def test_broken_weights_found_while_loading(copy: Path, case: str) -> None:
    change, says = LOADED[case]
    change(copy)
    check_model_dir(str(copy))
    with pytest.raises(SettingsError) as caught:
        mats_core.load_model(str(copy), device="cpu")
    assert says in str(caught.value)


def _as_trained(out: Path, model: str) -> Path:
    """The OUTPUT of a training, with its model in it."""
    (out / "model").symlink_to(model)
    return out


def test_missing_directory_and_wrong_device(tiny_model_dir: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="model"):
        check_model_dir("/nowhere/at/all")
    with pytest.raises(SettingsError, match=r"no mats.json in .*; give the one in it, .*/model$"):
        mats_core.load_model(str(_as_trained(tmp_path, tiny_model_dir)))
    for options in ({"device": "gpu7"}, {"dtype": "int3"}):
        with pytest.raises(SettingsError):
            mats_core.load_model(tiny_model_dir, **options)


@pytest.mark.processes
def test_checking_a_model_imports_nothing_heavy(tiny_model_dir: str) -> None:
    code = (
        "import sys; from mats_core.model.directory import check_model_dir; "
        f"check_model_dir({tiny_model_dir!r}); import mats_core; "
        "print([m for m in ('torch', 'transformers', 'ray', 'faiss', 'soundfile', 'av') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
