"""Any causal LLM of transformers: vectors, LoRA, loss, answers, round trip; and nothing it brings is run unasked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import mats_core
from mats_core.errors import SettingsError
from mats_core.model.config import AdapterConfig, DecodingSettings, MapperConfig
from mats_core.model.llm import add_adapter, load_llm, load_llm_outline, merge_lora
from mats_core.model.model import MatsModel
from tests.tiny import make_tiny_llm

TARGETS = {"llama": {"q_proj", "v_proj"}, "gpt2": {"c_attn"}, "qwen2": {"q_proj", "v_proj"}}
TARGETS |= {"qwen3": {"q_proj", "v_proj"}, "mistral": {"q_proj", "v_proj"}}
CPU = torch.device("cpu")
ANSWERS = ["rain", "a dog with two bell over wind", "yes", "a low tone then a loud engine"] * 2


def make(llm: Path, dtype: str = "float32", **options: Any) -> MatsModel:
    """A model whose mapper and adapter say something."""
    options = {"adapter": AdapterConfig(rank=2), **options}
    made = MatsModel.new(
        str(llm),
        embedding_dim=32,
        mapper=MapperConfig(vectors=3, clip_tokens=2, width=16, layers=1, heads=2),
        decoding=DecodingSettings(max_new_tokens=8, min_length=4),
        device="cpu",
        dtype=dtype,
        **options,
    )
    with torch.no_grad():
        made.mapper.linear.weight.mul_(8)
        for name, weight in made.llm.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2, generator=torch.Generator().manual_seed(3))
    return made


@pytest.fixture(scope="module", params=TARGETS)
def kind(request: Any) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def llm(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_llm(tmp_path_factory.mktemp(kind) / "llm", kind)
    return _without_bos(folder) if kind.startswith("qwen") else folder


def _without_bos(folder: Path) -> Path:
    """Qwen's tokenizers have no BOS."""
    names = ("tokenizer_config.json", "special_tokens_map.json")
    for name in names if (folder / names[1]).exists() else names[:1]:  # transformers 5 writes the first alone
        values = json.loads((folder / name).read_text())
        del values["bos_token"]
        (folder / name).write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def made(llm: Path, request: Any) -> MatsModel:
    return make(llm, request.param)


def asked(model: MatsModel) -> tuple[torch.Tensor, list[str]]:
    embedding = F.normalize(torch.randn(8, 32, generator=torch.Generator().manual_seed(4)), dim=-1)
    questions = [None, "What can you hear ?", "Is there a dog or a bell before the rain and the wind ?", None]
    return embedding, [model.prompt("QA" if q else "caption", q) for q in questions * 2]


def test_lora_is_on_pefts_default_targets(made: MatsModel, kind: str) -> None:
    names = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in made.llm.named_parameters() if "lora_A" in name}
    assert names == TARGETS[kind]
    assert made.config.adapter is not None and made.config.adapter.target_modules is None


def test_vectors_stand_where_the_marker_was(made: MatsModel, kind: str) -> None:
    """One sample by hand: BOS where there is one, words, vectors, words, answer, end; the loss is the last ones'."""
    embedding, prompts = asked(made)
    bos = made.tokenizer.bos_token_id
    assert (bos is None) == kind.startswith("qwen")
    before, after = (
        made.tokenizer(part, add_special_tokens=False)["input_ids"] for part in prompts[1].split("<SpeechHere>")
    )
    target = [*made.tokenizer("a dog", add_special_tokens=False)["input_ids"], made.tokenizer.eos_token_id]
    words = made.causal_lm.get_input_embeddings()
    with torch.no_grad():
        start = words(torch.tensor([[*([] if bos is None else [bos]), *before]]))
        vectors = made.prefix(embedding[1:2])
        assert vectors.dtype == torch.float32
        whole = torch.cat([start, vectors.to(start.dtype), words(torch.tensor([after + target]))], dim=1)
        logits = made.causal_lm(inputs_embeds=whole).logits[0, -len(target) - 1 : -1]
        expected = F.cross_entropy(logits.float(), torch.tensor(target))
        found = made.loss(embedding[1:2], prompts[1:2], ["a dog"])
    tolerance = 1e-5 if start.dtype == torch.float32 else 0.05
    assert found.item() == pytest.approx(expected.item(), abs=tolerance)


def test_loss_and_answers_do_not_depend_on_the_batch(made: MatsModel) -> None:
    embedding, prompts = asked(made)
    exact = next(made.causal_lm.parameters()).dtype == torch.float32
    with torch.no_grad():
        together = made.loss(embedding, prompts, ANSWERS)
        alone = [made.loss(embedding[i : i + 1], prompts[i : i + 1], ANSWERS[i : i + 1]) for i in range(8)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5 if exact else 0.05, rtol=0)
    for beams in (1, 4):
        batch = made.generate(embedding, prompts, {"beams": beams})
        single = [made.generate(embedding[i : i + 1], prompts[i : i + 1], {"beams": beams})[0] for i in range(8)]
        assert len(set(batch)) > 2  # or the law would hold for nothing
        same = sum(one == other for one, other in zip(batch, single, strict=True))
        assert same == 8 if exact else same >= 6  # bf16's rounding may turn a near tie


def test_what_is_saved_is_what_was(made: MatsModel, kind: str, tmp_path: Path) -> None:
    embedding, prompts = asked(made)
    dtype = str(next(made.causal_lm.parameters()).dtype).removeprefix("torch.")
    made.save(str(tmp_path / "model"), include=("llm",))
    read = mats_core.load_model(str(tmp_path / "model"), device="cpu", dtype=dtype, merge_adapter=False)
    stored = load_file(tmp_path / "model" / "adapter" / "adapter_model.safetensors")
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in stored} == TARGETS[kind]
    with torch.no_grad():
        assert torch.equal(read.loss(embedding, prompts, ANSWERS), made.loss(embedding, prompts, ANSWERS))
    assert read.generate(embedding, prompts) == made.generate(embedding, prompts)


# -- the adapter in the weights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [torch.float32, torch.bfloat16, torch.float16])
def test_a_merged_adapter_is_rounded_once(kind: str, llm: Path, number: torch.dtype) -> None:
    assert_rounded_once(kind, llm, number)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_merged_adapter_is_rounded_once_where_weights_are_pickles(zipped: bool, tmp_path: Path) -> None:
    folder = make_tiny_llm(tmp_path / "llm")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert_rounded_once("llama", folder, torch.bfloat16)


def assert_rounded_once(kind: str, folder: Path, number: torch.dtype) -> None:
    """The LLM's weights as they are stored, plus the adapter by the formula of LoRA, rounded: to the bit."""
    llm, _, _ = load_llm(str(folder), CPU, number)
    from transformers import AutoModelForCausalLM

    exact = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).state_dict()
    llm = add_adapter(llm, AdapterConfig(rank=3, alpha=7))
    given = {}
    for name, weight in llm.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(len(given)))
            given[name] = weight.detach().clone()
    merge_lora(llm, folder)
    merged = 0
    for name, weight in llm.get_base_model().state_dict().items():
        layer = name.removesuffix(".base_layer.weight")
        if layer == name or "lora_" in name:
            continue
        a, b = (given[f"base_model.model.{layer}.lora_{each}.default.weight"] for each in "AB")
        change = (b @ a) * (7 / 3)
        expected = exact[f"{layer}.weight"] + (change.T if kind == "gpt2" else change)
        assert weight.dtype == number
        assert torch.equal(weight, expected.to(number)), name
        merged += 1
    assert merged == len(given) / 2


def test_what_was_rounded_cannot_be_trained(tiny_model_dir: str) -> None:
    from mats_core.training.schedule import TrainingSettings
    from mats_core.training.step import make_optimizer

    merged = mats_core.load_model(tiny_model_dir, device="cpu", dtype="bfloat16", encoder=False, memory=False)
    assert merged.number_types == {"llm": "bfloat16", "mapper": "float32"}
    with pytest.raises(SettingsError, match=r"^merge_adapter: .* into an LLM in bfloat16, .*; load .*=False"):
        make_optimizer(merged, TrainingSettings())
    apart = {"encoder": False, "memory": False, "merge_adapter": False}
    make_optimizer(mats_core.load_model(tiny_model_dir, device="cpu", dtype="bfloat16", **apart), TrainingSettings())


def test_the_mapper_in_another_number_type(tiny_model_dir: str) -> None:
    exact, half = (
        mats_core.load_model(tiny_model_dir, device="cpu", encoder=False, memory=False, mapper_dtype=each)
        for each in ("float32", "bfloat16")
    )
    assert half.number_types["mapper"] == "bfloat16"
    vectors = half.prefix(torch.eye(32)[:4])
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, exact.prefix(torch.eye(32)[:4]), atol=0.05, rtol=0.05)
    with pytest.raises(SettingsError, match=r'^mapper_dtype: "int8" is no number type; choose auto, float32'):
        mats_core.load_model(tiny_model_dir, device="cpu", mapper_dtype="int8")


# -- weights in 8 bits -------------------------------------------------------------------------------------------------


def test_weights_in_few_bits_need_their_package(tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(SettingsError, match=r"^llm_dtype: int8 needs the torchao package.*mats-audio\[lowbit\]"):
        mats_core.load_model(tiny_model_dir, device="cpu", dtype="int8", encoder=False, memory=False)


def test_weights_in_8_bits(tiny_model_dir: str) -> None:
    """Linear layers are rounded to 256 steps a row; head and embeddings are not; the loss moves a little, and an answer
    does not depend on its neighbours."""
    pytest.importorskip("torchao")
    packed, exact = (
        mats_core.load_model(tiny_model_dir, device="cpu", dtype=each, encoder=False, memory=False)
        for each in ("int8", "float32")
    )
    assert packed.number_types["llm"] == "int8"
    one, other = (
        dict(each.causal_lm.named_modules())["model.layers.1.self_attn.q_proj.base_layer"].weight
        for each in (packed, exact)
    )
    step = other.abs().amax(dim=1, keepdim=True) / 127
    assert 0 < ((one.dequantize() - other).abs() / step).max() < 0.6
    assert torch.equal(packed.causal_lm.lm_head.weight, exact.causal_lm.lm_head.weight)
    embedding, prompts = torch.eye(32)[:6], [exact.prompt("caption")] * 6
    with torch.no_grad():
        losses = [each.loss(embedding, prompts, ["rain"] * 6) for each in (packed, exact)]
    assert 0 < (losses[0] - losses[1]).abs().max() < 0.1
    together = packed.generate(embedding, prompts)
    assert together == [packed.generate(embedding[i : i + 1], prompts[:1])[0] for i in range(6)]
    with pytest.raises(SettingsError, match="llm_dtype: int4 needs a GPU"):
        mats_core.load_model(tiny_model_dir, device="cpu", dtype="int4", encoder=False, memory=False)


# -- weights that are pickles, and code that comes with an LLM ---------------------------------------------------------


class _Runs:
    marker = ""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(_Runs.marker),))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    _Runs.marker = str(tmp_path / "executed")
    return make_tiny_llm(tmp_path / "llm")


def _as_bin(llm: Path) -> dict[str, torch.Tensor]:
    state = load_file(llm / "model.safetensors")
    (llm / "model.safetensors").unlink()
    torch.save(state, llm / "pytorch_model.bin")
    return state


def test_bin_weights_are_read_as_tensors_only(llama: Path) -> None:
    whole, _, _ = load_llm(str(llama), CPU, torch.float32)
    state = _as_bin(llama)
    read, _, _ = load_llm(str(llama), CPU, torch.float32)
    assert all(torch.equal(weight, read.state_dict()[name]) for name, weight in whole.state_dict().items())
    torch.save({**state, "lm_head.weight": _Runs()}, llama / "pytorch_model.bin")
    with pytest.raises(SettingsError, match=r"llm: .*llm cannot be loaded \(.*; give a causal LLM of transformers"):
        load_llm(str(llama), CPU, torch.float32)
    assert not Path(_Runs.marker).exists()


def test_safetensors_come_first(llama: Path) -> None:
    torch.save({"lm_head.weight": _Runs()}, llama / "pytorch_model.bin")
    load_llm(str(llama), CPU, torch.float32)
    assert not Path(_Runs.marker).exists()


CODE = """
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

Path({marker!r}).touch()


class OwnConfig(LlamaConfig):
    model_type = "own_lm"


class OwnLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_an_llms_own_code_runs_only_when_the_user_says_so(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    config = json.loads((llama / "config.json").read_text())
    config |= {"model_type": "own_lm", "architectures": ["OwnLM"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnLM"}
    (llama / "config.json").write_text(json.dumps(config))
    (llama / "own.py").write_text(CODE.format(marker=_Runs.marker))
    for load in (load_llm_outline, lambda uri: load_llm(uri, CPU, torch.float32), make):
        with pytest.raises(
            SettingsError, match=r"when they are trusted; give --trust-remote-code \(.*\) or.*no other command"
        ):
            load(str(llama))
    assert not Path(_Runs.marker).exists()
    adapter = AdapterConfig(rank=2, target_modules=["q_proj"])  # PEFT knows no default for it
    trusted = make(llama, trust_remote_code=True, adapter=adapter)
    assert Path(_Runs.marker).exists()
    trusted.save(str(tmp_path / "model"), include=("llm",))
    with pytest.raises(SettingsError, match="trust-remote-code"):
        mats_core.load_model(str(tmp_path / "model"), device="cpu")
    read = mats_core.load_model(str(tmp_path / "model"), device="cpu", trust_remote_code=True)
    assert read.generate(*asked(read)) == trusted.generate(*asked(trusted))
