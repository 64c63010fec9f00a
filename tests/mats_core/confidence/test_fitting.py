"""Judged answers become curves: they find what tells right from wrong, and say no more than they know."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from mats_core.confidence.calibration import ALL, Calibration, Signs
from mats_core.confidence.fitting import Judged, figures_table, fit_calibration, fit_curve
from mats_core.scoring import compute

RNG = np.random.default_rng(7)


def answers(
    count: int, task: str = "caption", tells: float = 2.0, word: float = 0.0, base: float = 0.5
) -> list[Judged]:
    """Answers whose log-probability tells right from wrong, and the more often wrong the word "bell"."""
    found = []
    for at in range(count):
        sure, bell = RNG.standard_normal(), RNG.random() < 0.5
        right = RNG.random() < 1 / (1 + np.exp(-(base + tells * sure - word * bell)))
        values: dict[str, float | None] = {"logprob": sure, "alike": RNG.standard_normal(), "rms_dbfs": None}
        found.append(Judged(task, Signs(values | ({"answer:bell": 1.0} if bell else {})), bool(right), str(at)))
    return found


def unseen(calibration: Calibration, own: list[Judged]) -> tuple[float, float]:
    """Calibration error and AUROC on other answers."""
    rows = [(calibration.confidence(each.task, each.signs) or 0.0, float(each.right)) for each in own]
    return compute("calibration_error", rows), compute("auroc", rows)


def test_two_hundred_judged_answers_are_enough() -> None:
    fitted = fit_calibration(answers(200), "m", "200 clips", "a person")
    ece, apart = unseen(fitted.calibration, answers(3000))
    assert ece < 0.06 and apart > 0.83  # what the truth itself has: 0 and 0.86
    curve = fitted.calibration.tasks["caption"]
    assert abs((curve.auroc or 0) - apart) < 0.1 and curve.answers == 200
    assert (fitted.calibration.data, fitted.calibration.judged_by) == ("200 clips", "a person")
    assert len(fitted.held_out["caption"]) == 200
    assert "| caption | 200 |" in figures_table(fitted)


def test_the_figures_are_scikit_learns_of_the_chances_that_folds_got() -> None:
    judged = answers(150)
    curve, chances = fit_curve(judged)
    right = [each.right for each in judged]
    assert curve.auroc == pytest.approx(roc_auc_score(right, chances))
    assert curve.brier == pytest.approx(brier_score_loss(right, chances))


def test_a_word_that_is_often_wrong_becomes_a_sign() -> None:
    curve, _ = fit_curve(answers(1500, word=4.0))
    weights = dict(zip(curve.signs, curve.weights, strict=True))
    assert weights["answer:bell"] < -1.0 < 1.0 < weights["logprob"] and "rms_dbfs" not in weights


def test_sound_and_answer_that_belong_together_are_told_by_their_vectors() -> None:
    judged = []
    for at in range(400):
        right = at % 3 > 0
        sound = RNG.standard_normal(8)
        answer = sound if right else RNG.standard_normal(8)
        judged.append(
            Judged("caption", Signs({"logprob": 0.0}, {"answer": answer + 9.0, "sound": sound - 9.0}), right, str(at))
        )
    curve, _ = fit_curve(judged)
    assert "clap_centred" in curve.signs and (curve.auroc or 0) > 0.95
    assert {name: len(centre) for name, centre in curve.centres.items()} == {"answer": 8, "sound": 8}


def test_claps_view_of_a_question_tells_a_wrong_yes_from_a_right_one() -> None:
    """A model that says yes and no by chance; the sound has what the question asks for, or lies opposite."""
    judged = []
    for at in range(600):
        question, there, yes = RNG.standard_normal(8), at % 2 == 0, RNG.random() < 0.5
        sound = question if there else -question
        words: dict[str, float | None] = {"answer:yes" if yes else "answer:no": 1.0, "question:is": 1.0}
        vectors = {"question": question, "sound": sound + 0.5 * RNG.standard_normal(8)}
        judged.append(Judged("QA", Signs({"logprob": -0.7, "share": -0.7, **words}, vectors), yes == there, str(at)))
    curve, _ = fit_curve(judged)
    weights = dict(zip(curve.signs, curve.weights, strict=True))
    assert weights["answer:yes*question_centred"] > 0 > weights["answer:no*question_centred"]
    assert (curve.auroc or 0) > 0.95


def test_each_task_has_its_own_curve_and_all_have_one() -> None:
    judged = answers(300, base=2.0) + answers(300, "QA", base=-1.0)
    calibration = fit_calibration(judged, "m").calibration
    assert sorted(calibration.tasks) == ["QA", ALL, "caption"]
    middle = Signs({"logprob": 0.0, "alike": 0.0})
    chances = [calibration.confidence(task, middle) or 0.0 for task in ("QA", "cla_label", "caption")]
    assert chances == sorted(chances) and chances[2] - chances[0] > 0.4


def test_of_one_judged_task_nothing_is_said_of_others() -> None:
    calibration = fit_calibration(answers(60), "m").calibration
    assert list(calibration.tasks) == ["caption"]
    assert calibration.confidence("QA", Signs({"logprob": 0.0})) is None


@pytest.mark.parametrize("right", [True, False])
def test_answers_that_are_all_right_or_all_wrong_have_their_share(right: bool) -> None:
    judged = [Judged(each.task, each.signs, right, each.sound) for each in answers(98)]
    curve, chances = fit_curve(judged)
    assert curve.chance(Signs({"logprob": 5.0})) == pytest.approx(0.99 if right else 0.01)
    assert chances == pytest.approx([curve.chance(Signs({}))] * 98) and curve.auroc is None


@pytest.mark.parametrize("rare", [True, False])
@pytest.mark.parametrize("sounds", [1, 2])
@pytest.mark.parametrize("count", range(5))
def test_where_two_folds_hold_all_that_are_of_one_kind_the_share_is_said(rare: bool, sounds: int, count: int) -> None:
    """40 answers, `count` of them of a kind: of one to a sound each, and of all of them to one or two sounds."""
    made = [Judged(each.task, each.signs, (at < count) is rare, each.sound) for at, each in enumerate(answers(40))]
    grouped = [
        Judged(e.task, e.signs, e.right, f"#{at % sounds}" if at < count else e.sound) for at, e in enumerate(made)
    ]
    for judged in (made, grouped):
        curve, chances = fit_curve(judged)
        assert len(chances) == 40 and all(0 < chance < 1 for chance in chances)
        if count < 3 or judged is grouped:
            share = (sum(each.right for each in judged) + 1) / 42
            assert not curve.signs and chances == pytest.approx([share] * 40)


def test_what_tells_nothing_is_not_believed() -> None:
    fitted = fit_calibration(answers(300, tells=0.0), "m")
    ece, apart = unseen(fitted.calibration, answers(2000, tells=0.0))
    assert ece < 0.07 and abs(apart - 0.5) < 0.05


def test_answers_to_one_sound_stay_in_one_fold() -> None:
    """Twins whose sign is theirs alone: a curve that had seen the twin would know."""
    judged = []
    for at in range(150):
        own: dict[str, float | None] = {"logprob": RNG.standard_normal()}
        right = bool(RNG.random() < 0.5)
        judged += [Judged("caption", Signs(own), right, str(at))] * 2
    curve, _ = fit_curve(judged)
    assert abs((curve.auroc or 0.0) - 0.5) < 0.12


def test_the_same_answers_make_the_same_curve() -> None:
    judged = answers(250)
    assert fit_curve(judged)[0] == fit_curve(judged)[0]
    with pytest.raises(ValueError, match="no judged answers"):
        fit_calibration([], "m")
