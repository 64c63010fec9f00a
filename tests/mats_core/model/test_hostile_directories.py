"""Model directories of somebody who means harm: each is refused in words, quickly, and nothing is run, fetched or read
outside it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mats_core
from mats_core.errors import SettingsError
from mats_core.model.facts import read_model_facts

RAN = Path(tempfile.gettempdir()) / f"mats-{os.getpid()}-ran-code"
Attack = Callable[[Path], None]
QUICK_S = 15.0
"""Longest that a refusal may take, on a machine that does other things."""


@pytest.fixture
def copy(tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What a test connects to, or looks up: nothing, it turns out."""
    asked: list[Any] = []

    def refuse(*place: Any, **_: Any) -> Any:
        asked.append(place[:2])
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield asked
    assert asked == []


def edit(name: str, change: Callable[[Any], Any]) -> Attack:
    def run(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        change(values)
        (folder / name).write_text(json.dumps(values))

    return run


def write(name: str, text: str) -> Attack:
    def run(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return run


def llm_config(**values: Any) -> Attack:
    return edit("llm/config.json", lambda config: config.update(values))


def normalizer(**step: Any) -> Attack:
    return edit("llm/tokenizer.json", lambda tokenizer: tokenizer.update(normalizer=step))


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def refused(folder: Path, says: str, load: bool = False) -> None:
    """Both ways in refuse the directory, in words, before long."""
    began = time.monotonic()
    for way in [*([] if load else [read_model_facts]), lambda uri: mats_core.load_model(uri, device="cpu")]:
        with pytest.raises(SettingsError, match=says):
            way(str(folder))
    assert time.monotonic() - began < QUICK_S


# -- parts that lie elsewhere ----------------------------------------------------------------------------------------

NEAR = (
    "http://127.0.0.1:8000/llm", "http://127.1/llm", "http://2130706433/llm", "http://0x7f000001/llm",
    "http://0177.0.0.1/llm", "http://0.0.0.0/llm", "https://[::1]/llm", "http://[::ffff:127.0.0.1]/llm",
    "http://localhost/llm", "http://LOCALHOST./llm", "http://a.localhost/llm", "http://169.254.169.254/latest/meta-data",
    "http://user:pass@127.0.0.1/llm", "http://[fe80::1%25eth0]/llm", "http://[64:ff9b::7f00:1]/llm",
    "sftp://127.0.0.1/llm", "http://100.100.100.200/llm",
)  # fmt: skip


@pytest.mark.parametrize("uri", NEAR)
@pytest.mark.parametrize("part", ["llm", "encoder"])
def test_a_part_is_never_at_this_machine_or_its_network(copy: Path, uri: str, part: str) -> None:
    edit("mats.json", lambda model: model[part].update(uri=uri))(copy)
    refused(copy, f"^{part}: .* names .*, which is this machine itself or its network")


@pytest.mark.parametrize("part", ["llm", "encoder", "memory"])
@pytest.mark.parametrize(
    "uri",
    ["../parts/{}", "{root}/parts/{}", "file://{root}/parts/{}", "FILE://{root}/parts/{}", "hf:{root}/parts/{}",
     "https://example.org/{}", "s3://bucket/{}", "gs://bucket/../{}", "./../parts/{}"],
)  # fmt: skip
def test_a_part_is_inside_or_where_the_user_said(copy: Path, uri: str, part: str) -> None:
    elsewhere = copy.parent / "parts"
    elsewhere.mkdir()
    (copy / part).rename(elsewhere / part)
    edit("mats.json", lambda model: model[part].update(uri=uri.format(*[part] * 2, root=copy.parent)))(copy)
    refused(copy, f"^{part}: .*(lies outside|climbs)")
    if "://" not in uri:
        assert read_model_facts(str(copy), [str(elsewhere)]).elsewhere == (str(elsewhere / part),)
        mats_core.load_model(str(copy), device="cpu", allow_parts=[str(elsewhere)])


def test_microsofts_clap_and_its_tokenizer_are_parts_as_well(copy: Path) -> None:
    for uri, setting in (
        ("msclap:http://127.0.0.1/CLAP_weights_2023.pth", "encoder"),
        ("msclap:/etc/passwd", "encoder"),
        ("msclap:hf:owner/name?tokenizer=http://0x7f.1/gpt2", "encoder.tokenizer"),
        (f"msclap:hf:owner/name?tokenizer={copy.parent}", "encoder.tokenizer"),
    ):
        edit("mats.json", lambda model, uri=uri: model["encoder"].update(uri=uri))(copy)
        refused(copy, f"^{setting}: ")


@pytest.mark.parametrize(
    "uri", ["a\\b", "llm\x00", "nothing://x/llm", "hf:s3://bucket/llm", "odd_kind://127.0.0.1/llm"]
)
def test_names_that_are_no_places(copy: Path, uri: str) -> None:
    edit("mats.json", lambda model: model["llm"].update(uri=uri))(copy)
    refused(copy, "^llm: ")


def test_a_name_of_the_hub_is_not_taken_from_where_one_stands(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "llm").rename(copy.parent / "owner")
    (copy.parent / "stand" / "owner").mkdir(parents=True)
    (copy.parent / "owner").rename(copy.parent / "stand" / "owner" / "llm")
    monkeypatch.chdir(copy.parent / "stand")
    for uri in ("owner/llm", "hf:owner/llm"):
        edit("mats.json", lambda model, uri=uri: model["llm"].update(uri=uri))(copy)
        refused(copy, "^llm: .*lies outside")
    edit("mats.json", lambda model: model["llm"].update(uri="llm"))(copy)
    (copy.parent / "stand" / "llm").symlink_to(copy.parent / "stand" / "owner" / "llm")
    refused(copy, "its llm llm is missing")


@pytest.mark.parametrize(
    "link", ["llm", "llm/model.safetensors", "mapper.safetensors", "adapter", "memory/index.faiss"]
)
def test_links_do_not_lead_out(copy: Path, link: str) -> None:
    (copy / link).rename(copy.parent / "moved")
    (copy / link).symlink_to(copy.parent / "moved")
    refused(copy, "lies outside the model directory")
    assert read_model_facts(str(copy), [str(copy.parent)]).dim == 32


def test_the_hubs_own_cache_is_links(copy: Path) -> None:
    blobs, revision = copy.parent / "hub" / "blobs", copy.parent / "hub" / "snapshots" / "1f3a"
    blobs.mkdir(parents=True)
    for at, file in enumerate(sorted(path for path in copy.rglob("*") if path.is_file())):
        place = revision / file.relative_to(copy)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blobs / str(at))
        place.symlink_to(blobs / str(at))
    assert mats_core.load_model(str(revision), device="cpu").fingerprint


# -- configurations, weights, code -------------------------------------------------------------------------------------


def _tensors(count: int) -> Attack:
    def run(folder: Path) -> None:
        each = (f'"{at}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{at + 1}]}}' for at in range(count))
        data = f"{{{','.join(each)}}}".encode()
        (folder / "llm/model.safetensors").write_bytes(struct.pack("<Q", len(data)) + data + bytes(count))

    return run


def _pickle_in_place(make: Callable[[Path], None]) -> Attack:
    def run(folder: Path) -> None:
        torch.save(load_file(folder / "llm/model.safetensors"), folder / "llm/pytorch_model.bin")
        (folder / "llm/model.safetensors").unlink()
        make(folder / "llm/pytorch_model.bin")

    return run


def _bomb(file: Path) -> None:
    """The same parts, compressed, and one of a gigabyte beside them."""
    parts = zipfile.ZipFile(file)
    read = {info.filename: parts.read(info) for info in parts.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in read.items():
            packed.writestr(name, data)


class _Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, (str(RAN),)


def _beside(name: str) -> Attack:
    return lambda folder: (folder / "llm" / name).symlink_to("/dev/zero")


def _deep(levels: int = 100_000) -> str:
    return "[" * levels + "]" * levels


LLM: dict[str, tuple[Attack, str]] = {
    "a million layers": (llm_config(num_hidden_layers=1_000_000), "num_hidden_layers .* is 1000000"),
    "layers of a million experts": (llm_config(num_local_experts=1 << 50), "num_local_experts"),
    "a list of a million": (llm_config(layer_types=[1] * 200_000), "layer_types .* 200000 items"),
    "deep": (write("llm/config.json", _deep()), "nested more than 64"),
    "deep but read": (llm_config(rope_scaling=json.loads(_deep(200))), "nested more than 64"),
    "no object": (write("llm/config.json", "[]"), "not a JSON object"),
    "huge": (write("llm/config.json", " " * (9 << 20)), "more than 8 MiB"),
    "kernels": (llm_config(attn_implementation="kernels-community/flash-attn"), "code from elsewhere"),
    "kernels, older": (llm_config(_attn_implementation="someone/kernel:run"), "code from elsewhere"),
    "kernels inside": (llm_config(text_config={"attn_implementation": "a/b"}), "code from elsewhere"),
    "kernels, a part each": (llm_config(_attn_implementation={"": "a/b"}), "code from elsewhere"),
    "a quantizer with code": (llm_config(quantization_config={"quant_method": "mxfp4"}), "may fetch code"),
    "another base": (
        write("llm/adapter_config.json", '{"base_model_name_or_path": "/etc", "peft_type": "LORA"}'), "an adapter"
    ),
    "an index that climbs": (
        write("llm/model.safetensors.index.json", '{"weight_map": {"a": "../../x.safetensors"}}'), "leaves its folder"
    ),
    "an absolute index": (
        write("llm/pytorch_model.bin.index.json", '{"weight_map": {"a": "/etc/x.bin"}}'), "is absolute"
    ),
    "a tokenizer elsewhere": (
        edit("llm/tokenizer_config.json", lambda v: v.update(tokenizer_file="/etc/tokenizer.json")), "a file elsewhere"
    ),
    "versions elsewhere": (
        edit("llm/tokenizer_config.json", lambda v: v.update(fast_tokenizer_files=["../tokenizer.4.0.json"])),
        "a file elsewhere",
    ),
    "text that doubles": (
        normalizer(type="Sequence", normalizers=[_replace({"String": "a"}, "aa")] * 60), "makes texts grow"
    ),
    "text that doubles, by a pattern": (
        normalizer(type="Sequence", normalizers=[_replace({"Regex": "."}, "ab")] * 60), "makes texts grow"
    ),
    "one huge word": (normalizer(**_replace({"String": "a"}, "b" * 1_000_000)), "makes texts grow"),
    "a huge prefix": (normalizer(type="Prepend", prepend="b" * 1_000_000), "makes texts grow"),
    "answers that grow": (
        edit("llm/tokenizer.json", lambda v: v.update(decoder=_replace({"String": "a"}, "b" * 100_000))),
        "makes texts grow",
    ),
    "a deep tokenizer": (write("llm/tokenizer.json", _deep()), "nested more than 64"),
    "a deep vocabulary": (write("llm/vocab.json", _deep()), "nested more than 64"),
    "a tokenizer without end": (_beside("tokenizer.model"), "pipe or a device|lies outside"),
    "many tensors": (_tensors(200_000), "200000 tensors, more than"),
    "a header of exabytes": (
        lambda folder: (folder / "llm/model.safetensors").write_bytes(b"\xff" * 64), "not a whole safetensors file"
    ),
    "compressed weights": (_pickle_in_place(_bomb), "compressed parts"),
    "weights without end": (_beside("more.safetensors"), "not a file|lies outside"),
}  # fmt: skip
LOADED: dict[str, tuple[Attack, str]] = {
    "far too wide": (llm_config(intermediate_size=50_000_000), "asks for .* numbers"),
    "far too many words": (llm_config(vocab_size=1_000_000_000), "asks for .* numbers"),
    "unknown, with code": (
        lambda folder: (
            llm_config(model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}),
            write("llm/own.py", f"import os; os.mkdir('{RAN}')"),
        )[0](folder),
        "Python files of its own|own",
    ),
    "generating by code": (
        write("llm/custom_generate/generate.py", f"import os; os.mkdir('{RAN}')"),
        "Python files of its own",
    ),
    "a pickle that runs": (
        _pickle_in_place(lambda file: torch.save({"lm_head.weight": _Runs()}, file)),
        "cannot be loaded",
    ),
    "GGUF alone": (
        lambda folder: (folder / "llm/model.safetensors").rename(folder / "llm/model.gguf"),
        "no file|cannot be loaded",
    ),
}


@pytest.mark.parametrize("name", LLM)
def test_an_llm(copy: Path, name: str) -> None:
    attack, says = LLM[name]
    attack(copy)
    refused(copy, says)


@pytest.mark.parametrize("name", LOADED)
def test_an_llm_that_loading_refuses(copy: Path, name: str) -> None:
    attack, says = LOADED[name]
    attack(copy)
    refused(copy, says, load=True)
    assert not RAN.exists()


ENCODER: dict[str, tuple[Attack, str]] = {
    "sound without end": (
        edit("encoder/preprocessor_config.json", lambda v: v.update(max_length_s=1e12)),
        "max_length_s",
    ),
    "a spectrum without end": (
        edit("encoder/preprocessor_config.json", lambda v: v.update(fft_window_size=1 << 40)),
        "fft_window_size",
    ),
    "deep": (write("encoder/preprocessor_config.json", _deep()), "nested more than 64"),
    "mats.json, deep": (write("mats.json", '{"a":' + _deep() + "}"), "nested more than 64"),
    "mats.json, huge": (write("mats.json", " " * (9 << 20)), "more than 8 MiB"),
    "an adapter of many tensors": (
        lambda folder: (folder / "adapter/adapter_model.safetensors").write_bytes(
            struct.pack("<Q", 20 << 20) + b'{"data_offsets"' * 2_000_000
        ),
        "not a whole safetensors file",
    ),
}


@pytest.mark.parametrize("name", ENCODER)
def test_an_encoder_or_the_model_itself(copy: Path, name: str) -> None:
    attack, says = ENCODER[name]
    attack(copy)
    refused(copy, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["audio_config"].update(depths=[100_000, 1]), "depths .* is 100000"),
        (lambda c: c["text_config"].update(hidden_size=10_000_000, num_attention_heads=2), "asks for .* numbers"),
        (lambda c: c.update(auto_map={"AutoTokenizer": ["x.Y", None]}, attn_implementation="a/b"), "elsewhere"),
    ],
)
def test_an_encoders_configuration(copy: Path, change: Callable[[Any], None], says: str) -> None:
    edit("encoder/config.json", change)(copy)
    refused(copy, says, load=True)


def test_a_pattern_that_never_ends_is_an_error_and_no_panic(copy: Path) -> None:
    normalizer(**_replace({"Regex": "(a+)+$"}, "b"))(copy)
    edit("mats.json", lambda model: model["llm"].update(fingerprint=""))(copy)
    model = mats_core.load_model(str(copy), device="cpu", encoder=False)
    with pytest.raises(SettingsError, match=r"llm: its tokenizer fails \(.*retry-limit"):
        model.tokens.for_generation([model.prompt("QA", "a" * 40 + "!")], torch.device("cpu"))


def test_weights_beside_others_change_nothing(copy: Path) -> None:
    before = mats_core.load_model(str(copy), device="cpu")
    torch.save({"lm_head.weight": torch.zeros(1)}, copy / "llm/pytorch_model.bin")
    (copy / "llm/model.gguf").write_bytes(b"GGUF" + bytes(100))
    edit("mats.json", lambda model: model["llm"].update(fingerprint=""))(copy)  # they are other files, after all
    after = mats_core.load_model(str(copy), device="cpu")
    assert torch.equal(before.causal_lm.get_output_embeddings().weight, after.causal_lm.get_output_embeddings().weight)


def test_adapters_of_ours_follow_no_base(copy: Path) -> None:
    edit("adapter/adapter_config.json", lambda v: v.update(base_model_name_or_path="http://127.0.0.1/llm"))(copy)
    assert mats_core.load_model(str(copy), device="cpu").config.adapter is not None


def test_a_memory(copy: Path) -> None:
    write("memory/memory.json", _deep())(copy)
    refused(copy, "^memory: .* nested more than 64")


def test_honest_models_of_before_load_as_they_did(tiny_model_dir: str) -> None:
    assert mats_core.load_model("builtin", device="cpu").fingerprint == read_model_facts("builtin").fingerprint
    assert mats_core.load_model(tiny_model_dir, device="cpu").memory is not None
