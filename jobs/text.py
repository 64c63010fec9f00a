"""`mats embed-text`, `mats build-memory`, `mats noise`: corpora in, caption embeddings and what is made of them out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from jobs.terminal.commands import EXIT_INTERRUPTED
from jobs.terminal.options import settings_command
from mats_core.storage.uris import public_uri
from pipelines.settings.text import BuildMemorySettings, EmbedTextSettings, NoiseSettings

if TYPE_CHECKING:
    from pipelines.text.embed_text import EmbedTextResult

app = typer.Typer()


@settings_command(app, "embed-text", EmbedTextSettings, ("corpora", "output"))
def embed_text(settings: EmbedTextSettings) -> int:
    """Embed every distinct caption of CORPORA into OUTPUT/embeddings, for training and for Santa's memory."""
    from jobs.terminal.display import RunDisplay, to_continue
    from pipelines.text.embed_text import run_embed_text

    with RunDisplay("records", "embedding") as display:
        result = run_embed_text(settings, display)
    print_embedded(result)
    if result.status == "interrupted":
        print(f"mats: interrupted; finished parts are kept. {to_continue(settings.overwrite)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def print_embedded(result: EmbedTextResult) -> None:
    """The end of a run, on stdout."""
    from jobs.terminal.display import duration, print_done_before, print_facts

    if result.status == "complete_before":
        print_done_before(f"{result.run['captions']} captions in {public_uri(result.output)}")
        return
    run = result.run
    problems = ", ".join(f"{name} {count}" for name, count in sorted(run["problems"].items()))
    rows = [
        ("records", f"{run['records']} in {run['files']} files"),
        ("unusable", f"{run['bad']}: {problems}; lines in _corpora.json" if run["bad"] else "none"),
        ("captions", f"{run['captions']} distinct"),
        ("time", duration(run["wall_s"])),
    ]
    if run["records_new"]:
        rows.append(("rate", f"{run['records_per_s']:.0f} records/s once started"))
    print_facts([*rows, ("output", public_uri(result.output))])


@settings_command(app, "build-memory", BuildMemorySettings, ("embeddings", "output"))
def build_memory(settings: BuildMemorySettings) -> int:
    """Build Santa's memory out of caption embeddings."""
    from jobs.terminal.display import RunDisplay, duration, print_facts
    from pipelines.text.build_memory import run_build_memory

    with RunDisplay("captions", "filling the clusters") as display:
        result = run_build_memory(settings, display)
    memory = result.memory
    times = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result.times.items())
    print_facts(
        [
            ("captions", f"{memory['count']} of {memory['dim']} numbers ({memory['storage']})"),
            ("clusters", str(memory["clusters"])),
            ("size", f"{memory['index_bytes'] / 1e6:.1f} MB"),
            ("time", f"{duration(result.wall_s)} ({times})"),
            ("output", public_uri(result.output)),
        ]
    )
    return 0


@settings_command(app, "noise", NoiseSettings, ("embeddings",))
def noise(settings: NoiseSettings) -> int:
    """Estimate from pairs of sound and caption how much noise to train with (training.noise_variance: estimated)."""
    from jobs.terminal.display import Display, print_facts
    from pipelines.text.noise import run_noise

    with Display("hearing the pairs") as display:
        display.show("hearing the pairs", None, None, "")
        result = run_noise(settings)
    found = result.estimate
    rows = [
        ("pairs", f"{found.pairs}, mean cosine {found.cosine:.3f}"),
        (
            "variance",
            f"{found.variance:.4g} ± {found.standard_error:.2g} (as the paper: the mean largest difference, squared)",
        ),
        ("beside it", f"{found.mean_square:.4g} (mean squared difference a dimension)"),
        ("", f"{found.centred:.4g} (the same without the mean difference of all pairs)"),
        *[("left out", text) for text in result.left_out[:5]],
        ("written", public_uri(result.uri)),
    ]
    print_facts(rows, soft_wrap=True)
    return 0
