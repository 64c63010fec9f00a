"""`mats benchmark serve`: pages and searches of `mats serve` over a run of many rows."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.benchmarks.measuring import memory_of_tree_mb, print_figures, print_table, say, timed, watched, workplace
from pipelines.cluster.plan import usable_cores

PART_ROWS, CAPTIONS, TRIES = 20_000, 20_000, 5
RARE = "zeppelin"
"""A word that one row in RARE_IN has."""
RARE_IN = 1_000_003


def run_benchmark(rows: int, folder: str | None, as_json: bool) -> int:
    """Measure and print; raises SettingsError."""
    with workplace(folder) as place:
        figures = measure(place, rows)
    print_figures(figures, as_json, print_serve)
    return 0


def measure(place: Path, rows: int) -> dict[str, Any]:
    """Write a run of `rows`, catalog it, and ask for pages. A run that is there is taken."""
    from pipelines.data import generations
    from pipelines.serve.catalog import open_catalog
    from pipelines.serve.finding import Finder, Query
    from pipelines.serve.runs import open_served

    run = str(place / "run")
    if generations.told(run, "_run.json") is None:
        say(f"writing {rows} rows")
        write_run(run, rows)
    say("making the catalog")
    with watched(memory_of_tree_mb) as held:
        catalog, build_s = timed(lambda: open_catalog(run))
    catalog.close()
    catalog_gb = catalog.place.stat().st_size / 1e9
    served, open_s = timed(lambda: open_served(run))
    middle = rows // 2
    asked: dict[str, Query] = {
        "first page": Query(),
        "page in the middle": Query(after=f"0.{middle}"),
        "page of a filter": Query(task="cla_label", silent="no"),
        "confidence 0.10 – 0.11": Query(low=0.10, high=0.11),
        "errors of one kind": Query(error="timeout"),
        "a frequent word": Query(q="dog"),
        "three words": Query(q="a dog barks while rain falls"),
        "three words, the next page": Query(q="a dog barks while rain falls", after=f"0.{middle}"),
        "a rare word": Query(q=RARE),
        "no such word": Query(q="xylophonist"),
        "part of a name": Query(name=f"{rows // 120:06d}"),  # one file, of the sixty rows that write_run gives each
    }
    found: dict[str, Any] = {}
    for name, query in asked.items():
        times, work = [], []
        for _ in range(TRIES):
            began = time.process_time()
            page, seconds = timed(lambda query=query: Finder([served]).page(query))  # type: ignore[misc]
            work.append(1e3 * (time.process_time() - began))
            times.append(1e3 * seconds)
        found[name] = figures_of(page.total, times, work)
        say(f"{name}: {found[name]}")
    found["the first page in HTML"] = page_times(served)
    size = sum(path.stat().st_size for path in (place / "run" / "answers").iterdir())
    return {
        "rows": served.catalog.rows, "cores": usable_cores(), "parquet_gb": round(size / 1e9, 2),
        "catalog_gb": round(catalog_gb, 2),
        "build_s": round(build_s, 1), "peak_mb": round(max(held, default=0)), "open_s": round(open_s, 2),
        "queries": found,
    }  # fmt: skip


def page_times(served: Any) -> dict[str, Any]:
    """The page itself, out of the application: rows found, rendered, with all headers."""
    from pipelines.serve.api import State
    from pipelines.serve.app import make_app
    from pipelines.serve.finding import Finder
    from pipelines.serve.sounds import Sounds

    app = make_app(State([served], Finder([served]), Sounds()))
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "scheme": "http",
             "http_version": "1.1", "headers": [(b"host", b"localhost")], "server": ("localhost", 80)}  # fmt: skip

    async def ask() -> int:
        status = 0

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        await app(dict(scope), receive, send)
        return status

    times, work = [], []
    for _ in range(TRIES):
        began = time.process_time()
        status, seconds = timed(lambda: asyncio.run(ask()))
        assert status == 200
        work.append(1e3 * (time.process_time() - began))
        times.append(1e3 * seconds)
    return figures_of(served.catalog.rows, times, work)


def figures_of(total: int, times: list[float], work: list[float]) -> dict[str, Any]:
    """Rows that were meant; milliseconds of the first time and of the middle one; and of CPU, whatever else ran."""
    middle = {"median_ms": float(np.median(times)), "cpu_ms": float(np.median(work))}
    return {"total": total, "first_ms": times[0], **middle}


def write_run(run: str, rows: int) -> None:
    """An OUTPUT as `mats caption` writes it, with made-up answers: captions of the embedded world, in all orders."""
    from jobs.benchmarks.inputs import world_captions
    from pipelines.output.folder import open_output
    from pipelines.output.parts import part_name

    captions = np.array(list(world_captions(CAPTIONS)), object)
    with open_output(run, {"job": "caption"}, results="answers") as out:
        for number, first in enumerate(range(0, rows, PART_ROWS)):
            table = made_rows(captions, first, min(PART_ROWS, rows - first))
            out.put_table(f"answers/{part_name(first, out.run_id, number)}", table)
        out.write_run({"job": "caption", "status": "complete", "settings": {"model": "builtin"}})


def made_rows(captions: np.ndarray, first: int, count: int) -> pa.Table:
    """Rows from `first` on; each has two captions of the world, so that hardly any two are the same."""
    draw = np.random.default_rng([7, first])
    rows = np.arange(first, first + count)
    one, two = (captions[draw.integers(0, len(captions), count)] for _ in range(2))
    texts = [f"{a} {b.rstrip('.')} number {row % 9973}." for a, b, row in zip(one, two, rows, strict=True)]
    for at in np.flatnonzero(rows % RARE_IN == 0):
        texts[at] = f"A {RARE} flies by."
    failed = rows % 1000 == 999
    codes = np.where(rows % 3000 == 999, "timeout", "decode_failed")
    return pa.table(
        {
            "row_id": rows,
            "chunk_id": [f"{row:016x}" for row in rows],
            "uri": [f"s3://archive/recordings/{row // 60:06d}.wav" for row in rows],
            "format": np.where(rows % 5 == 0, "flac", "wav"),
            "start_s": (rows % 60) * 56.0,
            "duration_s": np.full(count, 56.0),
            "decoded_s": np.full(count, 56.0),
            "task": np.where(rows % 2 == 0, "caption", "cla_label"),
            "question": pa.nulls(count, pa.string()),
            "text": pa.array(np.where(failed, None, np.array(texts, object)), pa.string()),
            "error_code": pa.array(np.where(failed, codes, None), pa.string()),
            "silent": rows % 50 == 0,
            "confidence": draw.random(count),
        }
    )


def print_serve(figures: dict[str, Any]) -> None:
    """The figures as a line and a table."""
    f = figures
    print(
        f"{f['rows']} rows in {f['parquet_gb']} GB of Parquet, {f['cores']} cores: catalog of {f['catalog_gb']} GB "
        f"made in {f['build_s']:.0f} s, peak memory {f['peak_mb']} MB, opened in {f['open_s']} s"
    )
    rows = [
        (name, f"{each['total']}", *(f"{each[figure]:.0f}" for figure in ("first_ms", "median_ms", "cpu_ms")))
        for name, each in f["queries"].items()
    ]
    print_table(f"a page with its total, of {TRIES}", ("asked", "rows", "first (ms)", "median (ms)", "CPU (ms)"), rows)
