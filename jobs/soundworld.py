"""`mats soundworld`: make, measure and listen to the embedded world."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.terminal.commands import command
from mats_core.errors import SettingsError
from pipelines.settings.base import ALLOW_PARTS

app = typer.Typer(
    help="The embedded world: synthesised sounds with captions, and the small model trained on it.",
    no_args_is_help=True,
    add_completion=False,
)

WORK_FOLDERS = ("encoder", "encoder-kinds", "llm", "llm-deeper", "llm-read", "llm-words", "memory", "runs", "world")
"""What `mats soundworld build` makes in its folder."""


_say = functools.partial(typer.echo, err=True)


@command(app, "build")
def build(
    work: Annotated[Path, typer.Option(help="folder for clips, parts and runs (3 GB); finished steps stay there")],
    out: Annotated[Path, typer.Option(help="model directory to write")],
) -> int:
    """Make the embedded model from scratch: 72 minutes on 2 idle cores. Started again, it goes on where it was.

    CLAP and LLM are pretrained first. What follows are the jobs that make any other model: `mats soundworld corpus`,
    `mats embed-text`, `mats build-memory` and `mats train soundworld`.
    """
    _writable(out)
    return build_model(work, out, _say)


@command(app, "corpus")
def corpus(
    out: Annotated[Path, typer.Argument(help="JSONL file of records to write")],
    records: Annotated[int, typer.Option(min=1, help="recipes of the text split")] = 48_000,
    rounds: Annotated[int, typer.Option(min=1, help="times each is written up, in other words")] = 2,
    minutes: Annotated[
        int | None, typer.Option(min=0, help="records of long sounds [default: a third of --records]")
    ] = None,
) -> int:
    """Write the text the embedded model is trained on, for `mats embed-text` and `mats train`. No sound is made."""
    from mats_core.soundworld.corpus import write_corpus

    _writable(out)
    write_corpus(out, records, rounds, minutes)
    return 0


@command(app, "ablate")
def ablate(
    work: Annotated[Path, typer.Option(help="the folder `build` worked in")],
    processes: Annotated[int, typer.Option(min=1, help="trainings at once, one core each")] = 2,
) -> int:
    """No noise, noise, noise and Santa, and the audio-trained upper bound, over three seeds. Goes on where it was."""
    if not (work / "encoder").is_dir() or not (work / "llm").is_dir():
        remedy = "name the folder in which `mats soundworld build` made them"
        raise SettingsError("work", f'"{work}" holds no encoder and llm', remedy)
    from mats_core.soundworld.made.ablation import run_ablation

    typer.echo(json.dumps(run_ablation(work, _say, processes), indent=1))
    return 0


@command(app, "noise")
def noise(
    work: Annotated[Path, typer.Option(help="folder for clips and runs; the shipped CLAP and LLM where it has none")],
    processes: Annotated[int, typer.Option(min=1, help="trainings at once, one core each")] = 2,
) -> int:
    """How near the noise that 30 pairs ask for is to the best of a grid, in label F1. Goes on where it was.

    Prints a table; WORK/noise-grid.json has all numbers. Seven trainings of a few minutes each.
    """
    from mats_core.soundworld.made.ablation import noise_grid_table, run_noise_grid

    _shipped_parts(work)
    typer.echo(noise_grid_table(run_noise_grid(work, log=_say, processes=processes)))
    return 0


@command(app, "adapt")
def adapt(
    work: Annotated[Path, typer.Option(help="folder for models and clips; finished steps stay there")],
    kinds: Annotated[str, typer.Option(help="comma-separated kinds to hold out; every fourth by default")] = "",
    sentences: Annotated[int, typer.Option(min=10, help="sentences `mats adapt` is given")] = 1000,
    steps: Annotated[int, typer.Option(min=1, help="steps of the two models to begin with")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="of what `mats adapt` draws")] = 0,
    clips: Annotated[int, typer.Option(min=50, help="test clips")] = 1000,
) -> int:
    """Hold kinds of sound out of all of MATS' text, bring them in with `mats adapt`, and print a table of label F1."""
    from mats_core.soundworld.kinds import KINDS
    from mats_core.soundworld.made import held_out

    held = [name.strip() for name in kinds.split(",") if name.strip()] or list(held_out.HELD_OUT)
    unknown = sorted(set(held) - set(KINDS))
    if unknown or len(KINDS) - len(held) < 3:
        problem = f"{', '.join(unknown)} is not a kind of sound" if unknown else "fewer than three kinds are left"
        raise SettingsError("kinds", problem, f"choose some of {', '.join(KINDS)}")
    return adapt_held_out(work, held, sentences, steps, seed, clips, _say)


def adapt_held_out(
    work: Path, held: Sequence[str], sentences: int, steps: int, seed: int, clips: int, log: Callable[[str], None]
) -> int:
    """The experiment in ``work``; returns the exit code of `mats adapt` where it fails. Finished steps are kept.

    Beside the model that had all kinds from the start stands one that was trained as long as the adapted one in all.
    """
    import torch

    from mats_core.encoders.clap import HfClapEncoder
    from mats_core.soundworld.corpus import RECORDS, ROUNDS, text_record
    from mats_core.soundworld.made import held_out
    from mats_core.soundworld.made.ablation import audio_embeddings
    from mats_core.soundworld.made.build import Times
    from mats_core.soundworld.made.measure import Clips, split_recipes
    from pipelines.settings.adapt import AdaptSettings

    _same_experiment(work, {"kinds": [*held], "sentences": sentences, "steps": steps, "clips": clips})
    _shipped_parts(work)
    times = Times(work / "times.json", log)
    longer = steps + AdaptSettings.model_fields["steps"].default
    without = held_out.held_out_records(held)
    every = [text_record(index, turn) for turn in range(ROUNDS) for index in range(RECORDS)]
    for name, rows, length in (("without", without, steps), ("with", every, steps), ("longer", every, longer)):
        with times(f"training {name}"):
            held_out.make_model(work / name, work, rows, length, log)
    name = f"adapted-{seed}"
    text, adapted = work / "sentences.txt", work / name
    if not text.exists():  # written anew it would be another text to a run that is continued
        text.write_text("\n".join(held_out.archive_sentences(held, sentences)) + "\n")
    if not (work / f"scores-{name}.json").exists():
        given = ["--model", str(work / "without" / "model"), "--text", str(text), "--out", str(adapted)]
        with times(f"mats adapt, seed {seed}"):
            command = [sys.executable, "-m", "jobs", "adapt", *given, "--seed", str(seed)]
            code = subprocess.run(command, check=False).returncode
        if code:
            return code
    with torch.inference_mode():
        sounds = audio_embeddings(work, HfClapEncoder(str(work / "encoder"), device="cpu"), "test", clips, log)
    models = {each: work / each / "model" for each in ("with", "longer", "without")} | {name: adapted}
    scores = held_out.score_models(work, models, Clips(sounds, split_recipes("test", clips)), held, log)
    shown = {
        "with": f"had them from the start, {steps} steps", "longer": f"had them from the start, {longer} steps",
        "without": f"never told of them, {steps} steps", name: f"the same after `mats adapt`, {longer} steps in all",
    }  # fmt: skip
    typer.echo(held_out.held_out_table(scores, shown))
    return 0


def _same_experiment(work: Path, settings: dict[str, Any]) -> None:
    """SettingsError for a folder that holds the experiment with other settings, whose steps would count as these."""
    kept = work / "experiment.json"
    before = json.loads(kept.read_text()) if kept.exists() else settings
    other = [f"{name} was {before.get(name)}" for name in settings if before.get(name) != settings[name]]
    if other:
        problem = f'"{work}" holds the experiment with other settings ({"; ".join(other)})'
        raise SettingsError("work", problem, "choose another folder, or those settings")
    work.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(settings) + "\n")


def _shipped_parts(work: Path) -> None:
    """CLAP and LLM in ``work``: those made there, else copies of the shipped model's."""
    from mats_core.model.directory import BUILTIN

    for name in ("encoder", "llm"):
        if not (work / name).is_dir():
            shutil.copytree(BUILTIN / name, work / name)


@command(app, "calibrate")
def calibrate(
    model: Annotated[str, typer.Option(help='"builtin", or a model directory of the embedded world')],
    clips: Annotated[int, typer.Option(min=50, help="validation clips")] = 6000,
    rerank: Annotated[int, typer.Option(min=0, max=64, help="for answers that are the best of so many beams")] = 0,
    allow_parts: Annotated[list[str] | None, typer.Option(help=ALLOW_PARTS)] = None,
) -> int:
    """Fit the confidence of a model of the embedded world on validation clips, and write it into its directory.

    A few minutes on 2 cores. `mats soundworld evaluate` measures it on test clips.
    """
    from mats_core.model.directory import check_model_dir, resolve

    check_model_dir(model, allow_parts or ())
    folder = resolve(model)
    if not os.access(folder, os.W_OK):
        raise SettingsError("model", f'"{folder}" cannot be written', "copy it to where you may write")
    from mats_core.confidence.fitting import figures_table
    from mats_core.soundworld.made.trust import calibrate as fit

    typer.echo(figures_table(fit(folder, clips, _say, allow_parts or (), rerank)))
    return 0


@command(app, "evaluate")
def evaluate(
    model: Annotated[str, typer.Option(help='"builtin", or a model directory of the embedded world')] = "builtin",
    clips: Annotated[int, typer.Option(min=10, help="test clips")] = 1000,
    scenes: Annotated[int, typer.Option(min=0, help="3-minute scenes; 0 leaves them out")] = 20,
    out: Annotated[Path | None, typer.Option(help="also write all numbers there, as JSON")] = None,
    picture: Annotated[Path | None, typer.Option(help="also draw there whether confidence comes true, as SVG")] = None,
    allow_parts: Annotated[list[str] | None, typer.Option(help=ALLOW_PARTS)] = None,
) -> int:
    """Measure a model on clips from seeds that no training used, and print the table of the README."""
    from mats_core.model.directory import check_model_dir, resolve

    check_model_dir(model, allow_parts or ())
    for name, file in (("out", out), ("picture", picture)):
        if file is not None:
            _writable(file, name)
            if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
                raise SettingsError(name, f'"{file}" is not a file that can be written', "choose another one")
    if picture is not None and not (resolve(model) / "calibration.json").is_file():
        raise SettingsError("picture", "the model has no confidence", "make it with `mats soundworld calibrate`")
    from mats_core import load_model
    from mats_core.soundworld.made.build import evaluate as measure
    from mats_core.soundworld.made.build import recorded_ablation
    from mats_core.soundworld.made.card import measured_table

    loaded = load_model(model, device="cpu", dtype="float32", allow_parts=allow_parts or ())
    numbers = measure(loaded, clips, scenes, _say)
    typer.echo(measured_table(numbers, recorded_ablation() if model == "builtin" else None))
    if out is not None:
        out.write_text(json.dumps(numbers, indent=1) + "\n")
    if picture is not None:
        from mats_core.soundworld.made.trust import TASKS
        from pipelines.pages.charts import reliability_svg

        shown = {TASKS[task]: trust["bins"] for task, trust in numbers.get("trust", {}).items()}
        picture.write_text(reliability_svg(f"Does confidence come true? {clips} test clips", shown))
    return 0


@command(app, "rerank")
def rerank(
    model: Annotated[str, typer.Option(help='"builtin", or a model directory of the embedded world')] = "builtin",
    clips: Annotated[int, typer.Option(min=10, help="test clips")] = 1000,
    beams: Annotated[int, typer.Option(min=2, max=64, help="best of so many")] = 4,
) -> int:
    """What `mats caption --rerank` gains: label F1 and CIDEr-D of the first beam and of the best, on test clips."""
    from mats_core.model.directory import check_model_dir

    most = check_model_dir(model).decoding.beams
    if beams > most:
        raise SettingsError("beams", f"the model has {most} beams, not {beams}", f"choose at most {most}")
    from mats_core import load_model
    from mats_core.soundworld.made.trust import rerank_numbers, rerank_table

    loaded = load_model(model, device="cpu", dtype="float32")
    typer.echo(rerank_table(rerank_numbers(loaded, clips, beams, _say)))
    return 0


@command(app, "probe")
def probe(
    work: Annotated[Path, typer.Option(help="folder for clips (220 MB) and embeddings; they are kept there")],
    encoder: Annotated[
        Path | None, typer.Option(help="directory of a CLAP of the embedded world; the shipped one by default")
    ] = None,
) -> int:
    """What CLAP's embeddings still hold of a clip, read by one linear layer: presence, order, pitch, rate.

    It tells whether CLAP has lost a fact or the LLM does not read it.
    """
    from mats_core.encoders.clap import HfClapEncoder
    from mats_core.model.directory import BUILTIN
    from mats_core.soundworld.made.last_stage import probe_encoder, probe_table

    place = Path(BUILTIN) / "encoder" if encoder is None else encoder
    if not (place / "config.json").is_file():
        raise SettingsError("encoder", f'"{place}" holds no CLAP', "name a directory that `mats soundworld build` made")
    _writable(work / "mels")
    typer.echo(probe_table(probe_encoder(work, HfClapEncoder(str(place), device="cpu"), log=_say)))
    return 0


@command(app, "silence")
def silence(
    model: Annotated[str, typer.Option(help='"builtin", or a model directory of the embedded world')] = "builtin",
    clips: Annotated[int, typer.Option(min=10, help="test clips")] = 200,
) -> int:
    """What silence does to captions: clips in a minute of silence or soft noise, and minutes of nothing else."""
    from mats_core.model.directory import check_model_dir

    check_model_dir(model)
    from mats_core import load_model
    from mats_core.soundworld.made.silence import silence_numbers, silence_table

    typer.echo(silence_table(silence_numbers(load_model(model, device="cpu", dtype="float32"), clips, _say)))
    return 0


@command(app, "card")
def card(
    work: Annotated[Path, typer.Option(help="the folder `build` worked in: times and ablation are read from there")],
    numbers: Annotated[Path, typer.Option(help="what `evaluate --out` wrote")],
    model: Annotated[str, typer.Option(help="the model directory the numbers are of")] = "builtin",
) -> int:
    """Print the model card: how the model was made and what was measured."""
    from mats_core.model.directory import resolve
    from mats_core.soundworld.made.card import model_card

    def read(path: Path) -> Any:
        return json.loads(path.read_text()) if path.exists() else {}

    if not numbers.is_file():
        remedy = "name the JSON that `mats soundworld evaluate --out` wrote"
        raise SettingsError("numbers", f'there is no file "{numbers}"', remedy)
    ablation, times = read(work / "ablation.json") or None, read(work / "times.json")
    typer.echo(model_card(read(numbers), ablation, times, _megabytes(resolve(model))))
    return 0


@command(app, "clip")
def clip(
    out: Annotated[Path, typer.Argument(help="WAV file to write; its recipe goes beside it as JSON")],
    seed: Annotated[int, typer.Option(min=0, help="which clip")] = 0,
    kinds: Annotated[str, typer.Option(help="comma-separated kinds to draw from; all by default")] = "",
) -> int:
    """Synthesise one clip to listen to."""
    import soundfile

    from mats_core.soundworld.kinds import KINDS, SAMPLE_RATE
    from mats_core.soundworld.language import recipe_caption
    from mats_core.soundworld.recipe import sample_recipe
    from mats_core.soundworld.synth import render

    names = [k.strip() for k in kinds.split(",") if k.strip()]
    unknown = sorted(set(names) - set(KINDS))
    if unknown or 0 < len(names) < 3:
        problem = f"{', '.join(unknown)} is not a kind of sound" if unknown else f'"{kinds}" are fewer than three'
        raise SettingsError("kinds", problem, f"choose three or more of {', '.join(KINDS)}")
    if out.suffix.lower() != ".wav":
        remedy = "choose one that ends with .wav (the recipe goes beside it)"
        raise SettingsError("out", f'"{out}" is no name of a WAV file', remedy)
    _writable(out)
    recipe = sample_recipe(seed, kinds=names or None)
    try:
        soundfile.write(out, render(recipe), SAMPLE_RATE, format="WAV")
    except soundfile.LibsndfileError as error:
        raise SettingsError("out", f'"{out}" cannot be written ({error.error_string})', "choose another file") from None
    out.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1) + "\n")
    typer.echo(recipe_caption(recipe))
    return 0


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _writable(path: Path, setting: str = "out") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(setting, f'"{path}" cannot be written ({error.strerror})', "choose another path") from error


def build_model(work: Path, out: Path, log: Callable[[str], None]) -> int:
    """Make the embedded model in ``work`` and copy it to ``out``; returns the exit code of the step that ended it.

    Raises SettingsError when ``out`` holds something else, or the work. Finished steps are not repeated.
    """
    if out.exists() and any(out.iterdir()) and not (out / "mats.json").is_file():
        remedy = "choose a folder that is empty, or holds a model"
        raise SettingsError("out", f'"{out}" holds something other than a model', remedy)
    place, inside = out.resolve(), work.resolve()
    if inside.is_relative_to(place) or any(place.is_relative_to(inside / name) for name in WORK_FOLDERS):
        problem = f'"{out}" holds the work ({work}) or is a part of it'
        raise SettingsError("out", problem, "choose a folder apart from it")
    from mats_core.soundworld.corpus import write_corpus
    from mats_core.soundworld.made.build import Times, build_parts

    encoder, llm = build_parts(work, log)
    times = Times(work / "times.json", log)
    world = work / "world"
    if not (world / "text.jsonl").exists():
        with times("text"):
            world.mkdir(parents=True, exist_ok=True)
            write_corpus(world / "text.jsonl")
    parts = (encoder.relative_to(work), llm.relative_to(work), world.relative_to(work))
    for step, arguments in steps(*parts).items():  # run inside `work`, so that the model names no place of this machine
        with times(f"mats {step}"):
            command = [sys.executable, "-m", "jobs", step, *arguments]
            code = subprocess.run(command, check=False, cwd=work).returncode
        if code:
            log(f"mats {step} ended with {code}; to go on from there: mats soundworld build --work {work} --out {out}")
            return code
    draft = out.with_name(f".{out.name}-{uuid.uuid4().hex[:8]}.partial")
    shutil.copytree(world / "trained" / "model", draft)
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)
    log(f"{out}: {_megabytes(out):.1f} MB; its confidence comes from: mats soundworld calibrate --model {out}")
    return 0


def steps(encoder: Path, llm: Path, world: Path) -> dict[str, list[str]]:
    """Job → its arguments, in order. Each continues, or says that it is done, when it is run again."""
    from mats_core.soundworld.made.ablation import MEMORY_ENTRIES

    text, embeddings, memory, trained = (str(world / n) for n in ("text.jsonl", "embeddings", "memory", "trained"))
    places: dict[str, Any] = {"output": trained, "llm": str(llm), "encoder": str(encoder), "memory": memory}
    places |= {"embeddings": embeddings, "data": [{"name": "soundworld", "corpus": text}]}
    return {
        "embed-text": [text, embeddings, "--encoder", str(encoder)],
        "build-memory": [embeddings, memory, "--cap", str(MEMORY_ENTRIES), "--sources", "soundworld"],
        "train": [
            "soundworld",
            *(f"--set={name}={json.dumps(place)}" for name, place in places.items()),
        ],  # JSON is YAML
    }
