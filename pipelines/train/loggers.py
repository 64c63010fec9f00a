"""Where a run's curves go besides its checkpoints: TensorBoard always, Weights & Biases and MLflow when named."""

from __future__ import annotations

import importlib.util
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.settings.train import TrainSettings

FOLDER = "tensorboard"


class Log(Protocol):
    """Takes numbers by name at a step."""

    def write(self, step: int, numbers: dict[str, float], texts: dict[str, str]) -> None:
        """Numbers and texts of a step."""

    def close(self) -> None:
        """Put what is left in place."""


def check_loggers(names: list[str]) -> None:
    """SettingsError for a logger whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise SettingsError("loggers", f"package {name} is not installed", f"pip install {name}, or leave it out")


def open_logs(settings: TrainSettings, first_step: int) -> list[Log]:
    """The logs of a run that begins, or goes on, at `first_step`; what TensorBoard has from later steps is void."""
    made: list[Log] = [TensorBoardLog(settings.output, first_step)]
    if "wandb" in settings.loggers:
        made.append(WandbLog(settings))
    if "mlflow" in settings.loggers:
        made.append(MlflowLog(settings))
    return made


def flat(point: dict[str, Any]) -> dict[str, float]:
    """Numbers by name of a point of the history, or of a validation."""
    numbers = {f"train/{k}": float(v) for k, v in point.items() if k not in ("step", "kind") and _is_number(v)}
    if "validation" in point:
        numbers = {"validation/loss": point["validation_loss"]}
        for name, values in point["validation"].items():
            numbers |= {f"validation_{kind}/{name}": value for kind, value in values.items()}
    return numbers


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class TensorBoardLog:
    """Event files in OUTPUT/tensorboard; where OUTPUT is a URL they are copied there at every validation."""

    def __init__(self, output: str, first_step: int) -> None:
        from tensorboardX import SummaryWriter

        self._target = storage.join(output, FOLDER)
        local = storage.local_path(self._target)
        self._temporary = tempfile.TemporaryDirectory(prefix="mats-curves-") if local is None else None
        place = self._temporary.name if self._temporary else (local or b"").decode("utf-8", "surrogateescape")
        self._folder = Path(place)
        self._writer = SummaryWriter(place, purge_step=first_step + 1 if first_step else None)

    def write(self, step: int, numbers: dict[str, float], texts: dict[str, str]) -> None:
        """See Log."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        for name, text in texts.items():
            self._writer.add_text(name, text, step)
        if texts:
            self._writer.flush()
            self._copy()

    def close(self) -> None:
        """See Log."""
        self._writer.close()
        self._copy()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _copy(self) -> None:
        if self._temporary is None:
            return
        for file in self._folder.iterdir():
            with suppress(storage.StorageError):  # curves never end a run
                storage.write_bytes(storage.join(self._target, file.name), file.read_bytes())


class WandbLog:
    """Weights & Biases, one run an OUTPUT."""

    def __init__(self, settings: TrainSettings) -> None:
        import wandb

        name = settings.output.rstrip("/").rsplit("/", 1)[-1]
        values = settings.model_dump(mode="json")
        self._run = wandb.init(project=settings.project, name=name, config=values, resume="allow", id=_run_id(settings))

    def write(self, step: int, numbers: dict[str, float], texts: dict[str, str]) -> None:
        """See Log."""
        self._run.log({**numbers, **texts}, step=step)

    def close(self) -> None:
        """See Log."""
        self._run.finish()


class MlflowLog:
    """MLflow, at the tracking server of $MLFLOW_TRACKING_URI."""

    def __init__(self, settings: TrainSettings) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(settings.project)
        mlflow.start_run(run_name=settings.output.rstrip("/").rsplit("/", 1)[-1])
        mlflow.log_dict(settings.model_dump(mode="json"), "settings.json")

    def write(self, step: int, numbers: dict[str, float], texts: dict[str, str]) -> None:
        """See Log."""
        self._mlflow.log_metrics({name.replace("+", "_"): value for name, value in numbers.items()}, step=step)
        for name, text in texts.items():
            self._mlflow.log_text(text, f"{name}-{step}.md")

    def close(self) -> None:
        """See Log."""
        self._mlflow.end_run()


def _run_id(settings: TrainSettings) -> str:
    from mats_core.storage.fingerprint import hash_settings

    return hash_settings(settings.output)[:16]
