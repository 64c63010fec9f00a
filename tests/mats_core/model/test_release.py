"""The recorded runs of the authors' code, number for number, through the public API."""

from __future__ import annotations

import filecmp
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mats_core import load_model
from mats_core.errors import SettingsError
from mats_core.memory.noise import inject_noise
from mats_core.memory.santa import SantaMemory
from mats_core.model.config import Part
from mats_core.model.model import MatsModel
from mats_core.model.release import import_reference, import_with_report, read_checkpoint
from tests.conftest import COPIED_REFERENCE, SHARED_REFERENCE


@pytest.fixture(scope="module")
def imported(reference_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "model"
    return import_reference(reference_dir / "checkpoint_29.pth", reference_dir / "llm", out)


@pytest.fixture(scope="module", params=[True, False], ids=["merged", "unmerged"])
def model(imported: Path, request: pytest.FixtureRequest) -> MatsModel:
    """The authors' model, its adapter in the LLM's weights or beside them: all recorded numbers hold for both."""
    return load_model(str(imported), device="cpu", dtype="float32", merge_adapter=request.param)


@pytest.fixture(scope="module")
def forward(reference_dir: Path) -> tuple[dict[str, torch.Tensor], list[str], list[str]]:
    """Recorded tensors, and the prompts as their code made them: tag after </Speech>, question in {}."""
    recorded = json.loads((reference_dir / "train_forward.json").read_text())
    samples = recorded["samples"]
    prompts = [
        prompt.replace("</Speech>", f"</Speech> {tag}").replace("{}", question)
        for prompt, tag, question in zip(recorded["prompts"], samples["special_token"], samples["Q"], strict=True)
    ]
    return load_file(reference_dir / "train_forward.safetensors"), prompts, samples["output"]


def test_noise(forward: Any) -> None:
    tensors, _, _ = forward
    noised = inject_noise(tensors["text_embedding"], 0.015, noise=tensors["noise"])
    torch.testing.assert_close(noised, tensors["noised"], atol=1e-6, rtol=0)


def test_prefix(model: MatsModel, forward: Any) -> None:
    tensors, _, _ = forward
    with torch.no_grad():
        torch.testing.assert_close(model.prefix(tensors["noised"]), tensors["prefix"], atol=1e-5, rtol=0)
        longer = model.prefix(7.0 * tensors["noised"])  # it normalises
    torch.testing.assert_close(longer, tensors["prefix"], atol=1e-5, rtol=0)


def test_loss_of_each_sample_alone_and_together(model: MatsModel, forward: Any) -> None:
    tensors, prompts, outputs = forward
    with torch.no_grad():
        together = model.loss(tensors["noised"], prompts, outputs)
        alone = [model.loss(tensors["noised"][i : i + 1], prompts[i : i + 1], outputs[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(together, tensors["loss"], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat(alone), tensors["loss"], atol=1e-4, rtol=0)


def test_token_accuracy(model: MatsModel, forward: Any) -> None:
    tensors, prompts, outputs = forward
    with torch.no_grad():
        scores = model.score(model.prefix(tensors["noised"]), model.tokens.for_loss(prompts, outputs, model.device))
    assert scores.tokens.tolist() == tensors["target_tokens"].tolist() == [18, 7, 6, 28]
    torch.testing.assert_close(scores.correct / scores.tokens, tensors["token_accuracy"])


@pytest.mark.parametrize("mode", ["beam4", "greedy"])
@pytest.mark.parametrize("together", [False, True])
def test_all_answers_token_for_token(model: MatsModel, reference_dir: Path, mode: str, together: bool) -> None:
    recorded = json.loads((reference_dir / "generate.json").read_text())
    audio = load_file(reference_dir / "santa.safetensors")["audio_embedding"]
    settings = dict(recorded["generation"], num_beams=4 if mode == "beam4" else 1)
    cases = recorded["cases"]
    assert len(cases) == 15
    for batch in [cases] if together else [[case] for case in cases]:
        embedding = torch.stack([audio[case["audio"]] for case in batch])
        texts, ids = model.generate(embedding, [case["prompt"] for case in batch], settings, return_ids=True)
        assert ids == [case[f"{mode}_ids"][1:] for case in batch]  # theirs begin with a BOS
        # what was recorded had been through their str.capitalize() and strip()
        assert [text.strip().capitalize() for text in texts] == [case[mode] for case in batch]


@pytest.mark.parametrize(("kind", "probe"), [("kmeans", 1), ("exact", "all")])
@pytest.mark.parametrize("noisy", [False, True])
def test_santa(model: MatsModel, reference_dir: Path, kind: str, probe: Any, noisy: bool) -> None:
    recorded = load_file(reference_dir / "santa.safetensors")
    memory = SantaMemory.build(recorded[f"{kind}_bank"], centroids=recorded["kmeans_means"])
    options = {"neighbors": 8, "scale": 10.0, "mix": 0.3, "probe": probe, "noise_variance": 0.015}
    noise = recorded[f"{kind}_noise"] if noisy else None
    mixed = memory.transfer(recorded["audio_embedding"], noise=noise, normalize=False, **options)
    expected = recorded[f"{kind}_mixed_noisy" if noisy else f"{kind}_mixed"]
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=0)
    if not noisy:
        unit = memory.transfer(recorded["audio_embedding"], noise=None, normalize=True, **options)
        with torch.no_grad():
            torch.testing.assert_close(model.prefix(unit), recorded[f"{kind}_prefix"], atol=1e-5, rtol=0)


def test_the_releases_mixture_of_a_raw_embedding(reference_dir: Path) -> None:
    """0.7 a + 0.3 Σ softmax(10 ⟨a, t⟩) t with a of norm 32, by hand, is a direction that unit vectors give as well."""
    recorded = load_file(reference_dir / "santa.safetensors")
    unit, bank, norm = recorded["audio_embedding"], recorded["exact_bank"], 32.0
    raw = norm * unit
    near = torch.cdist(raw, bank).argsort(dim=1)[:, :8]
    weights = torch.softmax(10.0 * torch.einsum("bd,bkd->bk", raw, bank[near]), dim=1)
    theirs = 0.7 * raw + 0.3 * torch.einsum("bk,bkd->bd", weights, bank[near])
    memory = SantaMemory.build(bank, centroids=recorded["kmeans_means"])
    options: dict[str, Any] = {"scale": 10.0 * norm, "mix": 0.3 / (0.7 * norm + 0.3), "probe": "all"}
    ours = memory.transfer(unit, neighbors=8, **options)
    torch.testing.assert_close(ours, theirs / theirs.norm(dim=1, keepdim=True), atol=1e-6, rtol=0)
    assert (ours * unit).sum(1).min() > 0.999  # the text's share is hardly there


def test_the_releases_clusters_of_a_raw_embedding(reference_dir: Path) -> None:
    """Their k-means mode chooses the cluster with the raw `a` as well, and searches that one only.

    ‖r·a − c‖² = r² + ‖c‖² − 2r⟨a, c⟩: the longer `a`, the less the centroids' own norms count, so that the choice is
    not the unit vector's. A memory of the chosen cluster alone, all of it searched, gives their direction.
    """
    recorded = load_file(reference_dir / "santa.safetensors")
    unit, bank, means = recorded["audio_embedding"], recorded["kmeans_bank"], recorded["kmeans_means"]
    norm = 32.0
    raw = norm * unit
    homes = torch.cdist(bank, means).argmin(dim=1)
    for row, home in enumerate(torch.cdist(raw, means).argmin(dim=1)):
        members = bank[homes == home]
        near = members[torch.cdist(raw[row : row + 1], members)[0].argsort()[:8]]
        weights = torch.softmax(10.0 * near @ raw[row], dim=0)
        theirs = 0.7 * raw[row] + 0.3 * weights @ near
        memory = SantaMemory.build(members, centroids=means[home : home + 1])
        options: dict[str, Any] = {"scale": 10.0 * norm, "mix": 0.3 / (0.7 * norm + 0.3), "probe": "all"}
        (ours,) = memory.transfer(unit[row : row + 1], neighbors=8, **options)
        torch.testing.assert_close(ours, theirs / theirs.norm(), atol=1e-6, rtol=0)
    two, one = torch.tensor([[0.3, 0.0], [0.5, 0.75]]), torch.tensor([[1.0, 0.0]])
    assert torch.cdist(one, two).argmin() == 0  # squared: 0.49 and 0.8125
    assert torch.cdist(32 * one, two).argmin() == 1  # squared: 1004.89 and 992.81


def test_import_reads_sizes_from_tensors_and_says_where_the_rest_came_from(reference_dir: Path, tmp_path: Path) -> None:
    report = import_with_report(
        str(reference_dir / "checkpoint_29.pth"), str(reference_dir / "llm"), str(tmp_path), config={"beams": 2}
    )
    assert report.sizes == {
        "embedding_dim": 1024,
        "vectors": 8,
        "width": 64,
        "clip_tokens": 8,
        "layers": 2,
        "mlp_width": 128,
        "hidden_size": 64,
        "lora_rank": 8,
    }
    assert report.chosen["beams"] == (2, "given")
    assert report.chosen["neighbors"] == (8, "checkpoint")
    assert report.chosen["repetition_penalty"] == (2.0, "default")
    assert len(report.skipped) == 4  # ln_audio twice, inv_freq of two layers
    config = load_model(str(tmp_path), device="cpu").config
    assert (config.decoding.beams, config.answer_style, config.santa.neighbors) == (2, "reference", 8)


def _changed(reference_dir: Path, tmp_path: Path, change: Any, **config: Any) -> str:
    """The recorded checkpoint after `change` of its tensors, with `config` over its own."""
    found = torch.load(reference_dir / "checkpoint_29.pth", weights_only=True)
    change(found["model"])
    found["config"]["model"].update(config)
    torch.save(found, tmp_path / "changed.pth")
    return str(tmp_path / "changed.pth")


def _refused(reference_dir: Path, tmp_path: Path, change: Any, **config: Any) -> str:
    file = _changed(reference_dir, tmp_path, change, **config)
    with pytest.raises(SettingsError) as caught:
        import_reference(file, str(reference_dir / "llm"), str(tmp_path / "out"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _without(*parts: str) -> Any:
    """A change that removes every tensor with all of these in its name."""
    return lambda state: [state.pop(name) for name in list(state) if all(part in name for part in parts)]


def _with(name: str, *shape: int) -> Any:
    return lambda state: state.update({name: torch.zeros(shape)})


_LAYER, _LORA = "audio_mapper.transformer.layers", "llama_model.base_model.model.model.layers"
_Q = f"{_LORA}.0.self_attn.q_proj.lora_A.default.weight"
UNFIT = {
    "missing": (_without("linear.bias"), "audio_mapper.linear.bias is missing, expected [512]"),
    "missing size": (_without("audio_llama_proj.weight"), "audio_llama_proj.weight is missing, expected [64, 64]"),
    "unknown": (_with("surprise", 2), "surprise is unknown"),
    "misshapen": (_with("audio_mapper.linear.bias", 3), "audio_mapper.linear.bias is [3], expected [512]"),
    "width of none": (_with("audio_mapper.prefix_const", 8, 0), "prefix_const is [8, 0], expected [8, 64]"),
    "no vectors": (_with("audio_mapper.prefix_const", 0, 64), "prefix_const is [0, 64], expected [8, 64]"),
    "another width": (_with("audio_mapper.prefix_const", 8, 60), "prefix_const is [8, 60], expected [8, 64]"),
    "a number": (_with(f"{_LAYER}.0.mlp.fc1.bias"), "0.mlp.fc1.bias is [], expected [128]"),
    "a number of LoRA": (_with(_Q), "q_proj.lora_A.default.weight is [], expected [8, 64]"),
    "another rank": (_with(_Q, 4, 64), "q_proj.lora_A.default.weight is [4, 64], expected [8, 64]"),
    "LoRA elsewhere": (_with(_Q.replace("q_proj", "zzz"), 8, 64), "zzz.lora_A.default.weight is unknown"),
    "a far layer": (_with(f"{_LAYER}.20000.norm1.weight", 64), "layers.20000.norm1.weight is unknown"),
    "no LoRA": (_without("lora"), "layers.0.self_attn.q_proj.lora_A.default.weight is missing, expected [8, 64]"),
    "half the LoRA": (_without("v_proj"), "layers.1.self_attn.v_proj.lora_B.default.weight is missing"),
    "LoRA of one layer": (_without(f"{_LORA}.1", "lora"), "layers.1.self_attn.q_proj.lora_A.default.weight is missing"),
    "no last layer": (_without(f"{_LAYER}.1"), f"{_LAYER}.1.mlp.fc1.bias is missing, expected [128]"),
    "no layers": (_without(_LAYER), f"{_LAYER}.0.norm1.bias is missing, expected [64]"),
    "other llm": (
        lambda state: [_with("audio_llama_proj.weight", 32, 64)(state), _with("audio_llama_proj.bias", 32)(state)],
        "is 64 wide, and the checkpoint was trained with an LLM 32 wide",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_checkpoint_that_does_not_fit(reference_dir: Path, tmp_path: Path, case: str) -> None:
    change, says = UNFIT[case]
    assert says in _refused(reference_dir, tmp_path, change)


def test_a_missing_size_hides_nothing_and_a_cut_list_says_how_much(reference_dir: Path, tmp_path: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        del state["audio_llama_proj.weight"], state["audio_mapper.prefix_const"]
        state["zz"] = torch.zeros(1)

    said = _refused(reference_dir, tmp_path, change)
    for wrong in ("audio_llama_proj.weight is missing", "prefix_const is missing, expected [8, 64]", "zz is unknown"):
        assert wrong in said
    said = _refused(
        reference_dir, tmp_path, lambda state: [state.update({f"zz{i:02}": torch.zeros(1)}) for i in range(25)]
    )
    assert said.endswith("zz19 is unknown; and 5 more; give the authors' checkpoint")


def test_without_lora_and_a_promise_of_it_there_is_no_adapter_and_that_is_said(
    reference_dir: Path, tmp_path: Path
) -> None:
    file = _changed(reference_dir, tmp_path, _without("lora"), lora=False)
    report = import_with_report(file, str(reference_dir / "llm"), str(tmp_path / "out"))
    assert "lora_rank" not in report.sizes
    assert any(line.startswith("no adapter: the checkpoint holds no LoRA tensors") for line in report.lines())
    assert load_model(str(tmp_path / "out"), device="cpu").config.adapter is None


@pytest.mark.parametrize("kind", ["mlp", "simple_mlp"])
def test_the_releases_other_mappers_are_imported(reference_dir: Path, tmp_path: Path, kind: str) -> None:
    """Their layers, applied one by one to an embedding, give the imported model's vectors."""
    draws = torch.Generator().manual_seed(0)
    sizes = [(256, 1024), (512, 256)] if kind == "mlp" else [(64, 1024)]  # 8 vectors of 64, or one
    layers = [
        (torch.randn(rows, columns, generator=draws) / columns**0.5, torch.randn(rows)) for rows, columns in sizes
    ]

    def change(state: dict[str, torch.Tensor]) -> None:
        _without("audio_mapper.")(state)
        for number, (weight, bias) in enumerate(layers):
            state[f"audio_mapper.model.{2 * number}.weight"] = weight
            state[f"audio_mapper.model.{2 * number}.bias"] = bias

    file = _changed(reference_dir, tmp_path, change, mapping_type=kind)
    state = torch.load(file, weights_only=True)["model"]
    out = import_reference(file, reference_dir / "llm", tmp_path / "out")
    imported = load_model(out, device="cpu", dtype="float32")
    assert imported.config.mapper.kind == ("reference_mlp" if kind == "mlp" else kind)
    embedding = torch.nn.functional.normalize(torch.randn(3, 1024, generator=draws), dim=-1)
    made = embedding
    for number, (weight, bias) in enumerate(layers):
        made = (torch.tanh(made) if number else made) @ weight.T + bias
    expected = made.reshape(3, -1, 64) @ state["audio_llama_proj.weight"].T + state["audio_llama_proj.bias"]
    with torch.no_grad():
        torch.testing.assert_close(imported.prefix(embedding), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("num_heads", 7, "checkpoint config.num_heads: 7 does not divide the mapper's width 64; "),
        ("num_heads", 0, "checkpoint config.num_heads: 0 is too small; give a number of at least 1"),
        ("k_nums", "many", 'checkpoint config.k_nums: "many" is no whole number; give a whole number'),
        ("lambda", 7, "checkpoint config.lambda: 7 is too large; give a number of at most 1"),
        ("num_beams", 0, "checkpoint config.num_beams: 0 is too small; give a number of at least 1"),
        ("lora_alpha", None, "checkpoint config.lora_alpha: None is no number; give a number"),
        ("noise_variance", -1, "checkpoint config.noise_variance: -1 is too small; give a number of at least 0"),
        ("temperature", float("nan"), "checkpoint config.temperature: nan is no finite number; give a finite number"),
        ("num_layers", 10**9, "mapper.layers: 1000000000 is too large; give a number of at most 1000"),
    ],
)
def test_a_wrong_value_in_the_checkpoints_config_is_named(
    reference_dir: Path, tmp_path: Path, name: str, value: Any, says: str
) -> None:
    assert _refused(reference_dir, tmp_path, lambda state: None, **{name: value}).startswith(says)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (3, torch.zeros(1), "the key 3 is of type int, not a name"),
        ("a", "b", "a is of type str, not a tensor"),
        ("a", torch.zeros(2, dtype=torch.int64), "a is of int64, not of floating-point numbers"),
        ("a", torch.zeros(2, dtype=torch.complex64), "a is of complex64"),
        ("a", torch.zeros(2).to(torch.float8_e4m3fn), "a is of float8_e4m3fn"),
        ("a", torch.zeros(2).to_sparse(), "a is a sparse"),
        ("a", torch.zeros(2, device="meta"), "a is a tensor without numbers of its own"),
        ("a", torch.zeros(1).expand(10**12), "a is a tensor without numbers of its own"),
        ("a", torch.tensor([1.0, float("nan")]), "a holds NaN or infinity"),
        ("a", torch.tensor([1e300], dtype=torch.float64), "a holds NaN or infinity"),  # in float32
    ],
)
def test_what_is_no_dense_float_tensor_is_named(tmp_path: Path, name: Any, value: Any, says: str) -> None:
    torch.save({"model": {name: value}}, tmp_path / "odd.pth")
    with pytest.raises(SettingsError) as caught:
        read_checkpoint(str(tmp_path / "odd.pth"))
    assert says in str(caught.value)


def test_the_repositorys_copy_of_the_recorded_runs_is_the_shared_one() -> None:
    shared, copy = SHARED_REFERENCE, COPIED_REFERENCE
    if not (shared.is_dir() and copy.is_dir()):
        pytest.skip("only one of the two is here")
    names = sorted(file.relative_to(copy) for file in copy.rglob("*") if file.is_file())
    assert names == sorted(file.relative_to(shared) for file in shared.rglob("*") if file.is_file())
    _, differ, unread = filecmp.cmpfiles(shared, copy, map(str, names), shallow=False)
    assert (differ, unread) == ([], [])


class _Malicious:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path(_Malicious.marker),))

    marker = ""


@pytest.mark.parametrize("write", ["zip", "legacy", "pickle"])
def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, write: str, recwarn: pytest.WarningsRecorder) -> None:
    _Malicious.marker = str(tmp_path / "executed")
    held = {"model": {"audio_mapper.prefix_const": _Malicious()}}
    if write == "pickle":
        (tmp_path / "bad.pth").write_bytes(pickle.dumps(held))
    else:
        torch.save(held, tmp_path / "bad.pth", _use_new_zipfile_serialization=write == "zip")
    with pytest.raises(SettingsError, match="nothing in it was run") as caught:
        read_checkpoint(str(tmp_path / "bad.pth"))
    assert "weights_only" not in str(caught.value)  # torch's advice is how to run it
    assert not (tmp_path / "executed").exists()
    assert not recwarn.list


def test_truncated_and_missing_checkpoints(reference_dir: Path, tmp_path: Path) -> None:
    def refused(content: bytes) -> str:
        (tmp_path / "wrong.pth").write_bytes(content)
        with pytest.raises(SettingsError) as caught:
            read_checkpoint(str(tmp_path / "wrong.pth"))
        return str(caught.value)

    whole = (reference_dir / "checkpoint_29.pth").read_bytes()
    for length in (5000, len(whole) // 2):
        assert "wrong.pth: this file is cut short or broken; give a checkpoint" in refused(whole[:length])
    assert "broken or not a PyTorch file (it begins with b'hell'); give a checkpoint" in refused(b"hello")
    assert "this file is empty; give a checkpoint" in refused(b"")
    with pytest.raises(SettingsError, match=r"checkpoint: .*none\.pth"):
        read_checkpoint(str(tmp_path / "none.pth"))


class _Clap:
    """An encoder of the checkpoint's 1024 dimensions whose texts are `apart` from one another."""

    dim, fingerprint = 1024, "f" * 64

    def __init__(self, apart: float) -> None:
        self.apart = apart

    def embed_text(self, texts: Any) -> torch.Tensor:
        draws = torch.randn(len(texts), self.dim, generator=torch.Generator().manual_seed(0))
        return F.normalize(self.apart * F.normalize(draws, dim=-1) + torch.eye(self.dim)[0], dim=-1)


@pytest.mark.parametrize(("apart", "said"), [(2.0, "0.197"), (0.3, "0.9"), (0.01, "")])
def test_an_import_says_how_far_claps_texts_are_apart_and_refuses_a_collapsed_one(
    reference_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: float, said: str
) -> None:
    part = Part(uri=str(tmp_path / "clap"), fingerprint="f" * 64)
    monkeypatch.setattr("mats_core.model.release.load_encoder_part", lambda *_: (_Clap(apart), part))
    given = (reference_dir / "checkpoint_29.pth", reference_dir / "llm", tmp_path / "out", tmp_path / "clap")
    if not said:
        with pytest.raises(SettingsError, match=r"^clap: the text tower of .*clap has collapsed.*cosine of 0\.99"):
            import_with_report(*given)
        assert not list((tmp_path / "out").iterdir())
        return
    (line,) = (line for line in import_with_report(*given).lines() if line.startswith("clap: "))
    assert f"mean cosine {said}" in line and ("hardly told apart" in line) == (apart < 1)
