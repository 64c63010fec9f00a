"""`mats evaluate`, `mats history` and `mats compare` in a terminal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from jobs.terminal.options import EXIT_INTERRUPTED, EXIT_TOO_MANY_ERRORS, command
from mats_core.errors import got_allowed
from mats_core.storage.uris import public_uri
from pipelines.settings.evaluate import EvaluateSettings

EXIT_GATE_CLOSED = 4

history = typer.Typer(help="Runs of `mats evaluate` over time: print and draw, accept, pin.", no_args_is_help=True)
_URL = typer.Option("", "--history", help="Folder (path or URL) of the history (default: $MATS_HISTORY).")


def run(settings: EvaluateSettings) -> int:
    """Evaluate, print what came out, and end with the code of DESIGN.md."""
    if settings.list_:
        return _list(settings)
    if not settings.history and os.environ.get("MATS_HISTORY"):
        settings = settings.model_copy(update={"history": os.environ["MATS_HISTORY"]})
    from jobs.terminal.display import RunDisplay, to_continue
    from pipelines.evaluate.run import run_evaluate

    shown: dict[str, Any] = {"name": None, "display": None}

    def progress(stage: str, told: Any) -> None:
        if shown["name"] != stage:
            close()
            shown["name"] = stage
            if told is None:
                typer.echo(_STAGES.get(stage, stage), err=True)
            else:
                shown["display"] = RunDisplay("sounds" if stage == "heard" else "answers", _verb(stage)).__enter__()
        if told is not None:
            shown["display"](told)

    def close() -> None:
        if shown["display"] is not None:
            shown["display"].__exit__(None, None, None)
            shown["display"] = None

    try:
        done = run_evaluate(settings, progress)
    finally:
        close()
    if done.status == "interrupted":
        typer.echo(f"mats: interrupted; what is answered is kept. {to_continue(settings.overwrite)}", err=True)
        return EXIT_INTERRUPTED
    if done.status != "complete":
        typer.echo("mats: answers are missing; run again", err=True)
        return 1
    _print(settings, done)
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


def _print(settings: EvaluateSettings, done: Any) -> None:
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


def _history(url: str) -> Any:
    from pipelines.evaluate.history import History

    chosen = url or os.environ.get("MATS_HISTORY", "")
    if not chosen:
        raise got_allowed("history", chosen, "a folder (path or URL): --history, or $MATS_HISTORY")
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
    kept = _history(url)
    accepted, pinned = kept.accepted(), kept.pinned()
    rows = [row for row in kept.runs() if row["cell"] == cell]
    if not rows:
        raise got_allowed("history", public_uri(kept.url), "a history with runs in it")
    ids = list(dict.fromkeys(row["run_id"] for row in rows))[-last:]
    marks = {i: "pinned" if i == pinned else "accepted" if i in accepted else "" for i in ids}
    if not metric:
        _list_runs([row for row in rows if row["run_id"] in marks], marks)
        return 0
    known = sorted({f"{row['benchmark']}/{row['metric']}" for row in rows})
    if metric not in known:
        raise got_allowed("metric", metric, ", ".join(known))
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
    kept = _history(url)
    run_id = _run_id(named, kept)
    kept.mark(kind, run_id)
    typer.echo(f"{ {'accept': 'accepted', 'reject': 'rejected', 'pin': 'pinned'}[kind] }: {run_id}")
    return 0


def _run_id(named: str, kept: Any) -> str:
    """The id of a run named by id, by "last", or by its folder."""
    import json

    from mats_core import storage

    if named == "last":
        ids = kept.ids()
        if not ids:
            raise got_allowed("RUN", named, "a run; this history has none yet")
        return str(ids[-1])
    if named not in kept.ids():
        record = storage.join(named, "_evaluation.json") if not Path(named).is_file() else ""
        if record and storage.exists(record):
            return str(json.loads(storage.read_bytes(record))["run_id"])
    kept.uri_of(named)
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


def compare(run_a: str, run_b: str, out: str, model: str, top: int, device: str) -> int:
    """Write the page of what changed between two runs, and print the totals."""
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
