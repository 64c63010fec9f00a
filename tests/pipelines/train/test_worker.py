"""A run as its workers do it, without Ray: exact continuation, workers that agree, and what ends a run."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing

from mats_core.errors import SettingsError
from mats_core.model.directory import check_model_dir
from mats_core.model.model import load_model
from mats_core.training import step as step_module
from mats_core.training.step import StepBatch
from pipelines.data.generations import newest
from pipelines.settings.train import TrainSettings
from pipelines.train.batches import WorkerShare
from pipelines.train.check import check_settings
from pipelines.train.checkpoints import list_checkpoints, named_weights
from pipelines.train.run import data_folder
from pipelines.train.worker import TrainingStopped, TrainJob, TrainWorker
from tests.training_world import make_world, settings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


class Recorded:
    """A Reporter that keeps what it is told; `dies_after` ends the run as kill -9 would, with nothing put in order."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self.stops_after: int | None = None
        self.dies_after = dies_after

    def report(self, kind: str, now: bool = False, **facts: Any) -> None:
        self.records.append({"kind": kind, **facts})
        if self.dies_after is not None and kind in ("step", "point") and facts["step"] == self.dies_after:
            raise SystemExit

    def stop_asked(self, now: bool = False) -> bool:
        done = [record["step"] for record in self.records if record["kind"] in ("step", "point")]
        return self.stops_after is not None and max(done, default=0) >= self.stops_after

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == kind]


def prepare(chosen: TrainSettings, shards: int = 1, fsdp: bool = False, **changes: Any) -> TrainJob:
    checked = check_settings(chosen)
    folder = str(data_folder(chosen))
    begun = newest(chosen.output)
    changes = {"run_id": begun.run_id if begun else "", **changes}
    return TrainJob(
        chosen,
        checked.facts.dim,
        checked.llm,
        checked.encoder,
        checked.memory,
        folder,
        shards,
        fsdp=fsdp,
        **{"threads": 1, "dtype": "float32", **changes},
    )


def worker(chosen: TrainSettings, reports: Recorded | None = None, shards: int = 1, **job: Any) -> TrainWorker:
    share = WorkerShare(0, 1, shards)
    return TrainWorker(prepare(chosen, shards, **job), share, reports or Recorded(), torch.device("cpu"))  # type: ignore[arg-type]


def train(chosen: TrainSettings, reports: Recorded | None = None, shards: int = 1) -> TrainWorker:
    made = worker(chosen, reports, shards)
    made.run()
    return made


def test_killed_at_any_step_and_started_again_ends_with_the_same_bits(world: Path, tmp_path: Path) -> None:
    whole = train(settings(world, tmp_path / "whole"))
    chosen = settings(world, tmp_path / "killed")
    for step in (3, 8, 10, 11):  # before the first checkpoint, between two, at one, near the end
        with pytest.raises(SystemExit):
            train(chosen, Recorded(dies_after=step))
    reports = Recorded()
    again = train(chosen, reports)
    assert reports.of("started")[0]["step"] == 10
    assert whole.state.step == again.state.step == 12
    assert whole.state.tokens == again.state.tokens > 0
    for name, weight in named_weights(whole.model).items():
        assert torch.equal(weight, named_weights(again.model)[name]), name
    left = {path.name for path in (tmp_path / "killed" / "model").iterdir()}
    assert left >= {"mats.json", "mapper.safetensors", "adapter", "MODEL_CARD.md", "curves"}


@pytest.mark.processes
def test_two_workers_and_sharded_weights_give_the_losses_of_one(world: Path, tmp_path: Path) -> None:
    """50 steps on one worker; on two; on two that share the frozen LLM's layers out between them (FSDP)."""
    given: dict[str, Any] = {
        "adapter": {"rank": 4, "alpha": 8, "dropout": 0.0}, "log_every": 1, "validate_every": 25,
        "training": {"steps": 50}, "keep_checkpoints": 1, "sample_answers": 1,
    }  # fmt: skip
    alone = Recorded()
    train(settings(world, tmp_path / "alone", **given), alone, shards=2)
    multiprocessing.spawn(_worker, (str(world), str(tmp_path), given, _free_port()), nprocs=2)
    one = [point["loss"] for point in alone.of("point")]
    assert len(one) == 50
    assert one[-1] < one[0]
    for name in ("two", "sharded"):
        records = json.loads((tmp_path / f"{name}.json").read_text())
        losses = [record["loss"] for record in records if record["kind"] == "point"]
        assert max(abs(a - b) for a, b in zip(one, losses, strict=True)) < 1e-4, name
        held = [record["validation_loss"] for record in records if record["kind"] == "validated"]
        assert held == pytest.approx([each["validation_loss"] for each in alone.of("validated")], abs=1e-4)
    other = load_model(str(tmp_path / "sharded" / "model"), "cpu", encoder=False, merge_adapter=False)
    mine = load_model(str(tmp_path / "alone" / "model"), "cpu", encoder=False, merge_adapter=False)
    for (name, a), b in zip(mine.llm.named_parameters(), other.llm.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-3), name


def _worker(rank: int, world: str, folder: str, given: dict[str, Any], port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    torch.distributed.init_process_group("gloo")
    for name, fsdp in (("two", False), ("sharded", True)):
        job = prepare(settings(Path(world), Path(folder) / name, **given), shards=2, fsdp=fsdp)
        reports = Recorded()
        TrainWorker(job, WorkerShare(rank, 2, 2, equal_passes=fsdp), reports, torch.device("cpu")).run()  # type: ignore[arg-type]
        if rank == 0:
            (Path(folder) / f"{name}.json").write_text(json.dumps(reports.records))
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_loss_that_is_no_number_stops_the_run_and_saves_its_batch(world: Path, tmp_path: Path) -> None:
    chosen = settings(world, tmp_path / "out", checkpoint_every=2)
    run = worker(chosen)
    sound = run.make_batch

    def spoilt(step: int) -> StepBatch:
        batch = sound(step)
        if step == 5:
            batch.micro_batches[0].embedding[0, 0] = float("nan")
        return batch

    run.make_batch = spoilt
    with pytest.raises(TrainingStopped, match=r"not a finite number in step 5; its batch is in .*Earlier checkpoints"):
        run.run()
    saved = json.loads((tmp_path / "out" / "_state" / "bad-batch-step-000000005.json").read_text())
    assert saved["step"] == 5
    assert len(saved["samples"]) == 16
    assert set(saved["samples"][0]) == {"prompt", "output", "embedding"}
    assert list(list_checkpoints(str(tmp_path / "out" / "_state" / "checkpoints"))) == [2, 4]
    assert not (tmp_path / "out" / "model").exists()
    assert train(chosen).state.step == 12  # nothing is broken: without the bad value the run goes on


def test_a_checkpoint_that_cannot_be_written_stops_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    chosen = settings(world, tmp_path / "out", checkpoint_every=4)
    with pytest.raises(SystemExit):
        train(chosen, Recorded(dies_after=7))
    monkeypatch.setattr("pipelines.train.worker.save_checkpoint", full)
    with pytest.raises(TrainingStopped, match=r"step 8 was not written, earlier ones are intact: .*No space left"):
        train(chosen)
    monkeypatch.undo()
    reports = Recorded()
    train(chosen, reports)
    assert reports.of("started")[0]["step"] == 4


def test_a_model_that_cannot_be_written_leaves_the_checkpoints(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, as safetensors and as the file system tell it."""
    from safetensors import SafetensorError

    chosen = settings(world, tmp_path / "out", training={"steps": 4}, checkpoint_every=2)
    errors = [SafetensorError("I/O error: No space left on device"), OSError(errno.ENOSPC, "No space left on device")]
    for error in errors:

        def full(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("safetensors.torch.save_file", full)
        with pytest.raises(TrainingStopped, match=r"model was not written; checkpoints are intact: .*No space left"):
            train(chosen)
        assert list(list_checkpoints(str(tmp_path / "out" / "_state" / "checkpoints"))) == [2, 4]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_state"]
    monkeypatch.undo()
    reports = Recorded()
    train(chosen, reports)
    assert reports.of("started")[0]["step"] == 4
    assert (tmp_path / "out" / "model" / "mats.json").is_file()


def test_numbers_and_threads_of_a_continued_run(world: Path, tmp_path: Path) -> None:
    """Another number type is refused; other threads are told, and noted in the card."""
    chosen = settings(world, tmp_path / "out", training={"steps": 4}, checkpoint_every=2)
    with pytest.raises(SystemExit):
        train(chosen, Recorded(dies_after=3))
    with pytest.raises(SettingsError, match="dtype: this run was begun in float32, not bfloat16; say dtype: float32"):
        worker(chosen, dtype="bfloat16")  # type: ignore[arg-type]
    reports = Recorded()
    worker(chosen, reports, threads=2).run()  # type: ignore[arg-type]
    assert reports.of("warning")[0]["text"].startswith("continued with 2 threads a worker, before it were 1")
    assert "threads a worker: 1, then 2" in (tmp_path / "out" / "model" / "MODEL_CARD.md").read_text()


def test_asked_to_stop_it_keeps_the_step_it_is_in(world: Path, tmp_path: Path) -> None:
    reports = Recorded()
    reports.stops_after = 0
    run = train(settings(world, tmp_path / "out"), reports)
    assert reports.of("interrupted") == [{"kind": "interrupted", "step": 1}]
    assert list(list_checkpoints(run.folder)) == [1]


@pytest.mark.parametrize(("during", "settle"), [("_validate", 4), ("_checkpoint", 2)])
def test_a_wish_to_stop_during_a_validation_or_a_checkpoint_costs_no_other_step(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: str, settle: int
) -> None:
    """However short it was: the driver is asked behind it, also where it was asked a moment before."""
    from pipelines.train.run import _Inbox
    from pipelines.train.worker import Reporter

    inbox = _Inbox()
    monkeypatch.setattr("ray.get", lambda found: found)
    remote = {name: SimpleNamespace(remote=getattr(inbox, name)) for name in ("post", "stop_asked")}
    monkeypatch.setattr("pipelines.train.worker._ASK_S", 1000.0)
    reporter = Reporter(SimpleNamespace(**remote), True)
    chosen = settings(world, tmp_path / "out", validate_every=4, checkpoint_every=2)
    run = worker(chosen, reporter)  # type: ignore[arg-type]
    work = getattr(run, during)

    def stopped_within() -> None:
        inbox.stop()
        work()

    monkeypatch.setattr(run, during, stopped_within)
    run.run()
    assert [record["step"] for record in inbox.take() if record["kind"] == "interrupted"] == [settle]
    assert max(list_checkpoints(run.folder)) == settle


def test_a_wish_to_stop_during_a_step_ends_the_run_after_that_step(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver is asked near the end of the step itself; the answer to an earlier report would be two steps old."""
    from pipelines.train.run import _Inbox
    from pipelines.train.worker import Reporter

    inbox, backward = _Inbox(), step_module.backward

    def remote(name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=getattr(inbox, name))

    monkeypatch.setattr("ray.get", lambda found: found)
    monkeypatch.setattr("pipelines.train.worker._ASK_S", -1.0)  # steps here are shorter than that
    reporter = Reporter(SimpleNamespace(post=remote("post"), stop_asked=remote("stop_asked")), True)
    run = worker(settings(world, tmp_path / "out"), reporter)  # type: ignore[arg-type]

    def stopped_within(*given: Any) -> Any:
        if run.state.step == 3:
            inbox.stop()
        return backward(*given)

    monkeypatch.setattr(step_module, "backward", stopped_within)
    run.run()
    assert [record["step"] for record in inbox.take() if record["kind"] == "interrupted"] == [4]
    assert list(list_checkpoints(run.folder)) == [4]


def test_stage_two_continues_from_stage_one(world: Path, tmp_path: Path) -> None:
    first = train(settings(world, tmp_path / "one", wordings="fixed"))
    chosen = settings(world, tmp_path / "two", model=str(tmp_path / "one" / "model"), training={"seed": 1})
    second = worker(chosen)
    assert second.state.step == 0
    assert second.model.config.wordings == "fixed"
    for name, weight in named_weights(first.model).items():
        assert torch.equal(weight, named_weights(second.model)[name]), name
    second.run()
    config = check_model_dir(str(tmp_path / "two" / "model"))
    assert config.encoder == first.model.config.encoder
    assert config.noise_variance == 1e-3


def test_mapper_alone_and_the_best_checkpoint(world: Path, tmp_path: Path) -> None:
    chosen = settings(
        world, tmp_path / "out", training={"train": "mapper", "learning_rate": 0.5}, validate_every=4, export="best",
        keep_checkpoints=1,
    )  # fmt: skip
    reports = Recorded()
    run = train(chosen, reports)
    losses = {record["step"]: record["validation_loss"] for record in reports.of("validated")}
    best = min(losses, key=lambda step: losses[step])
    assert run.state.best_step == best
    assert reports.of("finished")[0]["exported_step"] == best
    assert set(list_checkpoints(run.folder)) == {best, 12}
    assert not any("lora_" in name for name in named_weights(run.model))


def test_a_run_that_writes_to_a_url(world: Path, tmp_path: Path) -> None:
    chosen = settings(world, "memory://a-training-run", data_cache=str(tmp_path / "cache"))
    run = train(chosen)
    from mats_core import storage

    names = {info.uri.split("a-training-run/")[1] for info in storage.list_files("memory://a-training-run/model")}
    assert names >= {"model/mats.json", "model/mapper.safetensors", "model/MODEL_CARD.md", "model/curves/loss.svg"}
    assert list(list_checkpoints(run.folder)) == [10, 12]


def test_samples_of_the_log_and_curves_of_the_card(world: Path, tmp_path: Path) -> None:
    reports = Recorded()
    train(settings(world, tmp_path / "out", validate_every=6, log_every=2), reports)
    validated = reports.of("validated")
    assert [record["step"] for record in validated] == [6, 12]
    assert set(validated[0]["validation"]) == {"one", "two"}
    assert {answer["set"] for answer in validated[0]["answers"]} == {"one", "two"}
    card = (tmp_path / "out" / "model" / "MODEL_CARD.md").read_text()
    assert "| one | 52 | 8 | 0 | 2 | 66.7% | [ a ] | 0 |" in card
    assert "trained on text alone" in card
    for picture in ("loss", "validation_loss", "validation_accuracy", "learning_rate", "tokens_per_s"):
        assert f"curves/{picture}.svg" in card
        assert (tmp_path / "out" / "model" / "curves" / f"{picture}.svg").read_text().startswith("<svg")


def test_a_wrong_setting_that_a_worker_finds_ends_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any worker reports it and ends normally, since one started in its place would find it again."""
    import ray.train
    import ray.train.torch

    from pipelines.train.worker import train_worker

    reports: list[dict[str, Any]] = []
    inbox = SimpleNamespace(post=SimpleNamespace(remote=reports.extend))
    context = SimpleNamespace(get_world_rank=lambda: 1, get_world_size=lambda: 2)
    monkeypatch.setattr(ray, "get", lambda found: found)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    chosen = settings(world, tmp_path / "out", adapter={"rank": 2, "target_modules": ["no_such_layer"]})
    train_worker({"job": prepare(chosen, shards=2, cwd=os.getcwd()), "inbox": inbox})
    (report,) = reports
    assert (report["kind"], type(report["error"])) == ("refused", SettingsError)
    assert "no_such_layer" in str(report["error"])


def test_every_validation_answers_other_records() -> None:
    """Two sets, the smaller of two records: four answers at a time, none twice, the next ones each time."""

    def data(name: str, count: int) -> Any:
        def record(row: int) -> Any:
            return SimpleNamespace(vector=np.zeros(2, np.float32), output=f"{name}{row}")

        return SimpleNamespace(name=name, validation=np.arange(count), record=record)

    history: list[dict[str, Any]] = [{"step": 1}]
    of: Any = SimpleNamespace(
        settings=SimpleNamespace(sample_answers=4), sets=[data("a", 5), data("b", 2)], device="cpu",
        state=SimpleNamespace(history=history), word=lambda record, _: record.output,
        model=SimpleNamespace(generate=lambda vectors, prompts, _: prompts),
    )  # fmt: skip
    said = []
    for step in (5, 10, 15):
        history.append({"step": step, "validation": {}})
        said.append([each["target"] for each in TrainWorker._sample_answers(of)])
    assert said == [["a0", "b0", "a1", "b1"], ["a2", "b0", "a3", "b1"], ["a4", "b0", "a0", "b1"]]
