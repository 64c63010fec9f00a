"""`mats benchmark …`: the options of each benchmark. What measures is imported by the command that runs."""

from __future__ import annotations

import typer

from jobs.terminal.commands import command

app = typer.Typer(help="Measure on this machine.", no_args_is_help=True)


@command(app, "caption")
def caption(
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
    from jobs.benchmarks.pipeline.caption import run_benchmark

    return run_benchmark(files, model, seconds, rounds, folder, driver_memory, as_json)


@command(app, "evaluate")
def evaluate(
    clips: int = typer.Option(1000, help="Clips of the embedded world to answer."),
    model: str = typer.Option("builtin", help='Model directory, or "builtin".'),
    folder: str | None = typer.Option(None, help="Where to work (default: a temporary folder, removed)."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """The same clips by `mats caption` and by `mats evaluate`: answers/s of both, ratio, time in all."""
    from jobs.benchmarks.pipeline.evaluate import run_benchmark

    return run_benchmark(clips, model, folder, as_json)


@command(app, "score")
def score(
    files: int = typer.Option(640, help="Clips to answer."),
    model: str = typer.Option("builtin", help='Model directory, or "builtin".'),
    seconds: float = typer.Option(10.0, help="Longest clip; lengths vary from a fifth of it."),
    task: str = typer.Option("caption", help="caption, cla_label, music_caption or QA."),
    folder: str | None = typer.Option(None, help="Where to work (default: a temporary folder, removed)."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """The same clips asked with --score and with --no-score: CPU time of both, and the share that scores take."""
    from jobs.benchmarks.pipeline.score import run_benchmark

    return run_benchmark(files, model, seconds, task, folder, as_json)


@command(app, "scan")
def scan(
    files: int = typer.Option(1_000_000, help="Objects in the bucket."),
    headers: int = typer.Option(2000, help="Objects whose headers are read."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """A bucket of a million objects into a manifest: objects/s, memory of the driver, headers/s."""
    from jobs.benchmarks.scan import run_benchmark

    return run_benchmark(files, headers, as_json)


@command(app, "train")
def train(
    size: str = typer.Option("small", help="LLM: builtin, small or 7b (random weights, no download)."),
    steps: int = typer.Option(30, help="Steps measured, each way."),
    batch: int = typer.Option(48, help="Samples a step."),
    device: str = typer.Option("auto", help="auto, cpu, cuda."),
    encoder: str = typer.Option("builtin", help="Whose text tower: msclap:FILE, hf:NAME, a directory, or builtin."),
    compiled: bool | None = typer.Option(
        None, "--compiled/--not-compiled", help="Compiled decoder layers too (default: on a GPU; minutes on a CPU)."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """A step on stored embeddings beside one that runs the text tower, and beside itself as it was: times, MFU."""
    from jobs.benchmarks.train import run_benchmark

    return run_benchmark(size, steps, batch, device, encoder, as_json, compiled)


@command(app, "core")
def core(
    size: str = typer.Option("small", help="small, or full: LLaMA 7B and Microsoft CLAP, random weights."),
    device: str = typer.Option("auto", help="auto, cpu, cuda."),
    reference: str | None = typer.Option(None, help="Recorded runs of the authors' code (default: the repository's)."),
    clips: int = typer.Option(64, help="Answers measured, and on a CPU the largest batch."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """The model without Ray: parity with the recorded runs, memory, load time, answers/s by batch size."""
    from jobs.benchmarks.core import run_benchmark

    return run_benchmark(size, device, reference, clips, as_json)


@command(app, "gpu")
def gpu(
    size: str = typer.Option("7b", help="7b, or small: what can be tried on a CPU."),
    device: str = typer.Option("auto", help="auto, cpu, cuda."),
    section: list[str] = typer.Option([], help="Only this section; repeat for more (default: all)."),
    out: str | None = typer.Option(None, help="A new file for the results: JSON lines, as soon as they are there."),
    as_json: bool = typer.Option(False, "--json", help="Print the JSON lines alone."),
) -> int:
    """All that only a GPU can show, in at most 8 minutes: ceilings, parity, answers/s, CLAP, training."""
    from jobs.benchmarks.gpu.run import run_benchmark

    return run_benchmark(size, device, section, out, as_json)


@command(app, "generate")
def generate(
    llm: list[str] = typer.Option(["builtin", "100m"], help="builtin, 100m (random weights, no download)."),
    requests: int = typer.Option(256, help="Prompts answered."),
    batch: list[int] = typer.Option([16, 32, 64], min=1, help="Batch sizes of `generate`, one after the other."),
    slots: list[int] = typer.Option([16, 32, 64], min=1, help="Slots of the beam loop, one after the other."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """The same prompts by transformers' `generate` and by the beam loop: answers/s, ratio, equal answers."""
    from jobs.benchmarks.generate import run_benchmark

    return run_benchmark(llm, requests, batch, slots, as_json)


@command(app, "memory")
def memory(
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


@command(app, "search")
def search(
    windows: int = typer.Option(1_000_000, min=1000, help="Windows of 1024 numbers in the run."),
    bridges: bool = typer.Option(False, "--bridges", help="Which way finds best on the embedded world instead."),
    clips: int = typer.Option(2000, min=200, help="With --bridges: clips of the embedded world."),
    folder: str | None = typer.Option(None, help="Where to work (default: a temporary folder, removed)."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """The index of a run: time to build, size, recall against exact search, time a query; or how well it finds."""
    if bridges:
        from jobs.benchmarks.finding import run_benchmark as compare

        return compare(clips, folder, as_json)
    from jobs.benchmarks.search import run_benchmark

    return run_benchmark(windows, folder, as_json)


@command(app, "serve")
def serve(
    rows: int = typer.Option(10_000_000, min=1000, help="Rows of the run."),
    folder: str | None = typer.Option(None, help="Where to work (default: a temporary folder, removed)."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """Pages and searches of `mats serve` over a run of millions of rows: time to catalog it, time a page."""
    from jobs.benchmarks.pipeline.serve import run_benchmark

    return run_benchmark(rows, folder, as_json)


@command(app, "embed-text")
def embed_text(
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


@command(app, "scale")
def scale(
    nodes: list[int] = typer.Option([1, 2, 4, 8], help="Nodes of the clusters, one after the other."),
    seconds: float = typer.Option(40.0, min=1, help="Seconds of waiting a node."),
    row_s: float = typer.Option(0.1, min=0.001, help="Seconds the stand-in model waits a row."),
    folder: str | None = typer.Option(None, help="Where to work (default: a temporary folder, removed)."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> int:
    """Rows/s on 1, 2, 4 and 8 nodes with a model that waits; pools that grow and shrink; a slow node."""
    from jobs.benchmarks.scale import run_benchmark

    return run_benchmark(nodes, seconds, row_s, folder, as_json)
