"""What the times of a clip's events tell: what comes after what, together, all the time, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.corpus.clips import Event

PAUSE_S = 0.3
"""A shorter pause does not make two sounds of one."""
APART_S = 0.1
"""How far an end may reach behind a start that comes after it, and by how much a start must be the first."""
ALL_THE_TIME = 0.8
"""Share of the clip's sounding time that a label takes which is there throughout."""


@dataclass(frozen=True)
class Phase:
    """Labels that are heard before all of the next phase. together: whether all of them sound at one moment."""

    labels: tuple[str, ...]
    together: bool


@dataclass(frozen=True)
class Timeline:
    """phases: what comes after what. throughout: labels that sound nearly all the time while others come and go; they
    are in no phase. times: label → number of separate occurrences. first: the label that starts before all others, ""
    where two start at once."""

    phases: tuple[Phase, ...]
    throughout: tuple[str, ...]
    times: dict[str, int]
    first: str


def timeline(events: Sequence[Event]) -> Timeline:
    """The order that `events` have; an event without a length is a moment."""
    spans: dict[str, list[list[float]]] = {}
    for event in sorted(events, key=lambda each: (each.start_s, each.end_s)):
        own = spans.setdefault(event.label, [])
        if own and event.start_s <= own[-1][1] + PAUSE_S:
            own[-1][1] = max(own[-1][1], event.end_s)
        else:
            own.append([event.start_s, max(event.end_s, event.start_s)])
    if not spans:
        return Timeline((), (), {}, "")
    starts = sorted((own[0][0], label) for label, own in spans.items())
    alone = len(starts) == 1 or starts[1][0] - starts[0][0] > APART_S
    end = max(own[-1][1] for own in spans.values())
    least = ALL_THE_TIME * (end - starts[0][0])
    throughout = [label for label, own in spans.items() if sum(till - since for since, till in own) >= least > 0]
    if len(throughout) == len(spans):
        throughout = []
    pieces = sorted(
        (since, till, label) for label, own in spans.items() if label not in throughout for since, till in own
    )
    return Timeline(
        _phases(pieces),
        tuple(throughout),
        {label: len(own) for label, own in spans.items()},
        starts[0][1] if alone else "",
    )


def _phases(pieces: list[tuple[float, float, str]]) -> tuple[Phase, ...]:
    """Runs of pieces (start, end, label, by start) that touch."""
    phases: list[Phase] = []
    run: list[tuple[float, float, str]] = []
    reach = 0.0
    for piece in [*pieces, (float("inf"), 0.0, "")]:
        if run and piece[0] >= reach - APART_S and piece[0] > run[-1][0] + APART_S:
            labels = tuple(dict.fromkeys(label for _, _, label in run))
            shared = min(till for _, till, _ in run) - max(since for since, _, _ in run)
            phases.append(Phase(labels, len(labels) == 1 or (len(labels) == len(run) and shared > APART_S)))
            run, reach = [], 0.0
        run.append(piece)
        reach = max(reach, piece[1])
    return tuple(phases)
