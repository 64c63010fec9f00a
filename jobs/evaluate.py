"""`mats report`, `mats evaluate`, `mats calibrate`, `mats compare` and `mats history`: how answers look and how good
they are."""

from __future__ import annotations

import functools
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.terminal.commands import EXIT_GATE_CLOSED, EXIT_INTERRUPTED, EXIT_TOO_MANY_ERRORS, command
from jobs.terminal.options import settings_command
from mats_core.errors import SettingsError, counted
from mats_core.storage.uris import public_uri
from pipelines.settings.base import ALLOW_PARTS, OVERWRITE
from pipelines.settings.evaluate import CalibrateSettings, EvaluateSettings

app = typer.Typer()
history = typer.Typer(help="Runs of `mats evaluate` over time: print and draw, accept, pin.", no_args_is_help=True)
_URL = typer.Option("", "--history", help="Folder (path or URL) of the history (default: $MATS_HISTORY).")


@command(app, "report")
def report(
    run: str = typer.Argument(..., help="OUTPUT of `mats caption`."),
    out: str = typer.Option("report.html", help="The page to write."),
    files: str = typer.Option(
        "200", metavar="N|all", help="Files with a picture and a player; the search has every file in any case."
    ),
    truth: str | None = typer.Option(None, help="JSON lines of what is true, a file each."),
    overwrite: bool = typer.Option(False, "--overwrite", help=OVERWRITE),
) -> int:
    """Write a run as a self-contained HTML page: every answer to find, many of them to see and hear."""
    from pipelines.pages.report import write_report

    if files != "all" and not (files.isdecimal() and int(files) > 0):
        raise SettingsError("files", f'"{files}" is no number of files', 'give a whole number from 1 on, or "all"')
    page = write_report(run, out, truth, max_files=None if files == "all" else int(files), overwrite=overwrite)
    if page.partial:
        typer.echo(f"mats: {page.partial}", err=True)
    more = f", {page.pages - 1} more pages beside it" if page.pages > 1 else ""
    typer.echo(f"{out} ({page.size_bytes / 1e6:.1f} MB{more})")
    return 0


@settings_command(app, "calibrate", CalibrateSettings, ())
def calibrate(settings: CalibrateSettings) -> int:
    """Find out from judged answers what a model's scores are worth, and keep it in the model: its confidence."""
    from jobs.terminal.display import RunDisplay
    from pipelines.calibrate.run import ENOUGH, run_calibrate
    from pipelines.cluster.progress import Progress

    with RunDisplay("clips", "asking") as display:
        result = run_calibrate(
            settings,
            progress=lambda done, of: display(Progress("run", done, of)),
            say=lambda what: display.show(what, None, None, ""),
        )
    for why, count in result.left_out.most_common():
        typer.echo(f"mats: {counted(count, 'judged clip')} left out: {why}", err=True)
    if result.judged < ENOUGH:
        typer.echo(f"mats: only {counted(result.judged, 'judged answer')}, and so the figures are rough", err=True)
    typer.echo(f"{result.table}\n\nright: {result.fitted.calibration.judged_by}\n{result.where}")
    return 0


@settings_command(app, "evaluate", EvaluateSettings, ("axes",))
def evaluate(settings: EvaluateSettings) -> int:
    """Answer benchmarks with a model and write metrics and a page; ends with code 4 when a gate closes."""
    if settings.list_:
        return _list(settings)
    if settings.settings_:
        from jobs.terminal.template import commented, template
        from pipelines.evaluate.datasets import OPTIONS, EvaluationSet

        typer.echo(template(EvaluationSet), nl=False)
        for name, kind in OPTIONS.items():
            typer.echo(f"\n## What `reader: {name}` takes:\n#options:\n{commented(kind)}", nl=False)
        return 0
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
                    typer.echo({"scores": "scoring", "page": "writing the page"}.get(stage, stage), err=True)
                else:
                    told = {"heard": ("sounds", "hearing"), "run": ("answers", "answering")}
                    display = RunDisplay(*told.get(stage, ("answers", f"answering {stage}")))
                    shown[stage] = stack.enter_context(display)
            if (on := shown[stage]) is not None:
                on(progress)

        done = run_evaluate(settings, follow, lambda text: typer.echo(f"mats: {text}", err=True))
    if done.status == "interrupted":
        return _warned(f"interrupted; what is answered is kept. {to_continue(settings.overwrite)}", EXIT_INTERRUPTED)
    if done.status != "complete":
        return _warned("answers are missing; run again", 1)
    print_evaluation(settings, done)
    if done.verdict is not None and not done.verdict.open:
        for reason in done.verdict.reasons:
            _warned(f"gate closed: {reason}", EXIT_GATE_CLOSED)
        return EXIT_GATE_CLOSED
    if done.error_rate > settings.max_error_rate:
        most = f"--max-error-rate allows {settings.max_error_rate:.1%}"
        return _warned(f"{done.error_rate:.1%} of answers failed; {most}", EXIT_TOO_MANY_ERRORS)
    return 0


def _warned(text: str, code: int) -> int:
    typer.echo(f"mats: {text}", err=True)
    return code


def _list(settings: EvaluateSettings) -> int:
    """Every data set, whether it can be evaluated, and what is missing where it cannot."""
    from pipelines.evaluate.datasets import list_evaluation_sets, load_evaluation_set, missing

    asked = settings.names() if settings.benchmarks else []
    known = list_evaluation_sets()
    own = [name for name in asked if name not in known]
    definitions = {each.name: each for each in map(load_evaluation_set, [*known, *own])}
    roots = settings.roots(list(definitions))
    for name, definition in definitions.items():
        lacking = "; ".join(missing(definition, roots[name]))
        items = definition.size if definition.expected else "?"
        typer.echo(f"{name:18} {definition.kind:8} {items:>11} {f'missing: {lacking}' if lacking else 'ready'}")
    return 0


def print_evaluation(settings: EvaluateSettings, done: Any) -> None:
    """What an evaluation measured, on stdout: metrics with their intervals, what failed, the gate, the page."""
    from rich.table import Table

    from jobs.terminal.display import wide_console
    from mats_core import storage

    console = wide_console()
    say = functools.partial(console.print, markup=False, highlight=False)
    table_of = functools.partial(Table, box=None, pad_edge=False, header_style="bold")
    first = done.cells[0]
    if len(done.cells) > 1:
        heads = [f"{each.data.name} {each.leading.name if each.leading else ''}" for each in first.results]
        table = table_of(*first.cell.values, *heads)
        for each in done.cells:
            table.add_row(*each.cell.values.values(), *(_figure(result.leading) for result in each.results))
        console.print(table)
    for result in first.results if len(done.cells) == 1 else ():
        table = table_of(result.data.name, "value", "95 % interval", "items", *result.baselines)
        for name, metric in result.scores.metrics.items():
            interval = "" if metric.low is None else f"{metric.low:.3f} – {metric.high:.3f}"
            others = (_figure(scores.metrics.get(name)) for scores in result.baselines.values())
            table.add_row(name, _figure(metric), interval, str(metric.n), *others)
        console.print(table)
        if sure := result.scores.details.get("confidence"):
            found = sure["kept"]["0.95"]
            told = f"{found['share']:.0%} of them, from confidence {found['confidence']:.3f} on" if found else "none"
            if sure["right"] in (0.0, 1.0) and (metric := result.scores.metrics.get("auroc")):
                say(f"auroc: {metric.note}", soft_wrap=True)
            say(f"answers of which 95 % are right: {told} (right: {sure['meaning']})", soft_wrap=True)
        absent: dict[str, list[str]] = {}
        for each in result.scores.unavailable:
            absent.setdefault(each.why, []).append(each.name)
        for why, names in absent.items():
            say(f"{', '.join(names)}: not computed, {why}", soft_wrap=True)
    for result in first.results:
        if result.data.partial:
            say(f"NOT ALL OF {result.data.name}: {result.data.partial}", soft_wrap=True)
    if done.failed:
        console.print(f"{done.failed} of {counted(done.rows, 'answer')} failed", markup=False)
    for result in (result for each in done.cells for result in each.results if result.judge_file):
        where = public_uri(storage.join(settings.out, result.judge_file))
        say(f"{result.data.name}: for its judge, {where}", soft_wrap=True)
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in done.seconds.items())
    say(f"run {done.run_id}: {seconds}")
    verdict = done.verdict
    if verdict is not None and not verdict.against:
        then = "accepted as the first" if done.accepted else f"accept one: mats history accept {done.run_id}"
        say(f"no accepted run of this history to compare with; {then}")
    elif verdict is not None:
        roles = " and ".join(f"{role} run {', '.join(ids)}" for role, ids in verdict.against.items())
        say(f"gate {'open' if verdict.open else 'closed'} against {roles}")
    for line in verdict.skipped if verdict is not None else ():
        say(f"not compared: {line}", soft_wrap=True)
    if done.accepted:
        console.print("accepted", markup=False)
    if done.tables:
        say(f"\n{done.tables}", soft_wrap=True)
        say(f"{public_uri(settings.out).rstrip('/')}/tables/ (Markdown, LaTeX with BibTeX, CSV)", soft_wrap=True)
    say(f"{public_uri(settings.out).rstrip('/')}/report.html", soft_wrap=True)


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
    allow_parts: Annotated[list[str] | None, typer.Option(help=ALLOW_PARTS)] = None,
    overwrite: bool = typer.Option(False, "--overwrite", help=OVERWRITE),
) -> int:
    """Which answers changed between two runs, and by how much, as a page with players."""
    from pipelines.evaluate.compare import compare_answers

    found = compare_answers(
        run_a, run_b, out, model=model, allow_parts=allow_parts or (), top=top, device=device, overwrite=overwrite
    )
    for side, run, asked in zip("AB", (run_a, run_b), found.models, strict=True):
        typer.echo(f"{side}: {public_uri(run)}" + (f", model {asked}" if asked else ""))
    for name, a, b in found.apart:
        typer.echo(f"{name}: {_said(a)} in A, {_said(b)} in B")
    for each in found.metrics:
        values = ["–" if value is None else f"{value:.4f}" for value in (each.a, each.b)]
        told = "" if each.difference is None else f"  {each.difference:+.4f}"
        if each.low is None or each.high is None:
            told += f"  no interval: {each.why}"
        else:
            told += f"  95 % interval {each.low:+.4f} to {each.high:+.4f}, {counted(each.items, 'item')}"
        typer.echo(f"{each.name:36} {values[0]:>8} {values[1]:>8}{told}")
    typer.echo(
        f"{counted(found.rows, 'answer')} in both: {found.same} the same, {found.changed} changed; "
        f"{found.only_a} only in {public_uri(run_a)}, {found.only_b} only in {public_uri(run_b)}"
    )
    if found.changed:
        typer.echo(
            f"distance of the changed: median {found.median:.3f}, 95 % below {found.p95:.3f}, "
            f"largest {found.largest:.3f}"
        )
    if found.sure is not None:
        a, b, count = found.sure
        typer.echo(f"confidence: {a:.1%} on average in A, {b:.1%} in B ({counted(count, 'answer')})")
    typer.echo(f"{out} ({found.size_bytes / 1e6:.1f} MB), {found.table}")
    return 0


def _said(value: Any) -> str:
    return "not given" if value in (None, "", []) else public_uri(str(value))


def _history(url: str) -> Any:
    from pipelines.evaluate.history import History

    chosen = url or os.environ.get("MATS_HISTORY", "")
    if not chosen:
        raise SettingsError("history", "no folder was named", "give --history (path or URL), or set $MATS_HISTORY")
    return History(chosen)


@command(history, "show")
def show(
    metric: str = typer.Argument(
        "", help="BENCHMARK/METRIC to draw, METRIC where one data set has it (default: list all)."
    ),
    url: str = _URL,
    out: str = typer.Option("", help="Also write the picture there (SVG)."),
    last: int = typer.Option(60, min=1, help="The last so many runs."),
    cell: str = typer.Option("", help="A cell of grids (default: runs without a grid)."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace whatever is at the picture's place."),
) -> int:
    """Print the runs, or one metric over time with its interval, and draw it."""
    from pipelines.evaluate.history import series
    from pipelines.pages.charts import history_svg, terminal_plot
    from pipelines.pages.render import check_file, is_ours

    if out:
        check_file(out, "picture", is_ours, overwrite)
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
        meant = [name for name in known if name.rpartition("/")[2] == metric]
        if len(meant) != 1:
            problem = f'"{metric}" was measured of {len(meant)} data sets' if meant else f'no run measured "{metric}"'
            raise SettingsError("metric", problem, f"choose {', '.join(meant or known)}")
        (metric,) = meant
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
    by_run: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        by_run.setdefault(row["run_id"], {}).setdefault(row["benchmark"], []).append(row)
    for run_id, sets in by_run.items():
        first = next(iter(sets.values()))[0]
        typer.echo(f"{first['started']}  {run_id}  {first['model']}  {marks[run_id]}".rstrip())
        for name, own in sets.items():
            figures = ", ".join(f"{row['metric']} {row['value']:.3f}" for row in own)
            typer.echo(f"    {name}: {figures}")


def _run_id(named: str, past: Any) -> str:
    """The id of a run named by id, by "last", or by its folder."""
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


def _add_mark(kind: str, done: str, help_text: str) -> None:
    """Register `mats history KIND RUN`."""

    @command(history, kind, help=help_text)
    def mark(
        named: str = typer.Argument(..., metavar="RUN", help='A run\'s id, its folder, or "last".'), url: str = _URL
    ) -> int:
        past = _history(url)
        run_id = _run_id(named, past)
        past.mark(kind, run_id)
        typer.echo(f"{done}: {run_id}")
        return 0


_add_mark("accept", "accepted", "Accept a run: the next ones are compared with it.")
_add_mark("reject", "rejected", "Take an acceptance or a pin back.")
_add_mark("pin", "pinned", "Pin a run: every later one is compared with it too, until another is pinned.")
