"""One worker of a training run: what Ray Train starts on every GPU (or, on CPUs, a few times)."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.model.config import MapperConfig, Part, SantaSettings
from mats_core.model.model import MatsModel, load_model
from mats_core.training.step import Sums, backward, evaluate, make_optimizer, trained_weights, update
from pipelines.settings.train import TrainSettings
from pipelines.train.batches import (
    Ahead,
    Share,
    StepBatch,
    draw_step,
    step_batch,
    to_device,
    validation_parts,
    wording,
)
from pipelines.train.checkpoints import (
    ForeignCheckpoint,
    TrainState,
    load_checkpoint,
    load_newest,
    prune,
    save_checkpoint,
)
from pipelines.train.mixture import StoredSet, open_store
from pipelines.train.pack import ensure_store
from pipelines.train.parallel import shard_llm, sum_gradients, sum_numbers

log = logging.getLogger(__name__)
CHECKPOINTS = ("_state", "checkpoints")
_TELL_S = 0.5


class TrainingStopped(RuntimeError):
    """The run cannot go on, and starting its workers again would not help."""


@dataclass
class TrainJob:
    """What the driver found out, for the workers. `encoder` and `memory` are parts of the model, not loaded. `cwd` is
    where the driver stands: what the settings name by relative paths lies there."""

    settings: TrainSettings
    dim: int
    llm: str | None
    encoder: Part | None
    memory: Part | None
    data_folder: str
    shards: int
    threads: int
    fsdp: bool
    dtype: str
    cwd: str = "."


def build_model(job: TrainJob, device: str) -> MatsModel:
    """The model to train: a new one, or the one to continue from. Neither encoder nor memory is loaded."""
    settings, training = job.settings, job.settings.training
    if settings.model is not None:
        options = {"encoder": False, "memory": False, "merge_adapter": False}
        model = load_model(settings.model, device, job.dtype, **options)
        changes: dict[str, Any] = {"noise_variance": training.noise_variance}
        given = settings.model_fields_set
        changes |= {n: getattr(settings, n) for n in ("wordings", "answer_style", "max_target_tokens") if n in given}
        changes |= {n: getattr(settings, n) for n in ("santa", "decoding") if n in given and getattr(settings, n)}
    else:
        model = MatsModel.new(
            str(job.llm), embedding_dim=job.dim, mapper=settings.mapper or MapperConfig(),
            adapter=settings.adapter, tasks=settings.tasks, wordings=settings.wordings,
            noise_variance=training.noise_variance, answer_style=settings.answer_style,
            santa=settings.santa or SantaSettings(noise_variance=training.noise_variance),
            decoding=settings.decoding, max_target_tokens=settings.max_target_tokens, seed=training.seed,
            device=device, dtype=job.dtype,
        )  # fmt: skip
        changes = {"encoder": job.encoder}
        if job.encoder is not None:
            model.parts["encoder"] = job.encoder.uri
    if job.memory is not None:
        changes["memory"] = job.memory
        model.parts["memory"] = str(settings.memory)
    model.config = model.config.model_copy(update=changes)
    model.tokens.max_target_tokens = model.config.max_target_tokens
    if training.gradient_checkpointing:
        model.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    return model


class Told:
    """Records for the driver, sent by the first worker now and then; and whether the driver wants to stop."""

    def __init__(self, board: Any, speaks: bool) -> None:
        self._board, self._speaks = board, speaks
        self._waiting: list[dict[str, Any]] = []
        self._answer: Any = None
        self._last = 0.0
        self.stop = False

    def tell(self, kind: str, now: bool = False, **facts: Any) -> None:
        """Queue a record; send what is queued when it is time."""
        if not self._speaks:
            return
        import ray

        self._waiting.append({"kind": kind, **facts})
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            self.stop = bool(ray.get(self._answer))
            self._answer = None
        if now or time.monotonic() - self._last > _TELL_S:
            answer = self._board.post.remote(self._waiting)
            self._waiting, self._last = [], time.monotonic()
            if now:
                self.stop = bool(ray.get(answer))
            else:
                self._answer = answer


def train_worker(config: dict[str, Any]) -> None:
    """The function Ray Train runs. Ends normally also when the run has to stop; the driver is told why."""
    import ray.train
    import ray.train.torch

    job: TrainJob = config["job"]
    with suppress(OSError):  # note: Ray Train moves its workers into a folder of their own
        os.chdir(job.cwd)
    context = ray.train.get_context()
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    share = Share(context.get_world_rank(), context.get_world_size(), job.shards, even=job.fsdp)
    told = Told(config["board"], share.rank == 0)
    told.tell("stage", now=True, stage="loading the model", workers=share.world)
    try:
        Run(job, share, told, ray.train.torch.get_device()).run()
    except TrainingStopped as error:
        told.tell("failed", now=True, message=str(error))
    except SettingsError as error:  # a new worker would find it too
        Told(config["board"], True).tell("refused", now=True, error=error)


class Run:
    """A run as one worker sees it: model, optimizer, data, state."""

    def __init__(self, job: TrainJob, share: Share, told: Told, device: torch.device) -> None:
        self.job, self.share, self.told, self.device = job, share, told, device
        self.settings, self.training = job.settings, job.settings.training
        self.folder = storage.join(self.settings.output, *CHECKPOINTS)
        self.sets = open_store(ensure_store(self.settings, Path(job.data_folder)))
        self.ratios = [each.ratio for each in self.settings.data]
        self.model = build_model(job, "cpu" if job.fsdp else str(device))
        self.optimizer = make_optimizer(self.model, self.training)
        if job.fsdp:
            shard_llm(self.model, device)
        self.word = wording(self.model)
        self.state = load_newest(self.folder, self.model, self.optimizer, share.rank == 0, self._warn)
        self._check_numbers()
        self._point = _Point()

    def _warn(self, text: str) -> None:
        self.told.tell("warning", text=text)

    def _check_numbers(self) -> None:
        """Note what the sums of this run are made with; refuse to go on in another number type."""
        state, job = self.state, self.job
        if state.dtype not in ("", job.dtype):
            problem = f"this run was begun in {state.dtype}, not {job.dtype}"
            raise ForeignCheckpoint("dtype", problem, f"say dtype: {state.dtype}")
        state.dtype = job.dtype
        if job.threads and state.threads[-1:] != [job.threads]:
            state.threads.append(job.threads)
            if len(state.threads) > 1:
                self._warn(
                    f"continued with {job.threads} threads a worker, before it were {state.threads[-2]}: the last bits "
                    "of the weights may differ from those of an unbroken run"
                )

    def run(self) -> None:
        """From the newest checkpoint to the last step; then the model directory."""
        state, steps = self.state, self.training.steps
        self.told.tell(
            "started", now=True, step=state.step, steps=steps, workers=self.share.world, history=state.history,
            pid=os.getpid(), trained=sum(w.numel() for w in trained_weights(self.optimizer)), tokens=state.tokens,
        )  # fmt: skip
        ahead = Ahead(self._make, state.step, steps)
        stop = False
        try:
            while state.step < steps and not stop:
                stop = self._step(ahead)
                done = state.step == steps
                validated = done or state.step % self.settings.validate_every == 0
                if validated:
                    self._validate()
                if validated or stop or state.step % self.settings.checkpoint_every == 0:
                    self._checkpoint()
        finally:
            ahead.close()
        if stop and state.step < steps:
            self.told.tell("interrupted", now=True, step=state.step)
            return
        self._export()

    def _make(self, step: int) -> StepBatch:
        return step_batch(self.sets, self.ratios, self.model, self.training, step, self.share, self.device)

    def _step(self, ahead: Ahead) -> bool:
        """One step; returns whether to stop after it."""
        began, waited = time.perf_counter(), ahead.waited
        batch = ahead.next()
        waited = ahead.waited - waited
        self.optimizer.zero_grad(set_to_none=True)
        loss, correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for part in batch.parts:
            total = batch.target_tokens if part.counts else math.inf  # company adds a gradient of zero
            sums: Sums = backward(
                self.model, part.embedding, part.batch, self.training, part.noise_rows, total, part.dropout_seed
            )
            if part.counts:
                loss, correct = loss + sums.loss, correct + sums.correct
        tokens = sum(part.tokens for part in batch.parts)
        weights = trained_weights(self.optimizer)
        agreed = sum_gradients(weights, [loss, correct, float(tokens), float(self.told.stop)])
        if agreed is None:
            self._save_bad_batch(batch.step)
        assert agreed is not None
        rate, norm = update(self.optimizer, self.training, batch.step)
        state = self.state
        state.step, state.samples = batch.step + 1, state.samples + batch.samples
        state.tokens += int(agreed[2])
        seconds = time.perf_counter() - began
        state.seconds += seconds
        self._point.add(agreed[0], agreed[1], batch.target_tokens, agreed[2], rate, norm, seconds, waited)
        if state.step % self.settings.log_every == 0 or state.step == self.training.steps:
            point = {"step": state.step, **self._point.take()}
            state.history.append(point)
            self.told.tell("point", **point)
        else:
            self.told.tell("step", step=state.step, loss=agreed[0] / batch.target_tokens, tokens=state.tokens)
        return agreed[3] > 0

    def _save_bad_batch(self, step: int) -> None:
        """Stop, and keep the batch whose loss or gradient is not a number. Weights are as before the step."""
        uri = storage.join(self.settings.output, "_state", f"bad-batch-step-{step:09d}.json")
        if self.share.rank == 0:
            samples = draw_step(self.sets, self.ratios, self.training, step, self.word)
            rows = [{"prompt": s.prompt, "output": s.output, "embedding": s.vector.tolist()} for s in samples]
            storage.write_bytes(uri, json.dumps({"step": step, "seed": self.training.seed, "samples": rows}).encode())
        raise TrainingStopped(
            f"the loss or its gradient is not a finite number in step {step}; its batch is in "
            f"{storage.public_uri(uri)}. Earlier checkpoints are intact. A lower learning rate, "
            "clip_norm, or float32 may help"
        )

    def _validate(self) -> None:
        """Loss and token accuracy of every set's held-out records, and a few answers."""
        results: dict[str, dict[str, float]] = {}
        for each in self.sets:
            if not len(each.validation):
                continue
            totals = [0.0, 0.0, 0.0]
            budget = self.training.micro_batch_tokens
            for part in validation_parts(each, self.model.tokens, self.word, budget, self.share):
                moved = to_device(part, self.device)
                sums = evaluate(self.model, moved.embedding, moved.batch)
                if part.counts:
                    totals = [a + float(b) for a, b in zip(totals, (sums.loss, sums.correct, sums.tokens), strict=True)]
            loss, correct, tokens = sum_numbers(totals, self.device)
            results[each.name] = {"loss": loss / tokens, "token_accuracy": correct / tokens}
        state = self.state
        if results:
            ratios = {each.name: max(each.ratio, 0.0) for each in self.settings.data if each.name in results}
            weight = sum(ratios.values())
            names = ratios if weight else dict.fromkeys(results, 1.0)
            mean = sum(results[n]["loss"] * r for n, r in names.items()) / sum(names.values())
            if state.best_loss is None or mean < state.best_loss:
                state.best_loss, state.best_step = mean, state.step
            point: dict[str, Any] = {"step": state.step, "validation": results, "validation_loss": mean}
            state.history.append(point)
            answers = self._sample_answers() if self.share.rank == 0 or self.job.fsdp else []
            self.told.tell("validated", answers=answers, **point)

    def _sample_answers(self) -> list[dict[str, str]]:
        """What the model now says to a few held-out captions, as they are (no noise, no Santa)."""
        picked: list[tuple[StoredSet, int]] = []
        for turn in range(self.settings.sample_answers):
            pool = [each for each in self.sets if turn // len(self.sets) < len(each.validation)]
            if pool:
                chosen = pool[turn % len(pool)]
                picked.append((chosen, int(chosen.validation[turn // len(self.sets)])))
        records = [each.record(number) for each, number in picked]
        if not records:
            return []
        prompts = [self.word(record, 0) for record in records]
        vectors = torch.stack([torch.from_numpy(record.vector) for record in records])
        short = {"beams": 1, "max_new_tokens": 60, "min_length": 1}
        texts = self.model.generate(vectors.to(self.device), prompts, short)
        return [
            {"set": each.name, "prompt": prompt, "answer": text, "target": record.output}
            for (each, _), prompt, text, record in zip(picked, prompts, texts, records, strict=True)
        ]

    def _checkpoint(self) -> None:
        """Write a checkpoint; all workers stop where it cannot be written."""
        failure = ""
        if self.share.rank == 0:
            try:
                save_checkpoint(self.folder, self.state, self.model, self.optimizer)
                prune(self.folder, self.settings.keep_checkpoints, self.state.best_step)
            except (storage.StorageError, OSError) as error:
                failure = str(error)
        failed = sum_numbers([float(bool(failure))], self.device)[0] > 0
        if failed:
            raise TrainingStopped(
                f"the checkpoint of step {self.state.step} was not written, earlier ones are intact: {failure}"
            )
        self.told.tell("checkpoint", step=self.state.step)

    def _export(self) -> None:
        """The model directory, by the first worker."""
        if self.share.rank:
            return
        from pipelines.train.export import export_model

        step = self.state.step
        if self.settings.export == "best" and self.state.best_step is not None:
            step = self.state.best_step
            try:
                load_checkpoint(storage.join(self.folder, f"step-{step:09d}.ckpt"), self.model)
            except (ValueError, storage.StorageError) as error:
                raise TrainingStopped(
                    f"the best checkpoint, of step {step}, cannot be read ({error}); `export: last` writes the last one"
                ) from error
        self.told.tell("stage", now=True, stage="writing the model", workers=self.share.world)
        try:
            export_model(self.model, self.settings, self.state, self.sets, step)
        except (storage.StorageError, OSError, SettingsError, SafetensorError) as error:
            raise TrainingStopped(f"the model was not written; checkpoints are intact: {error}") from error
        state = self.state
        names = ("step", "tokens", "samples", "seconds", "best_step", "best_loss")
        facts: dict[str, Any] = {name: getattr(state, name) for name in names}
        self.told.tell("finished", now=True, exported_step=step, history=state.history, **facts)


class _Point:
    """Sums over the steps of one point of the curves."""

    def __init__(self) -> None:
        self._sums = [0.0] * 6
        self._rate = self._norm = 0.0
        self._steps = 0

    def add(
        self, loss: float, correct: float, targets: float, tokens: float, rate: float, norm: float, seconds: float,
        waited: float,
    ) -> None:  # fmt: skip
        new = (loss, correct, targets, tokens, seconds, waited)
        self._sums = [a + b for a, b in zip(self._sums, new, strict=True)]
        self._rate, self._norm, self._steps = rate, norm, self._steps + 1

    def take(self) -> dict[str, Any]:
        """The point, as means over its steps; begins the next one."""
        loss, correct, targets, tokens, seconds, waited = self._sums
        point = {
            "loss": loss / targets, "token_accuracy": correct / targets, "learning_rate": self._rate,
            "grad_norm": self._norm, "tokens_per_s": tokens / seconds, "step_s": seconds / self._steps,
            "wait_share": waited / seconds,
        }  # fmt: skip
        self.__init__()  # type: ignore[misc]
        return point


__all__ = ["Run", "Told", "TrainJob", "TrainState", "TrainingStopped", "build_model", "train_worker"]
