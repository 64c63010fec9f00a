"""The embedded model's confidence: what counts as right, and that a calibration of few clips is there and is used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mats_core import load_model
from mats_core.confidence.calibration import ALL, read_calibration
from mats_core.model.directory import BUILTIN
from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import label_text
from mats_core.soundworld.made.build import evaluate
from mats_core.soundworld.made.card import measured_table
from mats_core.soundworld.made.trust import calibrate, is_right, rerank_numbers, rerank_table
from mats_core.soundworld.recipe import clip_recipe


def test_right_names_nothing_wrong_and_misses_at_most_half() -> None:
    recipe = next(found for at in range(100) if len(set((found := clip_recipe("test", at)).labels())) == 3)
    one, two, three = sorted(set(recipe.labels()))
    other = next(kind for kind in KINDS if kind not in recipe.labels())
    for kinds, right in (
        ([one], False), ([one, two], True), ([one, two, three], True), ([one, two, other], False), ([], False),
        ([one, two, three, other], False),
    ):  # fmt: skip
        assert is_right(label_text(kinds), recipe) is right, kinds
    assert is_right("Yes.", "yes") and not is_right("no", "yes")


def test_the_shipped_model_is_calibrated_in_a_copy_and_measured(tmp_path: Path) -> None:
    """200 validation clips: far too few for good figures, enough for the way."""
    model = tmp_path / "model"
    shutil.copytree(BUILTIN, model)
    (model / "calibration.json").unlink(missing_ok=True)
    before = load_model(str(model), device="cpu", dtype="float32")
    assert before.calibration is None
    fitted = calibrate(model, 200, log=lambda _: None)
    loaded = load_model(str(model), device="cpu", dtype="float32")
    assert loaded.calibration == fitted.calibration and loaded.fingerprint == before.fingerprint
    assert sorted(fitted.calibration.tasks) == ["QA", ALL, "caption", "cla_label"]
    assert fitted.calibration.tasks["QA"].answers == 2 * 200
    numbers = evaluate(loaded, 200, 0, log=lambda _: None)
    trust = numbers["trust"]
    assert {name: each["answers"] for name, each in trust.items()} == {"caption": 200, "cla_label": 200, "QA": 200}
    assert all(sum(count for _, _, count in each["bins"]) == 200 for each in trust.values())
    assert trust["QA"]["auroc"] > 0.6 and trust["QA"]["ece"] < 0.25
    assert f"| confidence, questions, AUROC | {trust['QA']['auroc']:.3f} |" in measured_table(numbers, None)
    assert read_calibration(model, "another")[0] is None
    trust["caption"] |= {"auroc": None, "auroc_interval": None, "right": 1.0, "ece": 0.01}
    told = "| confidence, captions, AUROC |  | calibration error 0.010; 1.000 of 200 answers are right |"
    assert told in measured_table(numbers, None)


def test_reranking_is_measured_with_its_interval() -> None:
    model = load_model("builtin", device="cpu", dtype="float32")
    found = rerank_numbers(model, 64, 4, lambda _: None)
    first, best, gain = (found["captions, label F1"][each] for each in ("first", "best", "gain"))
    assert gain[0] == pytest.approx(best[0] - first[0]) and gain[1] <= gain[0] <= gain[2]
    assert 0 < found["captions, changed"] < 1 and first[0] > 0.85
    assert f"| captions, label F1 | {first[0]:.3f} (" in rerank_table(found)


def test_the_shipped_calibration_is_the_shipped_models() -> None:
    """After another model is put there: `mats soundworld calibrate --model builtin`."""
    model = load_model("builtin", device="cpu", dtype="float32")
    assert model.calibration is not None and set(model.calibration.tasks) == {"QA", ALL, "caption", "cla_label"}
    for task in ("QA", "caption", "cla_label"):
        curve = model.calibration.tasks[task]
        assert (curve.ece or 1.0) <= 0.05 and (curve.auroc or 0.0) >= 0.85, task
