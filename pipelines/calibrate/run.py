"""`mats calibrate`: a model is asked what was judged, and what its scores say about right and wrong is kept."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from mats_core import storage
from mats_core.batches import raised
from mats_core.confidence.calibration import read_calibration
from mats_core.confidence.fitting import Fitted, Judged, figures_table, fit_calibration
from mats_core.errors import SettingsError, counted
from mats_core.model.facts import read_model_facts
from mats_core.model.prompts import validate_request
from mats_core.storage.uris import path_of, to_uri
from pipelines.calibrate.judging import Judge, Question, is_table, of_data_set, read_questions
from pipelines.evaluate.datasets import load_evaluation_set, load_items
from pipelines.evaluate.scores import EncoderAndMemory
from pipelines.sample.judgements import same_text
from pipelines.settings.calling import by_name
from pipelines.settings.evaluate import CalibrateSettings, data_roots

if TYPE_CHECKING:
    from mats_core.confidence.calibration import Signs
    from mats_core.model.hearing.clips import Clip
    from mats_core.model.model import MatsModel

NOT_JUDGED = "not judged"
LONG = "longer than one answer, and start_s does not say which"
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
def run_calibrate(
    settings: CalibrateSettings,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> CalibrateResult:
    """Ask the model again what `settings.data` judges, fit its calibration, and write it into the model's directory.

    progress: is told how many of how many clips were asked; say: what is about to be done, in words. Raises
    SettingsError before the model is loaded for what cannot work, and after it where too few answers are left.
    """
    facts = read_model_facts(settings.model, settings.allow_parts, settings.trust_remote_code)
    folder = _writable_folder(settings.model)
    known = None if settings.overwrite else read_calibration(folder, facts.fingerprint)[0]
    if known is not None:
        problem = f"{settings.model} is calibrated already, by {known.data}"
        raise SettingsError("model", problem, "give --overwrite to replace that, or calibrate a copy of the model")
    left_out: Counter[str] = Counter()
    questions, judge, judged_by = _questions(settings)
    if judge is None:
        left_out[NOT_JUDGED] = sum(each.right is None for each in questions)
        questions = [each for each in questions if each.right is not None]
    questions = questions[: settings.limit]
    _refuse_few(len(questions), left_out)
    beams = facts.config.decoding.beams
    if settings.rerank > beams:
        raise SettingsError("rerank", f"the model has {beams} beams, not {settings.rerank}", f"choose at most {beams}")
    for each in questions:
        validate_request(each.task, each.question, tuple(facts.config.tasks), each.tag)
    if say is not None:
        files = counted(len({each.uri for each in questions}), "file")
        say(f"{counted(len(questions), 'judged answer')} about {files}: the model hears and answers each again")
    from mats_core import load_model
    from mats_core.model.hearing.clips import model_encoder

    model = load_model(
        settings.model, settings.device, trust_remote_code=settings.trust_remote_code, allow_parts=settings.allow_parts
    )
    model.calibration = None
    answers = _ask(model, questions, settings, left_out, progress)
    right = [each.right for each in questions]
    if judge is not None:
        texts = EncoderAndMemory(settings.model, facts, settings.device, model_encoder(model))
        right, judged_by = judge([a[0] if a else None for a in answers], texts.embed_text)
    judged = []
    for question, answer, true in zip(questions, answers, right, strict=True):
        if answer is None:
            continue
        text, signs = answer
        if question.text is not None and not same_text(question.text, text):
            left_out["the model answers something else now than what was judged"] += 1
        elif true is None or signs is None:
            left_out[NOT_JUDGED if true is None else "silence, which no model was asked about"] += 1
        else:
            judged.append(Judged(question.task, signs, true, question.uri))
    left_out = +left_out
    _refuse_few(len(judged), left_out)
    data = storage.public_uri(settings.data)
    fitted = fit_calibration(judged, facts.fingerprint, data, judged_by, settings.rerank)
    fitted.calibration.save(folder)
    return CalibrateResult(fitted, len(judged), left_out, str(folder / "calibration.json"))


def _refuse_few(count: int, left_out: Counter[str]) -> None:
    if count < LEAST:
        told = "; ".join(f"{n}: {why}" for why, n in (+left_out).most_common(3)) or "no more were given"
        problem = f"{counted(count, 'judged answer')}, of which at least {LEAST} are needed ({told})"
        raise SettingsError("data", problem, f"judge more: {ENOUGH} are enough")


def _writable_folder(model: str) -> Path:
    from mats_core.model.directory import resolve

    if model != "builtin" and path_of(model) is None:
        problem = f"{storage.public_uri(model)} is no directory of this machine, where a calibration could be written"
        raise SettingsError("model", problem, "copy it here, calibrate it, and copy calibration.json back")
    folder = resolve(model)
    if not os.access(folder, os.W_OK):
        raise SettingsError("model", f"{folder} cannot be written", "copy the model to where you may write")
    return folder


def _questions(settings: CalibrateSettings) -> tuple[list[Question], Judge | None, str]:
    """What is asked, what judges the answers (None where they are judged), and how those are, in words."""
    if is_table(settings.data):
        questions, judged_by = read_questions(settings.data, settings)
        return questions, None, judged_by
    definition = load_evaluation_set(settings.data)
    root = data_roots([settings.root] if settings.root else [], [definition.name])[definition.name]
    questions, judge = of_data_set(load_items(definition, root, settings.limit), settings)
    return questions, judge, ""


def _ask(
    model: MatsModel,
    questions: Sequence[Question],
    settings: CalibrateSettings,
    left_out: Counter[str],
    progress: Callable[[int, int], None] | None,
) -> list[tuple[str, Signs | None] | None]:
    """Text and signs of each answer; None where there is none, which `left_out` counts."""
    from mats_core.model.asking import Answer, Request, ask_clips

    found: list[tuple[str, Signs | None] | None] = [None] * len(questions)
    waiting: list[tuple[int, Clip]] = []
    done = 0

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

    # note: in the order of their sounds, so that each is heard once, and no more than a batch of them is kept
    order = sorted(range(len(questions)), key=lambda at: _place(questions[at]))
    for _, same in groupby(order, key=lambda at: _place(questions[at])):
        places = list(same)
        clip = _heard(model, questions[places[0]], settings.batch_size)
        if isinstance(clip, str):
            left_out[clip] += len(places)
        else:
            waiting += [(at, clip) for at in places]
        done += len(places)
        if len(waiting) >= settings.batch_size or (done == len(questions) and waiting):
            answer()
        if progress is not None:
            progress(done - len(waiting), len(questions))
    return found


def _place(question: Question) -> tuple[str, tuple[float, ...]]:
    """What of which file is asked about, in an order in which a file's parts are neighbours."""
    return question.uri, tuple(-1.0 if each is None else float(each) for each in question.stretch)


def _heard(model: MatsModel, question: Question, batch_size: int) -> Clip | str:
    """The clip that a question is about, of whose file nothing else is decoded; or why there is none."""
    from mats_core.audio.file import AudioError
    from mats_core.audio.sandbox import warm_decoder
    from mats_core.audio.windows import chunk_seconds, chunk_starts
    from mats_core.model.hearing.clips import embed_sound, model_encoder
    from mats_core.model.hearing.grouping import regrouped

    chunk_s = chunk_seconds(model_encoder(model).window_seconds)
    try:
        (info,) = raised(warm_decoder().probe_many([to_uri(question.uri)]))
        if question.stretch[:2] == (None, None) and len(chunk_starts(info.duration_s, chunk_s)) > 1:
            return LONG
        clips = embed_sound(model, question.uri, batch_size, stretch=question.stretch, info=info)
    except AudioError as error:
        return f"the sound cannot be read ({error.code})"
    if question.stretch.end_s is not None:  # of which there is one answer, however long it is
        clips = regrouped(clips, "file")
    return clips[0] if len(clips) == 1 else LONG
