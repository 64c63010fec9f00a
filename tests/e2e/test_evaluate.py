"""Evaluation as a schedule runs it: the line of jobs/configs/evaluate.cron, a good night and one with a worse model."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml

from mats_core.soundworld.kinds import SAMPLE_RATE as RATE
from mats_core.soundworld.recipe import clip_recipe
from mats_core.soundworld.synth import render
from pipelines.archive.caption import run_caption
from pipelines.evaluate.run import run_evaluate
from pipelines.output.corrections import Corrections
from pipelines.settings.archive import CaptionSettings
from pipelines.settings.evaluate import EvaluateSettings
from tests.e2e.conftest import ENV, ROOT

CONFIGS = ROOT / "jobs" / "configs"
CLIPS = 12


def cron_line() -> str:
    """What cron hands to the shell: after the five fields, with \\% as %."""
    (line,) = [each for each in (CONFIGS / "evaluate.cron").read_text().splitlines() if re.match(r"[\d*]", each)]
    return line.split(maxsplit=5)[5].replace("\\%", "%")


def worse_model(folder: Path) -> str:
    """The shipped model with a mapper that hears nothing: all its outgoing weights are zero."""
    import shutil

    from safetensors.torch import load_file, save_file

    from mats_core.model.directory import BUILTIN

    shutil.copytree(BUILTIN, folder)
    weights = load_file(folder / "mapper.safetensors")
    save_file({name: weight * 0 for name, weight in weights.items()}, folder / "mapper.safetensors")
    return str(folder)


@pytest.mark.e2e
def test_a_scheduled_run_then_a_worse_model_and_the_gate_closes(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    options = f"--limit {CLIPS}"  # so few need no Ray
    (tools / "mats").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m jobs "$@" {options}\n')
    (tools / "mats").chmod(0o755)
    given = {
        **ENV,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "MATS_FOLDER": str(tmp_path),
        "MATS_RUNS": str(tmp_path / "runs"),
        "MATS_HISTORY": str(tmp_path / "history"),
        "MATS_BENCHMARKS": str(tmp_path / "benchmarks"),
    }

    def night(model: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", cron_line()], env={**given, "MATS_MODEL": model}, capture_output=True, text=True, timeout=600
        )

    good = night("builtin")
    assert good.returncode == 0, good.stderr
    assert "accepted as the first" in good.stdout
    bad = night(worse_model(tmp_path / "worse"))
    assert bad.returncode == 4, (bad.stdout, bad.stderr)
    assert "mats: gate closed: soundworld cider_d: " in bad.stderr

    first, second = sorted((tmp_path / "runs").iterdir())
    metrics = json.loads((second / "metrics.json").read_text())
    assert metrics["gate"]["open"] is False
    assert "cider_d" in {fall["metric"] for fall in metrics["gate"]["falls"]}
    predictions = pq.read_table(first / "predictions" / "run.parquet").to_pylist()
    assert len(predictions) == CLIPS
    assert all(row["text"] and row["truth"] for row in predictions)
    page = (first / "report.html").read_text()
    assert page.count("data:audio/mpeg;base64,") == CLIPS
    assert "before the bridge" in page.lower()
    assert "http" not in re.sub(r"http-equiv|https://www\.w3\.org\S*", "", page).split("<main>")[0]


@pytest.mark.e2e
@pytest.mark.long
def test_what_was_put_right_in_the_second_minute_is_judged_by_that_minute(shared_ray: str, tmp_path: Path) -> None:
    """Answered at once, and out of stored embeddings where two things are asked of the minute."""
    minutes = [np.resize(render(clip_recipe("validation", index)), 60 * RATE) for index in (0, 1)]
    soundfile.write(tmp_path / "long.wav", np.concatenate(minutes), RATE)
    soundfile.write(tmp_path / "second.wav", minutes[1], RATE)
    given = {"input": str(tmp_path / "second.wav"), "address": shared_ray, "actors": 1}
    place = {"uri": str(tmp_path / "long.wav"), "start_s": 60.0, "decoded_s": 60.0}
    alone, said = {}, Corrections(str(tmp_path / "run"))
    for row_id, task in enumerate(("caption", "cla_label")):
        done = run_caption(CaptionSettings(**given, output=str(tmp_path / task), task=task))
        (alone[task],) = [row["text"] for row in pq.read_table(Path(done.output) / "answers").to_pylist()]
        said.correct({**place, "row_id": row_id, "task": task, "text": "?"}, 0, "Ann", {"text": alone[task]})
    for names in ("corrections", "corrections,corrections_labels"):
        settings = {"benchmarks": names, "data": [str(tmp_path / "run")], "out": str(tmp_path / f"eval-{len(names)}")}
        found = run_evaluate(EvaluateSettings(**settings, address=shared_ray, actors=1))
        assert len(found.cells[0].results) == len(names.split(","))
        for result, task in zip(found.cells[0].results, alone, strict=False):
            (answer,) = result.answers
            assert (answer.texts, answer.seconds) == ([alone[task]], 60.0)


def test_the_schedules_for_kubernetes_and_ci_run_the_same_command() -> None:
    text = (CONFIGS / "kuberay-evaluate.yaml").read_text()
    _, kube = yaml.safe_load_all(text)
    assert (kube["apiVersion"], kube["kind"]) == ("ray.io/v1", "RayCronJob")
    # As in KubeRay's ray-cronjob.sample.yaml: the template holds a RayJob's fields; the controller is behind a gate.
    assert set(kube["spec"]) == {"schedule", "jobTemplate"}
    assert {"entrypoint", "rayClusterSpec", "shutdownAfterJobFinishes"} <= set(kube["spec"]["jobTemplate"])
    assert "--feature-gates=RayCronJob=true" in text
    assert "1.6 or newer" in text
    ci = yaml.safe_load((CONFIGS / "evaluate-workflow.yml").read_text())
    steps = {step.get("name"): step.get("run", "") for step in ci["jobs"]["evaluate"]["steps"]}
    for text in (kube["spec"]["jobTemplate"]["entrypoint"], steps["evaluate"], cron_line()):
        assert "mats evaluate" in text
        for words in ("--against accepted", "--tolerance 0.01", "--accept", '--model "$MATS_MODEL"'):
            assert words in text
