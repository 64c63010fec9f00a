"""`mats calibrate` as one uses it: judged clips in, a confidence out, and what `--min-confidence` does with it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import mats_core
from jobs.cli import app
from mats_core.audio import sandbox, sources
from mats_core.confidence.calibration import ALL, FILE, Calibration, read_calibration
from mats_core.confidence.scores import CLAP_WEIGHT
from mats_core.encoders.load import load_encoder
from mats_core.errors import SettingsError
from mats_core.model.directory import BUILTIN
from mats_core.model.facts import read_model_facts
from mats_core.scoring import score
from mats_core.scoring.sureness import LABELS_RIGHT
from mats_core.soundworld.kinds import SAMPLE_RATE
from mats_core.soundworld.made.trust import is_right
from mats_core.soundworld.recipe import clip_recipe
from mats_core.soundworld.synth import render
from pipelines import run_calibrate, run_caption
from pipelines.archive.caption import caption_job
from pipelines.calibrate import judging
from pipelines.calibrate.run import LONG
from pipelines.settings.archive import CaptionSettings
from pipelines.settings.evaluate import CalibrateSettings

pytestmark = pytest.mark.processes
CLIPS = 30


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first validation clips, as files."""
    folder = tmp_path_factory.mktemp("sounds")
    for at in range(CLIPS):
        soundfile.write(folder / f"{at:02d}.wav", render(clip_recipe("validation", at)), SAMPLE_RATE, subtype="PCM_16")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped model, without a calibration."""
    folder = tmp_path_factory.mktemp("models") / "model"
    shutil.copytree(BUILTIN, folder)
    (folder / FILE).unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def judged(sounds: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table that a person might have made: captions, some of them called wrong; three rows of no use."""
    loaded = mats_core.load_model(str(model), device="cpu", dtype="float32")
    table = tmp_path_factory.mktemp("judged") / "judged.csv"
    files = sorted(sounds.iterdir())
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "task", "correct", "text"])
        for at, text in enumerate(loaded.answer([str(path) for path in files])):
            said = is_right(text, clip_recipe("validation", at)) and at % 4 > 0
            writer.writerow([files[at], "caption", "true" if said else "false", text])
        writer.writerow([files[0], "caption", "true", "something else"])
        writer.writerow([files[1], "caption", "", ""])
        writer.writerow([sounds / "none.wav", "caption", "true", ""])
    return table


def caption(sounds: Path, model: Path, out: Path, **settings: Any) -> Any:
    """A run over the first clips, in this process."""
    return run_caption(input=sounds, output=out, model=model, device="cpu", **settings)


def test_without_a_calibration_there_is_no_confidence_and_a_bound_on_it_is_refused(
    sounds: Path, model: Path, tmp_path: Path
) -> None:
    uncalibrated = tmp_path / "model"
    shutil.copytree(model, uncalibrated)
    (uncalibrated / FILE).unlink(missing_ok=True)
    rows = caption(sounds, uncalibrated, tmp_path / "out").to_pandas()
    assert rows["confidence"].isna().all() and rows["text_unsure"].isna().all() and len(rows) == CLIPS
    assert (rows["logprob"] < 0).all() and rows["clap_score"].between(0.2, 1).all()
    assert rows["logprob"].nunique() > CLIPS // 2
    with pytest.raises(SettingsError, match=r"no calibration.*`mats calibrate`"):
        caption(sounds, uncalibrated, tmp_path / "bounded", min_confidence=0.5)
    assert not (tmp_path / "bounded").exists()
    plain = caption(sounds, uncalibrated, tmp_path / "plain", score=False).to_pandas()
    assert plain["logprob"].isna().all() and plain["clap_score"].isna().all()
    assert plain["text"].tolist() == rows["text"].tolist()
    with pytest.raises(SettingsError, match="score"):
        caption(sounds, uncalibrated, tmp_path / "plain")


def test_judged_clips_make_a_confidence_that_sorts_answers_out(
    sounds: Path, model: Path, judged: Path, tmp_path: Path
) -> None:
    before = mats_core.load_model(str(model), device="cpu", dtype="float32").fingerprint
    result = run_calibrate(model=model, overwrite=True, data=judged, device="cpu")
    assert result.judged == CLIPS and Path(result.where) == model / FILE and sum(result.left_out.values()) == 3
    assert {why.partition(" (")[0] for why in result.left_out} == {
        "the model answers something else now than what was judged", "the sound cannot be read", "not judged",
    }  # fmt: skip
    assert "| caption | 30 |" in result.table and result.fitted.calibration.judged_by == "a person"
    loaded = mats_core.load_model(str(model), device="cpu", dtype="float32")
    assert loaded.fingerprint == before and loaded.calibration is not None
    answer = loaded.answers(str(sounds / "00.wav"))[0]
    rows = caption(sounds, model, tmp_path / "all").to_pandas().sort_values("uri")
    assert rows["confidence"].between(0, 1).all() and answer.confidence == pytest.approx(rows["confidence"].iloc[0])
    assert loaded.answers(str(sounds / "00.wav"), decoding={"beams": 1})[0].confidence is None

    least = float(rows["confidence"].quantile(0.4))
    sure = rows["confidence"] >= least
    assert 0 < sure.sum() < CLIPS
    bounded = caption(sounds, model, tmp_path / "bounded", min_confidence=least)
    kept = bounded.to_pandas().sort_values("uri")
    assert bounded.error_rate == 0 and kept["error_code"].isna().all()
    assert kept["text"].notna().tolist() == sure.tolist() == kept["text_unsure"].isna().tolist()
    assert kept["text"].fillna(kept["text_unsure"]).tolist() == rows["text"].tolist()
    with pytest.raises(SettingsError, match="min_confidence"):
        caption(sounds, model, tmp_path / "bounded")
    with pytest.raises(SettingsError, match="calibrated with other settings"):
        caption(sounds, model, tmp_path / "other", min_confidence=least, beams=2)


def test_the_best_of_the_beams_is_another_output(sounds: Path, model: Path, tmp_path: Path) -> None:
    first = caption(sounds, model, tmp_path / "first").to_pandas().sort_values("uri")
    best = caption(sounds, model, tmp_path / "best", rerank=4).to_pandas().sort_values("uri")
    changed = first["text"].to_numpy() != best["text"].to_numpy()
    assert 0 < changed.sum() < CLIPS and best["confidence"].isna().all()
    before, after = (each["logprob"] + CLAP_WEIGHT * each["clap_score"] for each in (first, best))
    assert (after.to_numpy()[changed] > before.to_numpy()[changed] - 0.01).all()
    with pytest.raises(SettingsError, match="rerank"):
        caption(sounds, model, tmp_path / "first", rerank=4)
    with pytest.raises(SettingsError, match="there are 4 beams, not 8"):
        caption(sounds, model, tmp_path / "more", rerank=8)


def test_a_calibration_of_another_model_is_left_alone_and_told(sounds: Path, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "model"
    shutil.copytree(model, other)
    Calibration(model="f" * 64, tasks={}).save(other)
    result = caption(sounds, other, tmp_path / "out")
    assert result.run["calibration_unused"].startswith("calibration.json is of another model (ffffffffffff")
    assert result.to_pandas()["confidence"].isna().all() and result.run["calibration"] == ""
    with pytest.raises(SettingsError, match="is of another model"):
        caption(sounds, other, tmp_path / "bounded", min_confidence=0.5)


def test_too_few_are_refused_before_a_model_is_loaded(
    model: Path, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(mats_core, "load_model", load, raising=False)
    few = tmp_path / "few.csv"
    few.write_text("\n".join(judged.read_text().splitlines()[:6]) + "\n")
    with pytest.raises(SettingsError, match="5 judged answers, of which at least 20 are needed"):
        run_calibrate(model=model, overwrite=True, data=few, device="cpu")
    empty = tmp_path / "empty.csv"
    empty.write_text("uri,correct\n" + "a.wav,\n" * 30 + "a.wav,yes\n" * 19)
    with pytest.raises(SettingsError, match=r"19 judged answers, .*\(30: not judged\)"):
        run_calibrate(model=model, overwrite=True, data=empty, device="cpu")
    with pytest.raises(SettingsError, match="12 judged answers"):
        run_calibrate(model=model, overwrite=True, data=judged, limit=12)
    with pytest.raises(SettingsError, match="3 judged answers"):
        run_calibrate(model=model, overwrite=True, data="soundworld_labels", root=str(tmp_path), limit=3)
    with pytest.raises(SettingsError, match="the model has 4 beams, not 9"):
        run_calibrate(model=model, overwrite=True, data=judged, rerank=9)


PARTS = 12
"""Stretches of one file that are judged, each as a caption and as labels."""


def test_of_a_long_file_the_judged_stretches_alone_are_heard_once_each(
    sounds: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of clips 11 s apart, whose stretches are answered as the clips by themselves are."""
    clips = [soundfile.read(path, dtype="int16")[0] for path in sorted(sounds.iterdir())[:PARTS]]
    whole = np.zeros(11 * SAMPLE_RATE * PARTS, np.int16)
    for at, clip in enumerate(clips):
        whole[11 * SAMPLE_RATE * at :][: len(clip)] = clip
    soundfile.write(tmp_path / "long.wav", whole, SAMPLE_RATE, subtype="PCM_16")
    loaded = mats_core.load_model(str(model), device="cpu", dtype="float32")
    lines = ["uri;task;start_s;end_s;correct;text"]
    for turn, task in enumerate(("caption", "cla_label")):
        for at, clip in enumerate(clips):
            text = loaded.answer((clip, SAMPLE_RATE), task)
            end = str(11 * at + len(clip) / SAMPLE_RATE).replace(".", ",")
            lines.append(f"{tmp_path / 'long.wav'};{task};{11 * at};{end};{'ja' if (at + turn) % 3 else 'nein'};{text}")
    short = sorted(sounds.iterdir())[0]
    lines += [f"{short};caption;;;ja;{loaded.answer(str(short))}", f"{tmp_path / 'long.wav'};caption;;;ja;"]
    (tmp_path / "judged.csv").write_text("\n".join(lines) + "\n")
    heard: list[tuple[float, float | None]] = []
    probed: list[str] = []
    decoder = sources.warm_decoder()

    class Recorded:
        def probe_many(self, uris: list[str]) -> Any:
            probed.extend(uris)
            return decoder.probe_many(uris)

        def decode_many(self, asked: list[Any], rate: int) -> Any:
            heard.extend((each.start_s, each.duration_s) for each in asked if each.uri.endswith("long.wav"))
            return decoder.decode_many(asked, rate)

    monkeypatch.setattr(sources, "warm_decoder", Recorded)
    monkeypatch.setattr(sandbox, "warm_decoder", Recorded)
    said: list[str] = []
    told: list[tuple[int, int]] = []
    result = run_calibrate(
        CalibrateSettings(model=str(model), data=str(tmp_path / "judged.csv"), device="cpu", overwrite=True),
        lambda done, of: told.append((done, of)),
        said.append,
    )
    assert result.judged == 2 * PARTS + 1 and result.left_out == {LONG: 1}
    assert len(probed) == PARTS + 2, "a header is read once for each sound that is asked about"
    assert [start for start, _ in heard] == [11.0 * at for at in range(PARTS)]
    assert [length for _, length in heard] == pytest.approx([len(clip) / SAMPLE_RATE for clip in clips])
    assert said == ["26 judged answers about 2 files: the model hears and answers each again"]
    assert told == sorted(told) and told[-1] == (26, 26)


def test_a_data_set_is_judged_as_an_evaluation_does_with_the_models_own_encoder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def load(*given: Any, **named: Any) -> Any:
        loads.append(given)
        return load_encoder(*given, **named)

    monkeypatch.setattr("mats_core.encoders.load.load_encoder", load)
    monkeypatch.setattr("mats_core.model.model.load_encoder", load)
    embedded: list[np.ndarray] = []

    def scored(*given: Any, embed_text: Any, **named: Any) -> Any:
        embedded.append(embed_text(["rain"]))
        return score(*given, embed_text=embed_text, **named)

    monkeypatch.setattr(judging, "score", scored)
    result = run_calibrate(
        model=model, overwrite=True, data="soundworld_labels", root=str(tmp_path), limit=24, device="cpu"
    )
    assert len(loads) == 1 and [each.shape for each in embedded] == [(1, 128)]
    assert result.judged == 24 and result.fitted.calibration.judged_by == LABELS_RIGHT


def test_the_command_says_what_it_does_and_what_came_of_it(model: Path, judged: Path) -> None:
    given = ["calibrate", "--model", str(model), "--data", str(judged), "--device", "cpu"]
    done = CliRunner().invoke(app, [*given, "--overwrite"])
    assert done.exit_code == 0, done.output
    for words in (
        "32 judged answers about 31 files",
        "asking: ",
        "1 judged clip left out: not judged",
        "right: a person",
    ):
        assert words in done.output, words
    kept = (model / FILE).read_bytes()
    again = CliRunner().invoke(app, given)
    assert again.exit_code == 2 and "is calibrated already, by" in again.output and "--overwrite" in again.output
    assert (model / FILE).read_bytes() == kept


def test_no_model_is_calibrated_unless_it_is_named(judged: Path) -> None:
    """The shipped one, say."""
    before = (BUILTIN / FILE).read_bytes()
    done = CliRunner().invoke(app, ["calibrate", "--data", str(judged)])
    assert done.exit_code == 2 and "model: it is missing" in done.output
    assert (BUILTIN / FILE).read_bytes() == before


def test_a_bound_on_confidence_is_refused_for_a_task_of_which_nothing_was_judged(
    sounds: Path, model: Path, tmp_path: Path
) -> None:
    """Else no answer would be held against it."""
    one = tmp_path / "model"
    shutil.copytree(model, one)
    found, _ = read_calibration(BUILTIN, read_model_facts(str(BUILTIN)).fingerprint)
    assert found is not None
    curve = found.tasks["caption"]
    own = Calibration(model=read_model_facts(str(one)).fingerprint, tasks={"caption": curve})
    own.save(one)
    told = "min_confidence: answers of cla_label have no confidence: the model was calibrated for caption; judge"
    with pytest.raises(SettingsError, match=told):
        caption(sounds, one, tmp_path / "labels", task="cla_label", min_confidence=0.5)
    assert not (tmp_path / "labels").exists()
    few = tmp_path / "few.csv"
    few.write_text(f"uri,task\n{sounds / '00.wav'},caption\n{sounds / '01.wav'},cla_label\n")
    with pytest.raises(SettingsError, match=told):
        caption(few, one, tmp_path / "listed", min_confidence=0.5)
    assert not list((tmp_path / "listed").rglob("*.parquet"))
    rows = caption(few, one, tmp_path / "free").to_pandas()
    assert rows["confidence"].notna().tolist() == [True, False]
    given = {"input": str(sounds), "output": str(tmp_path / "all"), "model": str(one), "min_confidence": 0.5}
    job, _ = caption_job(CaptionSettings(**given))
    assert job.identity["min_confidence"] == 0.5
    own.model_copy(update={"tasks": {"caption": curve, ALL: curve}}).save(one)
    job, _ = caption_job(CaptionSettings(**given, task="QA", question="Is there rain?"))
    assert job.identity["min_confidence"] == 0.5, "the curve of all tasks is for what was not judged by itself"
