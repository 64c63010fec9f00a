"""A run as its workers do it, without Ray: exact continuation, workers that agree, and what ends a run."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as multiprocessing

from mats_core.errors import SettingsError
from mats_core.model.directory import check_model_dir, load_model
from pipelines.settings.train import TrainSettings
from pipelines.train.batches import Share
from pipelines.train.check import check_settings
from pipelines.train.checkpoints import list_checkpoints, named_weights
from pipelines.train.run import TrainProgress, _Training, data_folder, run_train
from pipelines.train.worker import Run, TrainingStopped, TrainJob
from tests.training_world import make_world, settings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


class Heard:
    """Stands for the line to the driver; `dies_after` ends the run as kill -9 would, with nothing put in order."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self.stop = False
        self.dies_after = dies_after

    def tell(self, kind: str, now: bool = False, **facts: Any) -> None:
        self.records.append({"kind": kind, **facts})
        if self.dies_after is not None and kind in ("step", "point") and facts["step"] == self.dies_after:
            raise SystemExit

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == kind]


def prepare(chosen: TrainSettings, shards: int = 1, fsdp: bool = False, **changes: Any) -> TrainJob:
    checked = check_settings(chosen)
    folder = str(data_folder(chosen))
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


def train(chosen: TrainSettings, heard: Heard | None = None, shards: int = 1) -> Run:
    run = Run(prepare(chosen, shards), Share(0, 1, shards), heard or Heard(), torch.device("cpu"))
    run.run()
    return run


def test_killed_at_any_step_and_started_again_ends_with_the_same_bits(world: Path, tmp_path: Path) -> None:
    whole = train(settings(world, tmp_path / "whole"))
    chosen = settings(world, tmp_path / "killed")
    for step in (3, 8, 10, 11):  # before the first checkpoint, between two, at one, near the end
        with pytest.raises(SystemExit):
            train(chosen, Heard(dies_after=step))
    heard = Heard()
    again = train(chosen, heard)
    assert heard.of("started")[0]["step"] == 10
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
    alone = Heard()
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
        heard = Heard()
        Run(job, Share(rank, 2, 2, even=fsdp), heard, torch.device("cpu")).run()  # type: ignore[arg-type]
        if rank == 0:
            (Path(folder) / f"{name}.json").write_text(json.dumps(heard.records))
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_loss_that_is_no_number_stops_the_run_and_saves_its_batch(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(world, tmp_path / "out", checkpoint_every=2)
    real = Run._make

    def spoilt(self: Run, step: int) -> Any:
        made = real(self, step)
        if step == 5:
            made.parts[0].embedding[0, 0] = float("nan")
        return made

    monkeypatch.setattr(Run, "_make", spoilt)
    with pytest.raises(TrainingStopped, match=r"not a finite number in step 5; its batch is in .*Earlier checkpoints"):
        train(chosen)
    saved = json.loads((tmp_path / "out" / "_state" / "bad-batch-step-000000005.json").read_text())
    assert saved["step"] == 5
    assert len(saved["samples"]) == 16
    assert set(saved["samples"][0]) == {"prompt", "output", "embedding"}
    assert list(list_checkpoints(str(tmp_path / "out" / "_state" / "checkpoints"))) == [2, 4]
    assert not (tmp_path / "out" / "model").exists()
    monkeypatch.undo()
    assert train(chosen).state.step == 12  # nothing is broken: without the bad value the run goes on


def test_a_checkpoint_that_cannot_be_written_stops_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    chosen = settings(world, tmp_path / "out", checkpoint_every=4)
    with pytest.raises(SystemExit):
        train(chosen, Heard(dies_after=7))
    monkeypatch.setattr("pipelines.train.worker.save_checkpoint", full)
    with pytest.raises(TrainingStopped, match=r"step 8 was not written, earlier ones are intact: .*No space left"):
        train(chosen)
    monkeypatch.undo()
    heard = Heard()
    train(chosen, heard)
    assert heard.of("started")[0]["step"] == 4


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
    heard = Heard()
    train(chosen, heard)
    assert heard.of("started")[0]["step"] == 4
    assert (tmp_path / "out" / "model" / "mats.json").is_file()


def test_numbers_and_threads_of_a_continued_run(world: Path, tmp_path: Path) -> None:
    """Another number type is refused; other threads are told, and noted in the card."""
    chosen = settings(world, tmp_path / "out", training={"steps": 4}, checkpoint_every=2)
    with pytest.raises(SystemExit):
        train(chosen, Heard(dies_after=3))
    with pytest.raises(SettingsError, match="dtype: this run was begun in float32, not bfloat16; say dtype: float32"):
        Run(prepare(chosen, dtype="bfloat16"), Share(0, 1, 1), Heard(), torch.device("cpu"))  # type: ignore[arg-type]
    heard = Heard()
    Run(prepare(chosen, threads=2), Share(0, 1, 1), heard, torch.device("cpu")).run()  # type: ignore[arg-type]
    assert heard.of("warning")[0]["text"].startswith("continued with 2 threads a worker, before it were 1")
    assert "threads a worker: 1, then 2" in (tmp_path / "out" / "model" / "MODEL_CARD.md").read_text()


def test_an_output_begun_with_other_parts_is_refused(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Training, "run", lambda self: None)
    mine = tmp_path / "world"
    shutil.copytree(world, mine)
    chosen = settings(mine, tmp_path / "one")
    run_train(chosen)
    run_train(chosen)
    config = json.loads((mine / "llm" / "config.json").read_text())
    (mine / "llm" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    with pytest.raises(SettingsError, match=r"begun with \(llm_fingerprint was"):
        run_train(chosen)
    monkeypatch.undo()

    train(settings(world, tmp_path / "first", training={"steps": 1}))
    monkeypatch.setattr(_Training, "run", lambda self: None)
    second = settings(world, tmp_path / "second", model=str(tmp_path / "first" / "model"))
    run_train(second)
    train(settings(world, tmp_path / "other", training={"steps": 1, "seed": 1}))
    weights = "model/mapper.safetensors"
    shutil.copy(tmp_path / "other" / weights, tmp_path / "first" / weights)
    with pytest.raises(SettingsError, match=r"begun with \(model_fingerprint was"):
        run_train(second)


def test_what_a_killed_run_left_unfinished_is_removed(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Training, "run", lambda self: None)
    out = tmp_path / "out"
    for name in ("_state/checkpoints/step-000000005.ckpt.0123abcd.partial", "_run.json.0123abcd.partial"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"half")
    for name in (".model-0123abcd.partial/adapter", "_state/data/abcd.partial"):
        (out / name).mkdir(parents=True)
    (out / "mine.txt").write_text("mine")
    run_train(settings(world, out))
    assert sorted(path.name for path in out.rglob("*")) == [
        "_state",
        "checkpoints",
        "data",
        "identity.json",
        "mine.txt",
    ]


def test_the_run_says_what_was_read_and_what_is_trained_on(world: Path, tmp_path: Path) -> None:
    from pipelines.output.lease import Lease
    from pipelines.train.data import read_store
    from pipelines.train.pack import ensure_store

    told: list[str | None] = []
    chosen = settings(world, tmp_path / "out")

    def tell(progress: TrainProgress) -> None:
        told.append(progress.warning)

    training = _Training(chosen, check_settings(chosen), "x", tell, Lease(str(tmp_path / "lease"), "x"))
    store = read_store(ensure_store(chosen, tmp_path / "store"))
    store["sets"][0].update(held_by="record", validation=8)
    training._count(store["sets"])
    assert (training.run_facts["records"], training.run_facts["bad"]) == (112, 0)
    assert training.run_facts["data"]["two"] == {
        "records": 52, "train": 44, "validation": 8, "held_by": "caption", "given_up": 0, "met": 0, "problems": {},
    }  # fmt: skip
    assert told == training.run_facts["warnings"]
    assert "data set one has too few captions to hold any out" in str(told[0])
    refusal = SettingsError("output", "x", "other weights")
    training._hear([{"kind": "warning", "text": "odd"}, {"kind": "refused", "error": refusal}])
    assert training.run_facts["warnings"][1:] == ["odd"]
    assert training.refused is refusal


def test_asked_to_stop_it_keeps_the_step_it_is_in(world: Path, tmp_path: Path) -> None:
    heard = Heard()
    heard.stop = True
    run = train(settings(world, tmp_path / "out"), heard)
    assert heard.of("interrupted") == [{"kind": "interrupted", "step": 1}]
    assert list(list_checkpoints(run.folder)) == [1]


def test_stage_two_continues_from_stage_one(world: Path, tmp_path: Path) -> None:
    first = train(settings(world, tmp_path / "one", wordings="fixed"))
    chosen = settings(world, tmp_path / "two", model=str(tmp_path / "one" / "model"), training={"seed": 1})
    second = Run(prepare(chosen), Share(0, 1, 1), Heard(), torch.device("cpu"))  # type: ignore[arg-type]
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
    heard = Heard()
    run = train(chosen, heard)
    losses = {record["step"]: record["validation_loss"] for record in heard.of("validated")}
    best = min(losses, key=lambda step: losses[step])
    assert run.state.best_step == best
    assert heard.of("finished")[0]["exported_step"] == best
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
    heard = Heard()
    train(settings(world, tmp_path / "out", validate_every=6, log_every=2), heard)
    validated = heard.of("validated")
    assert [record["step"] for record in validated] == [6, 12]
    assert set(validated[0]["validation"]) == {"one", "two"}
    assert {answer["set"] for answer in validated[0]["answers"]} == {"one", "two"}
    card = (tmp_path / "out" / "model" / "MODEL_CARD.md").read_text()
    assert "| one | 52 | 8 | 0 | 2 | 66.7% | [ a ] | 0 |" in card
    assert "trained on text alone" in card
    for picture in ("loss", "validation_loss", "validation_accuracy", "learning_rate", "tokens_per_s"):
        assert f"curves/{picture}.svg" in card
        assert (tmp_path / "out" / "model" / "curves" / f"{picture}.svg").read_text().startswith("<svg")


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
    with pytest.raises(SettingsError, match=rf"^{name}: got .*a place outside OUTPUT/model"):
        run_train(settings(world, "out", overwrite=True, **changes))
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["model", "mine.txt"]


def test_a_model_that_no_run_has_made_stays(world: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "model").mkdir(parents=True)
    for overwrite in (False, True):
        with pytest.raises(SettingsError, match=r"^output: got .*no run has begun, without a model in it"):
            run_train(settings(world, tmp_path / "out", overwrite=overwrite))
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["model"]


def test_a_gpu_that_is_not_there_is_found_before_anything(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"^device: got .cuda"):
        run_train(settings(world, tmp_path / "out", device="cuda"))
    assert not (tmp_path / "out").exists()


def test_a_finished_run_writes_its_model_anew_when_it_is_to_be_written_otherwise(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import safe_open

    from pipelines.output.parts import write_run

    out = tmp_path / "out"
    short: dict[str, Any] = {"training": {"steps": 2}}
    chosen = settings(world, out, **short)
    monkeypatch.setattr(_Training, "run", lambda self: "trained")
    run_train(chosen)  # OUTPUT is begun
    train(chosen)
    write_run(str(out), {"status": "complete", "step": 2, "settings": chosen.model_dump(mode="json")})
    assert run_train(chosen).status == "complete_before"
    assert run_train(settings(world, out, **short, log_every=1)).status == "complete_before"
    changes: list[dict[str, Any]] = [{"weights": "float16"}, {"include": ["llm"]}, {"export": "best"}]
    for change in changes:
        assert run_train(settings(world, out, **short, **change)) == "trained", change
    heard = Heard()
    train(settings(world, out, **short, weights="float16", include=["llm"]), heard)
    assert [record["kind"] for record in heard.records if record["kind"] in ("step", "point")] == []
    assert (out / "model" / "llm" / "config.json").is_file()
    with safe_open(out / "model" / "mapper.safetensors", "np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_a_wrong_setting_that_a_worker_finds_ends_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any worker tells it and ends normally, since one started in its place would find it again."""
    import ray.train
    import ray.train.torch

    from pipelines.train import worker as training_worker

    told: list[tuple[str, Any]] = []

    class Line(Heard):
        def __init__(self, board: Any, speaks: bool) -> None:
            super().__init__()
            self.speaks = speaks

        def tell(self, kind: str, now: bool = False, **facts: Any) -> None:
            if self.speaks:
                told.append((kind, facts.get("error")))

    class Context:
        def get_world_rank(self) -> int:
            return 1

        def get_world_size(self) -> int:
            return 2

    monkeypatch.setattr(training_worker, "Told", Line)
    monkeypatch.setattr(ray.train, "get_context", Context)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    chosen = settings(world, tmp_path / "out", adapter={"rank": 2, "target_modules": ["no_such_layer"]})
    training_worker.train_worker({"job": prepare(chosen, shards=2, cwd=os.getcwd()), "board": None})
    ((kind, error),) = told
    assert (kind, type(error)) == ("refused", SettingsError)
    assert "no_such_layer" in str(error)


def test_a_refusal_does_not_wait_for_workers_that_hang(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading
    from types import SimpleNamespace

    from pipelines.output.lease import Lease

    refusal, hanging = SettingsError("adapter.target_modules", "x", "layers of the LLM"), threading.Event()
    records: list[dict[str, Any]] = [{"kind": "refused", "error": refusal}]
    board = SimpleNamespace(take=SimpleNamespace(remote=lambda: records))
    trainer = SimpleNamespace(fit=lambda: hanging.wait(60))
    monkeypatch.setattr("ray.get", lambda found: found)
    monkeypatch.setattr("pipelines.train.run.REFUSAL_PATIENCE_S", 0.1)
    monkeypatch.setattr(_Training, "_trainer", lambda self, there: (trainer, board))
    chosen = settings(world, tmp_path / "out")
    training = _Training(chosen, check_settings(chosen), "x", lambda _: None, Lease(str(tmp_path / "lease"), "x"))
    try:
        with pytest.raises(SettingsError) as caught:
            training._fit(None)  # type: ignore[arg-type]
        assert caught.value is refusal
        assert not hanging.is_set()
    finally:
        hanging.set()
