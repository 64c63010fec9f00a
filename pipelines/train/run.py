"""Caption embeddings and corpora → model directory, with Ray Train around mats_core.training.loop.

Ray Train starts the workers, replaces those that fail and follows the cluster's size. Checkpoints, and where a run
goes on, are ours (checkpoints.py): exact to the bit, at any URL.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.fetch import local_directory
from mats_core.storage.fingerprint import cache_folder, cache_root
from pipelines.cluster.plan import Resources, usable_cores
from pipelines.cluster.session import check_device, failed_with, ray_session
from pipelines.data.generations import newest
from pipelines.output.folder import Output, open_output
from pipelines.output.parts import uninterrupted
from pipelines.settings.calling import by_name
from pipelines.settings.train import MODEL, TrainSettings, as_begun, identity
from pipelines.train.check import Checked, check_output, check_settings, doubts, with_encoder
from pipelines.train.checkpoints import list_checkpoints
from pipelines.train.export import is_model_of
from pipelines.train.loggers import FOLDER, flat, open_logs
from pipelines.train.mixture import held_out_notes, read_store, store_key

REPORT = "_corpora.json"
OUR_NAMES = (
    MODEL, FOLDER, REPORT, "_run.json", "_state/checkpoints", "_state/data", "_state/ray",
)  # fmt: skip
EXPORT_SETTINGS = ("include", "weights", "export")
ANSWER = "**{set}** {prompt}  \nsaid: {answer}  \ntrue: {target}"
POLL_S = 0.25
STOPPING = "stopping after this step or the next"
"""The next where the step at hand had asked already: a GPU computes behind what its worker asks."""
STOP_PATIENCE_S = 120.0
"""How long a run that is to stop waits for its workers, besides the time of three steps."""
START_PATIENCE_S = 10.0
"""How long a run that is to stop waits for workers that have not begun: they have nothing to lose."""
AGAIN_S = 10.0
"""Signals within this time of the first are the same wish: a terminal, a shell and a wrapper each send one."""
REFUSAL_PATIENCE_S = 10.0
GPU_SHARE = 0.7  # of a GPU's memory that a frozen LLM may take before it is spread over several


@dataclass
class TrainProgress:
    """What a display shows: stage, steps, the newest numbers; `validated` and `warning` when new; `pid` of the first
    worker."""

    stage: str
    step: int = 0
    steps: int = 0
    first_step: int = 0
    workers: int = 0
    pid: int = 0
    point: dict[str, Any] = field(default_factory=dict)
    validated: dict[str, Any] | None = None
    warning: str | None = None
    said: str | None = None


@dataclass
class TrainResult:
    """status: complete, complete_before, interrupted or failed; `message` says why it failed."""

    status: str
    output: str
    model: str
    step: int
    run: dict[str, Any] = field(repr=False)
    message: str = ""


@by_name(TrainSettings)
def run_train(settings: TrainSettings, progress: Callable[[TrainProgress], None] | None = None) -> TrainResult:
    """Train, or go on training, into `settings.output`; raises SettingsError before any work when that cannot be."""
    check_device(settings.device, settings.address)
    settings = with_encoder(settings)
    check_output(settings)
    settings, kept = _as_begun(settings)
    checked = check_settings(settings)
    tell = progress or (lambda _: None)
    found = {**identity(settings), "data_files": store_key(settings), **checked.fingerprints}
    barren = partial(nothing_came_of, settings.output)
    with open_output(settings.output, found, overwrite=settings.overwrite, written=OUR_NAMES, barren=barren) as out:
        model = out.join(MODEL)
        before = out.read_run()
        done = before is not None and before.get("status") == "complete" and _exported_as(settings, before)
        if before and done and is_model_of(model, before.get("run_id", "")):
            return TrainResult("complete_before", settings.output, model, before["step"], before)
        return TrainDriver(settings, checked, tell, out, kept).run()


def _as_begun(settings: TrainSettings) -> tuple[TrainSettings, list[str]]:
    """`as_begun` of the run in OUTPUT that goes on; the settings themselves where none does."""
    begun = None if settings.overwrite else newest(settings.output)
    if begun is None or (begun.identity or {}).get("job") != "train" or nothing_came_of(settings.output):
        return settings, []
    return as_begun(settings, begun.identity or {})


def nothing_came_of(output: str) -> bool:
    """Whether the training that began OUTPUT has left neither a checkpoint nor a model."""
    kept = list_checkpoints(storage.join(output, "_state", "checkpoints"))
    return not kept and not storage.exists(storage.join(output, MODEL, "mats.json"))


def _exported_as(settings: TrainSettings, before: dict[str, Any]) -> bool:
    """Whether an earlier run's model was written as it is asked for now; else its last checkpoint is written anew."""
    now = settings.model_dump(mode="json", include=set(EXPORT_SETTINGS))
    return now == {name: before.get("settings", {}).get(name, value) for name, value in now.items()}


def data_folder(settings: TrainSettings) -> Path:
    """Where the packed data lies: what is set, else in a local OUTPUT, else in the cache."""
    if settings.data_cache is not None:
        return Path(settings.data_cache).expanduser()
    local = storage.local_path(settings.output)
    if local is not None:
        return Path(local.decode("utf-8", "surrogateescape")) / "_state" / "data"
    try:
        return cache_folder("training")
    except OSError as error:
        problem = f"the cache {cache_root()} cannot be made ({error})"
        raise SettingsError("data_cache", problem, "name a folder, or set MATS_CACHE to one") from None


class TrainDriver:
    """One run as the driver sees it: packs the data, starts the workers, shows and logs what they report."""

    def __init__(
        self,
        settings: TrainSettings,
        checked: Checked,
        tell: Callable[[TrainProgress], None],
        out: Output,
        kept: Sequence[str] = (),
    ) -> None:
        self.kept = kept
        self.settings, self.checked, self.out, self.tell = settings, checked, out, tell
        self.shown = TrainProgress("packing the data", steps=settings.training.steps)
        self.logs: list[Any] = []
        self.ended: dict[str, Any] | None = None
        self.refused: SettingsError | None = None
        self.restarts = -1
        self.step_s = 0.0
        self.started = time.time()
        self.run_facts: dict[str, Any] = {
            "job": "train", "settings": settings.model_dump(mode="json"),
        }  # fmt: skip

    def run(self) -> TrainResult:
        """The whole run; its record is in OUTPUT however it ends. Raises what the workers cannot go on from."""
        from pipelines.train.pack import ensure_store

        self.tell(self.shown)
        report = self.out.join(REPORT)
        self.count_records(read_store(ensure_store(self.settings, data_folder(self.settings), report))["sets"])
        with self.out.recorded(
            self.run_facts, self.started, undo=False
        ):  # a worker may refuse what hours were spent on
            self.train()
        self.out.check()
        status, step = self.run_facts["status"], int(self.run_facts["step"])
        for name in ("ray", "data") if status == "complete" else ():
            storage.remove_tree(self.out.join("_state", name))
        message = str(self.run_facts.get("message", ""))
        return TrainResult(status, self.settings.output, self.out.join(MODEL), step, self.run_facts, message)

    def train(self) -> None:
        """Start the workers and follow them to their end; what they told last goes into the run's record."""
        self.shown.stage = "starting Ray"
        self.tell(self.shown)
        # look after the workers every half second (Ray Train: 2 s); give a new group three minutes to start (60 s)
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "180")
        try:
            with ray_session(self.settings.address, self.settings.most_workers or 0) as there:
                self.follow(*start_workers(self.settings, self.checked, self.out.run_id, there))
        except KeyboardInterrupt:  # while Ray starts or ends, or again
            last = max(list_checkpoints(self.out.join("_state", "checkpoints")), default=0)
            self.ended = self.ended or {"kind": "interrupted", "step": last}
        finally:
            for log in self.logs:
                log.close()
        ended = self.ended or {"kind": "failed", "message": "the workers ended without saying why"}
        checks = [each["validation"] for each in ended.get("history") or [] if "validation" in each]
        self.run_facts |= {
            "status": {"finished": "complete", "interrupted": "interrupted"}.get(ended["kind"], "failed"),
            "restarts": max(self.restarts, 0), **{k: v for k, v in ended.items() if k not in ("kind", "history")},
            "validation": checks[-1] if checks else {},
        }  # fmt: skip
        self.run_facts.setdefault("step", self.shown.step)

    def count_records(self, sets: list[dict[str, Any]]) -> None:
        """Put into the run's record what was read and what of it is trained on; warn of sets that are not held out by
        caption. sets: of `read_store`."""
        files = [file for each in sets for file in each["files"]]
        names = ("records", "train", "validation", "held_by", "given_up", "met", "problems")
        self.run_facts |= {
            "records": sum(file["records"] for file in files),
            "bad": sum(file["bad"] for file in files),
            "problems": dict(sum((Counter(each["problems"]) for each in sets), Counter())),
            "data": {each["name"]: {name: each[name] for name in names} for each in sets},
        }
        for text in (*self.kept, *doubts(self.settings), *held_out_notes(sets)):
            self._warn(text)

    def _warn(self, text: str) -> None:
        self.run_facts.setdefault("warnings", []).append(text)
        self.shown.warning = text
        self.tell(self.shown)
        self.shown.warning = None

    def _tell_sizes(self, trained: int, mapper: int, llm: int) -> None:
        self.shown.said = f"training {trained:,} parameters (mapper {mapper:,}; LLM {llm:,})"
        self.tell(self.shown)
        self.shown.said = None
        if mapper > llm:
            self._warn(f"the mapper is larger than the LLM ({mapper:,} parameters beside {llm:,}): see mapper.width")

    def follow(self, trainer: Any, inbox: Any) -> None:
        """Run Ray Train's `trainer` and take what its workers report, until they have ended.

        Ctrl-C, SIGTERM and SIGHUP ask the workers to stop after the step they are in, or the next. Raises
        KeyboardInterrupt when they do not, SettingsError when a worker finds a wrong setting, RunFailed when they fail.
        """
        import ray

        failure: list[BaseException] = []
        ended = threading.Event()  # note: a join that Ctrl-C interrupts takes the thread for dead (Python 3.10 to 3.12)

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:  # note: raised below, in the main thread
                failure.append(error)
            finally:
                ended.set()

        # note: not in the main thread, where Ray Train would take Ctrl-C for itself and drop the last steps
        threading.Thread(target=fit, daemon=True).start()
        asked_at: float | None = None
        with uninterrupted() as signals:  # note: raised in the middle of a report, an interrupt would lose it
            while not ended.wait(POLL_S):
                self.take_reports(ray.get(inbox.take.remote()))
                if self.refused is not None:  # the other workers may wait for the one that has ended
                    ended.wait(REFUSAL_PATIENCE_S)
                    break
                now = time.monotonic()
                if signals and asked_at is None:
                    asked_at = now
                    inbox.stop.remote()
                    self.shown.stage = STOPPING
                    self.tell(self.shown)
                patience = STOP_PATIENCE_S + 3 * self.step_s if self.restarts >= 0 else START_PATIENCE_S
                if asked_at is not None and (now > asked_at + patience or (signals and now > asked_at + AGAIN_S)):
                    raise KeyboardInterrupt
                signals.clear()
                with suppress(storage.StorageError):
                    self.out.check()
            self.take_reports(ray.get(inbox.take.remote()))
        if self.refused is not None:
            raise self.refused
        if failure and self.ended is None:
            raise _worker_error(failure[0]) from failure[0]

    def take_reports(self, reports: list[dict[str, Any]]) -> None:
        """Put the workers' curves into the logs, the rest into the display."""
        for record in reports:
            kind = record["kind"]
            self.shown.validated = None
            if kind == "warning":
                self._warn(record["text"])
            elif kind == "refused":
                self.refused = record["error"]
            elif kind == "stage":
                self.shown.stage, self.shown.workers = record["stage"], record["workers"]
            elif kind == "started":
                self._begin(record)
            elif kind in ("point", "validated"):
                answers = [ANSWER.format(**each) for each in record.get("answers") or []]
                for log in self.logs:
                    log.write(record["step"], flat(record), {"answers": "\n\n".join(answers)} if answers else {})
                self.shown.step = record["step"]
                self.step_s = record.get("step_s", self.step_s)
                setattr(self.shown, kind, record)
            elif kind == "step":
                self.shown.step, self.step_s = record["step"], record["step_s"]
                self.shown.point = {**self.shown.point, "loss": record["loss"]}
            elif kind in ("finished", "failed", "interrupted"):
                self.ended = record
            self.tell(self.shown)

    def _begin(self, record: dict[str, Any]) -> None:
        """Workers begin at a checkpoint: the first time, or after one of them was lost or came."""
        self.restarts += 1
        self.shown.stage, self.shown.workers = "training", record["workers"]
        self.shown.step = self.shown.first_step = record["step"]
        self.shown.pid = record["pid"]
        self.run_facts |= {"workers": record["workers"], "trained_weights": record["trained"]}
        if self.restarts == 0:
            self._tell_sizes(record["trained"], record["mapper"], record["llm"])
        for log in self.logs:
            log.close()
        self.logs = open_logs(self.settings, record["step"])


def start_workers(settings: TrainSettings, checked: Checked, run_id: str, there: Resources) -> tuple[Any, Any]:
    """Ray Train's trainer, ready to fit, and the actor its workers report to.

    Raises SettingsError where there are fewer GPUs or cores than asked for.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from pipelines.cluster.rendezvous import FileTorchConfig
    from pipelines.train.worker import TrainJob, train_worker

    on_gpu = there.gpus >= 1 and settings.device != "cpu"
    if settings.device == "cuda" and not on_gpu:
        raise SettingsError("device", "no GPU is available for cuda", "choose auto or cpu")
    workers = settings.workers or (int(there.gpus) if on_gpu else 1)
    fewest, most = workers if isinstance(workers, tuple) else (workers, workers)
    if (on_gpu and fewest > there.gpus) or (not on_gpu and not there.own and fewest > there.cpus):
        room = f"{int(there.gpus)} GPUs" if on_gpu else f"{int(there.cpus)} cores"
        raise SettingsError("workers", f"{fewest} are asked for and there are {room}", "ask for no more than that")
    large = on_gpu and most > 1 and settings.fsdp == "auto" and not fits_a_gpu(checked.llm)
    fsdp = large or settings.fsdp == "always"
    job = TrainJob(
        settings=settings, dim=checked.facts.dim, llm=checked.llm, encoder=checked.encoder, memory=checked.memory,
        allow_parts=(*settings.allow_parts, *checked.named),
        data_folder=str(data_folder(settings).absolute()), shards=most, fsdp=fsdp, cwd=os.getcwd(), run_id=run_id,
        threads=0 if on_gpu else max(1, usable_cores() // most if there.own else 1),
        dtype=settings.dtype if settings.dtype != "auto" else ("bfloat16" if on_gpu else "float32"),
    )  # fmt: skip
    place = storage.join(settings.output, "_state", "ray")
    fs, path = storage.arrow(place)
    storage.make_dirs(place)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    inbox = ray.remote(num_cpus=0)(_Inbox).options(scheduling_strategy=here).remote()  # no lost node takes it along
    elastic = isinstance(workers, tuple) and fewest < most
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job, "inbox": inbox},
        torch_config=(FileTorchConfig if there.own else TorchConfig)(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(fewest, most) if elastic else most, use_gpu=on_gpu, elastic_resize_monitor_interval_s=15.0,
            resources_per_worker={"GPU": 1, "CPU": 1} if on_gpu else {"CPU": 1},
        ),
        run_config=RunConfig(
            name=run_id, storage_path=path, storage_filesystem=fs,
            failure_config=FailureConfig(max_failures=settings.max_failures),
        ),
    )  # fmt: skip
    return trainer, inbox


def fits_a_gpu(llm: str) -> bool:
    """Whether a frozen LLM, at two bytes a weight, leaves a GPU room for the rest."""
    import torch

    folder = local_directory(llm, "llm")
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    # note: a driver without a GPU assumes cards of 24 GB
    room = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 24e9
    return sum(file.stat().st_size for file in files) < GPU_SHARE * room


class _Inbox:
    """An actor between workers and driver: reports one way, the wish to stop the other."""

    def __init__(self) -> None:
        self._reports: list[dict[str, Any]] = []
        self._stop = False

    def post(self, reports: list[dict[str, Any]]) -> None:
        """Take reports."""
        self._reports += reports

    def take(self) -> list[dict[str, Any]]:
        """What has come since the last time."""
        taken, self._reports = self._reports, []
        return taken

    def stop(self) -> None:
        """Ask the workers to stop."""
        self._stop = True

    def stop_asked(self) -> bool:
        """Whether the workers are to stop."""
        return self._stop


def _worker_error(error: BaseException) -> Exception:
    """What a worker raised, without Ray's account of it."""
    failures = getattr(error, "worker_failures", None)
    inner = next(iter(failures.values())) if failures else error
    for _ in range(5):
        deeper = getattr(inner, "cause", None) or getattr(inner, "base_exc", None) or inner.__cause__
        if isinstance(inner, SettingsError) or not isinstance(deeper, BaseException):
            break
        inner = deeper
    if isinstance(inner, SettingsError):
        return inner
    return failed_with(inner)
