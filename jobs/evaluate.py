"""`mats report`, `mats evaluate`, `mats compare` and `mats history`: how answers look and how good they are."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from jobs.terminal.commands import EXIT_GATE_CLOSED, EXIT_INTERRUPTED, EXIT_TOO_MANY_ERRORS, command
from jobs.terminal.options import settings_command
from mats_core.errors import SettingsError
from mats_core.storage.uris import public_uri
from pipelines.settings.evaluate import EvaluateSettings

app = typer.Typer()
history = typer.Typer(help="Runs of `mats evaluate` over time: print and draw, accept, pin.", no_args_is_help=True)
_URL = typer.Option("", "--history", help="Folder (path or URL) of the history (default: $MATS_HISTORY).")


@command(app, "report")
def report(
    run: str = typer.Argument(..., help="OUTPUT of `mats caption`."),
    out: str = typer.Option("report.html", help="The page to write."),
    truth: str | None = typer.Option(None, help="JSON lines of what is true, a file each."),
) -> int:
    """Write a run as one self-contained HTML page."""
    from pipelines.pages.report import write_report

    page = write_report(run, out, truth)
    typer.echo(f"{out} ({page.size_bytes / 1e6:.1f} MB)")
    return 0


@settings_command(app, "evaluate", EvaluateSettings, ("axes",))
def evaluate(settings: EvaluateSettings) -> int:
    """Answer benchmarks with a model and write metrics and a page; ends with code 4 when a gate closes."""
    if settings.list_:
        return _list(settings)
    if not settings.history and os.environ.get("MATS_HISTORY"):
        settings = settings.model_copy(update={"history": os.environ["MATS_HISTORY"]})
    from jobs.terminal.display import RunDisplay, to_continue
    from pipelines.evaluate.run import run_evaluate

    shown: dict[str, RunDisplay | None] = {}  # the stage that is on, and its display where it has progress

    with ExitStack() as stack:

        def follow(stage: str, progress: Any) -> None:
            if stage not in shown:
                stack.close()
                shown.clear()
                shown[stage] = None
                if progress is None:
                    typer.echo(_STAGES.get(stage, stage), err=True)
                else:
                    what = "sounds" if stage == "heard" else "answers"
                    shown[stage] = stack.enter_context(RunDisplay(what, _verb(stage)))
            display = shown[stage]
            if display is not None:
                display(progress)

        done = run_evaluate(settings, follow)
    if done.status == "interrupted":
        typer.echo(f"mats: interrupted; what is answered is kept. {to_continue(settings.overwrite)}", err=True)
        return EXIT_INTERRUPTED
    if done.status != "complete":
        typer.echo("mats: answers are missing; run again", err=True)
        return 1
    print_evaluation(settings, done)
    if done.verdict is not None and not done.verdict.open:
        for reason in done.verdict.reasons:
            typer.echo(f"mats: gate closed: {reason}", err=True)
        return EXIT_GATE_CLOSED
    if done.error_rate > settings.max_error_rate:
        typer.echo(
            f"mats: {done.error_rate:.1%} of answers failed; --max-error-rate allows {settings.max_error_rate:.1%}",
            err=True,
        )
        return EXIT_TOO_MANY_ERRORS
    return 0


_STAGES = {"scores": "scoring", "page": "writing the page"}


def _verb(stage: str) -> str:
    return "hearing" if stage == "heard" else "answering" if stage == "run" else f"answering {stage}"


def _list(settings: EvaluateSettings) -> int:
    """Every data set, whether it can be evaluated, and what is missing where it cannot."""
    from pipelines.evaluate.datasets import list_evaluation_sets, load_evaluation_set, missing

    names = list_evaluation_sets()
    roots = settings.roots(names)
    for name in names:
        definition = load_evaluation_set(name)
        lacking = missing(definition, roots[name])
        state = "ready" if not lacking else "missing: " + "; ".join(lacking)
        typer.echo(f"{name:18} {definition.kind:8} {state}")
    return 0


def print_evaluation(settings: EvaluateSettings, done: Any) -> None:
    """What an evaluation measured, on stdout: metrics with their intervals, what failed, the gate, the page."""
    from rich.console import Console
    from rich.table import Table

    from mats_core import storage

    console = Console()
    if len(done.cells) > 1:
        axes = list(done.cells[0].cell.values)
        names = [result.data.name for result in done.cells[0].results]
        firsts = [result.leading for result in done.cells[0].results]
        heads = [f"{name} {metric.name if metric else ''}" for name, metric in zip(names, firsts, strict=True)]
        table = Table(*axes, *heads, box=None, pad_edge=False, header_style="bold")
        for each in done.cells:
            figures = [_figure(result.leading) for result in each.results]
            table.add_row(*each.cell.values.values(), *figures)
        console.print(table)
    else:
        for result in done.cells[0].results:
            names = list(result.baselines)
            table = Table(
                result.data.name, "value", "95 % interval", "items", *names,
                box=None, pad_edge=False, header_style="bold",
            )  # fmt: skip
            for name, metric in result.scores.metrics.items():
                others = [result.baselines[b].metrics.get(name) for b in names]
                interval = "" if metric.low is None else f"{metric.low:.3f} – {metric.high:.3f}"
                value = "–" if metric.value is None else f"{metric.value:.3f}"
                shown = ["–" if m is None or m.value is None else f"{m.value:.3f}" for m in others]
                table.add_row(name, value, interval, str(metric.n), *shown)
            console.print(table)
            for each in result.scores.unavailable:
                console.print(f"{each.name}: not computed, {each.why}", markup=False, highlight=False)
    if done.failed:
        console.print(f"{done.failed} of {done.rows} answers failed", markup=False)
    for result in (result for each in done.cells for result in each.results if result.judge_file):
        where = public_uri(storage.join(settings.out, result.judge_file))
        line = f"{result.data.name}: for its judge, {where}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in done.seconds.items())
    console.print(f"run {done.run_id}: {seconds}", markup=False, highlight=False)
    verdict = done.verdict
    if verdict is not None and not verdict.against:
        say = "accepted as the first" if done.accepted else f"accept one: mats history accept {done.run_id}"
        console.print(f"no accepted run of this history to compare with; {say}", markup=False, highlight=False)
    elif verdict is not None:
        state = "open" if verdict.open else "closed"
        roles = " and ".join(f"{role} run {', '.join(ids)}" for role, ids in verdict.against.items())
        console.print(f"gate {state} against {roles}", markup=False, highlight=False)
    for line in verdict.skipped if verdict is not None else ():
        console.print(f"not compared: {line}", markup=False, highlight=False, soft_wrap=True)
    if done.accepted:
        console.print("accepted", markup=False)
    console.print(f"{public_uri(settings.out).rstrip('/')}/report.html", markup=False, highlight=False, soft_wrap=True)


def _figure(metric: Any) -> str:
    return "–" if metric is None or metric.value is None else f"{metric.value:.3f}"


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
    from pipelines.evaluate.compare import compare_answers

    found = compare_answers(run_a, run_b, out, model=model, top=top, device=device)
    typer.echo(
        f"{found.rows} answers in both: {found.same} the same, {found.changed} changed; "
        f"{found.only_a} only in {public_uri(run_a)}, {found.only_b} only in {public_uri(run_b)}"
    )
    if found.changed:
        typer.echo(
            f"distance of the changed: median {found.median:.3f}, 95 % below {found.p95:.3f}, "
            f"largest {found.largest:.3f}"
        )
    typer.echo(f"{out} ({found.size_bytes / 1e6:.1f} MB), {found.table}")
    return 0


def _history(url: str) -> Any:
    from pipelines.evaluate.history import History

    chosen = url or os.environ.get("MATS_HISTORY", "")
    if not chosen:
        raise SettingsError("history", "no folder was named", "give --history (path or URL), or set $MATS_HISTORY")
    return History(chosen)


@command(history, "show")
def show(
    metric: str = typer.Argument("", help="BENCHMARK/METRIC to draw (default: list runs and metrics)."),
    url: str = _URL,
    out: str = typer.Option("", help="Also write the picture there (SVG)."),
    last: int = typer.Option(60, min=1, help="The last so many runs."),
    cell: str = typer.Option("", help="A cell of grids (default: runs without a grid)."),
) -> int:
    """Print the runs, or one metric over time with its interval, and draw it."""
    from pipelines.evaluate.history import series
    from pipelines.pages.charts import history_svg, terminal_plot
    from pipelines.pages.render import check_page

    if out:
        check_page(out)
    past = _history(url)
    accepted, pinned = past.accepted(), past.pinned()
    rows = [row for row in past.runs() if row["cell"] == cell]
    if not rows:
        where = public_uri(past.url)
        raise SettingsError("history", f'there are no runs in "{where}"', "name a folder that `mats evaluate` wrote to")
    ids = list(dict.fromkeys(row["run_id"] for row in rows))[-last:]
    marks = {i: "pinned" if i == pinned else "accepted" if i in accepted else "" for i in ids}
    if not metric:
        _list_runs([row for row in rows if row["run_id"] in marks], marks)
        return 0
    known = sorted({f"{row['benchmark']}/{row['metric']}" for row in rows})
    if metric not in known:
        raise SettingsError("metric", f'no run measured "{metric}"', f"choose {', '.join(known)}")
    points = series(rows, metric, ids)
    for point in points:
        mark = marks[point.run_id]
        interval = f"{point.low:.4f} – {point.high:.4f}"
        typer.echo(f"{point.started}  {point.run_id}  {point.value:.4f}  {interval}  {point.n:>6}  {mark}".rstrip())
    typer.echo(terminal_plot(points, marks))
    if out:
        from mats_core import storage

        storage.write_bytes(out, history_svg(metric, points, marks).encode())
        typer.echo(out)
    return 0


def _list_runs(rows: list[dict[str, Any]], marks: dict[str, str]) -> None:
    by_run: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_run.setdefault(row["run_id"], []).append(row)
    for run_id, own in by_run.items():
        typer.echo(f"{own[0]['started']}  {run_id}  {own[0]['model']}  {marks[run_id]}".rstrip())
        names: dict[str, list[str]] = {}
        for row in own:
            names.setdefault(row["benchmark"], []).append(f"{row['metric']} {row['value']:.3f}")
        for name, figures in names.items():
            typer.echo(f"    {name}: {', '.join(figures)}")


def _mark(kind: str, named: str, url: str) -> int:
    past = _history(url)
    run_id = _run_id(named, past)
    past.mark(kind, run_id)
    typer.echo(f"{ {'accept': 'accepted', 'reject': 'rejected', 'pin': 'pinned'}[kind] }: {run_id}")
    return 0


def _run_id(named: str, past: Any) -> str:
    """The id of a run named by id, by "last", or by its folder."""
    import json

    from mats_core import storage

    if named == "last":
        ids = past.ids()
        if not ids:
            raise SettingsError("RUN", "this history has no run yet", "evaluate with --history first")
        return str(ids[-1])
    if named not in past.ids():
        record = storage.join(named, "_evaluation.json") if not Path(named).is_file() else ""
        if record and storage.exists(record):
            return str(json.loads(storage.read_bytes(record))["run_id"])
    past.uri_of(named)
    return named


_RUN = typer.Argument(..., metavar="RUN", help='A run\'s id, its folder, or "last".')


@command(history, "accept")
def accept(named: str = _RUN, url: str = _URL) -> int:
    """Accept a run: the next ones are compared with it."""
    return _mark("accept", named, url)


@command(history, "reject")
def reject(named: str = _RUN, url: str = _URL) -> int:
    """Take an acceptance or a pin back."""
    return _mark("reject", named, url)


@command(history, "pin")
def pin(named: str = _RUN, url: str = _URL) -> int:
    """Pin a run: every later one is compared with it too, until another is pinned."""
    return _mark("pin", named, url)
