"""Asking about sound: every road gives one answer, and what fails fails alone."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile
import torch

import mats_core
from mats_core.audio.sources import Stretch
from mats_core.encoders.base import as_float
from mats_core.errors import SettingsError
from mats_core.model.asking import Request, Segment, ask_about, ask_clips, in_batches
from mats_core.model.hearing.clips import Clip, embed_clips, embed_sound
from mats_core.model.model import MatsModel
from tests.recordings import clicks, encode
from tests.tiny import SAMPLE_RATE


@pytest.fixture(scope="module")
def model(tiny_model_dir: str) -> MatsModel:
    return mats_core.load_model(tiny_model_dir, device="cpu")


def tones(*seconds: float) -> list[tuple[float, np.ndarray]]:
    """A tone of each length, of a pitch of its own, as (start in its file, samples int16)."""
    found = []
    for at, length in enumerate(seconds):
        time = np.arange(round(length * SAMPLE_RATE)) / SAMPLE_RATE
        found.append((60.0 * at, (9000 * np.sin(2 * np.pi * 200 * (at + 1) * time)).astype(np.int16)))
    return found


@pytest.mark.processes
def test_whatever_a_sound_is_given_as_is_answered_alike(model: MatsModel, tmp_path: Path) -> None:
    """Paths, URLs, open files, arrays and tensors, alone and in a list, whose answers stand in its order."""
    rng = np.random.default_rng(4)
    samples = (6000 * rng.standard_normal(SAMPLE_RATE * 7)).clip(-32768, 32767).astype(np.int16)
    file, other = tmp_path / "noise.wav", tmp_path / "tone.wav"
    soundfile.write(file, samples, SAMPLE_RATE)
    soundfile.write(other, tones(3.0)[0][1], SAMPLE_RATE)
    both = np.stack([samples, samples])
    with open(file, "rb") as opened, fsspec.open(file.as_uri(), "rb") as far:
        ways = [
            str(file), file, os.fsencode(file), file.as_uri(), opened, far, io.BytesIO(file.read_bytes()),
            (samples, SAMPLE_RATE), (SAMPLE_RATE, samples), (torch.from_numpy(samples), SAMPLE_RATE), samples,
            both, both.T, torch.from_numpy(samples / 32768.0),
        ]  # fmt: skip
        told = model.answers([*ways, other], explain=True, sample_rate=SAMPLE_RATE)
    alone, another = model.answers(file, explain=True), model.answers(other, explain=True)
    assert len(told) == len(ways) + 1 and np.abs(alone[0].embedding - another[0].embedding).max() > 0.01
    for answers, wanted in zip(told, [*[alone] * len(ways), another], strict=True):
        assert [a.text for a in answers] == [a.text for a in wanted]
        np.testing.assert_allclose(answers[0].embedding, wanted[0].embedding, atol=1e-5)
    assert model.answer([file, other]) == [model.answer(file), model.answer(other)]
    assert model.answer([]) == [] and model.answers([]) == []


def test_a_question_alone_is_a_question(model: MatsModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []
    real = model.answer_embeddings
    monkeypatch.setattr(model, "answer_embeddings", lambda e, many, **_: asked.extend(many) or real(e, many))
    tone = (tones(1.0)[0][1], SAMPLE_RATE)
    model.answer(tone, question="Is there rain?")
    model.answer(tone)
    model.answer(tone, "caption", "Is there rain?")
    assert [each.task for each in asked] == ["QA", "caption", "caption"]


@pytest.mark.processes
def test_sound_gives_the_same_answer_by_every_road(model: MatsModel, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    waveform = (0.2 * rng.standard_normal(SAMPLE_RATE * 13)).clip(-1, 1).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", waveform, SAMPLE_RATE, subtype="PCM_16")
    from_file = model.answers(str(tmp_path / "noise.wav"), segments=True)
    in_memory = model.answers((soundfile.read(tmp_path / "noise.wav", dtype="float32")[0], SAMPLE_RATE))
    assert len(from_file) == len(in_memory) == 1
    assert from_file[0].text == in_memory[0].text == model.answer(tmp_path / "noise.wav")
    np.testing.assert_allclose(from_file[0].embedding, in_memory[0].embedding, atol=1e-5)
    (reply,) = model.answer_embeddings(from_file[0].embedding[None], [Request("caption")])
    assert reply.text == from_file[0].text
    assert [(s.start_s, s.end_s) for s in from_file[0].segments] == [(0, 5), (5, 10), (8, 13)]


@pytest.mark.processes
def test_a_segment_tells_when_its_sound_was(model: MatsModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A click in the second minute of a film: it lies in the segment that was heard with it, at its time."""
    click_s = 66.3
    path = tmp_path / "film.mp4"
    path.write_bytes(encode(clicks(16000, 72.0, (click_s,)), 16000, "mp4", pictures=True))
    windows: list[np.ndarray] = []
    embed = model.encoder.embed_audio
    monkeypatch.setattr(
        model.encoder, "embed_audio", lambda batch: windows.extend(as_float(batch).numpy()) or embed(batch)
    )
    segments = [segment for answer in model.answers(str(path), segments=True) for segment in answer.segments]
    assert len(segments) == len(windows) == 15  # 12 in the first minute, of five seconds each
    heard = [int(np.abs(window).argmax()) for window in windows if np.abs(window).max() > 0.3]
    there = [segment for segment in segments if segment.start_s <= click_s < segment.end_s]
    assert [segment.start_s for segment in there] == [65.0]
    assert [there[0].start_s + at / 16000 for at in heard] == [pytest.approx(click_s, abs=0.010)]


@pytest.mark.processes
def test_a_file_that_ends_its_decoder_is_an_error_and_the_next_is_answered(
    model: MatsModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mats_core.audio import sandbox
    from mats_core.audio.file import AudioError

    for name in ("bad.wav", "good.wav"):
        (tmp_path / name).write_bytes(encode(clicks(16000, 7.0, (1.0,)), 16000, "wav"))
    crashing = "import mats_core.audio.sandbox_process as child; import os; real = child.decode\n" + (
        "child.decode = lambda file, **how: os.abort() if 'bad.' in how['name'] else real(file, **how)\n"
    )
    program = sandbox.CHILD_PROGRAM.replace("serve(descriptor", f"{crashing}serve(descriptor")
    monkeypatch.setattr(sandbox, "CHILD_PROGRAM", program)
    sandbox.warm_decoder().close()  # the next child is one that crashes
    with pytest.raises(AudioError, match="decode_failed: its decoder process ended with SIGABRT, twice"):
        model.answer(tmp_path / "bad.wav")
    assert model.answer(tmp_path / "good.wav") == model.answer(f"file://{tmp_path}/good.wav")
    sandbox.warm_decoder().close()


def test_a_long_sound_is_answered_a_minute_at_a_time(model: MatsModel) -> None:
    waveform = np.zeros(SAMPLE_RATE * 130, np.float32)
    found = model.answers((waveform, SAMPLE_RATE), task="QA", question="Is there a dog ?")
    assert [(part.start_s, part.duration_s) for part in found] == [(0, 60), (60, 60), (120, 10)]
    assert model.answer((waveform, SAMPLE_RATE), task="QA", question="Is there a dog ?").count("\n") == 2


def test_a_part_of_a_sound_is_heard_alone(model: MatsModel) -> None:
    (_, waveform), *_ = tones(130.0)
    minutes = embed_sound(model, (waveform, SAMPLE_RATE))
    (second,) = embed_sound(model, (waveform, SAMPLE_RATE), stretch=Stretch(60.0))
    assert (second.start_s, second.seconds) == (60.0, 60.0)
    np.testing.assert_allclose(second.embeddings, minutes[1].embeddings, atol=1e-5)
    (part,) = embed_sound(model, (waveform, SAMPLE_RATE), stretch=Stretch(61.0, 63.5))
    assert (part.start_s, part.seconds) == (61.0, 2.5)


def test_clips_and_their_answers_do_not_depend_on_the_batch(model: MatsModel) -> None:
    sounds = tones(0.3, 5.0, 13.0, 7.5)
    requests = [Request("caption"), Request("QA", "Is there a dog ?"), Request("cla_label"), Request("caption")]
    clips = embed_clips(model, sounds, batch_size=64)
    found = ask_clips(model, clips, requests, segments=True, batch_size=64)
    assert [len(clip.embeddings) for clip in clips] == [1, 1, 3, 2]
    assert [clip.weights.tolist() for clip in clips][2:] == [[5, 5, 3], [5, 2.5]]
    for size in (1, 3):
        again = embed_clips(model, sounds, batch_size=size)
        for one, other in zip(clips, again, strict=True):
            np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-5)
        answers = ask_clips(model, again, requests, segments=True, batch_size=size)
        assert [a.text for a in answers] == [a.text for a in found]
        assert [a.segments for a in answers] == [a.segments for a in found]


def test_a_long_sound_is_asked_about_with_its_tag(tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for its windows, what is hardly longer than one, what is silent but for one, and a request with a tag."""
    ((_, tone),) = tones(5.0)
    bark = np.concatenate([np.zeros(SAMPLE_RATE * 20, np.int16), tone])
    sounds = [*tones(5.0, 7.0, 12.0), (0.0, bark), (0.0, np.zeros(SAMPLE_RATE * 20, np.int16))]
    asked: list[list[str]] = []
    for tag in ("", "[long]"):
        model = mats_core.load_model(tiny_model_dir, device="cpu")
        model.config = model.config.model_copy(update={"long_tag": tag})
        clips = embed_clips(model, sounds)
        assert [clip.long for clip in clips] == [False, False, True, False, False]
        write, seen = model.write, []

        def spied(
            vectors: Any, prompts: list[str], *args: Any, _write: Any = write, _seen: Any = seen, **kw: Any
        ) -> Any:
            _seen += prompts
            return _write(vectors, prompts, *args, **kw)

        monkeypatch.setattr(model, "write", spied)
        ask_clips(model, clips, [Request("QA", "What is it?")] * 5)
        ask_clips(model, clips[2:3], [Request()], segments=True)
        ask_clips(model, clips[2:3], [Request("caption", tag="[x]")])
        asked.append(seen)
    plain, tagged = asked
    with_tag = [at for at, (one, other) in enumerate(zip(plain, tagged, strict=True)) if one != other]
    assert len(plain) == 5 + 1 + 3 + 1 and with_tag == [2, 5]
    assert all(tagged[at] == plain[at].replace("</Speech> ", "</Speech> [long] ") for at in with_tag)


@pytest.mark.parametrize("task", ["caption", "cla_label", "music_caption"])
def test_a_tasks_own_words_are_no_question(model: MatsModel, task: str) -> None:
    (clip,) = embed_clips(model, tones(5.0))
    own = model.config.tasks[task].instruction
    requests = [
        Request(task),
        Request(task, own),
        Request(task, f" {own} "),
        Request(task, " "),
        Request(task, "Is there a dog ?"),
    ]
    plain, *same, other = ask_clips(model, [clip] * len(requests), requests)
    for each in same:
        assert each.text == plain.text and each.signs.values.keys() == plain.signs.values.keys()
        assert each.signs.values["clap_question"] is None and sorted(each.signs.vectors) == ["answer", "sound"]
    assert "question:dog" in other.signs.values and "question" in other.signs.vectors


def test_a_minute_with_one_sound_in_it_is_the_sound_and_silence_is_not_the_models_to_name(model: MatsModel) -> None:
    ((_, tone),) = tones(5.0)
    minute = np.zeros(SAMPLE_RATE * 60, np.int16)
    minute[SAMPLE_RATE * 20 : SAMPLE_RATE * 25] = tone
    nothing = np.zeros(SAMPLE_RATE * 12, np.int16)
    alone, within, silent = embed_clips(model, [(0.0, tone), (0.0, minute), (0.0, nothing)])
    np.testing.assert_allclose(within.pooled, alone.pooled, atol=1e-5)
    assert within.weights.tolist() == [0.0] * 4 + [5.0] + [0.0] * 7 and not within.silent and silent.silent
    requests = [Request(task) for task in ("caption", "music_caption", "cla_label")]
    found = ask_clips(model, [silent] * 4, [*requests, Request("QA", "Is there a dog ?")], segments=True)
    assert [answer.text for answer in found[:3]] == ["Silence.", "Silence.", "silence"]
    assert all(answer.silent for answer in found) and found[3].text not in ("", "silence", "Silence.")
    assert found[0].segments == [Segment(at, at + 5.0, "Silence.") for at in (0.0, 5.0, 7.0)]
    (mixed,) = ask_clips(model, [within], [Request()], segments=True)
    assert not mixed.silent and [part.text == "Silence." for part in mixed.segments] == [at != 4 for at in range(12)]
    (asked,) = ask_clips(model, [silent], [Request()], answer_silence=True)
    (before,) = embed_clips(model, [(0.0, nothing)], silence_dbfs=-120.0)
    assert before.weights.tolist() == [5.0, 5.0, 2.0]
    assert asked.text == ask_clips(model, [before], [Request()])[0].text != "Silence." and asked.silent


def test_windows_have_their_times_in_the_file() -> None:
    """Of a clip that begins at 60 s and is 13 s long."""
    clip = Clip(
        np.eye(3, dtype=np.float32), np.array([5, 5, 3], np.float32), np.array([0.0, 5.0, 8.0]), 13.0, 5.0, 60.0
    )
    assert clip.times == [(60.0, 65.0), (65.0, 70.0), (68.0, 73.0)]
    mean = np.array([5, 5, 3]) / np.sqrt(59)
    np.testing.assert_allclose(clip.pooled, mean, atol=1e-6)
    short = Clip(np.eye(1, dtype=np.float32), np.ones(1, np.float32), np.zeros(1), 1.5, 5.0)
    assert short.times == [(0.0, 1.5)]


@pytest.mark.parametrize("place", ["stack_windows", "embed_windows"])
def test_what_fails_fails_alone(model: MatsModel, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Where windows are put together, in a thread, and where they are embedded."""
    sounds = tones(1.0, 2.0, 6.0)
    good = ask_clips(model, embed_clips(model, sounds), [Request()] * 3, segments=True)
    real, answer = getattr(model, place), model.answer_embeddings

    def failing_embed(windows: Any) -> Any:
        if any((np.asarray(window[:SAMPLE_RATE]) == sounds[0][1]).all() for window in windows):
            raise MemoryError("too long")
        return real(windows)

    def failing_answer(vectors: Any, requests: Any, **given: Any) -> Any:
        if any(np.allclose(vector, last, atol=1e-5) for vector in vectors.numpy()):
            raise RuntimeError("out of luck")
        return answer(vectors, requests, **given)

    monkeypatch.setattr(model, place, failing_embed)
    monkeypatch.setattr(model, "answer_embeddings", failing_answer)
    clips = embed_clips(model, sounds)
    assert isinstance(clips[0], MemoryError)
    last = clips[2].embeddings[-1]  # one window of the third clip
    found = ask_clips(model, clips[1:], [Request()] * 2, segments=True)
    assert (found[0].text, found[0].segments) == (good[1].text, good[1].segments)
    assert isinstance(found[1], RuntimeError)
    with pytest.raises(RuntimeError, match="out of luck"):
        ask_about(model, clips[1:], Request(), segments=True)


def test_the_next_batch_is_prepared_while_this_one_is_at_work() -> None:
    ready: dict[int, threading.Event] = {at: threading.Event() for at in range(3)}

    def prepare(batch: Sequence[int]) -> Sequence[int]:
        ready[batch[0] // 2].set()
        return [each + 100 for each in batch]

    def run(batch: Sequence[int]) -> list[int]:
        following = (batch[0] - 100) // 2 + 1
        assert following not in ready or ready[following].wait(10)
        return [2 * each for each in batch]

    assert in_batches(range(5), 2, run, prepare) == [200, 202, 204, 206, 208]
    assert in_batches([], 0, run, prepare) == []


def test_a_batch_that_fails_is_run_item_by_item() -> None:
    ran: list[list[int]] = []

    def invert(batch: Sequence[int]) -> list[float]:
        ran.append(list(batch))
        return [1 / each for each in batch]

    found = in_batches([1, 2, 0, 4, 5], 2, invert)
    assert ran == [[1, 2], [0, 4], [0], [4], [5]]
    assert found[:2] + found[3:] == [1, 0.5, 0.25, 0.2]
    assert isinstance(found[2], ZeroDivisionError)


def test_a_model_without_an_encoder_hears_nothing(tiny_model_dir: str) -> None:
    deaf = mats_core.load_model(tiny_model_dir, device="cpu", encoder=False)
    with pytest.raises(SettingsError, match=r"model: it has no encoder; .*a model with an encoder"):
        embed_sound(deaf, (np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE))


def test_where_nothing_is_asked_nothing_is_answered(model: MatsModel) -> None:
    """A table of files without sound."""
    assert ask_clips(model, [], []) == [] and embed_clips(model, []) == []
