"""The gate: a run beside the last accepted and the pinned one, metric by metric and item by item.

A bad night is never accepted, so it does not become what the next is measured by. Many falls that are each within the
tolerance add up against the pinned run, which moves by hand alone; until one is pinned, it is the first accepted. Both
are looked up for each metric on its own, so that nights may take turns with benchmarks. What an accepted run had and a
new one cannot show counts as a fall: a gate that compares nothing must not stand open.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mats_core.errors import got_allowed
from mats_core.scoring import OF_SET, paired_bootstrap
from pipelines.evaluate.history import History, Kept, Key

LEAST_SHARE = 0.95
"""Of an earlier run's items, which a run must have to be compared with it."""


@dataclass(frozen=True)
class Change:
    """One metric of one benchmark in two runs, item by item. low, high: 95 % interval of new − old."""

    benchmark: str
    metric: str
    old: float
    new: float
    difference: float
    low: float
    high: float
    items: int
    against: str
    fell: bool

    def __str__(self) -> str:
        return (
            f"{self.benchmark} {self.metric}: {self.new:.4f}, was {self.old:.4f} in {self.against} "
            f"({self.difference:+.4f}, 95 % interval {self.low:+.4f} to {self.high:+.4f}, {self.items} items)"
        )


@dataclass(frozen=True)
class Lost:
    """What a standing run has and cannot be compared, why, and what to do. metric: "" for a whole benchmark."""

    benchmark: str
    metric: str
    against: str
    why: str
    remedy: str

    def __str__(self) -> str:
        name = f"{self.benchmark} {self.metric}".rstrip()
        return f"{name} cannot be compared with {self.against}: {self.why}; {self.remedy}"


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        lost: what had to be compared and could not be.
        against: role (accepted or run, pinned) → run ids.
        skipped: what was not compared and need not be, and why.
    """

    changes: list[Change]
    lost: list[Lost]
    against: dict[str, list[str]]
    skipped: list[str]

    @property
    def falls(self) -> list[Change]:
        return [change for change in self.changes if change.fell]

    @property
    def open(self) -> bool:
        return not self.falls and not self.lost

    @property
    def reasons(self) -> list[str]:
        """Why the gate is closed, a sentence each."""
        return [str(each) for each in (*self.falls, *self.lost)]


def check_against(history: History, against: str, benchmarks: Collection[str]) -> None:
    """Raise SettingsError when a run that was named to compare with cannot serve for these benchmarks."""
    if against == "accepted":
        return
    history.check_run(against)
    history.check_single(against)
    absent = sorted(set(benchmarks) - {benchmark for _, benchmark, _ in history.keys(against)})
    if absent:
        raise got_allowed("against", against, f"a run that has {', '.join(absent)}")


def gate(
    history: History,
    rows: Sequence[Mapping[str, Any]],
    against: str,
    tolerance: float,
    seed: int = 0,
    ungated: Collection[str] = (),
) -> Verdict:
    """Compare a run's rows (columns of the history) with the accepted (or the named) and the pinned run.

    A metric *fell* when it is worse by more than `tolerance`, and the 95 % interval of the difference (paired bootstrap
    over the items both have) is all on the worse side, so that neither noise nor a trifle closes a gate.

    Args:
        ungated: names BENCHMARK/METRIC that are not compared.
    """
    verdict = Verdict([], [], {}, [])
    if not rows:
        return verdict
    own = rows[0]["run_id"]
    after: dict[Key, Mapping[str, Any]] = {(row["cell"], row["benchmark"], row["metric"]): row for row in rows}
    done: dict[Key, set[str]] = {}
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    roles = _candidates(history, against, own)
    for role, candidates in roles.items():
        for run_id, keys in _due(history, candidates, after, benchmarks).items():
            shown = f"{role} run {run_id}"
            keys = [key for key in keys if run_id not in done.setdefault(key, set())]
            for key in keys:
                done[key].add(run_id)
            keys = [key for key in keys if f"{key[1]}/{key[2]}" not in ungated]
            if not keys:
                continue
            ids = verdict.against.setdefault(role, [])
            ids += [run_id] if run_id not in ids else []
            for grid in sorted({benchmark for cell, benchmark, _ in keys if cell}):
                why = "that is a grid, whose cells are settings tried out"
                verdict.lost.append(Lost(grid, "", shown, why, _remedy(role, own)))
            before = history.kept(run_id, keys)
            for key in (key for key in keys if not key[0]):
                found = _compare(before[key], after.get(key), shown, tolerance, seed)
                if isinstance(found, Change):
                    verdict.changes.append(found)
                else:
                    remedy = f"repair it, {_remedy(role, own)}, or leave it out (--ungated {key[1]}/{key[2]})"
                    verdict.lost.append(Lost(key[1], key[2], shown, found, remedy))
    if verdict.against:
        known = {benchmark for _, benchmark, _ in done}
        verdict.skipped.extend(f"{name}: no earlier run to compare with" for name in benchmarks if name not in known)
    verdict.skipped.extend(f"{name}: left out by --ungated" for name in ungated)
    last = next(iter(next(iter(roles.values()))), None)
    if last is not None:
        others = {benchmark for _, benchmark, _ in history.keys(last)} - set(benchmarks)
        verdict.skipped.extend(f"{name}: not evaluated this time" for name in sorted(others))
    return verdict


def _candidates(history: History, against: str, own: str) -> dict[str, list[str]]:
    """Role → runs that may stand for it, the first that has a metric counts; never the run itself."""
    accepted = [run_id for run_id in history.accepted() if run_id != own]
    pins = [run_id for run_id in history.pins() if run_id != own]
    first = {"accepted": accepted[::-1]} if against == "accepted" else {"run": [against]}
    return {**first, "pinned": [*pins[::-1], *accepted]}


def _due(
    history: History, candidates: Sequence[str], after: Collection[Key], benchmarks: Sequence[str]
) -> dict[str, list[Key]]:
    """Run → metrics to compare with it: all that the first run with a benchmark has of it, and of metrics that are new
    since, those of the first run that has them."""
    found: dict[str, list[Key]] = {}
    for benchmark in benchmarks:
        open_keys = {key for key in after if key[1] == benchmark}
        standing = False
        for run_id in candidates:
            own = {key for key in history.keys(run_id) if key[1] == benchmark}
            if not own:
                continue
            single = {key for key in own if not key[0]}
            due = (own & open_keys) if standing else (single or own)
            standing = True
            if due:
                found.setdefault(run_id, []).extend(sorted(due))
            open_keys -= due
            if not open_keys:
                break
    return found


def _remedy(role: str, own: str) -> str:
    return {
        "accepted": f"accept this run as it is (mats history accept {own})",
        "pinned": f"pin this run (mats history pin {own})",
        "run": "compare with another run",
    }[role]


def _compare(old: Kept, new: Mapping[str, Any] | None, against: str, tolerance: float, seed: int) -> Change | str:
    """The change of one metric, or why there is none."""
    if new is None:
        return "it could not be computed this time"
    past, now = old.facts, Kept.of(new)
    if (past["kind"], past["labels"]) != (new["kind"], new["labels"]):
        return "its labels are others"
    if past["statistic"] != new["statistic"]:
        return "it is counted in another way"
    if new["statistic"] in OF_SET and set(old.items) != set(now.items):
        sizes = f"{len(old.items)} then, {len(now.items)} now"
        return f"its values depend on which items there are, and these are others ({sizes})"
    there = len(set(old.items) & set(now.items))
    if there < LEAST_SHARE * len(old.items):
        least = f"{LEAST_SHARE:.0%} must be, so give it the same --limit"
        return f"only {there} of its {len(old.items)} items are in this run ({least})"
    places = {old.items[place]: row for row, place in enumerate(old.counted)}
    pairs = [(places[now.items[place]], row) for row, place in enumerate(now.counted) if now.items[place] in places]
    if not pairs:
        return "no item counts in both"
    first, second = old.table[[a for a, _ in pairs]], now.table[[b for _, b in pairs]]
    difference, low, high, _ = paired_bootstrap(first, second, seed, new["statistic"])
    worse = (-difference, -high) if new["higher_is_better"] else (difference, low)
    fell = worse[0] > tolerance and worse[1] > 0
    return Change(
        new["benchmark"], new["metric"], past["value"], new["value"], difference, low, high, len(pairs), against, fell
    )
