"""`mats caption --dry-run`: the estimate on the terminal."""

from __future__ import annotations

from pipelines.settings.archive import CaptionSettings


def run(settings: CaptionSettings) -> int:
    """Scan, measure, print; nothing is written. Raises SettingsError."""
    from rich.console import Console
    from rich.table import Table

    from jobs.terminal.display import RunDisplay, duration
    from pipelines.archive.dry_run import run_dry

    with RunDisplay("clips") as display:
        found = run_dry(settings, display)
    seen = found.seen
    table = Table(show_header=False, box=None, pad_edge=False)

    def row(name: str, text: str) -> None:
        table.add_row(name, text)

    row("files", f"{seen.files} new" + (f", {found.known_files} known to OUTPUT" if found.known_files else ""))
    row("audio", f"{seen.seconds / 3600:.2f} h in {seen.chunks} chunks, {seen.bytes / 1e6:.1f} MB")
    row("formats", _counts(seen.formats))
    row("errors", _counts(seen.errors))
    row("to do", f"{found.rows} clips" + (f", {found.done} are done" if found.done else ""))
    if found.per_row_s is not None and found.wall_s is not None and found.core_hours is not None:
        per_row = found.per_row_s
        row(
            "sample",
            f"{found.sample_rows} clips, {duration(found.sample_audio_s)} of audio: decode "
            f"{per_row['decode'] * 1000:.0f} ms and model {per_row['model'] * 1000:.0f} ms a clip",
        )
        with_what = f"{found.gpus} GPUs" if found.gpus else f"{found.cores} cores"
        row("time", f"about {duration(found.wall_s)} on this machine ({with_what}, {found.actors} model processes)")
        row("core hours", f"{found.core_hours:.2f}")
        row("GPU hours", f"{found.gpu_hours:.2f}" if found.gpu_hours is not None else "not measured: no GPU here")
    elif found.rows:
        row("time", "unknown: no clip that could be measured")
    Console().print(table)
    return 0


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
