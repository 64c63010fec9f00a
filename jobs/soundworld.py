"""`mats soundworld`: make, measure and listen to the embedded world."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from jobs.terminal.options import command
from mats_core.errors import got_allowed

app = typer.Typer(
    help="The embedded world: synthesised sounds with captions, and the small model trained on it.",
    no_args_is_help=True,
    add_completion=False,
)


def _say(text: str) -> None:
    typer.echo(text, err=True)


@command(app, "build")
def build(
    work: Annotated[Path, typer.Option(help="folder for clips, parts and runs (3 GB); finished steps stay there")],
    out: Annotated[Path, typer.Option(help="model directory to write")],
) -> int:
    """Make the embedded model from scratch: over an hour on 2 cores. Started again, it goes on where it was.

    CLAP and LLM are pretrained first. What follows are the jobs that make any other model: `mats soundworld corpus`,
    `mats embed-text`, `mats build-memory` and `mats train soundworld`.
    """
    from jobs.soundworld_build import build_model

    _writable(out)
    return build_model(work, out, _say)


@command(app, "corpus")
def corpus(
    out: Annotated[Path, typer.Argument(help="JSONL file of records to write")],
    records: Annotated[int, typer.Option(min=1, help="recipes of the text split")] = 16_000,
    rounds: Annotated[int, typer.Option(min=1, help="times each is written up, in other words")] = 2,
) -> int:
    """Write the text the embedded model is trained on, for `mats embed-text` and `mats train`. No sound is made."""
    from mats_core.soundworld.corpus import write_corpus

    _writable(out)
    write_corpus(out, records, rounds)
    return 0


@command(app, "ablate")
def ablate(
    work: Annotated[Path, typer.Option(help="the folder `build` worked in")],
    processes: Annotated[int, typer.Option(min=1, help="trainings at once, one core each")] = 2,
) -> int:
    """No noise, noise, noise and Santa, and the audio-trained upper bound, over three seeds. Goes on where it was."""
    if not (work / "encoder").is_dir() or not (work / "llm").is_dir():
        raise got_allowed("work", str(work), "a folder in which `mats soundworld build` has made encoder and llm")
    from mats_core.soundworld.made.ablation import run_ablation

    typer.echo(json.dumps(run_ablation(work, _say, processes), indent=1))
    return 0


@command(app, "evaluate")
def evaluate(
    model: Annotated[str, typer.Option(help='"builtin", or a model directory of the embedded world')] = "builtin",
    clips: Annotated[int, typer.Option(min=10, help="test clips")] = 1000,
    scenes: Annotated[int, typer.Option(min=0, help="3-minute scenes; 0 leaves them out")] = 20,
    out: Annotated[Path | None, typer.Option(help="also write all numbers there, as JSON")] = None,
) -> int:
    """Measure a model on clips from seeds that no training used, and print the table of the README."""
    from mats_core.model.directory import check_model_dir

    check_model_dir(model)
    if out is not None:
        _writable(out)
        if out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK):
            raise got_allowed("out", str(out), "a file that can be written")
    from mats_core import load_model
    from mats_core.soundworld.made.build import evaluate as measure
    from mats_core.soundworld.made.build import recorded_ablation
    from mats_core.soundworld.made.card import measured_table

    numbers = measure(load_model(model, device="cpu", dtype="float32"), clips, scenes, _say)
    typer.echo(measured_table(numbers, recorded_ablation() if model == "builtin" else None))
    if out is not None:
        out.write_text(json.dumps(numbers, indent=1) + "\n")
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

    def read(path: Path) -> dict[str, object]:
        found: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
        return found

    if not numbers.is_file():
        raise got_allowed("numbers", str(numbers), "the JSON that `mats soundworld evaluate --out` wrote")
    size = sum(f.stat().st_size for f in resolve(model).rglob("*") if f.is_file()) / 1e6
    times: dict[str, float] = read(work / "times.json")  # type: ignore[assignment]
    typer.echo(model_card(read(numbers), read(work / "ablation.json") or None, times, size))
    return 0


@command(app, "clip")
def clip(
    out: Annotated[Path, typer.Argument(help="WAV file to write; its recipe goes beside it as JSON")],
    seed: Annotated[int, typer.Option(min=0, help="which clip")] = 0,
    kinds: Annotated[str, typer.Option(help="comma-separated kinds to draw from; all by default")] = "",
) -> int:
    """Synthesise one clip to listen to."""
    import dataclasses

    import soundfile

    from mats_core.soundworld.kinds import KINDS, SAMPLE_RATE
    from mats_core.soundworld.language import recipe_caption
    from mats_core.soundworld.recipe import sample_recipe
    from mats_core.soundworld.synth import render

    names = [k.strip() for k in kinds.split(",") if k.strip()]
    unknown = sorted(set(names) - set(KINDS))
    if unknown or 0 < len(names) < 3:
        raise got_allowed("kinds", kinds, f"three or more of {', '.join(KINDS)}")
    if out.suffix.lower() != ".wav":
        raise got_allowed("out", str(out), "a name that ends with .wav; the recipe goes beside it as .json")
    _writable(out)
    recipe = sample_recipe(seed, kinds=names or None)
    try:
        soundfile.write(out, render(recipe), SAMPLE_RATE, format="WAV")
    except soundfile.LibsndfileError as error:
        raise got_allowed("out", str(out), f"a file that can be written ({error.error_string})") from None
    out.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1) + "\n")
    typer.echo(recipe_caption(recipe))
    return 0


def _writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise got_allowed("out", str(path), f"a path that can be written ({error.strerror})") from error
