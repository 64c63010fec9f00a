"""`mats soundworld build`: the jobs that it runs, and what it refuses to replace."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from jobs.soundworld import app, build_model, steps
from jobs.train import change_setting, read_config
from mats_core.errors import SettingsError
from mats_core.model.directory import BUILTIN
from mats_core.soundworld.made.text_training import LONG_TAG
from pipelines.settings.base import build
from pipelines.settings.train import TrainSettings


def test_the_embedded_model_is_built_by_the_jobs_that_make_any_other(tmp_path: Path) -> None:
    """The arguments `mats soundworld build` gives to `mats train` are good settings, with the parts it made."""

    world = tmp_path / "a world: 'quoted'"
    made = steps(tmp_path / "encoder", tmp_path / "llm", world)
    assert list(made) == ["embed-text", "build-memory", "train"]
    config, *changes = made["train"]
    values = read_config(config)
    for change in changes:
        change_setting(values, change.removeprefix("--set="))
    settings = build(TrainSettings, values)
    assert (settings.llm, settings.encoder) == (str(tmp_path / "llm"), str(tmp_path / "encoder"))
    assert settings.data[0].corpus == made["embed-text"][0] == str(world / "text.jsonl")
    assert settings.embeddings == made["embed-text"][1] == made["build-memory"][0]
    assert settings.memory == made["build-memory"][1]
    assert settings.include == ["encoder", "llm", "memory"] and settings.weights == "float16"
    assert settings.long_tag == LONG_TAG  # as the LLM was taught to read it


def test_defaults_that_a_command_repeats_are_those_of_the_core() -> None:
    """It writes them itself: to import them for `--help` would cost SciPy, and torch."""
    from mats_core.soundworld import corpus
    from mats_core.soundworld.made import trust

    commands = get_command(app).commands  # type: ignore[attr-defined]
    defaults = {(name, each.name): each.default for name, one in commands.items() for each in one.params}
    assert defaults["corpus", "records"] == corpus.RECORDS and defaults["corpus", "rounds"] == corpus.ROUNDS
    assert defaults["calibrate", "clips"] == trust.CLIPS


def test_a_build_never_replaces_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(SettingsError, match="holds something other than a model; choose a folder that is empty"):
        build_model(tmp_path / "work", tmp_path, print)
    assert (tmp_path / "letters.txt").read_text() == "mine"


@pytest.mark.parametrize("out", ["work", ".", "work/world/model", "work/encoder", "link/llm"])
def test_a_build_never_replaces_its_own_work(tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(*_: Any) -> Any:
        raise AssertionError("the build began")

    monkeypatch.setattr("mats_core.soundworld.made.build.build_parts", parts)
    (tmp_path / "work" / "encoder").mkdir(parents=True)
    (tmp_path / "work" / "mats.json").write_text("{}")
    (tmp_path / "mats.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "work")
    with pytest.raises(SettingsError, match=r"out: .* holds the work .* or is a part of it; choose a folder apart"):
        build_model(tmp_path / "work", tmp_path / out, print)
    with pytest.raises(AssertionError, match="the build began"):
        build_model(tmp_path / "work", tmp_path / "work" / "made", print)


def test_what_cannot_be_measured_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    plain = tmp_path / "model"
    shutil.copytree(BUILTIN, plain)
    (plain / "calibration.json").unlink(missing_ok=True)
    for words, told in (
        (["evaluate", "--model", str(plain), "--picture", str(tmp_path / "a.svg")], "the model has no confidence"),
        (["evaluate", "--picture", str(tmp_path)], "picture:"),
        (["rerank", "--beams", "5"], "beams: the model has 4 beams, not 5"),
        (["calibrate", "--model", str(tmp_path / "none")], "model: there is no directory"),
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2 and told in " ".join(done.output.split()), words
    assert not (tmp_path / "a.svg").exists()
