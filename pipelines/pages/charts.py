"""Charts as SVG text by hand.

matplotlib was tried for the same curves: 1.3 s to import against nothing, 97 MB installed, 21 kB a picture against 6,
and no fewer lines once sizes, fonts and legends are set. A hand-made picture is searchable text that any browser shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

LINE_COLOURS = ("#31688e", "#d1495b", "#2a9d5c", "#e6a117", "#7b4ea3", "#555555", "#17a2b8", "#b5651d")
MOST_POINTS = 400

Line = Sequence[tuple[float, float]]


def curve_svg(title: str, lines: Mapping[str, Line], x_label: str = "step") -> str:
    """A line chart. lines: name → points (x, y); points that are not finite are left out. Raises ValueError when no
    point is left."""
    drawn = {name: _thinned([p for p in line if all(map(math.isfinite, p))]) for name, line in lines.items()}
    drawn = {name: line for name, line in drawn.items() if line}
    if not drawn:
        raise ValueError(f"{title}: nothing to draw")
    width, height, left, right, top, bottom = 640, 260, 60, 150, 28, 36  # the picture, and the margins of its axes
    xs = [x for line in drawn.values() for x, _ in line]
    ys = [y for line in drawn.values() for _, y in line]
    x0, x1 = min(xs), max(xs)
    ticks = _ticks(min(ys), max(ys))
    y0, y1 = min(ticks[0], *ys), max(ticks[-1], *ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x0) / ((x1 - x0) or 1), (y - y0) / ((y1 - y0) or 1)
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="11" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="16" font-size="13">{escape(title)}</text>',
    ]
    for y in ticks:
        _, at = place(x0, y)
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in (x0, x1):
        at, _ = place(x, y0)
        out.append(f'<text x="{at:.1f}" y="{height - bottom + 16}" text-anchor="middle">{x:g}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>')
    for number, (name, line) in enumerate(drawn.items()):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        dots = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(*point) for point in line))
        out.append(f'<polyline points="{dots}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if len(line) == 1:
            a, b = place(*line[0])
            out.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>')
        at = top + 12 + 15 * number
        out.append(f'<rect x="{width - right + 12}" y="{at - 9}" width="10" height="10" fill="{colour}"/>')
        out.append(f'<text x="{width - right + 27}" y="{at}">{escape(name)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def _thinned(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points: the mean of each stretch."""
    size = math.ceil(len(line) / MOST_POINTS) or 1
    groups = [line[at : at + size] for at in range(0, len(line), size)]
    return [(g[-1][0], sum(y for _, y in g) / len(g)) for g in groups]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about five of them."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(f for f in (1, 2, 5, 10) if span / (f * step) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]
