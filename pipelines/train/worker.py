"""One worker of a training run: what Ray Train starts on every GPU (or, on CPUs, a few times)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.model.config import MapperConfig, Part, SantaSettings
from mats_core.model.model import MatsModel, load_model
from mats_core.training.compiled import compile_layers, uncompiled
from mats_core.training.loop import train
from mats_core.training.step import NotFiniteError, StepBatch, StepResult, evaluate, make_optimizer, trained_weights
from pipelines.output.lease import LeaseLost
from pipelines.settings.train import TrainSettings
from pipelines.train.batches import WorkerShare, draw_step, prefetched, step_batch, validation_batches, wording
from pipelines.train.checkpoints import (
    ForeignCheckpoint,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    prune,
    save_checkpoint,
)
from pipelines.train.mixture import open_store
from pipelines.train.pack import ensure_store
from pipelines.train.parallel import shard_llm, sum_gradients, sum_numbers

CHECKPOINTS = ("_state", "checkpoints")
_REPORT_S = 0.5
_ASK_S = 0.25
_OTHER_BITS = "the last bits of the weights may differ from those of an unbroken run"


class TrainingStopped(RuntimeError):
    """The run cannot go on, and starting its workers again would not help."""


@dataclass
class TrainJob:
    """What the driver found out, for the workers. `encoder` and `memory` are parts of the model, not loaded. `cwd` is
    where the driver stands: what the settings name by relative paths lies there. `run_id`: of the run that they are of.
    """

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
    run_id: str = ""
    allow_parts: tuple[str, ...] = ()


KEPT = ("wordings", "long_tag", "answer_style", "max_target_tokens")
"""Settings that a model which is continued keeps, unless they are given."""


def build_model(job: TrainJob, device: str) -> MatsModel:
    """The model to train: a new one, or the one to continue from. Neither encoder nor memory is loaded."""
    settings, training = job.settings, job.settings.training
    if settings.model is not None:
        options: dict[str, Any] = {"encoder": False, "memory": False, "merge_adapter": False}
        model = load_model(settings.model, device, job.dtype, allow_parts=job.allow_parts, **options)
        changes: dict[str, Any] = {"noise_variance": training.noise_variance}
        given = settings.model_fields_set
        changes |= {n: getattr(settings, n) for n in KEPT if n in given}
        changes |= {n: getattr(settings, n) for n in ("santa", "decoding") if n in given and getattr(settings, n)}
    else:
        model = MatsModel.new(
            str(job.llm), embedding_dim=job.dim, mapper=settings.mapper or MapperConfig(),
            adapter=settings.adapter, tasks=settings.tasks, wordings=settings.wordings, long_tag=settings.long_tag,
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


class Reporter:
    """A worker's line to `inbox`, the driver's actor: reports one way, sent now and then; the wish to stop the other.
    Only the worker that is `active` reports and asks; what others report goes nowhere."""

    def __init__(self, inbox: Any, active: bool) -> None:
        self._inbox, self._active = inbox, active
        self._queued: list[dict[str, Any]] = []
        self._sent_at = self._asked_at = 0.0
        self._stop = False

    def report(self, kind: str, now: bool = False, **facts: Any) -> None:
        """Queue a report; send what is queued `now`, or when half a second has passed since the last time."""
        if not self._active:
            return
        import ray

        self._queued.append({"kind": kind, **facts})
        if now or time.monotonic() - self._sent_at > _REPORT_S:
            sent = self._inbox.post.remote(self._queued)
            self._queued, self._sent_at = [], time.monotonic()
            if now:
                ray.get(sent)

    def stop_asked(self, now: bool = False) -> bool:
        """Whether the run is to stop. The driver is asked and waited for (a millisecond), short steps not each time
        unless it is to be known `now`."""
        import ray

        if self._active and not self._stop and (now or time.monotonic() - self._asked_at > _ASK_S):
            self._stop = bool(ray.get(self._inbox.stop_asked.remote()))
            self._asked_at = time.monotonic()
        return self._stop


def train_worker(config: dict[str, Any]) -> None:
    """The function Ray Train runs; config: the TrainJob as `job`, the driver's `inbox`. Ends normally also when the run
    has to stop; the driver hears why."""
    import ray.train
    import ray.train.torch

    job: TrainJob = config["job"]
    with suppress(OSError):  # note: Ray Train moves its workers into a folder of their own
        os.chdir(job.cwd)
    context = ray.train.get_context()
    if job.threads:
        torch.set_num_threads(job.threads)
    share = WorkerShare(context.get_world_rank(), context.get_world_size(), job.shards, equal_passes=job.fsdp)
    reporter = Reporter(config["inbox"], share.rank == 0)
    reporter.report("stage", now=True, stage="loading the model", workers=share.world)
    try:
        TrainWorker(job, share, reporter, ray.train.torch.get_device()).run()
    except TrainingStopped as error:
        reporter.report("failed", now=True, message=str(error))
    except SettingsError as error:  # whichever worker finds it: one started in its place would find it too
        Reporter(config["inbox"], True).report("refused", now=True, error=error)


class TrainWorker:
    """One worker's model, optimizer, data and state (of the newest checkpoint, or a fresh one), and what it does after
    every step. `make_batch(step)` makes its batch of a step, in a thread of its own."""

    def __init__(self, job: TrainJob, share: WorkerShare, reporter: Reporter, device: torch.device) -> None:
        self.job, self.share, self.reporter, self.device = job, share, reporter, device
        self.settings, self.training = job.settings, job.settings.training
        self.folder = storage.join(self.settings.output, *CHECKPOINTS)
        self.sets = open_store(ensure_store(self.settings, Path(job.data_folder)))
        self.ratios = [each.ratio for each in self.settings.data]
        self.model = build_model(job, "cpu" if job.fsdp else str(device))
        self.optimizer = make_optimizer(self.model, self.training)
        compiled = self._compile()
        if job.fsdp:
            shard_llm(self.model, device)
        self.word = wording(self.model)
        self.state = load_newest(self.folder, self.model, self.optimizer, share.rank == 0, self._warn)
        self._record_precision(compiled)
        self.make_batch: Callable[[int], StepBatch] = lambda step: step_batch(
            self.sets, self.ratios, self.model, self.training, step, self.share, self.device
        )
        self._since_point: list[StepResult] = []

    def _warn(self, text: str) -> None:
        self.reporter.report("warning", text=text)

    def _compile(self) -> bool:
        """Compile the decoder layers where the settings ask for it, and say where that is not possible."""
        asked, on_gpu = self.settings.compile, self.device.type == "cuda"
        if asked == "never" or (asked == "auto" and (not on_gpu or self.job.fsdp)):
            return False
        problem = "fsdp spreads them over GPUs" if self.job.fsdp else compile_layers(self.model)
        if problem is not None:
            self._warn(f"the decoder layers are not compiled: {problem}")
        return problem is None

    def _record_precision(self, compiled: bool) -> None:
        """Write into the state what decides the last bits of the weights: the frozen LLM's number type, the threads of
        a worker, whether its layers are compiled. Refuse to go on in another number type; warn of other changes."""
        state, job = self.state, self.job
        if state.dtype not in ("", job.dtype):
            problem = f"this run was begun in {state.dtype}, not {job.dtype}"
            raise ForeignCheckpoint("dtype", problem, f"say dtype: {state.dtype}")
        state.dtype = job.dtype
        if job.threads and state.threads[-1:] != [job.threads]:
            state.threads.append(job.threads)
            if len(state.threads) > 1:
                what = f"continued with {job.threads} threads a worker, before it were {state.threads[-2]}"
                self._warn(f"{what}: {_OTHER_BITS}")
        if state.compiled is not None and state.compiled is not compiled:
            self._warn(f"continued with{'' if compiled else 'out'} compiled layers, unlike before: {_OTHER_BITS}")
        state.compiled = compiled

    def run(self) -> None:
        """From the newest checkpoint to the last step; then the model directory. Raises TrainingStopped."""
        state, steps = self.state, self.training.steps
        self.reporter.report(
            "started", now=True, step=state.step, steps=steps, workers=self.share.world, history=state.history,
            pid=os.getpid(), trained=sum(w.numel() for w in trained_weights(self.optimizer)), tokens=state.tokens,
            mapper=_count(self.model.mapper), llm=_count(self.model.llm),
        )  # fmt: skip
        try:
            with closing(prefetched(self.make_batch, range(state.step, steps))) as batches:
                train(
                    self.model, self.optimizer, self.training, batches, self._after_step,
                    sum_gradients, self.reporter.stop_asked,
                )  # fmt: skip
        except NotFiniteError as error:
            raise self._stop_at_bad_batch(error) from error
        if state.step < steps:
            self.reporter.report("interrupted", now=True, step=state.step)
            return
        self._export()

    def _after_step(self, done: StepResult) -> None:
        """Count and report the step; validate and write a checkpoint where it is time."""
        state, settings = self.state, self.settings
        state.step = done.step + 1
        state.samples += done.samples
        state.tokens += done.tokens
        state.seconds += done.seconds
        last = state.step == self.training.steps
        self._since_point.append(done)
        if state.step % settings.log_every == 0 or last:
            point = {"step": state.step, **curve_point(self._since_point)}
            self._since_point = []
            state.history.append(point)
            self.reporter.report("point", **point)
        else:
            self.reporter.report("step", step=state.step, loss=done.loss, tokens=state.tokens, step_s=done.seconds)
        validated = last or state.step % settings.validate_every == 0
        if validated:
            with uncompiled():
                self._validate()
        if validated or done.stop or state.step % settings.checkpoint_every == 0:
            self._checkpoint()
            # a wish that came meanwhile costs no other step
            asked = sum_numbers([float(self.reporter.stop_asked(now=True))], self.device)
            done.stop = done.stop or asked[0] > 0

    def _stop_at_bad_batch(self, error: NotFiniteError) -> TrainingStopped:
        """Keep the global batch of the step whose loss or gradient is not a number; returns what to raise."""
        uri = storage.join(self.settings.output, "_state", f"bad-batch-step-{error.step:09d}.json")
        if self.share.rank == 0:
            samples = draw_step(self.sets, self.ratios, self.training, error.step, self.word)
            rows = [{"prompt": s.prompt, "output": s.output, "embedding": s.vector.tolist()} for s in samples]
            facts = {"step": error.step, "seed": self.training.seed, "samples": rows}
            storage.write_bytes(uri, json.dumps(facts).encode())
        kept = f"its batch is in {storage.public_uri(uri)}. Earlier checkpoints are intact"
        return TrainingStopped(f"{error}; {kept}. A lower learning rate, clip_norm, or float32 may help")

    def _validate(self) -> None:
        """Loss and token accuracy of every set's held-out records, and a few answers."""
        results: dict[str, dict[str, float]] = {}
        for each in self.sets:
            if not len(each.validation):
                continue
            totals = [0.0, 0.0, 0.0]  # loss, target tokens predicted right, target tokens
            budget = self.training.micro_batch_tokens
            for one in validation_batches(each, self.model.tokens, self.word, budget, self.share, self.device):
                sums = evaluate(self.model, one.embedding, one.batch)
                if one.counts:
                    totals = [a + float(b) for a, b in zip(totals, (sums.loss, sums.correct, sums.tokens), strict=True)]
            loss, correct, tokens = sum_numbers(totals, self.device)
            results[each.name] = {"loss": loss / tokens, "token_accuracy": correct / tokens}
        state = self.state
        if results:
            ratios = {each.name: max(each.ratio, 0.0) for each in self.settings.data if each.name in results}
            names = ratios if sum(ratios.values()) else dict.fromkeys(results, 1.0)
            mean = sum(results[n]["loss"] * r for n, r in names.items()) / sum(names.values())
            if state.best_loss is None or mean < state.best_loss:
                state.best_loss, state.best_step = mean, state.step
            point: dict[str, Any] = {"step": state.step, "validation": results, "validation_loss": mean}
            state.history.append(point)
            answers = self._sample_answers() if self.share.rank == 0 or self.job.fsdp else []
            self.reporter.report("validated", answers=answers, **point)

    def _sample_answers(self) -> list[dict[str, str]]:
        """What the model now says to a few held-out captions, as they are (no noise, no Santa); the next ones at every
        validation, and the first ones again behind the last."""
        names, records = [], []
        shown = sum("validation" in point for point in self.state.history) - 1  # validations before this one
        begin = shown * -(-self.settings.sample_answers // len(self.sets))
        for turn in range(self.settings.sample_answers):
            pool = [each for each in self.sets if turn // len(self.sets) < len(each.validation)]
            if pool:
                chosen = pool[turn % len(pool)]
                names.append(chosen.name)
                at = (begin + turn // len(self.sets)) % len(chosen.validation)
                records.append(chosen.record(int(chosen.validation[at])))
        if not records:
            return []
        prompts = [self.word(record, 0) for record in records]
        vectors = torch.stack([torch.from_numpy(record.vector) for record in records])  # float32 [answers, D]
        short = {"beams": 1, "max_new_tokens": 60, "min_length": 1}
        texts = self.model.generate(vectors.to(self.device), prompts, short)
        return [
            {"set": name, "prompt": prompt, "answer": text, "target": record.output}
            for name, prompt, text, record in zip(names, prompts, texts, records, strict=True)
        ]

    def _checkpoint(self) -> None:
        """Write a checkpoint; all workers stop where it cannot be written."""
        failure = ""
        if self.share.rank == 0:
            try:
                save_checkpoint(self.folder, self.state, self.model, self.optimizer, self.job.run_id)
                prune(self.folder, self.settings.keep_checkpoints, self.state.best_step)
            except (LeaseLost, storage.StorageError, OSError) as error:
                failure = str(error)
        if sum_numbers([float(bool(failure))], self.device)[0] > 0:
            told = f"the checkpoint of step {self.state.step} was not written, earlier ones are intact: {failure}"
            raise TrainingStopped(told)
        self.reporter.report("checkpoint", step=self.state.step)

    def _export(self) -> None:
        """The model directory, by the first worker."""
        if self.share.rank:
            return
        from pipelines.train.export import export_model

        step = self.state.step
        if self.settings.export == "best" and self.state.best_step is not None:
            step = self.state.best_step
            try:
                load_checkpoint(list_checkpoints(self.folder)[step], self.model)
            except (KeyError, ValueError, storage.StorageError) as error:
                raise TrainingStopped(
                    f"the best checkpoint, of step {step}, cannot be read ({error}); `export: last` writes the last one"
                ) from error
        self.reporter.report("stage", now=True, stage="writing the model", workers=self.share.world)
        try:
            export_model(self.model, self.settings, self.state, self.sets, step, self.job.run_id)
        except (LeaseLost, storage.StorageError, OSError, SettingsError, SafetensorError) as error:
            raise TrainingStopped(f"the model was not written; checkpoints are intact: {error}") from error
        names = ("step", "tokens", "samples", "seconds", "best_step", "best_loss", "history")
        facts: dict[str, Any] = {name: getattr(self.state, name) for name in names}
        self.reporter.report("finished", now=True, exported_step=step, **facts)


def curve_point(steps: list[StepResult]) -> dict[str, Any]:
    """A point of the curves: means over some steps, and the last one's learning rate and gradient norm."""
    names = ("target_tokens", "seconds", "loss_sum", "correct", "tokens", "wait_seconds")
    targets, seconds, loss, correct, tokens, waited = (sum(getattr(each, name) for each in steps) for name in names)
    return {
        "loss": loss / targets, "token_accuracy": correct / targets, "learning_rate": steps[-1].learning_rate,
        "grad_norm": steps[-1].grad_norm, "tokens_per_s": tokens / seconds, "step_s": seconds / len(steps),
        "wait_share": waited / seconds,
    }  # fmt: skip


def _count(module: torch.nn.Module) -> int:
    """How many parameters a module has, whether they are trained or not."""
    return sum(weight.numel() for weight in module.parameters())
