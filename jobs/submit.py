"""`mats submit`: a job on a Ray cluster, through the Ray Jobs SDK. Shows its log and ends with its exit code."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import typer

from jobs.terminal.commands import EXIT_INTERRUPTED, command
from mats_core.errors import SettingsError
from mats_core.storage.uris import public_uri, redacted

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
JOBS = ("caption", "embed-audio", "embed-text", "build-memory", "train", "evaluate", "scan", "compact")
LEFT_HERE = [".git", ".venv*", ".mypy_cache", ".pytest_cache", ".ruff_cache", "demo", "**/__pycache__"]
"""What of a checkout does not travel: Ray refuses a working directory over 100 MiB."""

RAYS_LOG = ", last available logs"
"""What Ray's message about a job that failed goes on with: the end of its log."""
REACHED = "Give a URL, or a path from / on that all nodes share."

app = typer.Typer()


def entrypoint(job: list[str]) -> str:
    """The command that the cluster runs, quoted for its shell. Raises SettingsError for what is no job, and for a URL
    with a secret in it: Ray's dashboard, its table of jobs and its logs show the command."""
    if not job or job[0] not in JOBS:
        problem = f'"{redacted(job[0])}" is not a job that runs on a cluster' if job else "no job was named"
        raise SettingsError("JOB", problem, f"choose {', '.join(JOBS)}")
    for word in job:
        _check_shown("JOB", word)
    return shlex.join(["python", "-m", "jobs", *job])


def dashboard_in(job: list[str]) -> tuple[list[str], str | None]:
    """A command line without `--address URL`, and that URL: a dashboard's is meant for `submit`, wherever it stands.
    What else a job takes as its address (auto, ray://…) stays with it."""
    rest, found = [], None
    words = iter(job)
    for word in words:
        name, given, value = word.partition("=")
        after = None if name != "--address" or given else next(words, None)
        if name == "--address" and (value or after or "").startswith(("http://", "https://")):
            found = value or after
        else:
            rest += [word] if after is None else [word, after]
    return rest, found


def _check_shown(setting: str, word: str) -> None:
    if redacted(word) != word:
        problem = "was given with a password or signature, and the cluster shows its commands to all"
        remedy = "put signed URLs into a list, or give the nodes credentials"
        raise SettingsError(setting, f'"{redacted(word)}" {problem}', remedy)


def environment(working_dir: str | None, env: list[str]) -> dict[str, Any]:
    """Ray's runtime_env. `env`: NAME (its value here) or NAME=VALUE, for driver and workers alike."""
    values: dict[str, str] = {"PYTHONUNBUFFERED": "1"}
    for item in env:
        name, given, value = item.partition("=")
        if not given and name not in os.environ:
            raise SettingsError("env", f'the variable "{name}" is not set here', f"set it, or write {name}=VALUE")
        values[name] = value if given else os.environ[name]
    root = Path(__file__).resolve().parents[1]
    # an installed package, which is no checkout, the cluster has too
    folder = working_dir or (str(root) if (root / "pyproject.toml").is_file() else None)
    if folder is None:
        return {"env_vars": values}
    _check_shown("working_dir", folder)
    found: dict[str, Any] = {"env_vars": values, "working_dir": folder}
    if "://" not in folder:
        if not Path(folder).is_dir():
            raise SettingsError("working_dir", f'there is no folder "{folder}"', "name one, or the URL of a zip file")
        found["excludes"] = LEFT_HERE
    return found


def left_behind(job: list[str], folder: str | None) -> list[str]:
    """Words of a command that are relative paths here, and not in the folder that travels, in which the job runs."""
    paths = [word for word in job[1:] if not word.startswith("-") and not os.path.isabs(word) and "://" not in word]
    there = folder if folder is not None and "://" not in folder else None
    return [w for w in paths if os.path.exists(w) and (there is None or not os.path.exists(os.path.join(there, w)))]


@command(app, "submit", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def submit(
    job: list[str] = typer.Argument(..., help="The command without `mats`: caption INPUT OUTPUT …"),
    address: str | None = typer.Option(
        None, help="Dashboard of the cluster (default: $RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265)."
    ),
    working_dir: str | None = typer.Option(None, help="Folder that travels to the nodes (default: this checkout)."),
    env: list[str] = typer.Option([], help="NAME or NAME=VALUE for driver and workers; the dashboard shows it."),
    wait: bool = typer.Option(True, "--wait/--no-wait", help="Show the log and end with the job's exit code."),
) -> int:
    """Run a job on a Ray cluster. Options of submit come before the job's name, but for --address URL."""
    job, behind = dashboard_in(job)
    command = entrypoint(job)
    where = (
        address
        or behind
        or next((os.environ[name] for name in ADDRESS_VARIABLES if os.environ.get(name)), DEFAULT_ADDRESS)
    )
    runtime_env = environment(working_dir, env)
    if not where.startswith(("http://", "https://")):
        problem = f'"{where}" is not the URL of a dashboard'
        raise SettingsError("address", problem, f"give one such as {DEFAULT_ADDRESS}")
    for word in left_behind(job, runtime_env.get("working_dir")):
        _tell(f'warning: "{word}" is a path here; the cluster has none of that name. {REACHED}')
    client = dashboard_client(where)
    job_id = submit_when_ready(client, command, runtime_env)
    shown = public_uri(where)
    _tell(f"submitted {job_id} to {shown}: {command}")
    _tell(f"to stop it:    ray job stop --address {shown} {job_id}")
    _tell(f"to follow it:  ray job logs --address {shown} --follow {job_id}")
    if not wait:
        print(job_id)
        return 0

    async def show_log() -> None:
        async for lines in client.tail_job_logs(job_id):
            print(lines, end="", flush=True)

    try:
        asyncio.run(show_log())
    except KeyboardInterrupt:
        _tell(f"{job_id} goes on; to stop it: ray job stop --address {shown} {job_id}")
        return EXIT_INTERRUPTED
    return exit_code(client, job_id)


def submit_when_ready(client: Any, command: str, runtime_env: dict[str, Any], patience_s: float = 90.0) -> str:
    """The job's id. A cluster that has just started has a dashboard before it has an agent that takes jobs."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return str(client.submit_job(entrypoint=command, runtime_env=runtime_env))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() >= until:
                raise
        time.sleep(2.0)


def dashboard_client(where: str) -> Any:
    """Ray's client of the dashboard at a URL, with a warning where that takes jobs from anybody.

    Raises SettingsError when nobody answers there, and when it wants another token than the one there is.
    """
    from pipelines.cluster.doors import CLOSE_IT, authenticate

    # note: a warning and no refusal. Whom the cluster serves is not changed by one more job, only a network that this
    # command cannot see may keep others out, and who submits is often not who may start it anew.
    if authenticate(where):
        _tell(
            f"warning: the cluster at {public_uri(where)} takes jobs from anybody who reaches it, and shows them what"
        )
        _tell(f"jobs are given with --env; {CLOSE_IT}")
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(where)


def exit_code(client: Any, job_id: str) -> int:
    """The driver's own exit code: Ray's status says only that it failed."""
    info = client.get_job_info(job_id)
    status = str(getattr(info.status, "value", info.status))
    # Ray appends the end of the log to its message; that was shown as it was written
    message = (info.message or "").partition(RAYS_LOG)[0].strip()
    _tell(f"{job_id}: {status.lower()}" + (f" ({message})" if status != "SUCCEEDED" and message else ""))
    ended = max(1, int(info.driver_exit_code or 1))
    return {"SUCCEEDED": 0, "STOPPED": EXIT_INTERRUPTED}.get(status, ended)


def _tell(line: str) -> None:
    print(f"mats: {line}", file=sys.stderr, flush=True)
