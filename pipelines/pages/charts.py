"""Charts: a metric over time, as text for a terminal and as an SVG picture.

Pictures are SVG by hand, so that they need no plotting package, read anywhere, and tell a point's figures where it is
pointed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 40, 44
COLOURS = {"pinned": "#8a5a00", "accepted": "#1f6b42", "": "#a8385a"}
MARKS = {"pinned": "◆", "accepted": "●", "": "○"}
PLOT_ROWS, PLOT_COLUMNS = 12, 60


@dataclass(frozen=True)
class Point:
    """One run's figure with its 95 % interval over n items."""

    run_id: str
    started: str
    value: float
    low: float
    high: float
    n: int


def _range(points: Sequence[Point]) -> tuple[float, float]:
    """Lowest and highest value to draw: all intervals, and a little room."""
    low, high = min(p.low for p in points), max(p.high for p in points)
    pad = 0.06 * (high - low) or max(abs(high) * 0.05, 0.01)
    return low - pad, high + pad


def terminal_plot(points: Sequence[Point], marks: Mapping[str, str]) -> str:
    """A plot of PLOT_ROWS lines: a mark a run (◆ pinned, ● accepted, ○ others) on a bar that is its interval."""
    low, high = _range(points)
    gap = max(1, min(6, PLOT_COLUMNS // len(points)))
    canvas = [[" "] * (gap * len(points)) for _ in range(PLOT_ROWS)]

    def line(value: float) -> int:
        return round((high - value) / (high - low) * (PLOT_ROWS - 1))

    for index, point in enumerate(points):
        column = index * gap + gap // 2
        for row in range(line(point.high), line(point.low) + 1):
            canvas[row][column] = "│"
        canvas[line(point.value)][column] = MARKS[marks.get(point.run_id, "")]
    lines = []
    for row, cells in enumerate(canvas):
        label = f"{high - (high - low) * row / (PLOT_ROWS - 1):8.4f}" if row % 3 == 0 or row == PLOT_ROWS - 1 else ""
        lines.append(f"{label:>8} ┤{''.join(cells)}".rstrip())
    first, last = points[0].started[:10], points[-1].started[:10]
    space = max(1, gap * len(points) - len(first) - len(last))
    return "\n".join([*lines, f"{'':9} {first}{' ' * space}{last}", f"{'':9} ◆ pinned  ● accepted  ○ other"])


def history_svg(title: str, points: Sequence[Point], marks: Mapping[str, str]) -> str:
    """The same as a picture: points with their intervals, joined in order of time; a line at the pinned value."""
    low, high = _range(points)

    def place(index: int, value: float) -> tuple[float, float]:
        step = (WIDTH - LEFT - RIGHT) / max(1, len(points))
        y = TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return LEFT + step * (index + 0.5), y

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="11" fill="#6b655b">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fffefb"/>',
        f'<text x="{LEFT}" y="22" font-size="15" fill="#24211c" font-weight="600">{escape(title)}</text>',
    ]
    for value in np.linspace(low, high, 5):
        y = place(0, float(value))[1]
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4dfd4"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3f}</text>')
    pinned = next((p for p in points if marks.get(p.run_id) == "pinned"), None)
    if pinned is not None:
        y = place(0, pinned.value)[1]
        out.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{COLOURS["pinned"]}" '
            'stroke-dasharray="5 4"/>'
        )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(i, p.value) for i, p in enumerate(points)))
    out.append(f'<polyline points="{path}" fill="none" stroke="#a8385a" stroke-width="1.5" stroke-opacity=".5"/>')
    shown = set(range(0, len(points), max(1, len(points) // 8)))
    for index, point in enumerate(points):
        x, y = place(index, point.value)
        top, bottom = place(index, point.high)[1], place(index, point.low)[1]
        colour = COLOURS[marks.get(point.run_id, "")]
        tip = f"{point.started} {point.run_id}: {point.value:.4f} ({point.low:.4f} to {point.high:.4f})"
        out.append(
            f'<g stroke="{colour}"><title>{escape(tip)}</title>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke-opacity=".55" stroke-width="2"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" stroke="#fffefb" stroke-width="1.5"/></g>'
        )
        if index in shown:
            date = escape(point.started[5:10])
            out.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{date}</text>')
    at = LEFT
    for name, colour in COLOURS.items():
        label = name or "other"
        out.append(f'<circle cx="{at + 5}" cy="{HEIGHT - 10}" r="4.5" fill="{colour}"/>')
        out.append(f'<text x="{at + 14}" y="{HEIGHT - 6}">{label}</text>')
        at += 90
    return "\n".join([*out, "</svg>"]) + "\n"
