"""`mats caption`, `mats embed-audio`, `mats scan` and `mats compact`: archives of sound in, Parquet out."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import typer

from jobs.terminal.commands import EXIT_INTERRUPTED, EXIT_TOO_MANY_ERRORS
from jobs.terminal.options import settings_command
from mats_core.errors import counted
from mats_core.storage.uris import public_uri
from pipelines.settings.archive import CaptionSettings, EmbedSettings, RunSettings, ScanSettings
from pipelines.settings.compact import CompactSettings

if TYPE_CHECKING:
    from pipelines.archive.dry_run import Estimate
    from pipelines.archive.run import RunResult

app = typer.Typer()
BOTH_WAYS = '"mats ask FILE" answers a few files here and now, "mats caption FILE OUTPUT" writes answers into a folder'


@settings_command(app, "caption", CaptionSettings, otherwise=BOTH_WAYS)
def caption(settings: CaptionSettings) -> int:
    """Answer every sound of INPUT into OUTPUT/answers (Parquet). Run again to continue."""
    from mats_core.soundworld.doubts import doubt

    if settings.task == "QA" and settings.question and (warning := doubt(settings.model, settings.question)):
        _warn(warning)
    from jobs.terminal.display import RunDisplay

    with RunDisplay("clips") as display:
        if settings.dry_run:
            from pipelines.archive.dry_run import run_dry

            estimate = run_dry(settings, display)
        else:
            from pipelines.archive.caption import run_caption

            result = run_caption(settings, display)
            if why := result.run.get("calibration_unused"):
                _warn(f"answers have no confidence: {why}; calibrate the model anew with `mats calibrate`")
    return print_estimate(estimate) if settings.dry_run else finish(result, settings, "caption", "clips")


@settings_command(app, "embed-audio", EmbedSettings)
def embed_audio(settings: EmbedSettings) -> int:
    """Embed every sound of INPUT into OUTPUT/embeddings, to be asked later by `mats caption OUTPUT …`."""
    from jobs.terminal.display import RunDisplay
    from pipelines.archive.embed_audio import run_embed_audio

    with RunDisplay("clips") as display:
        result = run_embed_audio(settings, display)
    return finish(result, settings, "embed-audio", "clips")


@settings_command(app, "scan", ScanSettings)
def scan(settings: ScanSettings) -> int:
    """List INPUT and read its headers into a manifest, one row a chunk of about a minute."""
    from jobs.terminal.display import RunDisplay, skipped_endings
    from pipelines.archive.scan import run_scan
    from pipelines.cluster.progress import Progress

    with RunDisplay("files") as display:
        result = run_scan(
            settings, lambda seen: display(Progress("scan", seen.files, errors=sum(seen.errors.values())))
        )
    added = result.added
    skipped = f"skipped: {skipped_endings(added.skipped)}\n" if added.skipped else ""
    rate = (added.files + result.known_files) / max(1e-9, result.wall_s)
    typer.echo(
        f"{counted(added.files, 'file')} new ({result.known_files} known), {counted(added.chunks, 'chunk')}, "
        f"{added.seconds / 3600:.2f} h, {added.bytes / 1e6:.1f} MB\n"
        f"formats: {_counts(added.formats)}\nerrors: {_counts(added.errors)}\n{skipped}"
        f"time: {result.wall_s:.1f} s, {rate:.0f} files/s\n"
        f"manifest: {public_uri(result.manifest)} ({counted(result.total_rows, 'row')})\n"
        f"next: mats caption {shlex.quote(public_uri(result.manifest))} ANSWERS"
    )
    return 0


@settings_command(app, "compact", CompactSettings)
def compact(settings: CompactSettings) -> int:
    """Write the many part files of a finished run as few large files into a new data set. Run again to continue."""
    from jobs.terminal.display import duration
    from pipelines.compact import run_compact

    result = run_compact(settings)
    new = "" if result.new_rows == result.rows else f", {result.new_rows} new"
    pruned = f", without {result.pruned} of files that are gone (--prune)" if result.pruned else ""
    typer.echo(
        f"rows    {result.rows}{new}{pruned}\nfiles   {result.files}, of {result.parts} parts\n"
        f"size    {result.bytes / 1e6:.1f} MB\n"
        f"time    {duration(result.wall_s)}\noutput  {result.folder}"
    )
    return 0


def finish(result: RunResult, settings: RunSettings, job: str, what: str) -> int:
    """Print how a run ended; its exit code."""
    from jobs.terminal.display import print_result, several, to_continue

    if result.begun_with:
        same = "files of the same path, size and time are the same ones to it"
        _warn(f"OUTPUT was begun with INPUT {result.begun_with}; {same}")
    if result.status == "interrupted":
        done = "while INPUT was read; what was read is kept"
        if result.run:
            print_result(result, what)
            done = f"{result.run['rows_done']} of {result.rows} {what} are kept"
        again = f"mats {job} {public_uri(settings.input)} {public_uri(settings.output)} …"
        _warn(f"interrupted; {done}. {to_continue(settings.overwrite)}: {again}")
        return EXIT_INTERRUPTED
    print_result(result, what)
    if result.status == "incomplete":
        missing = result.rows - result.run["rows_done"]
        _warn(f"{missing} {several(missing, what)} {'is' if missing == 1 else 'are'} missing; run again")
        return 1
    if result.rows and sum(result.errors.values()) == result.rows:
        from pipelines.output.parts import first_error

        every = f"all {result.rows}" if result.rows > 1 else "the only"
        _warn(f"{every} {several(result.rows, what)} failed; the first: {first_error(result.output)}")
        return EXIT_TOO_MANY_ERRORS
    if result.error_rate > settings.max_error_rate:
        _warn(f"{result.error_rate:.1%} of rows failed; --max-error-rate allows {settings.max_error_rate:.1%}")
        return EXIT_TOO_MANY_ERRORS
    where = shlex.quote(public_uri(settings.output))
    typer.echo(f"next    mats report {where}" if job == "caption" else f"next    mats caption {where} ANSWERS")
    return 0


def _warn(text: str) -> None:
    typer.echo(f"mats: {text}", err=True)


def print_estimate(found: Estimate) -> int:
    """What `--dry-run` found: how much there is, and how long it will take; exit code 0."""
    from jobs.terminal.display import duration, print_facts, skipped_endings

    seen = found.seen
    rows: list[tuple[str, Any]] = [
        ("files", f"{seen.files} new" + (f", {found.known_files} known to OUTPUT" if found.known_files else "")),
        ("audio", f"{seen.seconds / 3600:.2f} h in {counted(seen.chunks, 'chunk')}, {seen.bytes / 1e6:.1f} MB"),
        ("formats", _counts(seen.formats)),
        ("errors", _counts(seen.errors)),
        *([("skipped", skipped_endings(seen.skipped))] if seen.skipped else []),
        ("to do", counted(found.rows, "clip") + (f", {found.done} are done" if found.done else "")),
    ]
    rows += _memory(found)
    if found.per_row_s is not None and found.wall_s is not None and found.core_hours is not None:
        decode_ms, model_ms = (found.per_row_s[stage] * 1000 for stage in ("decode", "model"))
        sample = f"{counted(found.sample_rows, 'clip')}, {duration(found.sample_audio_s)} of audio"
        rows.append(("sample", f"{sample}: decode {decode_ms:.0f} ms and model {model_ms:.0f} ms a clip"))
        devices = f"{found.gpus} GPUs" if found.gpus else f"{found.cores} cores"
        machine = f"on this machine ({devices}, {found.actors} model processes)"
        gpu_hours = "not measured: no GPU here" if found.gpu_hours is None else f"{found.gpu_hours:.2f}"
        rows.append(("time", f"about {duration(found.wall_s)} {machine}"))
        rows += [("core hours", f"{found.core_hours:.2f}"), ("GPU hours", gpu_hours)]
    elif found.rows:
        fits = all(card.slots for card in found.cards)
        rows.append(("time", "unknown: " + ("no clip that could be measured" if fits else "the model does not fit")))
    print_facts(rows)
    return 0


def _memory(found: Estimate) -> list[tuple[str, str]]:
    """What the model takes, and whether the GPUs here have it."""
    if found.needs is None:
        return []
    rows = [("model", str(found.needs))]
    if not found.cards and found.needs.llm_dtype != "float32":
        rows.append(("GPU", f"none here; a card needs {found.needs.total / 1e9:.1f} GB free"))
    for number, card in enumerate(found.cards):
        fits = f"fits, {card.slots} answers at once" if card.slots else "too small"
        free = f"{card.free / 1e9:.1f} GB free of {card.total / 1e9:.1f}"
        rows.append((f"GPU {number}", f"{card.name}, {free}: {fits}"))
    return rows


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
