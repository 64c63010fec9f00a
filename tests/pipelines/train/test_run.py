"""A run as its driver sees it, without Ray: what is refused, what is removed, and what is recorded."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mats_core.errors import SettingsError
from pipelines.output.folder import Output
from pipelines.settings.base import build
from pipelines.settings.train import TrainSettings
from pipelines.train.check import check_settings
from pipelines.train.run import TrainDriver, TrainProgress, run_train
from tests.pipelines.train.test_worker import Recorded, train
from tests.training_world import make_world, settings, values


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def leave_a_model(output: str) -> None:
    """What binds those that come after a training."""
    model = Path(output) / "model"
    model.mkdir(parents=True, exist_ok=True)
    (model / "mats.json").write_text("{}")


def test_what_nothing_came_of_may_be_begun_with_other_settings(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong column, a warm-up too long: put right, the same command goes on, without --overwrite."""
    begun: list[tuple[int, bool]] = []
    monkeypatch.setattr(TrainDriver, "run", lambda self: begun.append((self.settings.training.steps, self.out.begun)))
    run_train(settings(world, tmp_path / "out", training={"steps": 2}))
    run_train(settings(world, tmp_path / "out", training={"steps": 2}))
    run_train(settings(world, tmp_path / "out", training={"steps": 3}))
    assert begun == [(2, True), (2, False), (3, True)]
    leave_a_model(str(tmp_path / "out"))
    with pytest.raises(SettingsError, match=r"other settings \(training.steps was 3, is 4\); use the settings"):
        run_train(settings(world, tmp_path / "out", training={"steps": 4}))


def test_an_output_begun_with_other_parts_is_refused(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainDriver, "run", lambda self: leave_a_model(self.settings.output))
    mine = tmp_path / "world"
    shutil.copytree(world, mine)
    chosen = settings(mine, tmp_path / "one")
    run_train(chosen)
    run_train(chosen)
    config = json.loads((mine / "llm" / "config.json").read_text())
    (mine / "llm" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    with pytest.raises(SettingsError, match=r"begun with other settings \(llm_fingerprint was"):
        run_train(chosen)
    monkeypatch.undo()

    train(settings(world, tmp_path / "first", training={"steps": 1}))
    monkeypatch.setattr(TrainDriver, "run", lambda self: leave_a_model(self.settings.output))
    second = settings(world, tmp_path / "second", model=str(tmp_path / "first" / "model"))
    run_train(second)
    train(settings(world, tmp_path / "other", training={"steps": 1, "seed": 1}))
    weights = "model/mapper.safetensors"
    shutil.copy(tmp_path / "other" / weights, tmp_path / "first" / weights)
    with pytest.raises(SettingsError, match=r"begun with other settings \(model_fingerprint was"):
        run_train(second)


def test_a_run_begun_by_an_older_version_goes_on_with_its_own_defaults(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then a warm-up that was not given was 3000 steps. The settings of a driver that goes on are those of its run."""
    driven: list[Any] = []
    monkeypatch.setattr(TrainDriver, "run", lambda self: driven.append((self.settings, self.kept)))
    before = settings(world, tmp_path, training={"warmup_steps": 3000})
    run_train(before)
    leave_a_model(before.output)
    given = values(world, tmp_path)
    del given["training"]["warmup_steps"]
    run_train(build(TrainSettings, given))
    (first, nothing), (found, (note,)) = driven
    assert (first.training.warmup_steps, found.training.warmup_steps, nothing) == (3000, 3000, [])
    assert note.startswith("training.warmup_steps is 3000, as this run was begun")
    with pytest.raises(SettingsError, match="begun with other settings"):
        run_train(settings(world, tmp_path, training={"warmup_steps": 1}))
    run_train(build(TrainSettings, {**given, "overwrite": True}))
    assert driven[2][0].training.warmup_steps == 0, "a new run"


def test_what_a_killed_run_left_unfinished_is_removed(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainDriver, "run", lambda self: None)
    out = tmp_path / "out"
    for name in ("_state/checkpoints/step-000000005.ckpt.0123abcd.partial", "_run.json.0123abcd.partial"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"half")
    for name in (".model-0123abcd.partial/adapter", "_state/data/abcd.partial"):
        (out / name).mkdir(parents=True)
    (out / "mine.txt").write_text("mine")
    run_train(settings(world, out))
    assert sorted(path.name for path in out.rglob("*") if path.suffix != ".json") == [
        "_state",
        "checkpoints",
        "data",
        "generations",
        "mine.txt",
    ]


def test_the_run_says_what_was_read_and_what_is_trained_on(world: Path, tmp_path: Path) -> None:
    from pipelines.output.folder import Output
    from pipelines.train.mixture import read_store
    from pipelines.train.pack import ensure_store

    told: list[str | None] = []
    chosen = settings(world, tmp_path / "out")

    def tell(progress: TrainProgress) -> None:
        told.append(progress.warning)

    training = TrainDriver(chosen, check_settings(chosen), tell, Output(str(tmp_path / "out"), "x"))
    store = read_store(ensure_store(chosen, tmp_path / "store"))
    store["sets"][0].update(held_by="record", validation=8)
    training.count_records(store["sets"])
    assert (training.run_facts["records"], training.run_facts["bad"]) == (112, 0)
    assert training.run_facts["data"]["two"] == {
        "records": 52, "train": 44, "validation": 8, "held_by": "caption", "given_up": 0, "met": 0, "problems": {},
    }  # fmt: skip
    assert told == training.run_facts["warnings"]
    assert "data set one has too few captions to hold any out" in str(told[0])
    refusal = SettingsError("output", "x", "other weights")
    training.take_reports([{"kind": "warning", "text": "odd"}, {"kind": "refused", "error": refusal}])
    assert training.run_facts["warnings"][1:] == ["odd"]
    assert training.refused is refusal


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"model": "out/model"}, "model"),
        ({"llm": "out/model/llm"}, "llm"),
        ({"encoder": "msclap:out/model/clap.pth"}, "encoder"),
        ({"memory": "out"}, "memory"),
        ({"embeddings": "out/model/emb"}, r"data\.one\.embeddings"),
        ({"data": [{"name": "one", "corpus": ["out/model/*.jsonl"]}]}, r"data\.one\.corpus"),
        ({"data": [{"name": "one", "audio": "out"}]}, r"data\.one\.audio"),
    ],
)
def test_what_a_run_reads_never_lies_where_it_writes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "out" / "model" / "mine.txt").write_text("mine")
    with pytest.raises(SettingsError, match=rf"^{name}: .* lies in OUTPUT/model, which .*; choose another OUTPUT"):
        run_train(settings(world, "out", overwrite=True, **changes))
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["model", "mine.txt"]


def test_a_model_that_no_run_has_made_stays(world: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "model").mkdir(parents=True)
    for overwrite in (False, True):
        with pytest.raises(SettingsError, match=r"^output: .*/out holds a model that no run has made there;"):
            run_train(settings(world, tmp_path / "out", overwrite=overwrite))
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["model"]


def test_a_gpu_that_is_not_there_is_found_before_anything(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"^device: .cuda"):
        run_train(settings(world, tmp_path / "out", device="cuda"))
    assert not (tmp_path / "out").exists()


def test_a_finished_run_writes_its_model_anew_when_it_is_to_be_written_otherwise(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import safe_open

    out = tmp_path / "out"
    short: dict[str, Any] = {"training": {"steps": 2}}
    chosen = settings(world, out, **short)
    monkeypatch.setattr(TrainDriver, "run", lambda self: "trained")
    run_train(chosen)  # OUTPUT is begun
    train(chosen)
    told = {"status": "complete", "step": 2, "settings": chosen.model_dump(mode="json")}
    monkeypatch.setattr(TrainDriver, "run", lambda self: self.out.write_run(told))
    run_train(chosen)  # … and completed
    monkeypatch.setattr(TrainDriver, "run", lambda self: "trained")
    assert run_train(chosen).status == "complete_before"
    assert run_train(settings(world, out, **short, log_every=1)).status == "complete_before"
    changes: list[dict[str, Any]] = [{"weights": "float16"}, {"include": ["llm"]}, {"export": "best"}]
    for change in changes:
        assert run_train(settings(world, out, **short, **change)) == "trained", change
    reports = Recorded()
    train(settings(world, out, **short, weights="float16", include=["llm"]), reports)
    assert [record["kind"] for record in reports.records if record["kind"] in ("step", "point")] == []
    assert (out / "model" / "llm" / "config.json").is_file()
    with safe_open(out / "model" / "mapper.safetensors", "np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_a_refusal_does_not_wait_for_workers_that_hang(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal, hanging = SettingsError("adapter.target_modules", "x", "layers of the LLM"), threading.Event()
    records: list[dict[str, Any]] = [{"kind": "refused", "error": refusal}]
    inbox = SimpleNamespace(take=SimpleNamespace(remote=lambda: records))
    trainer = SimpleNamespace(fit=lambda: hanging.wait(60))
    monkeypatch.setattr("ray.get", lambda found: found)
    monkeypatch.setattr("pipelines.train.run.REFUSAL_PATIENCE_S", 0.1)
    chosen = settings(world, tmp_path / "out")
    training = TrainDriver(chosen, check_settings(chosen), lambda _: None, Output(str(tmp_path / "out"), "x"))
    try:
        with pytest.raises(SettingsError) as caught:
            training.follow(trainer, inbox)
        assert caught.value is refusal
        assert not hanging.is_set()
    finally:
        hanging.set()


def test_ctrl_c_while_it_waits_is_heard_out_to_the_workers_last_word(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, as a Ctrl-C mostly comes: in the middle of a wait. The workers then have time to stop and to say so."""
    import os
    import signal
    import threading
    from types import SimpleNamespace

    asked, records = threading.Event(), []

    def fit() -> None:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        assert asked.wait(30)
        time.sleep(0.5)
        records.append({"kind": "interrupted", "step": 3})

    def take() -> list[dict[str, Any]]:
        taken = list(records)
        records.clear()
        return taken

    inbox = SimpleNamespace(take=SimpleNamespace(remote=take), stop=SimpleNamespace(remote=asked.set))
    monkeypatch.setattr("ray.get", lambda found: found)
    monkeypatch.setattr("pipelines.train.run.POLL_S", 20.0)
    chosen = settings(world, tmp_path / "out")
    training = TrainDriver(chosen, check_settings(chosen), lambda _: None, Output(str(tmp_path / "out"), "x"))
    with monkeypatch.context() as patch:
        patch.setattr(training.out, "check", lambda: None)
        training.follow(SimpleNamespace(fit=fit), inbox)
    assert training.ended == {"kind": "interrupted", "step": 3}
