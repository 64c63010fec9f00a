"""The recorded runs of the authors' code, number for number, through the public API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mats_core import load_model
from mats_core.checkpoint import import_reference
from mats_core.errors import SettingsError
from mats_core.model import MatsModel
from mats_core.noise import inject_noise
from mats_core.reference import import_with_report
from mats_core.santa import SantaMemory


@pytest.fixture(scope="module")
def imported(reference_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "model"
    return import_reference(str(reference_dir / "checkpoint_29.pth"), str(reference_dir / "llm"), str(out))


@pytest.fixture(scope="module")
def model(imported: Path) -> MatsModel:
    return load_model(str(imported), device="cpu", dtype="float32")


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
        scores = model.scores(model.prefix(tensors["noised"]), prompts, outputs)
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


def _changed(reference_dir: Path, tmp_path: Path, change: Any) -> str:
    found = torch.load(reference_dir / "checkpoint_29.pth", weights_only=True)
    change(found["model"])
    torch.save({"model": found["model"]}, tmp_path / "changed.pth")
    return str(tmp_path / "changed.pth")


def _without(name: str) -> Any:
    return lambda state: state.pop(name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without("audio_mapper.linear.bias"), "linear.bias is missing"),
        (_without("audio_llama_proj.weight"), "missing or misshapen: audio_llama_proj.weight"),
        (lambda state: state.update(surprise=torch.zeros(2)), "surprise is unknown"),
        (
            lambda state: state.update({"audio_mapper.linear.bias": torch.zeros(3)}),
            "linear.bias is [3], expected [512]",
        ),
        (lambda state: state["audio_mapper.linear.bias"].fill_(float("nan")), "linear.bias holds NaN"),
        (
            lambda state: state.update(
                {"audio_llama_proj.weight": torch.zeros(32, 64), "audio_llama_proj.bias": torch.zeros(32)}
            ),
            "32 wide, not 64",
        ),
    ],
    ids=["missing", "missing size", "unknown", "misshapen", "nan", "other llm"],
)
def test_checkpoint_that_does_not_fit(reference_dir: Path, tmp_path: Path, change: Any, says: str) -> None:
    file = _changed(reference_dir, tmp_path, change)
    with pytest.raises(SettingsError) as caught:
        import_reference(file, str(reference_dir / "llm"), str(tmp_path / "out"))
    assert says in str(caught.value)


class _Malicious:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path(_Malicious.marker),))

    marker = ""


def test_nothing_in_a_checkpoint_is_executed(reference_dir: Path, tmp_path: Path) -> None:
    _Malicious.marker = str(tmp_path / "executed")
    torch.save({"model": {"audio_mapper.prefix_const": _Malicious()}}, tmp_path / "bad.pth")
    with pytest.raises(SettingsError, match="nothing in it ran"):
        import_reference(str(tmp_path / "bad.pth"), str(reference_dir / "llm"), str(tmp_path / "out"))
    assert not (tmp_path / "executed").exists()


def test_truncated_and_missing_checkpoints(reference_dir: Path, tmp_path: Path) -> None:
    whole = (reference_dir / "checkpoint_29.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SettingsError, match=r"a whole \.pth file|refused"):
        import_reference(str(tmp_path / "cut.pth"), str(reference_dir / "llm"), str(tmp_path / "out"))
    with pytest.raises(SettingsError, match="a file that exists"):
        import_reference(str(tmp_path / "none.pth"), str(reference_dir / "llm"), str(tmp_path / "out"))
