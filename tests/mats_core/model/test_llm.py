"""Any causal LLM of transformers: vectors, LoRA, loss, answers, round trip; and nothing it brings is run unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import mats_core
from mats_core.errors import SettingsError
from mats_core.model.config import AdapterConfig, DecodingSettings, MapperConfig
from mats_core.model.llm import load_llm, load_llm_outline
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
