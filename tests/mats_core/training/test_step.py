"""A step in parts: what micro-batches, mixed precision and gradient checkpointing must not change."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from mats_core.model.config import AdapterConfig, MapperConfig
from mats_core.model.model import MatsModel
from mats_core.training.loop import whole_batch
from mats_core.training.schedule import TrainingSettings
from mats_core.training.step import (
    MicroBatch,
    NotFiniteError,
    backward,
    evaluate,
    make_optimizer,
    set_training,
    train_step,
    trained_weights,
)
from tests.tiny import make_tiny_llm

SETTINGS = TrainingSettings(steps=10, batch_size=4, warmup_steps=0, noise_variance=0.01)
OUTPUTS = ["rain with wind", "a dog", "two bell then a siren and a bird", "no"]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_llm(tmp_path_factory.mktemp("parts") / "llm"))


def fresh(llm: str, dropout: float = 0.0, dtype: str = "float32") -> MatsModel:
    sizes = MapperConfig(vectors=4, clip_tokens=2, width=32, layers=1, heads=4)
    adapter = AdapterConfig(rank=4, alpha=8, dropout=dropout)
    return MatsModel.new(llm, embedding_dim=16, mapper=sizes, adapter=adapter, device="cpu", dtype=dtype)


def gradient(
    model: MatsModel, parts: list[list[int]], settings: TrainingSettings = SETTINGS
) -> tuple[float, torch.Tensor]:
    """Loss and the whole gradient of a step whose samples are cut into `parts`."""
    weights = trained_weights(make_optimizer(model, settings))
    clean = torch.eye(16)[:4]
    total = sum(len(model.tokens.answer(text)) for text in OUTPUTS)
    loss = 0.0
    for number, rows in enumerate(parts):
        batch = model.tokens.for_loss(
            [model.prompt("caption")] * len(rows), [OUTPUTS[i] for i in rows], torch.device("cpu")
        )
        samples = MicroBatch(clean[rows], batch, torch.tensor(rows) + 40, dropout_seed=number)
        sums = backward(model, samples, settings, total)
        loss += sums.loss.item() / total
    return loss, torch.cat([torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in weights])


def test_micro_batches_add_up_to_the_whole_batch(llm: str) -> None:
    whole_loss, whole = gradient(fresh(llm), [[0, 1, 2, 3]])
    loss, parts = gradient(fresh(llm), [[2], [3, 0], [1]])
    assert loss == pytest.approx(whole_loss, abs=1e-6)
    assert whole.norm() > 0
    assert torch.allclose(parts, whole, atol=1e-6)


def test_dropout_is_that_of_its_key(llm: str) -> None:
    first = gradient(fresh(llm, dropout=0.5), [[0, 1], [2, 3]])[1]
    torch.manual_seed(99)  # whatever was drawn before
    assert torch.equal(first, gradient(fresh(llm, dropout=0.5), [[0, 1], [2, 3]])[1])
    assert not torch.equal(first, gradient(fresh(llm, dropout=0.0), [[0, 1], [2, 3]])[1])


def test_gradient_checkpointing_changes_nothing(llm: str) -> None:
    plain = gradient(fresh(llm), [[0, 1, 2, 3]])[1]
    model = fresh(llm)
    model.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    runs: list[int] = []
    layer = model.causal_lm.model.layers[0].self_attn
    layer.register_forward_hook(lambda *_: runs.append(1))
    settings = SETTINGS.model_copy(update={"gradient_checkpointing": True})
    assert torch.allclose(gradient(model, [[0, 1, 2, 3]], settings)[1], plain, atol=1e-6)
    assert len(runs) == 2  # forward, and once more on the way back
    assert not any(module.training for module in model.llm.modules() if "dropout" not in type(module).__name__.lower())


def test_beside_an_llm_in_bf16_what_is_trained_stays_float32(llm: str) -> None:
    exact, half = gradient(fresh(llm), [[0, 1, 2, 3]]), gradient(model := fresh(llm, dtype="bfloat16"), [[0, 1, 2, 3]])
    assert model.causal_lm.dtype is torch.bfloat16
    assert {weight.dtype for weight in trained_weights(make_optimizer(model, SETTINGS))} == {torch.float32}
    assert half[1].dtype is torch.float32
    assert half[0] == pytest.approx(exact[0], abs=0.05)
    assert torch.nn.functional.cosine_similarity(exact[1], half[1], dim=0) > 0.98


def test_evaluation_adds_no_noise_and_leaves_no_gradient(llm: str) -> None:
    model = fresh(llm, dropout=0.5)
    make_optimizer(model, SETTINGS)
    prompts = [model.prompt("caption")] * 4
    batch = model.tokens.for_loss(prompts, OUTPUTS, torch.device("cpu"))
    sums = evaluate(model, torch.eye(16)[:4], batch)
    each = model.loss(torch.eye(16)[:4], prompts, OUTPUTS)
    counts = torch.tensor([len(model.tokens.answer(text)) for text in OUTPUTS])
    assert sums.loss.item() == pytest.approx((each * counts).sum().item(), abs=1e-4)
    assert sums.tokens == counts.sum()
    assert all(weight.grad is None for weight in model.mapper.parameters())


def test_only_the_adapters_dropout_is_turned_on(llm: str) -> None:
    model = fresh(llm, dropout=0.5)
    set_training(model, True)
    on = {name for name, module in model.llm.named_modules() if module.training}
    assert on
    assert all("lora_dropout" in name for name in on)


def test_beside_an_llm_in_bf16_the_adapters_inputs_are_not_made_float32(llm: str) -> None:
    """PEFT makes them float32, and autocast bf16 again: the numbers are the same, the work is not."""
    ours, casting = fresh(llm, dtype="bfloat16"), fresh(llm, dtype="bfloat16")
    seen: list[torch.dtype] = []
    for model in (ours, casting):
        layer = model.causal_lm.model.layers[0].self_attn.q_proj.lora_A["default"]
        layer.register_forward_pre_hook(lambda module, given: seen.append(given[0].dtype))
    for module in casting.llm.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module._cast_input_dtype = lambda x, dtype: x.to(dtype)
    assert torch.equal(gradient(ours, [[0, 1, 2, 3]])[1], gradient(casting, [[0, 1, 2, 3]])[1])
    assert seen == [torch.bfloat16, torch.float32]
    prompts = [ours.prompt("caption")]
    assert ours.generate(torch.eye(16)[:1], prompts)  # outside of a step inputs are cast, as they must be there


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_steps_are_those_of_torchs_own_clipping(llm: str, clip_norm: float | None) -> None:
    """The oracle clips with `clip_grad_norm_`, which looks at every gradient once more: to the bit the same."""
    settings = SETTINGS.model_copy(update={"clip_norm": clip_norm, "learning_rate": 1e-2})
    ours, plain = fresh(llm), fresh(llm)
    optimizer, reference = make_optimizer(ours, settings), make_optimizer(plain, settings)
    prompts = [ours.prompt("caption")] * 4
    for step in range(3):
        batch = whole_batch(ours, step, torch.eye(16)[:4], prompts, OUTPUTS)
        result = train_step(ours, optimizer, settings, batch)
        reference.zero_grad()
        sums = backward(plain, batch.micro_batches[0], settings, batch.target_tokens)
        norm = torch.nn.utils.clip_grad_norm_(trained_weights(reference), clip_norm or float("inf"))
        for group in reference.param_groups:
            group["lr"] = result.learning_rate
        reference.step()
        assert (result.loss_sum, result.correct, result.grad_norm) == (sums.loss, sums.correct, norm)
    for one, other in zip(trained_weights(optimizer), trained_weights(reference), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30])
def test_one_gradient_that_is_not_finite_stops_the_step(llm: str, value: float) -> None:
    """1e30 is finite, though its square is not in float32."""
    model = fresh(llm)
    optimizer = make_optimizer(model, SETTINGS)
    before = [weight.detach().clone() for weight in trained_weights(optimizer)]
    batch = whole_batch(model, 3, torch.eye(16)[:1], [model.prompt("caption")], OUTPUTS[:1])

    def spoilt(weights: Sequence[torch.Tensor], sums: torch.Tensor) -> torch.Tensor:
        weights[-1].grad.view(-1)[0] = value
        return sums

    if value == 1e30:
        train_step(model, optimizer, SETTINGS, batch, spoilt)
        assert all(bool(torch.isfinite(weight).all()) for weight in trained_weights(optimizer))
        assert not torch.equal(before[0], trained_weights(optimizer)[0])
        return
    with pytest.raises(NotFiniteError, match="step 3"):
        train_step(model, optimizer, SETTINGS, batch, spoilt)
    assert all(torch.equal(a, b) for a, b in zip(before, trained_weights(optimizer), strict=True))
