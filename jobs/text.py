"""`mats corpus`, `embed-text`, `build-memory`, `noise`: published files → corpora → embeddings and what follows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from jobs.terminal.commands import EXIT_INTERRUPTED
from jobs.terminal.options import settings_command
from mats_core.errors import counted
from mats_core.storage.uris import public_uri
from pipelines.settings.corpus import CorpusSettings
from pipelines.settings.text import BuildMemorySettings, EmbedTextSettings, NoiseSettings

if TYPE_CHECKING:
    from jobs.terminal.display import Display
    from pipelines.cluster.progress import Progress
    from pipelines.corpus.definition import CorpusSet
    from pipelines.corpus.run import CorpusResult
    from pipelines.text.embed_text import EmbedTextResult

app = typer.Typer()


@settings_command(app, "corpus", CorpusSettings, ("names",))
def corpus(settings: CorpusSettings) -> int:
    """Write the training records of NAMES, from files as their publishers ship them, into OUT/records/NAME."""
    if settings.list_:
        return _list_corpora(settings)
    from jobs.terminal.display import Display, to_continue
    from pipelines.corpus.run import run_corpus

    with Display("reading the files") as display:
        result = run_corpus(settings, lambda progress: show_corpus(display, progress))
    print_corpus(result)
    if result.status == "interrupted":
        print(f"mats: interrupted; finished parts are kept. {to_continue(settings.overwrite)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def show_corpus(display: Display, progress: Progress) -> None:
    """Sets read and checked, then records written."""
    if progress.stage == "run":
        figures = f"{progress.done:,} of {progress.total:,} records"
        display.show("writing", progress.done, progress.total, figures)
    else:
        display.show("reading the files", None, None, f"{progress.done} sets read" if progress.done else "")


def _list_corpora(settings: CorpusSettings) -> int:
    """Every set, or those named: what it needs, where it is from, its licence, records to expect; with --data, what is
    missing."""
    from pipelines.corpus.definition import list_corpus_sets, load_corpus_set

    for name in settings.names if settings.names not in ([], ["all"]) else list_corpus_sets():
        print_set(load_corpus_set(name), settings.data)
    return 0


def print_set(definition: CorpusSet, data: str) -> None:
    """A set for people, on stdout."""
    from pipelines.corpus.reading import missing

    where = definition.folder or definition.name
    needs = [" or ".join(definition.paths(role)) for role in definition.files]
    needs += [definition.origin_file] * bool(definition.origin_file)
    needs += ["its audio files, by their names"] * (not definition.files)
    rows = [
        ("needs", f"{where}/: {'; '.join(needs)}"),
        ("takes", f"{definition.split}: {definition.counted('clips')}, {definition.publishes}"),
        ("from", definition.source),
        ("licence", definition.licence),
        ("note", definition.note),
    ]
    if definition.text_from:
        rows.insert(1, ("text", f"of the sound, from {', '.join(definition.text_from)}"))
    if data:
        rows.append(("here", "; ".join(missing(definition, data)) or "ready"))
    typer.echo(f"{definition.name}: {definition.title}, {definition.counted('records')}")
    for head, text in rows:
        if text:
            typer.echo(f"    {head:8} {text}")


def print_corpus(result: CorpusResult) -> None:
    """The end of a run, on stdout: each set with what it has and what was left out of it."""
    from jobs.terminal.display import duration, print_done_before, print_facts

    if result.status == "complete_before":
        records = sum(tally.records for tally in result.sets.values())
        print_done_before(f"{records:,} records of {len(result.sets)} sets in {public_uri(result.out)}")
        return
    rows = []
    for name, tally in result.sets.items():
        text = f"{tally.records:,} records of {tally.used:,} clips"
        left = [f"{count:,} that {by} asks" for by, count in sorted(tally.left_out.items())]
        if left and result.status != "dry_run":
            left[-1] += f" (_left_out/{name}.json)"
        left += [f"{tally.empty:,} without labels or text"] * bool(tally.empty)
        left += [f"{tally.silent:,} whose sound no text is known of"] * bool(tally.silent)
        rows.append((name, text + (f"; left out: {', '.join(left)}" if left else "")))
        told = result.run.get("sets", {}).get(name, {})
        if by := told.get("written_by"):
            rows.append(("", f"written by {', '.join(f'{who} {count:,}' for who, count in by.items())}"))
        if threes := told.get("three_words"):
            rows.append(
                ("", f"{threes['distinct']:,} of {threes['of']:,} runs of three words are distinct (first part)")
            )
        if result.unchecked.get(name):
            why = "their files, or what tells where clips come from, are not under --data"
            rows.append(("", f"not compared with {', '.join(result.unchecked[name])}: {why}"))
    if result.status == "dry_run":
        print_facts(rows, soft_wrap=True)
        return
    rows.append(("records", f"{result.run['records_new']:,} new"))
    rows.append(("time", duration(result.run["wall_s"])))
    print_facts([*rows, ("output", public_uri(result.out))], soft_wrap=True)


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
        ("records", f"{run['records']} in {counted(run['files'], 'file')}"),
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

    with Display("reading the settings") as display:
        result = run_noise(settings, lambda: display.show("hearing the pairs", None, None, ""))
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
