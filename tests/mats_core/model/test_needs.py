"""What a model takes of a device's memory: held to the tensors it loads, and a card too small is refused first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mats_core
from mats_core.errors import SettingsError
from mats_core.generation.slots import LlmSizes
from mats_core.model.model import load_model
from mats_core.model.needs import MemoryNeeds, check_card, read_needs

GIB = 1 << 30
VICUNA = LlmSizes(layers=32, hidden=4096, inner=11008, heads=32, kv_heads=32, head_dim=128, vocabulary=32000)
FULL = MemoryNeeds(
    llm=13_476_839_424, mapper=650_000_000, encoder=630_000_000, hearing=2_000_000_000, sizes=VICUNA, number_bytes=2,
    beams=4, answer_tokens=200, llm_dtype="bfloat16",
)  # fmt: skip


def held(module: torch.nn.Module) -> int:
    """Bytes of a module's weights, shared ones once; what LoRA has added is left out."""
    found = {id(w): w for name, w in module.named_parameters() if "lora_" not in name}
    return sum(weight.nbytes for weight in found.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_read_of_the_files_is_what_is_loaded(tiny_model_dir: str, dtype: str) -> None:
    needs = read_needs(tiny_model_dir, llm_dtype=dtype, mapper_dtype=dtype, encoder_dtype=dtype)
    model = load_model(tiny_model_dir, "cpu", dtype, mapper_dtype=dtype, encoder_dtype=dtype)
    assert (needs.llm, needs.mapper) == (held(model.causal_lm), held(model.mapper))
    assert needs.encoder == pytest.approx(held(model.encoder.model), rel=0.1)  # batch norms hold some more
    assert needs.hearing == read_needs(tiny_model_dir).hearing > 64 * 5 * 16000 * 4
    assert read_needs(tiny_model_dir, encoder=False).hearing == 0


def test_weights_that_are_pickles_are_counted_by_the_type_that_is_stated(copy_of_tiny: Path) -> None:
    stored = read_needs(str(copy_of_tiny))
    llm = copy_of_tiny / "llm"
    torch.save(load_file(llm / "model.safetensors"), llm / "pytorch_model.bin")
    (llm / "model.safetensors").unlink()
    assert read_needs(str(copy_of_tiny)).llm == pytest.approx(stored.llm, rel=0.05)


def test_packed_weights_take_less_but_not_the_tables(tiny_model_dir: str) -> None:
    half, eight, four = (read_needs(tiny_model_dir, llm_dtype=each).llm for each in ("bfloat16", "int8", "int4"))
    shapes = load_file(Path(tiny_model_dir) / "llm" / "model.safetensors")
    tables = 2 * sum(w.numel() for name, w in shapes.items() if "embed" in name or "lm_head" in name)
    assert tables < four < eight < half
    assert eight - tables == pytest.approx((half - tables) / 2, rel=0.05)
    assert four - tables == pytest.approx((half - tables) / 4, rel=0.1)


def test_answers_more_or_longer_take_more(tiny_model_dir: str) -> None:
    few, many, long = (read_needs(tiny_model_dir, **each) for each in ({"beams": 1}, {}, {"max_new_tokens": 400}))
    assert few.total < many.total < long.total


def test_a_full_model_on_cards_of_all_sizes() -> None:
    assert [FULL.slots(size * GIB) for size in (8, 16, 24, 40, 80, 141)] == [0, 0, 12, 40, 112, 192]
    assert str(FULL).startswith("20.8 GB (LLM 13.5 in bfloat16, encoder 0.6, mapper 0.7, 6.0 to work in)")


def test_a_card_too_small_is_refused_before_anything_is_loaded(
    tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: object) -> None:
        raise AssertionError("something was loaded")

    free = read_needs(tiny_model_dir, llm_dtype="float32").total
    monkeypatch.setattr("mats_core.model.model.card_memory", lambda place: (free - 1, 2 * free))
    monkeypatch.setattr("mats_core.model.model.load_llm", never)
    with pytest.raises(SettingsError, match=r"^device: the model needs .* GB \(LLM .* in float32, .*free of"):
        mats_core.load_model(tiny_model_dir, device="cpu")
    monkeypatch.setattr("mats_core.model.model.card_memory", lambda place: (free, 2 * free))
    with pytest.raises(AssertionError, match="something was loaded"):
        mats_core.load_model(tiny_model_dir, device="cpu")


def test_what_to_do_about_a_card_that_is_too_small(tiny_model_dir: str) -> None:
    eight, half = (read_needs(tiny_model_dir, llm_dtype=each).total for each in ("int8", "bfloat16"))

    def remedy(free: int, total: int, dtype: str = "bfloat16") -> str:
        with pytest.raises(SettingsError) as caught:
            check_card(tiny_model_dir, (), "cuda:0", (free, total), llm_dtype=dtype)
        assert "cuda:0 has" in caught.value.problem
        return caught.value.remedy

    assert remedy(eight, eight).startswith("give --llm-dtype int8 (needs ")
    assert remedy(eight - 1, half).startswith("free it from what else runs there, ")
    assert remedy(100, 200) == remedy(100, 200, "int8") == "choose a larger card, or --device cpu"
    check_card(tiny_model_dir, (), "cpu", None, llm_dtype="float32")


@pytest.fixture
def copy_of_tiny(tiny_model_dir: str, tmp_path: Path) -> Path:
    import shutil

    copied = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    note = json.loads((copied / "mats.json").read_text())
    note["llm"]["fingerprint"] = ""
    (copied / "mats.json").write_text(json.dumps(note))
    return copied


def test_an_llm_whose_sizes_are_not_known_is_counted_by_its_weights(copy_of_tiny: Path) -> None:
    config = copy_of_tiny / "llm" / "config.json"
    values = json.loads(config.read_text())
    del values["num_attention_heads"]
    config.write_text(json.dumps(values))
    needs = read_needs(str(copy_of_tiny))
    assert (needs.sizes, needs.writing) == (None, 0)
    assert (needs.slots(needs.total), needs.slots(needs.total - 1)) == (1, 0)
    weights = copy_of_tiny / "llm" / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(weights).items() if "layers.1" not in name}, weights)
    assert read_needs(str(copy_of_tiny)).llm < needs.llm
