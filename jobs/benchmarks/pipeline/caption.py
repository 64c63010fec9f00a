"""`mats benchmark caption`: plain processes and the Ray pipeline in turns, on the same files.

The plain processes run before and after each pipeline, because the speed of a shared machine drifts; times are means.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import Any

from jobs.benchmarks.inputs import write_clips
from jobs.benchmarks.measuring import print_driver_memory, print_figures, print_table, run_mats, say, workplace
from mats_core.errors import SettingsError
from mats_core.model.directory import check_model_dir
from pipelines.cluster.plan import BATCH_ROWS, usable_cores

DRIVER_CLIPS = (1_000, 10_000)


def run_benchmark(
    files: int, model: str, seconds: float, rounds: int, folder: str | None, driver_memory: bool, as_json: bool
) -> int:
    """Measure and print; raises SettingsError."""
    if files < 1 or seconds <= 0 or rounds < 1:
        given = f"{files}, {seconds}, {rounds}"
        raise SettingsError("files, seconds, rounds", f"one of {given} is not above 0", "give numbers above 0")
    check_model_dir(model)
    with workplace(folder) as place:
        figures = measure_driver(place, model) if driver_memory else compare(place, files, model, seconds, rounds)
    show = partial(print_driver_memory, what="clips") if driver_memory else print_comparison
    print_figures(figures, as_json, show)
    return 0


def compare(place: Path, files: int, model: str, seconds: float, rounds: int = 1) -> dict[str, Any]:
    """(a) as many plain processes as cores, (b) the pipeline, (a), (b), … (a): means of both, and their ratios.

    A round's ratio is its pipeline's clips/s over those of the plain processes just before and after it.
    """
    clips = place / "clips"
    say(f"writing {files} clips")
    audio_s = write_clips(clips, files, seconds)
    names = [str(path) for path in sorted(clips.rglob("*.wav"))][:files]
    cores = usable_cores()
    say(f"(a) {cores} plain processes")
    plains, pipelines = [run_plain(place, names, model, cores)], []
    for turn in range(rounds):
        say(f"(b) the Ray pipeline, {turn + 1} of {rounds}")
        pipelines.append(run_pipeline(clips, place / "answers", model))
        say(f"(a) {cores} plain processes again")
        plains.append(run_plain(place, names, model, cores))
    plain, pipeline = mean_of(plains), mean_of(pipelines)
    pipeline["driver_peak_mb"] = max(each["driver_peak_mb"] for each in pipelines)
    beside = [mean_of(plains[turn : turn + 2]) for turn in range(rounds)]
    return {
        "files": files,
        "audio_s": round(audio_s, 1),
        "cores": cores,
        "plain": plain,
        "pipeline": pipeline,
        "ratios": [round(b["rows_per_s"] / a["rows_per_s"], 3) for a, b in zip(beside, pipelines, strict=True)],
        "ratio": round(pipeline["rows_per_s"] / plain["rows_per_s"], 3),
    }


def run_plain(place: Path, names: list[str], model: str, processes: int) -> dict[str, Any]:
    """Every process its share; all start together once the last one has loaded its model."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    began, running = time.monotonic(), []
    for index in range(processes):
        share = place / f"share-{index}.txt"
        share.write_text("\n".join(names[index::processes]))
        command = [sys.executable, "-m", "jobs.benchmarks.pipeline.plain", model]
        command += [str(share), str(place / f"plain-{index}.parquet"), str(BATCH_ROWS)]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env))
    for process in running:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("a plain process did not start; its error is above")
    start_s, began = time.monotonic() - began, time.monotonic()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in running]
    busy = time.monotonic() - began
    stages = [json.loads(text) for text in outputs]
    total = {name: round(sum(stage[name] for stage in stages), 3) for name in stages[0]}
    audio_s = total.pop("audio_s")
    return {
        "start_s": round(start_s, 2),
        "busy_s": round(busy, 2),
        "rows_per_s": round(len(names) / busy, 3),
        "real_time_factor": round(audio_s / busy, 2),
        "stage_s": total,
    }


def mean_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Runs over the same files as one: mean times, and rates from them; `rates` keeps clips/s of each."""
    found: dict[str, Any] = {key: round(fmean(run[key] for run in runs), 2) for key in ("start_s", "busy_s")}
    for key in ("rows_per_s", "real_time_factor"):
        found[key] = round(harmonic_mean([run[key] for run in runs]), 3)
    stages = runs[0]["stage_s"]
    found["stage_s"] = {name: round(fmean(run["stage_s"][name] for run in runs), 3) for name in stages}
    found["rates"] = [run["rows_per_s"] for run in runs]
    return found


def run_pipeline(clips: Path, out: Path, model: str, *options: str) -> dict[str, Any]:
    """`mats caption` as a user runs it; figures out of its _run.json."""
    run_mats("caption", str(clips), str(out), "--model", model, "--overwrite", "--device", "cpu", *options)
    run = json.loads((out / "_run.json").read_text())
    return {**steady_figures(run), "driver_peak_mb": run["driver_peak_mb"]}


def steady_figures(run: dict[str, Any]) -> dict[str, Any]:
    """Times and rates once started, out of a run's _run.json."""
    steady = run["steady"]
    return {
        "start_s": round(run["wall_s"] - steady["seconds"], 2),
        "busy_s": steady["seconds"],
        "rows_per_s": steady["rows_per_s"],
        "real_time_factor": steady["real_time_factor"],
        "stage_s": run["stage_s"],
    }


def measure_driver(place: Path, model: str) -> dict[str, Any]:
    """Peak memory of the driver for few and for many clips; answers are kept short, the driver does not care."""
    found = {}
    for clips in DRIVER_CLIPS:
        folder = place / f"clips-{clips}"
        say(f"{clips} clips")
        write_clips(folder, clips, 1.0)
        options = ("--beams", "1", "--max-new-tokens", "4", "--commit-rows", "500")
        found[str(clips)] = run_pipeline(folder, place / f"answers-{clips}", model, *options)["driver_peak_mb"]
    return {"driver_peak_mb": found}


def print_comparison(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    a, b = figures["plain"], figures["pipeline"]
    measured = {"clips/s once started": "rows_per_s", "× real time": "real_time_factor"}
    measured |= {"busy (s)": "busy_s", "start-up (s)": "start_s"}
    rows: list[tuple[str, ...]] = [(label, f"{a[key]:.1f}", f"{b[key]:.1f}") for label, key in measured.items()]
    for stage in ("decode_s", "embed_s", "answer_s", "write_s"):
        rows.append((f"{stage[:-2]} (s, all processes)", *(f"{each['stage_s'][stage]:.1f}" for each in (a, b))))
    rows.append(("clips/s of each run", *(" ".join(f"{rate:.1f}" for rate in each["rates"]) for each in (a, b))))
    rows.append(("driver, peak (MB)", "", f"{b['driver_peak_mb']:.0f}"))
    if len(figures["ratios"]) > 1:
        rows.append(("b/a of each round", "", " ".join(f"{ratio:.3f}" for ratio in figures["ratios"])))
    rows.append(("b/a", "", f"{figures['ratio']:.3f}"))
    title = f"{figures['files']} clips, {figures['audio_s'] / 60:.0f} min of audio, {figures['cores']} cores"
    print_table(title, ("", "plain processes (a)", "Ray pipeline (b)"), rows)
