"""Where a run's curves go besides its checkpoints: TensorBoard always, Weights & Biases and MLflow when named."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.fingerprint import hash_settings
from pipelines.settings.train import TrainSettings

FOLDER = "tensorboard"


@dataclass(frozen=True)
class Log:
    """One place where curves go. write: (step, numbers by name, texts by name); close: puts what is left in place."""

    write: Callable[[int, dict[str, float], dict[str, str]], None]
    close: Callable[[], None]


def check_loggers(names: list[str]) -> None:
    """SettingsError for a logger whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise SettingsError("loggers", f"package {name} is not installed", f"pip install {name}, or leave it out")


def open_logs(settings: TrainSettings, first_step: int) -> list[Log]:
    """The logs of a run that begins, or goes on, at `first_step`; what TensorBoard has from later steps is void."""
    others = {"wandb": _wandb, "mlflow": _mlflow}
    name = settings.output.rstrip("/").rsplit("/", 1)[-1]
    named = [log(settings, name) for package, log in others.items() if package in settings.loggers]
    return [tensorboard(settings.output, first_step), *named]


def flat(point: dict[str, Any]) -> dict[str, float]:
    """Numbers by name of a point of the history, or of a validation."""
    if "validation" not in point:
        numbers = {k: v for k, v in point.items() if k != "step" and isinstance(v, (int, float))}
        return {f"train/{name}": float(value) for name, value in numbers.items() if not isinstance(value, bool)}
    sets = point["validation"].items()
    numbers = {f"validation_{kind}/{name}": value for name, values in sets for kind, value in values.items()}
    return {"validation/loss": point["validation_loss"], **numbers}


def tensorboard(output: str, first_step: int) -> Log:
    """Event files in OUTPUT/tensorboard; where OUTPUT is a URL they are copied there at every validation."""
    from tensorboardX import SummaryWriter

    target = storage.join(output, FOLDER)
    local = storage.local_path(target)
    temporary = tempfile.TemporaryDirectory(prefix="mats-curves-") if local is None else None
    place = temporary.name if temporary else (local or b"").decode("utf-8", "surrogateescape")
    writer = SummaryWriter(place, purge_step=first_step + 1 if first_step else None)

    def copy() -> None:
        for file in Path(place).iterdir() if temporary else ():
            with suppress(storage.StorageError):  # curves never end a run
                storage.write_bytes(storage.join(target, file.name), file.read_bytes())

    def write(step: int, numbers: dict[str, float], texts: dict[str, str]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        for name, text in texts.items():
            writer.add_text(name, text, step)
        if texts:
            writer.flush()
            copy()

    def close() -> None:
        writer.close()
        copy()
        if temporary is not None:
            temporary.cleanup()

    return Log(write, close)


def _wandb(settings: TrainSettings, name: str) -> Log:
    """Weights & Biases, one run an OUTPUT."""
    import wandb

    run = wandb.init(
        project=settings.project, name=name, config=settings.model_dump(mode="json"), resume="allow",
        id=hash_settings(settings.output)[:16],
    )  # fmt: skip
    return Log(lambda step, numbers, texts: run.log({**numbers, **texts}, step=step), run.finish)


def _mlflow(settings: TrainSettings, name: str) -> Log:
    """MLflow, at the tracking server of $MLFLOW_TRACKING_URI."""
    import mlflow

    mlflow.set_experiment(settings.project)
    mlflow.start_run(run_name=name)
    mlflow.log_dict(settings.model_dump(mode="json"), "settings.json")

    def write(step: int, numbers: dict[str, float], texts: dict[str, str]) -> None:
        mlflow.log_metrics({name.replace("+", "_"): value for name, value in numbers.items()}, step=step)
        for name, text in texts.items():
            mlflow.log_text(text, f"{name}-{step}.md")

    return Log(write, mlflow.end_run)
