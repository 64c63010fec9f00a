"""The gate: a run beside the last accepted and the pinned one, metric by metric and item by item.

A bad night is never accepted, so it does not become what the next is measured by. Many falls that are each within the
tolerance add up against the pinned run, which moves by hand alone; until one is pinned, it is the first accepted. Both
are looked up for each metric on its own, so that nights may take turns with data sets. What an accepted run had and a
new one cannot show counts as a fall: a gate that compares nothing must not stand open.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mats_core.errors import SettingsError
from mats_core.scoring import OF_SET, paired_bootstrap
from pipelines.evaluate.history import History, ItemValues, Key

_REMEDIES = {
    "accepted": "accept this run as it is (mats history accept {})",
    "pinned": "pin this run (mats history pin {})",
    "run": "compare with another run",
}
LEAST_SHARE = 0.95
"""Of an earlier run's items, which a run must have to be compared with it."""


@dataclass(frozen=True)
class Change:
    """One metric of one data set in two runs, item by item. low, high: 95 % interval of new − old."""

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
class NotComparable:
    """A metric of an earlier run that cannot be compared, why, and what to do. metric: "" for a whole data set."""

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
    """What the gate says. not_comparable: what had to be compared and could not be; skipped: what need not be, and why.
    against: role (accepted or run, pinned) → run ids."""

    changes: list[Change]
    not_comparable: list[NotComparable]
    against: dict[str, list[str]]
    skipped: list[str]

    @property
    def falls(self) -> list[Change]:
        """The metrics that fell."""
        return [change for change in self.changes if change.fell]

    @property
    def open(self) -> bool:
        """Nothing fell, and everything that had to be compared could be."""
        return not self.falls and not self.not_comparable

    @property
    def reasons(self) -> list[str]:
        """Why the gate is closed, a sentence each."""
        return [str(each) for each in (*self.falls, *self.not_comparable)]


def check_against(history: History, against: str, names: Collection[str]) -> None:
    """Raise SettingsError when a run that was named to compare with cannot serve for these data sets."""
    if against == "accepted":
        return
    history.check_single(against)
    absent = sorted(set(names) - {key.benchmark for key in history.keys(against)})
    if absent:
        problem = f"run {against} has no {', '.join(absent)}"
        raise SettingsError("against", problem, "name a run that has, or leave these out of --benchmarks")


def gate(
    history: History, rows: Sequence[Mapping[str, Any]], against: str, tolerance: float, seed: int = 0,
    ungated: Collection[str] = (),
) -> Verdict:  # fmt: skip
    """Compare a run's rows (columns of the history) with the accepted (or the named) and the pinned run.

    A metric *fell* when it is worse by more than `tolerance`, and the 95 % interval of the difference (paired bootstrap
    over the items both have) is all on the worse side, so that neither noise nor a trifle closes a gate. ungated: names
    BENCHMARK/METRIC that are not compared.
    """
    verdict = Verdict([], [], {}, [])
    if not rows:
        return verdict
    own_id = rows[0]["run_id"]
    new = {Key(row["cell"], row["benchmark"], row["metric"]): row for row in rows}
    names = list(dict.fromkeys(key.benchmark for key in new))
    accepted = [run_id for run_id in history.accepted() if run_id != own_id]
    pins = [run_id for run_id in history.pins() if run_id != own_id]
    # Role → runs that may stand for it, never the run itself; of several that have a metric the first stands.
    first = {"accepted": accepted[::-1]} if against == "accepted" else {"run": [against]}
    roles = {**first, "pinned": [*pins[::-1], *accepted]}
    seen: set[tuple[str, Key]] = set()  # a run that stands for both roles is compared once
    for role, candidates in roles.items():
        for run_id, due in _due(history, candidates, new, names).items():
            fresh = [key for key in due if (run_id, key) not in seen]
            seen |= {(run_id, key) for key in fresh}
            keys = [key for key in fresh if f"{key.benchmark}/{key.metric}" not in ungated]
            if not keys:
                continue
            verdict.against.setdefault(role, []).append(run_id)
            shown, remedy = f"{role} run {run_id}", _REMEDIES[role].format(own_id)
            for name in sorted({key.benchmark for key in keys if key.cell}):
                why = "that is a grid, whose cells are settings tried out"
                verdict.not_comparable.append(NotComparable(name, "", shown, why, remedy))
            old = history.item_values(run_id, keys)
            for key in (key for key in keys if not key.cell):
                found = _compare(old[key], new.get(key), shown, tolerance, seed)
                if isinstance(found, Change):
                    verdict.changes.append(found)
                else:
                    leave_out = f"repair it, {remedy}, or leave it out (--ungated {key.benchmark}/{key.metric})"
                    verdict.not_comparable.append(NotComparable(key.benchmark, key.metric, shown, found, leave_out))
    if verdict.against:
        known = {key.benchmark for _, key in seen}
        verdict.skipped.extend(f"{name}: no earlier run to compare with" for name in names if name not in known)
    verdict.skipped.extend(f"{name}: left out by --ungated" for name in ungated)
    last = next(iter(next(iter(roles.values()))), None)
    if last is not None:
        others = {key.benchmark for key in history.keys(last)} - set(names)
        verdict.skipped.extend(f"{name}: not evaluated this time" for name in sorted(others))
    return verdict


def _due(
    history: History, candidates: Sequence[str], new: Collection[Key], names: Sequence[str]
) -> dict[str, list[Key]]:
    """Run → the metrics to compare with it.

    Of each data set, the first candidate that has it stands for all metrics it has of it; a metric that is new since
    is compared with the first candidate that has it.
    """
    found: dict[str, list[Key]] = {}
    for name in names:
        left = {key for key in new if key.benchmark == name}
        standing = False
        for run_id in candidates:
            has = {key for key in history.keys(run_id) if key.benchmark == name}
            if not has:
                continue
            due = (has & left) if standing else ({key for key in has if not key.cell} or has)
            standing = True
            if due:
                found.setdefault(run_id, []).extend(sorted(due))
            left -= due
            if not left:
                break
    return found


def _compare(old: ItemValues, new: Mapping[str, Any] | None, against: str, tolerance: float, seed: int) -> Change | str:
    """The change of one metric, or why there is none."""
    if new is None:
        return "it could not be computed this time"
    past, now = old.row, ItemValues.of(new)
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
    paired = paired_difference(old, now, new["statistic"], seed)
    if paired is None:
        return "no item counts in both"
    difference, low, high, items = paired
    worse = (-difference, -high) if new["higher_is_better"] else (difference, low)
    fell = worse[0] > tolerance and worse[1] > 0
    values = (past["value"], new["value"], difference, low, high)
    return Change(new["benchmark"], new["metric"], *values, items, against, fell)


def paired_difference(
    old: ItemValues, new: ItemValues, statistic: str, seed: int = 0
) -> tuple[float, float, float, int] | None:
    """(new − old, low, high, items): the difference of a statistic over the items that count in both, and its 95 %
    interval (paired bootstrap); None where none does."""
    places = {old.items[place]: row for row, place in enumerate(old.counted)}
    pairs = [(places[new.items[place]], row) for row, place in enumerate(new.counted) if new.items[place] in places]
    if not pairs:
        return None
    first, second = old.table[[a for a, _ in pairs]], new.table[[b for _, b in pairs]]
    difference, low, high, _ = paired_bootstrap(first, second, seed, statistic)
    return difference, low, high, len(pairs)
