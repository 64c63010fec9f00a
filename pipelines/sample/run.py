"""`mats sample`: clips of a run for a person to judge, and what the judgements say of the whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError, counted
from pipelines.export import tables
from pipelines.sample import draw
from pipelines.sample.estimate import Share, stratified
from pipelines.sample.judgements import ROW, SAID, judgements, read_judged, said_in, same_text, whole_number
from pipelines.settings.calling import by_name
from pipelines.settings.export import SampleSettings

COLUMNS = [
    "uri", "start_s", "end_s", "task", "question", "text", "correct", "confidence", "stratum", "stratum_rows",
    "weight", "row_id",
]  # fmt: skip
LEAST_ABOVE = 10
"""Judgements above a confidence, for it to be found."""
MOST_TRIED = 300
"""Confidences that are tried."""


@dataclass(frozen=True)
class Threshold:
    """The lowest confidence from which on `target` of the answers are right: share of all answers that is kept."""

    confidence: float
    kept: float
    share: Share


@dataclass
class SampleResult:
    """What was drawn, or what judgements say.

    drawn, strata: of a draw; by_confidence: whether it is stratified by it. rows: answers that the run has; failed:
    rows without one. judged: the estimate of all of them, parts: those by task, and of the answers given and held back
    as unsure where there are both. says: the mean confidence of the answers, what they say of themselves. threshold:
    None where no confidence will do, or there is none.
    """

    output: str = ""
    rows: int = 0
    failed: int = 0
    drawn: int = 0
    strata: int = 0
    by_confidence: bool = False
    judged: Share | None = None
    parts: dict[str, Share] = field(default_factory=dict)
    says: float | None = None
    threshold: Threshold | None = None
    notes: list[str] = field(default_factory=list)


@by_name(SampleSettings)
def run_sample(settings: SampleSettings) -> SampleResult:
    """Draw clips of `settings.run` into a file, or estimate by a file that is filled in. Raises SettingsError."""
    rows, failed = draw.answered(settings.run, settings.where if settings.judge is None else None)
    if not len(rows):
        problem = f"{storage.public_uri(settings.run)} holds no answer{' of these' if settings.where else ''}"
        raise SettingsError("run", problem, "give the OUTPUT of `mats caption`, with answers in it")
    found = SampleResult(rows=len(rows), failed=failed)
    if settings.judge is None:
        return _draw(settings, rows, found)
    return _judge(settings, rows, found)


def _draw(settings: SampleSettings, rows: pa.Table, found: SampleResult) -> SampleResult:
    found.output = str(settings.out)
    if storage.lies_in(found.output, settings.run):
        problem = f"{storage.public_uri(found.output)} lies in the run, which is only read"
        raise SettingsError("out", problem, "choose another place")
    if storage.exists(found.output) and not settings.overwrite:
        problem = f"{storage.public_uri(found.output)} is there, and may hold judgements"
        raise SettingsError("out", problem, "choose another name, or --overwrite")
    strata = draw.strata_of(rows, settings.n)
    counts = draw.allotted(strata, settings.n)
    ids = draw.drawn_of(strata, counts, settings.seed)
    every = np.concatenate(ids)
    found.drawn, found.strata = len(every), len(strata)
    found.by_confidence = rows["confidence"].null_count < len(rows)
    shown = draw.shown_rows(settings.run, every)
    of = {int(each): stratum for own, stratum in zip(ids, strata, strict=True) for each in own}
    weights = {stratum.name: len(stratum.rows) / count for stratum, count in zip(strata, counts, strict=True)}
    # strata are not told by their place
    order = np.random.default_rng([settings.seed, len(every), draw.OWN]).permutation(every)

    def lines() -> Iterator[dict[str, Any]]:
        for each in order.tolist():
            row, stratum = shown[each], of[each]
            yield {**_line(row), "stratum": stratum.name, "stratum_rows": len(stratum.rows),
                   "weight": round(weights[stratum.name], 6), "row_id": each}  # fmt: skip

    channels = any(row.get("only_channel") is not None for row in shown.values())
    columns = [*COLUMNS, "only_channel"] if channels else COLUMNS
    writers: dict[str, Callable[..., int]] = {"csv": tables.write_csv, "xlsx": tables.write_xlsx}
    write = writers.get(found.output.lower().rpartition(".")[2], tables.write_jsonl)
    with storage.whole_file(found.output) as file:
        write(file, lines(), columns)
    return found


def _line(row: dict[str, Any]) -> dict[str, Any]:
    start = row.get("start_s") or 0.0
    long = row.get("decoded_s") or row.get("duration_s")
    confidence = row.get("confidence")
    return {
        "uri": row["uri"], "start_s": start, "end_s": None if long is None else start + long, "task": row.get("task"),
        "question": row.get("question"), "text": _answer(row), "correct": None,
        "confidence": None if confidence is None else round(float(confidence), 4),
        "only_channel": row.get("only_channel"),
    }  # fmt: skip


def _answer(row: dict[str, Any]) -> Any:
    """The answer, also one that was held back as unsure."""
    return row["text"] if row.get("text") is not None else row.get("text_unsure")


@dataclass(frozen=True)
class _Judged:
    """A judged row of the file, and what the run says of it."""

    stratum: str
    right: bool
    task: str
    confidence: float
    given: bool


@dataclass
class _File:
    """What a file that is filled in says. sizes, tasks: of each stratum drawn from, judged or not."""

    judged: list[_Judged] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)

    def share(self, task: str | None = None) -> Share | None:
        """The share that is right, of all answers or of a task's."""
        chosen = [name for name in sorted(self.sizes) if task in (None, self.tasks.get(name))]
        return stratified([(self.sizes[each], [j.right for j in self.judged if j.stratum == each]) for each in chosen])

    @property
    def drawn_from(self) -> int:
        """How many answers the clips were drawn from."""
        return sum(self.sizes.values())

    def mean_of(self, values: Callable[[_Judged], float]) -> float:
        """The mean of a figure over all answers that the clips were drawn from. A judged clip stands for its share of
        its stratum; a clip whose figure is NaN, and a stratum of which no clip has one, do not count."""
        known = [(each.stratum, value) for each in self.judged if not np.isnan(value := values(each))]
        of = Counter(stratum for stratum, _ in known)
        total = sum(self.sizes[stratum] for stratum in of)
        return sum(self.sizes[stratum] / of[stratum] * value for stratum, value in known) / total

    def share_of(self, some: Sequence[_Judged]) -> Share | None:
        """The share of answers like `some` of the judged ones: their part of a stratum is estimated by its judged."""
        whole, own = Counter(each.stratum for each in self.judged), Counter(each.stratum for each in some)
        return stratified(
            [
                (self.sizes[name] * count / whole[name], [each.right for each in some if each.stratum == name])
                for name, count in sorted(own.items())
            ]
        )


def _judge(settings: SampleSettings, rows: pa.Table, found: SampleResult) -> SampleResult:
    found.output = str(settings.judge)
    file = _matched(settings, rows, found)
    found.judged = file.share()
    if found.judged is None:
        remedy = "write yes or no into the column `correct`"
        raise SettingsError("judge", f"nothing is judged in {storage.public_uri(found.output)}", remedy)
    tasks = sorted(set(file.tasks.values()))
    parts = {task: file.share(task) for task in tasks} if len(tasks) > 1 else {}
    if not all(each.given for each in file.judged):
        parts["given"] = file.share_of([each for each in file.judged if each.given])
        parts["held back"] = file.share_of([each for each in file.judged if not each.given])
    found.parts = {name: share for name, share in parts.items() if share is not None}
    confidence = rows["confidence"].to_numpy().astype(np.float64)
    if any(np.isfinite(each.confidence) for each in file.judged):
        whole = file.drawn_from == len(rows)  # else the run's mean would be of other answers than the share right
        found.says = float(np.nanmean(confidence)) if whole else file.mean_of(lambda each: each.confidence)
        found.threshold = _threshold(file, confidence if whole else None, settings.target)
    return found


def _matched(settings: SampleSettings, rows: pa.Table, found: SampleResult) -> _File:
    """The judged rows of the file, each with the run's own row; what cannot be used goes into the notes."""
    told, shown_name, file = read_judged(found.output), storage.public_uri(found.output), _File()
    if not any(name in row for row in told for name in SAID):
        raise SettingsError("judge", f"{shown_name} has no column `correct`", "write yes or no into one, a clip each")
    verdicts = judgements(said_in(told), [each[ROW] for each in told], settings.blank)
    for each in told:
        each["row_id"], each["stratum_rows"] = whole_number(each["row_id"]), whole_number(each["stratum_rows"])
        if each["row_id"] is None or not each["stratum_rows"]:
            problem = f"row {each[ROW]} of {shown_name} has no row_id or no stratum_rows"
            raise SettingsError("judge", problem, "leave these columns as --out wrote them")
    shown = draw.shown_rows(settings.run, np.array([each["row_id"] for each in told], np.int64))
    ids, wanted = rows["row_id"].to_numpy(), [each["row_id"] for each in told]
    places = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    seen: set[int] = set()
    stale = 0
    for each, right, place in zip(told, verdicts, places.tolist(), strict=True):
        row, stratum = each["row_id"], str(each["stratum"])
        file.sizes[stratum] = each["stratum_rows"]
        file.tasks.setdefault(stratum, str(each.get("task") or "answers"))
        if right is None:
            continue
        if ids[place] != row or row in seen or ("text" in each and not same_text(each["text"], _answer(shown[row]))):
            stale += 1
            continue
        seen.add(row)
        own = rows.slice(place, 1).to_pylist()[0]
        confidence = float("nan") if own["confidence"] is None else own["confidence"]
        file.judged.append(_Judged(stratum, right, file.tasks[stratum], confidence, own["given"]))
    if stale and not file.judged:
        problem = f"the answers in {shown_name} are not those of this run"
        raise SettingsError("judge", problem, "give the run that the clips were drawn from")
    if stale:
        why = "the run has another answer there, or none, or they repeat"
        found.notes.append(f"{counted(stale, 'judged row')} left out: {why}")
    if file.drawn_from != len(rows):
        why = f"the clips were drawn from {counted(file.drawn_from, 'answer')}, and the run has {len(rows):,}"
        found.notes.append(f"{why}: all figures are of the former")
    if left := len(told) - len(file.judged) - stale:
        found.notes.append(f"{left} of {counted(len(told), 'clip')} not judged")
    return file


def _threshold(file: _File, confidence: np.ndarray | None, target: float) -> Threshold | None:
    """The lowest confidence of a judged clip above which at least `target` are right, by LEAST_ABOVE judgements.

    confidence: of all answers that the clips were drawn from; without it, what is kept is estimated by the judged.
    """
    known = sorted({each.confidence for each in file.judged if np.isfinite(each.confidence)}, reverse=True)
    best: tuple[float, Share] | None = None
    for least in known[:: max(1, -(-len(known) // MOST_TRIED))]:
        above = [each for each in file.judged if each.confidence >= least]
        share = file.share_of(above) if len(above) >= LEAST_ABOVE else None
        if share is not None and share.value >= target - 1e-9:
            best = float(least), share
    if best is None:
        return None
    least, share = best
    kept = file.mean_of(lambda each: each.confidence >= least) if confidence is None else np.mean(confidence >= least)
    return Threshold(least, float(kept), share)
