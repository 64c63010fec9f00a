"""`mats corpus`: published labels, captions and questions in, corpus records out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from jobs.terminal.commands import EXIT_INTERRUPTED
from jobs.terminal.options import settings_command
from mats_core.storage.uris import public_uri
from pipelines.settings.corpus import CorpusSettings

if TYPE_CHECKING:
    from jobs.terminal.display import Display
    from pipelines.cluster.progress import Progress
    from pipelines.corpus.definition import CorpusSet
    from pipelines.corpus.run import CorpusResult

app = typer.Typer()


@settings_command(app, "corpus", CorpusSettings, ("names",))
def corpus(settings: CorpusSettings) -> int:
    """Write the training records of NAMES, from files as their publishers ship them, into OUT/records/NAME."""
    if settings.list_:
        return _list(settings)
    from jobs.terminal.display import Display, to_continue
    from pipelines.corpus.run import run_corpus

    with Display("reading the files") as display:
        result = run_corpus(settings, lambda progress: show(display, progress))
    print_corpus(result)
    if result.status == "interrupted":
        print(f"mats: interrupted; finished parts are kept. {to_continue(settings.overwrite)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def show(display: Display, progress: Progress) -> None:
    """Sets read and checked, then records written."""
    if progress.stage == "run":
        figures = f"{progress.done:,} of {progress.total:,} records"
        display.show("writing", progress.done, progress.total, figures)
    else:
        display.show("reading the files", None, None, f"{progress.done} sets read" if progress.done else "")


def _list(settings: CorpusSettings) -> int:
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
        ("takes", f"{definition.split}: {definition.clips:,} clips, {definition.publishes}"),
        ("from", definition.source),
        ("licence", definition.licence),
        ("note", definition.note),
    ]
    if definition.text_from:
        rows.insert(1, ("text", f"of the sound, from {', '.join(definition.text_from)}"))
    if data:
        rows.append(("here", "; ".join(missing(definition, data)) or "ready"))
    typer.echo(f"{definition.name}: {definition.title}, {definition.records:,} records")
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
        left += [f"{tally.empty:,} without labels or text"] * bool(tally.empty)
        left += [f"{tally.silent:,} whose sound no text is known of"] * bool(tally.silent)
        rows.append((name, text + (f"; left out: {', '.join(left)}" if left else "")))
        if result.unchecked.get(name):
            why = "their files, or what tells where clips come from, are not under --data"
            rows.append(("", f"not compared with {', '.join(result.unchecked[name])}: {why}"))
    if result.status == "dry_run":
        print_facts(rows, soft_wrap=True)
        return
    rows.append(("records", f"{result.run['records_new']:,} new"))
    rows.append(("time", duration(result.run["wall_s"])))
    print_facts([*rows, ("output", public_uri(result.out))], soft_wrap=True)
