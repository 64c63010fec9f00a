"""`mats train CONFIG` and `mats adapt`: read the settings, show how it goes, say how it ended."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from jobs.terminal.commands import EXIT_INTERRUPTED, command
from jobs.terminal.display import Display, RunDisplay, duration, print_done_before, print_facts, to_continue
from jobs.terminal.options import read_yaml, settings_command
from mats_core.errors import SettingsError
from mats_core.storage.uris import public_uri
from pipelines.settings.adapt import AdaptSettings

if TYPE_CHECKING:
    from pipelines.adapt.run import AdaptResult
    from pipelines.cluster.progress import Progress
    from pipelines.train.run import TrainProgress, TrainResult

CONFIGS = Path(__file__).parent / "configs"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")

app = typer.Typer()


@command(app, "train")
def train(
    config: str | None = typer.Argument(
        None, help="YAML of settings; or ours: soundworld, mats_stage1, mats_stage2, mats_gpt2, mats_audio."
    ),
    output: str | None = typer.Option(None, help="Over the config's: folder for model, checkpoints and curves."),
    set_: list[str] = typer.Option([], "--set", help="Over the config's: name=value, such as training.steps=100."),
    address: str | None = typer.Option(None, help="Join this Ray cluster; default: a Ray of its own."),
    device: str | None = typer.Option(None, help="auto, cpu, cuda."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Start anew: remove what OUTPUT holds."),
    settings_: bool = typer.Option(False, "--settings", help="Print a commented file of all settings."),
) -> int:
    """Train mapper and adapter on stored embeddings into OUTPUT/model. Run again to continue."""
    from pipelines.settings.base import build
    from pipelines.settings.train import TrainSettings

    if settings_:
        from jobs.terminal.template import template

        if config is not None:
            remedy = f"leave out CONFIG; what it sets is in {config_file(config)}"
            raise SettingsError("settings", f'it shows all settings there are, and nothing of "{config}"', remedy)
        typer.echo(template(TrainSettings), nl=False)
        return 0
    if config is None:
        raise SettingsError("CONFIG", "it is missing", f"name {_which()}; --settings prints one to fill in")
    values = read_config(config)
    for change in set_:
        change_setting(values, change)
    flags = {"output": output, "address": address, "device": device, "overwrite": overwrite or None}
    values.update({name: value for name, value in flags.items() if value is not None})
    settings = build(TrainSettings, values)
    from pipelines.train.run import run_train

    with TrainDisplay() as display:
        result = run_train(settings, display)
    return finish(result, config)


def read_config(path: str) -> dict[str, Any]:
    """A YAML file, or one of ours by name (`soundworld` is configs/train_soundworld.yaml); raises SettingsError.

    `${NAME}` and `${NAME:-default}` in it stand for variables of the environment.
    """
    found: dict[str, Any] = _with_variables(read_yaml("CONFIG", config_file(path)))
    return found


def config_file(path: str) -> Path:
    """The file that CONFIG names, one of ours or another. Raises SettingsError where there is none."""
    ours = CONFIGS / f"train_{path}.yaml"
    file = Path(path) if Path(path).is_file() or not ours.is_file() else ours
    if not file.exists():
        raise SettingsError("CONFIG", f'there is no file "{path}"', f"name {_which()}")
    return file


def _which() -> str:
    names = ", ".join(sorted(file.stem.removeprefix("train_") for file in CONFIGS.glob("train_*.yaml")))
    return f"a YAML file, or one of ours: {names}"


def _with_variables(value: Any) -> Any:
    """Variables of the environment put into every text of a YAML value."""
    if isinstance(value, dict):
        return {name: _with_variables(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_variables(each) for each in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def _variable(match: re.Match[str]) -> str:
    found = os.environ.get(match[1], match[2])
    if found is None:
        raise SettingsError(f"${match[1]}", "the config needs this environment variable, which is not set", "set it")
    return found


def change_setting(values: dict[str, Any], change: str) -> None:
    """Put `training.steps=100` into nested values; the right side is YAML. Raises SettingsError."""
    import yaml

    name, equals, text = change.partition("=")
    if not equals or not name:
        raise SettingsError("set", f'"{change}" changes nothing', "write name=value, such as training.steps=100")
    *path, last = name.split(".")
    place = values
    for step in path:
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            raise SettingsError("set", f'"{change}" goes into `{step}`, which holds no settings', "correct the name")
    try:
        place[last] = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):  # ValueError: a date that is none
        raise SettingsError("set", f'the value of "{change}" is not YAML', "quote it, or correct it") from None


class TrainDisplay(Display):
    """Steps, loss, tokens/s and time left; validations and answers as they come."""

    def __init__(self) -> None:
        super().__init__("reading the settings")
        self._began: float | None = None
        self._first_step = 0

    def __call__(self, progress: TrainProgress) -> None:
        """The callback of the pipeline."""
        now = time.monotonic()
        if progress.stage == "training" and (self._began is None or progress.first_step > self._first_step):
            self._began, self._first_step = now, progress.first_step
        if progress.warning is not None:
            self.say(f"warning: {progress.warning}")
        if progress.said is not None:
            self.say(progress.said)
        if progress.validated is not None:
            self.say(validation_text(progress.validated))
        self.show(progress.stage, progress.step, progress.steps, self._figures(progress, now))

    def _figures(self, progress: TrainProgress, now: float) -> str:
        from pipelines.train.run import STOPPING

        if progress.stage not in ("training", STOPPING):
            return ""
        text = f"step {progress.step}/{progress.steps}"
        if "loss" in progress.point:
            text += f", loss {progress.point['loss']:.3f}"
        if "tokens_per_s" in progress.point:
            text += f", {progress.point['tokens_per_s']:,.0f} tokens/s"
        done = progress.step - self._first_step
        if self._began is not None and done > 0:
            text += f", {duration((progress.steps - progress.step) * (now - self._began) / done)} left"
        return text + (f", {progress.workers} workers" if progress.workers > 1 else "")


def validation_text(record: dict[str, Any]) -> str:
    """A validation for the log: loss and accuracy a set, then sample answers."""
    sets = ", ".join(f"{n} {v['loss']:.3f} ({v['token_accuracy']:.1%})" for n, v in record["validation"].items())
    lines = [f"validation at step {record['step']}: loss (token accuracy) {sets}"]
    for each in record.get("answers") or []:
        asked = each["prompt"].split("</Speech>")[-1].split("\n")[0].strip()
        lines.append(f"  {each['set']}: {asked}  said: {each['answer'].strip()}  true: {each['target']}")
    return "\n".join(lines)


def finish(result: TrainResult, config: str) -> int:
    """Print how a training ended; its exit code."""
    if result.status == "complete_before":
        print(f"done already: {result.step} steps, {result.model}")
        return 0
    if result.status != "complete":
        stopped = f"interrupted after step {result.step}; to continue, give the same command again"
        print(f"mats: {stopped if result.status == 'interrupted' else result.message}", file=sys.stderr)
        return EXIT_INTERRUPTED if result.status == "interrupted" else 1
    run = result.run
    rows = [("steps", f"{run['step']:,}, {run['samples']:,} samples, {run['tokens']:,} tokens")]
    if run.get("bad"):
        problems = ", ".join(f"{name} {count}" for name, count in run["problems"].items())
        rows.append(("unusable", f"{run['bad']} of {run['records']} records: {problems}; lines in _corpora.json"))
    if "trained_weights" in run:
        rows.append(("trained", f"{run['trained_weights']:,} parameters"))
    rows.append(("time", f"{duration(run['wall_s'])} ({duration(run['seconds'])} in steps)"))
    for name, values in run.get("validation", {}).items():
        rows.append((name, f"loss {values['loss']:.4f}, token accuracy {values['token_accuracy']:.1%}"))
    print_facts([*rows, ("model", result.model)], soft_wrap=True)
    return 0


@settings_command(app, "adapt", AdaptSettings, ())
def adapt(settings: AdaptSettings) -> int:
    """Teach a model the words of an archive with text alone: sentences about it, or corrected answers.

    They are mixed with the model's own training text, so that little is forgotten. Run again to continue.
    """
    from pipelines.adapt.run import run_adapt

    with AdaptDisplay() as display:
        result = run_adapt(settings, display)
    return finish_adapt(result, settings)


class AdaptDisplay(TrainDisplay):
    """The steps of `mats adapt` one after the other, in one bar."""

    def __init__(self) -> None:
        super().__init__()
        self._embedding = RunDisplay("records", "embedding")
        self._embedding.show = self.show  # type: ignore[method-assign]

    def __call__(self, progress: Progress | TrainProgress) -> None:
        """The callback of the pipeline."""
        from pipelines.train.run import TrainProgress

        if isinstance(progress, TrainProgress):
            super().__call__(progress)
        else:
            self._embedding(progress)


def finish_adapt(result: AdaptResult, settings: AdaptSettings) -> int:
    """Print how an adaptation ended; its exit code."""
    run = result.run
    if result.status == "complete_before":
        print_done_before(f"{run['sentences']} sentences, {public_uri(result.model)}")
        return 0
    if result.status != "complete":
        stopped = f"interrupted; what is done is kept. {to_continue(settings.overwrite)}"
        print(f"mats: {stopped if result.status == 'interrupted' else result.message}", file=sys.stderr)
        return EXIT_INTERRUPTED if result.status == "interrupted" else 1
    problems = ", ".join(f"{name} {count}" for name, count in sorted(run["problems"].items()))
    rows = [
        ("sentences", f"{run['sentences']:,}" + (f" (unusable: {problems})" if problems else "")),
        ("replay", f"{run.get('replayed', 0):,} records of the model's own text"),
    ]
    if "memory" in run:
        rows.append(("memory", f"{run['memory']['captions']:,} captions"))
    for name, values in run["training"]["validation"].items():
        rows.append((name, f"loss {values['loss']:.4f}, token accuracy {values['token_accuracy']:.1%}"))
    rows += [("time", duration(run["wall_s"])), ("model", public_uri(result.model))]
    print_facts(rows, soft_wrap=True)
    return 0
