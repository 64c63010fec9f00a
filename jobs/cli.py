"""The commands of `mats`. Ray, torch and the pipelines are imported by the command that needs them."""

from __future__ import annotations

import importlib
import signal
import sys
from types import FrameType
from typing import Any

import typer

import jobs.evaluate
from jobs.import_reference import ImportSettings
from jobs.soundworld import app as soundworld
from jobs.terminal.options import EXIT_INTERRUPTED, EXIT_TOO_MANY_ERRORS, command, guarded, settings_command
from mats_core.errors import got_allowed
from mats_core.storage.uris import public_uri
from pipelines.settings.archive import CaptionSettings, EmbedSettings, RunSettings, ScanSettings
from pipelines.settings.compact import CompactSettings
from pipelines.settings.evaluate import EvaluateSettings
from pipelines.settings.text import BuildMemorySettings, EmbedTextSettings

app = typer.Typer(
    name="mats",
    help="Captions, labels and answers for archives of sound.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@settings_command(app, "caption", CaptionSettings)
def caption(settings: CaptionSettings) -> int:
    """Answer every sound of INPUT into OUTPUT/answers (Parquet). Run again to continue."""
    if settings.dry_run:
        from jobs.archive import run

        return run(settings)
    from jobs.terminal.display import RunDisplay
    from pipelines.archive.caption import run_caption

    with RunDisplay("clips") as display:
        result = run_caption(settings, display)
    return _finish(result, settings, "caption", "clips")


@settings_command(app, "embed-audio", EmbedSettings)
def embed_audio(settings: EmbedSettings) -> int:
    """Embed every sound of INPUT into OUTPUT/embeddings, to be asked later by `mats caption OUTPUT …`."""
    from jobs.terminal.display import RunDisplay
    from pipelines.archive.embed_audio import run_embed_audio

    with RunDisplay("clips") as display:
        result = run_embed_audio(settings, display)
    return _finish(result, settings, "embed-audio", "clips")


def _finish(result: Any, settings: RunSettings, job: str, what: str) -> int:
    from jobs.terminal.display import print_result, to_continue

    if result.begun_with:
        typer.echo(
            f"mats: OUTPUT was begun with INPUT {result.begun_with}; files of the same path, size and time are the "
            "same ones to it",
            err=True,
        )
    if result.status == "interrupted":
        kept = "while INPUT was read; what was read is kept"
        if result.run:
            print_result(result, what)
            kept = f"{result.run['rows_done']} of {result.rows} {what} are kept"
        typer.echo(
            f"mats: interrupted; {kept}. {to_continue(settings.overwrite)}: "
            f"mats {job} {public_uri(settings.input)} {public_uri(settings.output)} …",
            err=True,
        )
        return EXIT_INTERRUPTED
    print_result(result, what)
    if result.status == "incomplete":
        typer.echo(f"mats: {result.rows - result.run['rows_done']} {what} are missing; run again", err=True)
        return 1
    if result.error_rate > settings.max_error_rate:
        typer.echo(
            f"mats: {result.error_rate:.1%} of rows failed; --max-error-rate allows {settings.max_error_rate:.1%}",
            err=True,
        )
        return EXIT_TOO_MANY_ERRORS
    return 0


@settings_command(app, "scan", ScanSettings)
def scan(settings: ScanSettings) -> int:
    """List INPUT and read its headers into a manifest, one row a chunk of about a minute."""
    from jobs.terminal.display import RunDisplay
    from pipelines.archive.run import Progress
    from pipelines.archive.scan import run_scan

    with RunDisplay("files") as display:
        result = run_scan(
            settings, lambda seen: display(Progress("scan", seen.files, errors=sum(seen.errors.values())))
        )
    added = result.added
    rate = (added.files + result.known_files) / max(1e-9, result.wall_s)
    formats = ", ".join(f"{name} {count}" for name, count in sorted(added.formats.items())) or "none"
    errors = ", ".join(f"{name} {count}" for name, count in sorted(added.errors.items())) or "none"
    typer.echo(
        f"{added.files} files new ({result.known_files} known), {added.chunks} chunks, "
        f"{added.seconds / 3600:.2f} h, {added.bytes / 1e6:.1f} MB\nformats: {formats}\nerrors: {errors}\n"
        f"time: {result.wall_s:.1f} s, {rate:.0f} files/s\n"
        f"manifest: {public_uri(result.manifest)} ({result.total_rows} rows)"
    )
    return 0


@settings_command(app, "compact", CompactSettings)
def compact(settings: CompactSettings) -> int:
    """Write the many part files of a finished run as few large files into a new data set. Run again to continue."""
    from jobs.compact import run

    return run(settings)


@settings_command(app, "embed-text", EmbedTextSettings, ("corpora", "output"))
def embed_text(settings: EmbedTextSettings) -> int:
    """Embed every distinct caption of CORPORA into OUTPUT/embeddings, for training and for Santa's memory."""
    from jobs.text import run

    return run(settings)


@settings_command(app, "build-memory", BuildMemorySettings, ("embeddings", "output"))
def build_memory(settings: BuildMemorySettings) -> int:
    """Build Santa's memory out of caption embeddings."""
    from jobs.build_memory import run

    return run(settings)


@command(app, "train")
def train(
    config: str = typer.Argument(..., help="YAML of settings; or soundworld, mats_stage1, mats_stage2 (ours)."),
    output: str | None = typer.Option(None, help="Over the config's: folder for model, checkpoints and curves."),
    set_: list[str] = typer.Option([], "--set", help="Over the config's: name=value, such as training.steps=100."),
    address: str | None = typer.Option(None, help="Join this Ray cluster; default: a Ray of its own."),
    device: str | None = typer.Option(None, help="auto, cpu, cuda."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Start anew: remove what OUTPUT holds."),
) -> int:
    """Train mapper and adapter on stored embeddings into OUTPUT/model. Run again to continue."""
    from jobs.train import run

    flags = {"output": output, "address": address, "device": device, "overwrite": overwrite or None}
    return run(config, set_, flags)


@command(app, "ask")
def ask(
    files: list[str] = typer.Argument(..., help="Sound files (paths or URLs)."),
    task: str = typer.Option("caption", help="caption, cla_label, music_caption or QA."),
    question: str | None = typer.Option(None, help="The question of task QA."),
    tag: str | None = typer.Option(None, help="Tag put into the prompt (default: the model's)."),
    interactive: bool = typer.Option(
        False, "--interactive", "-i", help="Read questions about one FILE, a line each, until end of input."
    ),
    model: str = typer.Option("builtin", help='Model directory, or "builtin".'),
    segments: bool = typer.Option(False, "--segments", help="Answer every window too, with its times."),
    device: str = typer.Option("auto", help="auto, cpu, cuda."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run Python files of the LLM's own."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a file, or a question."),
) -> int:
    """Answer a few files right here, without Ray."""
    from jobs.ask import Asked, ask_files

    asked = Asked(task, question, tag, model, segments, device, trust_remote_code, interactive, as_json)
    return ask_files(files, asked)


@settings_command(app, "import-reference", ImportSettings, ())
def import_reference(settings: ImportSettings) -> int:
    """Make a model directory of the authors' checkpoint, their LLM and Microsoft's CLAP."""
    from jobs.import_reference import run

    return run(settings)


@command(app, "report")
def report(
    run: str = typer.Argument(..., help="OUTPUT of `mats caption`."),
    out: str = typer.Option("report.html", help="The page to write."),
    truth: str | None = typer.Option(None, help="JSON lines of what is true, a file each."),
) -> int:
    """Write a run as one self-contained HTML page."""
    page = _later("pipelines.pages.report", "report").write_report(run, out, truth)
    typer.echo(f"{out} ({page.size_bytes / 1e6:.1f} MB)")
    return 0


@settings_command(app, "evaluate", EvaluateSettings, ("axes",))
def evaluate(settings: EvaluateSettings) -> int:
    """Answer benchmarks with a model and write metrics and a page; ends with code 4 when a gate closes."""
    return jobs.evaluate.run(settings)


@command(app, "compare")
def compare(
    run_a: str = typer.Argument(..., help="OUTPUT of `mats caption`, or OUT of `mats evaluate`: the old answers."),
    run_b: str = typer.Argument(..., help="The new answers to the same sounds."),
    out: str = typer.Option("compare.html", help="The page to write; a table of all changes goes beside it."),
    model: str = typer.Option("builtin", help="Whose CLAP measures how far two answers are apart."),
    top: int = typer.Option(100, min=1, help="Changes on the page, largest first."),
    device: str = typer.Option("auto", help="auto, cpu, cuda."),
) -> int:
    """Which answers changed between two runs, and by how much, as a page with players."""
    return jobs.evaluate.compare(run_a, run_b, out, model, top, device)


@command(app, "demo")
def demo(
    folder: str = typer.Argument("demo", help="Where to work; made anew each time."),
    seed: int = typer.Option(0, help="Which archive."),
    model: str = typer.Option("builtin", help='Model directory, or "builtin".'),
) -> int:
    """Write a small, untidy archive, caption it, and leave a report to look at and listen to."""
    return int(_later("jobs.demo", "demo").run(folder, seed, model))


@command(app, "doctor")
def doctor() -> int:
    """Print versions, devices, Ray, and what is missing for what."""
    return int(_later("jobs.doctor", "doctor").run())


app.add_typer(soundworld, name="soundworld")
app.add_typer(jobs.evaluate.history, name="history")


@app.command("submit", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def submit(
    job: list[str] = typer.Argument(..., help="The command without `mats`: caption INPUT OUTPUT …"),
    address: str | None = typer.Option(
        None, help="Dashboard of the cluster (default: $RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265)."
    ),
    working_dir: str | None = typer.Option(None, help="Folder that travels to the nodes (default: this checkout)."),
    env: list[str] = typer.Option([], help="NAME or NAME=VALUE for driver and workers; the dashboard shows it."),
    wait: bool = typer.Option(True, "--wait/--no-wait", help="Show the log and end with the job's exit code."),
) -> None:
    """Run a job on a Ray cluster. Options of submit come before the job's name."""
    from jobs.submit import run

    raise typer.Exit(guarded(lambda: run(job, address, working_dir, env, wait)))


benchmark = typer.Typer(help="Measure on this machine.", no_args_is_help=True)
app.add_typer(benchmark, name="benchmark")


@command(benchmark, "caption")
def benchmark_caption(
    files: int = typer.Option(2000, help="Clips to answer."),
    model: str = typer.Option("builtin", help='Model directory, or "builtin".'),
    seconds: float = typer.Option(10.0, help="Longest clip; lengths vary from a fifth of it."),
    rounds: int = typer.Option(1, help="Pipelines to run, each between two runs of the plain processes."),
    folder: str | None = typer.Option(None, help="Where to work (default: a temporary folder, removed)."),
    driver_memory: bool = typer.Option(
        False, "--driver-memory", help="Peak memory of the driver for 1 000 and 10 000 clips instead."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """The same files by plain processes without Ray and by the Ray pipeline: clips/s, stages, ratio."""
    from jobs.benchmarks.caption import run_benchmark

    return run_benchmark(files, model, seconds, rounds, folder, driver_memory, as_json)


@command(benchmark, "evaluate")
def benchmark_evaluate(
    clips: int = typer.Option(1000, help="Clips of the embedded world to answer."),
    model: str = typer.Option("builtin", help='Model directory, or "builtin".'),
    folder: str | None = typer.Option(None, help="Where to work (default: a temporary folder, removed)."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """The same clips by `mats caption` and by `mats evaluate`: answers/s of both, ratio, time in all."""
    from jobs.benchmarks.evaluate import run_benchmark

    return run_benchmark(clips, model, folder, as_json)


@command(benchmark, "scan")
def benchmark_scan(
    files: int = typer.Option(1_000_000, help="Objects in the bucket."),
    headers: int = typer.Option(2000, help="Objects whose headers are read."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """A bucket of a million objects into a manifest: objects/s, memory of the driver, headers/s."""
    from jobs.benchmarks.scan import run_benchmark

    return run_benchmark(files, headers, as_json)


@command(benchmark, "train")
def benchmark_train(
    size: str = typer.Option("small", help="LLM: builtin, small or 7b (random weights, no download)."),
    steps: int = typer.Option(30, help="Steps measured, each way."),
    batch: int = typer.Option(48, help="Samples a step."),
    device: str = typer.Option("auto", help="auto, cpu, cuda."),
    encoder: str = typer.Option("builtin", help="Whose text tower: msclap:FILE, hf:NAME, a directory, or builtin."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """A step on stored embeddings beside one that runs the text tower: times, tokens/s, waiting, MFU."""
    from jobs.benchmarks.train import run_benchmark

    return run_benchmark(size, steps, batch, device, encoder, as_json)


@command(benchmark, "core")
def benchmark_core(
    size: str = typer.Option("small", help="small, or full: LLaMA 7B and Microsoft CLAP, random weights."),
    device: str = typer.Option("auto", help="auto, cpu, cuda."),
    reference: str | None = typer.Option(None, help="Recorded runs of the authors' code (default: the repository's)."),
    clips: int = typer.Option(64, help="Answers measured, and on a CPU the largest batch."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """The model without Ray: parity with the recorded runs, memory, load time, answers/s by batch size."""
    from jobs.benchmarks.core import run_benchmark

    return run_benchmark(size, device, reference, clips, as_json)


@command(benchmark, "memory")
def benchmark_memory(
    alone: bool = typer.Option(False, "--alone", help="A million captions by themselves: build, recall, time."),
    entries: int | None = typer.Option(None, help="Captions (default: 5172 beside plain PyTorch, else 1 000 000)."),
    clusters: int | None = typer.Option(None, help="Clusters (default: 100 beside plain PyTorch, else 1000)."),
    folder: str | None = typer.Option(None, help="Where to work (default: a temporary folder, removed)."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """Santa's memory beside plain PyTorch k-means and per-sample search; or alone at a million captions."""
    from jobs.benchmarks.memory import run_benchmark

    few, many = (1_000_000, 1000) if alone else (5172, 100)
    return run_benchmark(entries or few, clusters or many, alone, folder, as_json)


@command(benchmark, "embed-text")
def benchmark_embed_text(
    weights: str | None = typer.Option(None, help="CLAP_weights_2023.pth (default: random weights of its sizes)."),
    captions: int = typer.Option(600, help="Distinct captions; the corpus has three records of each."),
    driver_memory: bool = typer.Option(
        False, "--driver-memory", help="Peak memory of the driver for 10 000 and 1 000 000 captions instead."
    ),
    folder: str | None = typer.Option(None, help="Where to work (default: a temporary folder, removed)."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """Microsoft CLAP's text tower by the msclap package and by `mats embed-text`, on the same corpus: records/s."""
    from jobs.benchmarks.embed_text import run_benchmark

    return run_benchmark(weights, captions, driver_memory, folder, as_json)


@command(benchmark, "scale")
def benchmark_scale(
    nodes: list[int] = typer.Option([1, 2, 4, 8], help="Nodes of the clusters, one after the other."),
    seconds: float = typer.Option(40.0, min=1, help="Seconds of waiting a node."),
    row_s: float = typer.Option(0.1, min=0.001, help="Seconds the stand-in model waits a row."),
    folder: str | None = typer.Option(None, help="Where to work (default: a temporary folder, removed)."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """Rows/s on 1, 2, 4 and 8 nodes with a model that waits; pools that grow and shrink; a slow node."""
    from jobs.benchmarks.scale import run_benchmark

    return run_benchmark(nodes, seconds, row_s, folder, as_json)


def _later(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise got_allowed("command", name, "a command of this installation (its module is missing)") from None


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of `mats`."""
    signal.signal(signal.SIGTERM, _stop)  # a stopped pod or job keeps what is done, as Ctrl-C does
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of files may be anything
    app()
