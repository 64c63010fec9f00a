"""Jobs are called with settings, or with what they are made of."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

import pipelines
from mats_core.errors import SettingsError
from pipelines.settings.base import Settings
from pipelines.settings.calling import by_name
from tests.house import ROOT


class Wishes(Settings):
    """What is wished for."""

    input: str = Field(description="Where from.")
    count: int = Field(3, gt=0, description="How many.")
    names: list[str] = Field(default_factory=list)


@by_name(Wishes)
def run_wishes(settings: Wishes, progress: Any = None) -> tuple[Wishes, Any]:
    """Grant them."""
    return settings, progress


def test_settings_by_their_names_are_the_settings() -> None:
    wanted = Wishes(input="a", count=4)
    assert run_wishes(wanted) == run_wishes(settings=wanted) == run_wishes(input="a", count=4) == (wanted, None)
    assert run_wishes(wanted, print) == run_wishes(input=Path("a"), count=4, progress=print) == (wanted, print)


@pytest.mark.parametrize(
    ("given", "named", "told"),
    [
        ((), {"input": "a", "count": 0}, "count: 0 is too small"),
        ((), {"count": 1}, "input: nothing is given"),
        ((), {"input": "a", "cuont": 1}, r"setting; did you mean count\? The others are input, names"),
        (("a",), {}, r"run_wishes was given a str; give Wishes, or settings by their names: run_wishes\(input=…\)"),
    ],
)
def test_what_cannot_be_is_refused(given: tuple[Any, ...], named: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        run_wishes(*given, **named)


def test_places_may_be_paths_in_settings_that_are_nested_too() -> None:
    """Also of `mats train`, whose settings come from a file elsewhere."""
    found = inspect.signature(pipelines.run_train).parameters
    assert all("PathLike" in str(found[name].annotation) for name in ("output", "llm", "encoder", "memory"))
    with pytest.raises(SettingsError, match="embeddings"):
        pipelines.run_train(
            output=Path("o"), llm=Path("l"), encoder=Path("e"), data=[{"name": "a", "corpus": Path("c")}]
        )


def test_help_lists_the_settings() -> None:
    shown = inspect.signature(run_wishes)
    assert list(shown.parameters) == ["settings", "progress", "input", "count", "names"]
    assert shown.parameters["input"].default is inspect.Parameter.empty
    assert shown.parameters["count"].default == 3 and shown.parameters["names"].default == []
    assert "Grant them." in run_wishes.__doc__ and "- `count`: How many." in run_wishes.__doc__


def test_what_must_be_given_and_is_most_used_comes_first() -> None:
    shown = inspect.signature(pipelines.run_caption)
    assert list(shown.parameters)[2:7] == ["input", "output", "task", "question", "model"]
    assert str(shown.parameters["retry_errors"].annotation) == "list[str] | None"
    told = inspect.getdoc(pipelines.run_caption) or ""
    assert told.index("- `output`") < told.index("- `model`") < told.index("- `max_file_bytes`")
    for name in (name for name in pipelines.__all__ if name.startswith("run_")):
        assert "Annotated" not in str(inspect.signature(getattr(pipelines, name))), name


def test_every_job_is_called_so_and_has_its_place_in_pipelines() -> None:
    """Each `run_…` of a command: what takes settings takes their names as well."""
    jobs = [name for name in pipelines.__all__ if name.startswith("run_")]
    assert len(jobs) == 17
    for name in jobs:
        parameters = inspect.signature(getattr(pipelines, name)).parameters
        assert next(iter(parameters)) == "settings" and len(parameters) > 4, name
    assert set(pipelines.__all__) <= set(dir(pipelines))
    with pytest.raises(AttributeError, match="no attribute 'run_away'"):
        pipelines.run_away  # noqa: B018


@pytest.mark.processes
def test_type_checkers_see_signatures(tmp_path: Path) -> None:
    """What is wrong in a program that uses the packages is told, and what is right passes; a package has py.typed."""
    program = tmp_path / "program.py"
    program.write_text(
        "from mats_core import MatsModel, load_model\n"
        "from pipelines import run_caption, run_scan\n"
        "model: MatsModel = load_model('builtin')\n"
        "one: str = model.answer('a.wav', question='Is there rain?')\n"
        "several: list[str] = model.answer(['a.wav', open('b.wav', 'rb')])\n"
        "frame = run_caption(input='a', output='b', segments=True).to_pandas()\n"
        "model.answer('a.wav', qestion='no')\n"
        "run_caption(input='a', output='b', segmnts=True)\n"
        "run_scan(input='a').manifest\n"
        "run_caption(input='a', output='b').ruws\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", program]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert {line.split(":")[1] for line in told.splitlines() if ": error:" in line} == {"7", "8", "9", "10"}, told
    assert all((ROOT / package / "py.typed").is_file() for package in ("mats_core", "pipelines"))
