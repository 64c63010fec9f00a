"""Two runs over the same sounds → which answers changed and by how much, sorted, as a table and a page with players.

What one wants before re-captioning an archive with a new model. The distance of two answers is 1 − cosine of their
CLAP-text embeddings: 0 for the same words, about 1 for unrelated ones. It weighs by the confidence of the surer of the
two answers: that a sure answer is now another one is worth a look, that one guess took another's place is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.model.facts import read_model_facts
from mats_core.storage.uris import Uri, uri_text
from pipelines.data import generations, parquet
from pipelines.data.results import Ranges, pruned_rows, without_rows
from pipelines.evaluate.differences import Difference, differences, record
from pipelines.evaluate.scores import EncoderAndMemory
from pipelines.pages.media import PREVIEW_SECONDS, add_media
from pipelines.pages.render import check_page, render_page

MEDIA_BYTES = 12_000_000
BINS = 20
NO_MATTER = {
    *("model", "allow_parts", "input", "output", "out", "data", "history", "benchmarks", "suite"),
    *("actors", "decoders", "batch_size", "address", "commit_rows", "commit_seconds", "overwrite", "retry_errors"),
    *("prune", "dry_run", "max_error_rate", "accept", "against", "tolerance", "ungated", "players"),
    *("list_", "settings_"),
}
"""Settings of a run that change no answer, or say what is told of both runs anyway."""
CAPTION_KEY = ("chunk_id", "task", "question", "tag")
EVALUATION_KEY = ("benchmark", "item", "order")
REMEDY = "give the OUTPUT of `mats caption` or the OUT of `mats evaluate`"
TABLE = ("uri", "text_a", "text_b", "distance")
SURE = ("confidence_a", "confidence_b", "weight")
"""Columns of the table behind TABLE, which tables of earlier versions have not."""


@dataclass
class Comparison:
    """Totals, and where page and table are. median, p95, largest: of the changed answers' distances. sure: mean
    confidence of A and of B over the answers that have one in both, and how many those are; None where none has.
    weighed: whether a confidence decides the order of the changes. apart: settings and versions that are others in B,
    with both values. metrics: of two evaluations, every figure with the interval of its difference."""

    rows: int = 0
    same: int = 0
    changed: int = 0
    only_a: int = 0
    only_b: int = 0
    failed_a: int = 0
    failed_b: int = 0
    median: float = 0.0
    p95: float = 0.0
    largest: float = 0.0
    size_bytes: int = 0
    table: str = ""
    models: tuple[str, str] = ("", "")
    apart: list[tuple[str, Any, Any]] = field(default_factory=list)
    sure: tuple[float, float, int] | None = None
    weighed: bool = False
    metrics: list[Difference] = field(default_factory=list)
    cases: list[dict[str, Any]] = field(default_factory=list, repr=False)


def compare_answers(
    run_a: Uri,
    run_b: Uri,
    out: Uri,
    *,
    model: Uri = "builtin",
    allow_parts: Sequence[str] = (),
    top: int = 100,
    device: str = "auto",
    overwrite: bool = False,
) -> Comparison:
    """Compare two OUTPUTs of `mats caption`, or two of `mats evaluate`; writes a page, and a Parquet table beside it.

    Raises SettingsError where there are no answers, the two have no sound and question in common, or no page can be
    written at `out`, or it would replace a file that is no page of MATS (unless `overwrite`), or a table that is none
    of this command's is beside it.
    """
    run_a, run_b, out, model = uri_text(run_a), uri_text(run_b), uri_text(out), uri_text(model)
    check_page(out, overwrite)
    beside = out.removesuffix(".html") + ".parquet"
    _check_table(beside)
    facts = read_model_facts(model, allow_parts)
    old, key_a = _answers(run_a, "RUN_A")
    new, key_b = _answers(run_b, "RUN_B")
    if key_a != key_b:
        problem = f"{storage.public_uri(run_b)} is not of the same job as RUN_A"
        raise SettingsError("RUN_B", problem, "compare two runs of `mats caption`, or two of `mats evaluate`")
    both = [(key, before, new[key]) for key, before in old.items() if key in new]
    if not both:
        problem = f"{storage.public_uri(run_b)} and RUN_A have no sound and question in common"
        raise SettingsError("RUN_B", problem, "compare runs over the same input")
    changed = [(key, a, b) for key, a, b in both if a["text"] != b["text"]]
    changes: list[dict[str, Any]] = [{"key": key, "before": a, "after": b} for key, a, b in changed]
    found = Comparison(
        rows=len(both), same=len(both) - len(changes), changed=len(changes), table=beside,
        only_a=len(old) - len(both), failed_a=sum(before["text"] is None for _, before, _ in both),
        only_b=len(new) - len(both), failed_b=sum(after["text"] is None for _, _, after in both),
    )  # fmt: skip
    found.models = (model_of(run_a), model_of(run_b))
    found.apart = apart(run_a, run_b)
    if key_a == EVALUATION_KEY:
        found.metrics = differences(run_a, run_b)
    pairs = [(before.get("confidence"), after.get("confidence")) for _, before, after in both]
    known = np.array([pair for pair in pairs if None not in pair], np.float64).reshape(-1, 2)
    if len(known):
        found.sure = (float(known[:, 0].mean()), float(known[:, 1].mean()), len(known))
    _measure(changes, model, facts, device)
    found.weighed = any(change["weight"] != change["distance"] for change in changes)
    changes.sort(key=lambda change: (-change["weight"], -change["distance"], change["key"]))
    distances = np.array([change["distance"] for change in changes] or [0.0])
    found.median, found.p95 = (float(v) for v in (np.median(distances), np.percentile(distances, 95)))
    found.largest = float(distances.max())
    columns: dict[str, Any] = {name: [change["key"][i] for change in changes] for i, name in enumerate(key_a)}
    for name, side, of in (("uri", "before", "uri"), ("text_a", "before", "text"), ("text_b", "after", "text")):
        columns[name] = [change[side][of] for change in changes]
    columns["distance"] = pa.array([change["distance"] for change in changes], pa.float64())
    for name, side in (("confidence_a", "before"), ("confidence_b", "after")):
        columns[name] = pa.array([change[side].get("confidence") for change in changes], pa.float64())
    columns["weight"] = pa.array([change["weight"] for change in changes], pa.float64())
    parquet.write(beside, pa.table(columns))
    found.cases = [_case(change) for change in changes[:top]]
    add_media(found.cases, PREVIEW_SECONDS, MEDIA_BYTES, 1)
    bars = np.histogram(distances, bins=BINS, range=(0.0, max(1.0, found.largest)))[0] if changes else np.zeros(BINS)
    page = render_page(
        "compare.html.j2", title="What changed", run_a=storage.public_uri(run_a), run_b=storage.public_uri(run_b),
        found=found, model=storage.public_uri(model), bars=[(int(n), float(n / max(1, bars.max()))) for n in bars],
        right=max(1.0, found.largest), preview_seconds=PREVIEW_SECONDS,
    )  # fmt: skip
    storage.write_bytes(out, page)
    found.size_bytes = len(page)
    return found


def _answers(run: str, name: str) -> tuple[dict[tuple[Any, ...], dict[str, Any]], tuple[str, ...]]:
    """Answers by what was asked, and the columns of that key; of several rows with one key the first."""
    for model in (run, storage.join(run, "model")):
        if storage.exists(storage.join(model, "mats.json")):
            problem = f"{storage.public_uri(model)} is a model, and what is compared is answers"
            remedy = (
                "let both models answer the same sounds (`mats caption --model`, `mats evaluate --model`), and compare"
            )
            raise SettingsError(name, problem, remedy)
    for folder, key in (("predictions", EVALUATION_KEY), ("answers", CAPTION_KEY), ("", CAPTION_KEY)):
        files = [info.uri for info in generations.files(storage.join(run, folder) if folder else run)]
        if folder == "predictions" and len(files) > 1:
            problem = f"{storage.public_uri(run)} is an evaluation with a grid"
            raise SettingsError(name, problem, "choose one without --grid")
        if files:
            found: dict[tuple[Any, ...], dict[str, Any]] = {}
            pruned = pruned_rows(run if folder else run.rstrip("/").rpartition("/")[0])
            for row in _rows(files, key, name, pruned):
                found.setdefault(tuple(row[column] for column in key), row)
            return found, key
    raise SettingsError(name, f"no answers in {storage.public_uri(run)}", REMEDY)


def _rows(files: list[str], key: tuple[str, ...], name: str, pruned: Ranges) -> Iterator[dict[str, Any]]:
    wanted = [*key, "row_id", "uri", "text", "start_s", "duration_s", "seconds", "question", "error_code", "error"]
    wanted += ["confidence", "text_unsure", "only_channel"]
    for uri in files:
        present = parquet.schema(uri).names
        absent = [column for column in (*key, "text", "uri") if column not in present]
        if absent:
            problem = f"{storage.public_uri(uri)} has no column {', '.join(absent)}"
            raise SettingsError(name, problem, REMEDY)
        for batch in parquet.batches(uri, 8192, list(dict.fromkeys(wanted))):
            for row in without_rows(pa.Table.from_batches([batch]), pruned).to_pylist():
                yield row | ({"text": row["text_unsure"]} if row["text"] is None and row.get("text_unsure") else {})


def model_of(run: str) -> str:
    """The model that a run asked, and the beginning of its fingerprint: of two runs "builtin" may be another."""
    for name in ("metrics.json", "_run.json"):
        said = record(run, name)
        model = said.get("model") or (said.get("settings") or {}).get("model")
        if model:
            fingerprint = said.get("model_fingerprint") or (said.get("identity") or {}).get("model") or ""
            return f"{storage.public_uri(str(model))} {str(fingerprint)[:8]}".strip()
    return ""


def apart(run_a: str, run_b: str) -> list[tuple[str, Any, Any]]:
    """What the records of two runs say differently and may change answers: (setting or package, in A, in B)."""
    told = []
    for run in (run_a, run_b):
        said = record(run, "metrics.json") or record(run, "_run.json")
        settings = {name: value for name, value in (said.get("settings") or {}).items() if name not in NO_MATTER}
        told.append(settings | (said.get("versions") or {}))
    a, b = told
    return [(name, a[name], b[name]) for name in a if name in b and a[name] != b[name]]


def _measure(changes: list[dict[str, Any]], model: str, facts: Any, device: str) -> None:
    """Add `distance` to every change, where an answer that is missing on one side is as far as can be (1), and
    `weight`, which is the distance times the confidence of the surer answer (1 where neither has one)."""
    texts = sorted({c[side]["text"] for c in changes for side in ("before", "after") if c[side]["text"]})
    vectors = dict(zip(texts, EncoderAndMemory(model, facts, device).embed_text(texts), strict=True))
    for change in changes:
        a, b = change["before"]["text"], change["after"]["text"]
        change["distance"] = max(0.0, 1.0 - float(vectors[a] @ vectors[b])) if a and b else 1.0
        sure = [change[side].get("confidence") for side in ("before", "after")]
        change["weight"] = change["distance"] * max([each for each in sure if each is not None], default=1.0)


def _check_table(uri: str) -> None:
    """Raise SettingsError where another file has the name of the table."""
    try:
        if not storage.exists(uri):
            return
        with parquet.opened(uri) as file:
            names = file.metadata.schema.names  # its own: the folder is whoever's
    except storage.StorageError:
        names = []
    ours = [[*key, *TABLE, *more] for key in (CAPTION_KEY, EVALUATION_KEY) for more in ((), SURE)]
    if names not in ours:
        problem = f"the table would replace {storage.public_uri(uri)}, which is not of `mats compare`"
        raise SettingsError("out", problem, "choose another name for the page")


def _case(change: dict[str, Any]) -> dict[str, Any]:
    before, uri = change["before"], change["after"]["uri"]
    part = {"start": before.get("start_s") or 0.0, "length": before.get("duration_s") or before.get("seconds")}
    part["only_channel"] = before.get("only_channel")
    return {**change, "uri": uri, "name": storage.public_uri(uri).rsplit("/", 1)[-1], "parts": [part]}
