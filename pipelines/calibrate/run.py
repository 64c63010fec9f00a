"""`mats calibrate`: a model is asked what was judged, and what its scores say about right and wrong is kept."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mats_core import storage
from mats_core.confidence.fitting import Fitted, Judged, figures_table, fit_calibration
from mats_core.errors import SettingsError
from mats_core.model.facts import ModelFacts, read_model_facts
from mats_core.model.prompts import validate_request
from mats_core.storage.uris import path_of
from pipelines.calibrate.judging import Judge, Question, is_table, of_data_set, read_judged
from pipelines.evaluate.datasets import LoadedSet, load_evaluation_set, load_items
from pipelines.evaluate.scores import EncoderAndMemory
from pipelines.settings.calling import by_name
from pipelines.settings.evaluate import CalibrateSettings, data_roots

if TYPE_CHECKING:
    from mats_core.confidence.calibration import Signs
    from mats_core.model.asking import Clip
    from mats_core.model.model import MatsModel

LEAST = 20
"""Judged answers below which nothing is fitted."""
ENOUGH = 200
"""Judged answers from which on the figures are worth something."""


@dataclass
class CalibrateResult:
    """What a calibration came to. left_out: why a judged clip did not take part → how many; where: the file."""

    fitted: Fitted = field(repr=False)
    judged: int
    left_out: Counter[str]
    where: str

    @property
    def table(self) -> str:
        """Figures of held-out folds, in Markdown."""
        return figures_table(self.fitted)


@by_name(CalibrateSettings)
def run_calibrate(settings: CalibrateSettings, progress: Callable[[int, int], None] | None = None) -> CalibrateResult:
    """Ask the model again what `settings.data` judges, fit its calibration, and write it into the model's directory.

    progress: is told how many of how many clips were asked. Raises SettingsError before the model is loaded for what
    cannot work, and after it where too few answers are left.
    """
    facts = read_model_facts(settings.model, settings.allow_parts, settings.trust_remote_code)
    folder = _writable_folder(settings.model)
    questions, judge, judged_by = _questions(settings, facts)
    if settings.limit:
        questions = questions[: settings.limit]
    beams = facts.config.decoding.beams
    if settings.rerank > beams:
        raise SettingsError("rerank", f"the model has {beams} beams, not {settings.rerank}", f"choose at most {beams}")
    for each in questions:
        validate_request(each.task, each.question, tuple(facts.config.tasks), each.tag)
    from mats_core import load_model

    model = load_model(
        settings.model, settings.device, trust_remote_code=settings.trust_remote_code, allow_parts=settings.allow_parts
    )
    model.calibration = None
    left_out: Counter[str] = Counter()
    answers = _ask(model, questions, settings, left_out, progress)
    right = [each.right for each in questions] if judge is None else judge([a[0] if a else None for a in answers])
    judged = []
    for question, answer, true in zip(questions, answers, right, strict=True):
        if answer is None:
            continue
        text, signs = answer
        if question.text is not None and question.text.strip() != text.strip():
            left_out["the model answers something else now than what was judged"] += 1
        elif true is None or signs is None:
            left_out["no judgement" if true is None else "silence, which no model was asked about"] += 1
        else:
            judged.append(Judged(question.task, signs, true, question.uri))
    if len(judged) < LEAST:
        told = "; ".join(f"{count}: {why}" for why, count in left_out.most_common(3)) or "no more were given"
        problem = f"{len(judged)} judged answers, of which at least {LEAST} are needed ({told})"
        raise SettingsError("data", problem, f"judge more: {ENOUGH} are enough")
    data = storage.public_uri(settings.data)
    fitted = fit_calibration(judged, facts.fingerprint, data, judged_by, settings.rerank)
    fitted.calibration.save(folder)
    return CalibrateResult(fitted, len(judged), left_out, str(folder / "calibration.json"))


def _writable_folder(model: str) -> Path:
    from mats_core.model.directory import resolve

    if model != "builtin" and path_of(model) is None:
        problem = f"{storage.public_uri(model)} is no directory of this machine, where a calibration could be written"
        raise SettingsError("model", problem, "copy it here, calibrate it, and copy calibration.json back")
    folder = resolve(model)
    if not os.access(folder, os.W_OK):
        raise SettingsError("model", f"{folder} cannot be written", "copy the model to where you may write")
    return folder


def _questions(settings: CalibrateSettings, facts: ModelFacts) -> tuple[list[Question], Judge | None, str]:
    """What is asked, what judges the answers (None where they are judged), and how, in words."""
    if is_table(settings.data):
        questions, judged_by = read_judged(settings.data, settings.metric, settings.at_least)
        return questions, None, judged_by
    definition = load_evaluation_set(settings.data)
    root = data_roots([settings.root] if settings.root else [], [definition.name])[definition.name]
    data: LoadedSet = load_items(definition, root, settings.limit)
    encoder = EncoderAndMemory(settings.model, facts, settings.device)
    return of_data_set(data, settings, encoder.embed_text)


def _ask(
    model: MatsModel,
    questions: Sequence[Question],
    settings: CalibrateSettings,
    left_out: Counter[str],
    progress: Callable[[int, int], None] | None,
) -> list[tuple[str, Signs | None] | None]:
    """Text and signs of each answer; None where there is none, which `left_out` counts."""
    from mats_core.audio.file import AudioError
    from mats_core.model.asking import Answer, Request, ask_clips, embed_sound

    found: list[tuple[str, Signs | None] | None] = [None] * len(questions)
    heard: dict[str, list[Clip] | str] = {}
    waiting: list[tuple[int, Clip]] = []

    def answer() -> None:
        asked = [questions[at] for at, _ in waiting]
        requests = [Request(each.task, each.question, each.tag) for each in asked]
        clips, size = [clip for _, clip in waiting], settings.batch_size
        answers = ask_clips(model, clips, requests, batch_size=size, rerank=settings.rerank)
        for (at, _), each in zip(waiting, answers, strict=True):
            if isinstance(each, Answer):
                found[at] = (each.text, each.signs)
            else:
                left_out["the model failed"] += 1
        waiting.clear()

    for at, each in enumerate(questions):
        if each.uri not in heard:
            heard = {}  # note: of questions in the order of their sounds, each is heard once; nothing piles up
            try:
                heard[each.uri] = embed_sound(model, each.uri, settings.batch_size)
            except AudioError as error:
                heard[each.uri] = error.code
        clips = heard[each.uri]
        chosen = [] if isinstance(clips, str) else [c for c in clips if each.start_s in (None, c.start_s)]
        if len(chosen) == 1:
            waiting.append((at, chosen[0]))
        elif isinstance(clips, str):
            left_out[f"the sound cannot be read ({clips})"] += 1
        else:
            left_out["longer than one answer, and start_s does not say which"] += 1
        if len(waiting) >= settings.batch_size or (at + 1 == len(questions) and waiting):
            answer()
            if progress is not None:
                progress(at + 1, len(questions))
    return found
