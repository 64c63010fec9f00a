"""Charts: curves over steps, and a metric over time as a picture and as text for a terminal.

Pictures are SVG by hand: they need no plotting package, read anywhere, and tell the figures of the point one points at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

INK, PAPER, RULES = "#6b655b", "#fffefb", "#e4dfd4"
CURVES = ("#31688e", "#d1495b", "#2a9d5c", "#e6a117", "#7b4ea3", "#555555", "#17a2b8", "#b5651d")
ROLES = {"pinned": "#8a5a00", "accepted": "#1f6b42", "": "#a8385a"}
MARKS = {"pinned": "◆", "accepted": "●", "": "○"}
PICTURE_MARK = "<!-- generator: MATS -->"
"""Stands at the beginning of every picture: only such a one is replaced without being asked to."""
MOST_POINTS, FEWEST = 400, 10
PLOT_ROWS, PLOT_COLUMNS = 12, 60

Line = Sequence[tuple[float, float]]


class _Picture:
    """An SVG picture in the making: a title, and a plane whose y axis goes over round numbers."""

    def __init__(self, title: str, size: tuple[int, int], xs: tuple[float, float], ys: tuple[float, float]) -> None:
        """size: of the picture, with room for text around the plane; xs, ys: lowest and highest number."""
        (self.width, self.height), (self.x0, self.x1) = size, xs
        self.left, self.right, self.top, self.bottom = 60, size[0] - 150, 28, size[1] - 36
        ticks = _ticks(*ys)
        self.y0, self.y1 = ticks[0], ticks[-1]
        self._out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'font-family="sans-serif" font-size="11" fill="{INK}">',
            PICTURE_MARK,
            f'<rect width="{self.width}" height="{self.height}" fill="{PAPER}"/>',
            f'<text x="{self.left}" y="18" font-size="14" fill="#24211c">{escape(title)}</text>',
        ]
        self.add = self._out.append
        for y in ticks:
            self.rule(y, RULES)
            self.text(self.left - 6, self.place(self.x0, y)[1] + 4, f"{y:g}", "end")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where numbers lie in the picture."""
        right = self.left + (x - self.x0) / ((self.x1 - self.x0) or 1) * (self.right - self.left)
        return round(right, 1), round(self.bottom - (y - self.y0) / (self.y1 - self.y0) * (self.bottom - self.top), 1)

    def text(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def rule(self, y: float, colour: str, dashes: str = "none") -> None:
        at = self.place(self.x0, y)[1]
        ends = f'x1="{self.left}" x2="{self.right}" y1="{at}" y2="{at}"'
        self.add(f'<line {ends} stroke="{colour}" stroke-dasharray="{dashes}"/>')

    def curve(self, line: Line, colour: str) -> None:
        dots = " ".join(f"{a},{b}" for a, b in (self.place(*point) for point in line))
        self.add(f'<polyline points="{dots}" fill="none" stroke="{colour}" stroke-width="1.6"/>')

    def dot(self, x: float, y: float, colour: str, radius: float = 4) -> None:
        a, b = self.place(x, y)
        self.add(f'<circle cx="{a}" cy="{b}" r="{radius:.3g}" fill="{colour}"/>')

    def key(self, names: Mapping[str, str]) -> None:
        """What colours stand for, to the right of the plane: name → colour."""
        for number, (name, colour) in enumerate(names.items()):
            at = self.top + 12 + 15 * number
            self.add(f'<rect x="{self.right + 12}" y="{at - 9}" width="10" height="10" fill="{colour}"/>')
            self.text(self.right + 27, at, name)

    def svg(self) -> str:
        return "\n".join([*self._out, "</svg>"]) + "\n"


def curve_svg(title: str, lines: Mapping[str, Line], x_label: str = "step") -> str:
    """A line chart as SVG.

    lines: name → points (x, y); points that are not finite are left out. Raises ValueError when no point is left.
    """
    finite = {name: [point for point in line if all(map(math.isfinite, point))] for name, line in lines.items()}
    drawn = {name: _thinned(line) for name, line in finite.items() if line}
    if not drawn:
        raise ValueError(f"{title}: nothing to draw")
    xs, ys = zip(*(point for line in drawn.values() for point in line), strict=True)
    picture = _Picture(title, (640, 260), (min(xs), max(xs)), (min(ys), max(ys)))
    for x in (min(xs), max(xs)):
        picture.text(picture.place(x, min(ys))[0], picture.bottom + 16, f"{x:g}", "middle")
    picture.text((picture.left + picture.right) / 2, picture.height - 8, x_label, "middle")
    colours = {name: CURVES[number % len(CURVES)] for number, name in enumerate(drawn)}
    for name, line in drawn.items():
        picture.curve(line, colours[name])
        if len(line) == 1:
            picture.dot(*line[0], colours[name])
    picture.key(colours)
    return picture.svg()


def reliability_svg(title: str, tasks: Mapping[str, Sequence[tuple[float, float, int]]]) -> str:
    """Confidence against the share of answers that was right, as SVG; on the diagonal they are the same.

    tasks: name → bins (mean confidence, share right, answers), as `mats_core.scoring.reliability_bins` makes them; a
    dot's size tells how many answers it stands for, and the line leaves out those of fewer than FEWEST.
    """
    picture = _Picture(title, (560, 400), (0.0, 1.0), (0.0, 1.0))
    picture.text(
        (picture.left + picture.right) / 2, picture.height - 8, "confidence (share that is right: upwards)", "middle"
    )
    for x in (0.0, 0.5, 1.0):
        picture.text(picture.place(x, 0.0)[0], picture.bottom + 16, f"{x:g}", "middle")
    picture.curve([(0.0, 0.0), (1.0, 1.0)], RULES)
    colours = {name: CURVES[number % len(CURVES)] for number, name in enumerate(tasks)}
    for name, bins in tasks.items():
        line = [(sure, right) for sure, right, count in bins if count >= FEWEST]
        if len(line) > 1:
            picture.curve(line, colours[name])
        most = max((count for _, _, count in bins), default=1)
        for sure, right, count in bins:
            tip = f"{name}: {count} answers of confidence {sure:.3f}, {right:.3f} of them right"
            picture.add(f"<g><title>{escape(tip)}</title>")
            picture.dot(sure, right, colours[name], 2.0 + 5.0 * math.sqrt(count / most))
            picture.add("</g>")
    picture.key(colours)
    return picture.svg()


def _thinned(line: Line) -> Line:
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


class Point(NamedTuple):
    """One run's figure with its 95 % interval over n items."""

    run_id: str
    started: str
    value: float
    low: float
    high: float
    n: int


def history_svg(title: str, points: Sequence[Point], roles: Mapping[str, str]) -> str:
    """A metric over time as SVG: points with their intervals, joined in order of time; a line at the pinned value.

    roles: run id → pinned, accepted or "".
    """
    ys = (min(p.low for p in points), max(p.high for p in points))
    picture = _Picture(title, (820, 300), (-0.5, len(points) - 0.5), ys)
    for point in points:
        if roles.get(point.run_id) == "pinned":
            picture.rule(point.value, ROLES["pinned"], "5 4")
    picture.curve([(index, point.value) for index, point in enumerate(points)], "#dca3b2")
    for index, point in enumerate(points):
        colour = ROLES[roles.get(point.run_id, "")]
        (x, top), (_, bottom) = picture.place(index, point.high), picture.place(index, point.low)
        tip = f"{point.started} {point.run_id}: {point.value:.4f} ({point.low:.4f} to {point.high:.4f})"
        picture.add(f'<g stroke="{colour}"><title>{escape(tip)}</title>')
        picture.add(f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke-opacity=".55" stroke-width="2"/>')
        picture.dot(index, point.value, colour)
        picture.add("</g>")
        if index % max(1, len(points) // 8) == 0:
            picture.text(x, picture.bottom + 18, point.started[5:10], "middle")
    picture.key({role or "other": colour for role, colour in ROLES.items()})
    return picture.svg()


def terminal_plot(points: Sequence[Point], roles: Mapping[str, str]) -> str:
    """A plot of PLOT_ROWS lines: a mark a run (◆ pinned, ● accepted, ○ others) on a bar that is its interval.

    roles: run id → pinned, accepted or "".
    """
    low, high = min(p.low for p in points), max(p.high for p in points)
    room = 0.06 * (high - low) or max(abs(high) * 0.05, 0.01)
    low, high = low - room, high + room
    gap = max(1, min(6, PLOT_COLUMNS // len(points)))
    canvas = [[" "] * (gap * len(points)) for _ in range(PLOT_ROWS)]

    def line(value: float) -> int:
        return round((high - value) / (high - low) * (PLOT_ROWS - 1))

    for index, point in enumerate(points):
        column = index * gap + gap // 2
        for row in range(line(point.high), line(point.low) + 1):
            canvas[row][column] = "│"
        canvas[line(point.value)][column] = MARKS[roles.get(point.run_id, "")]
    lines = []
    for row, cells in enumerate(canvas):
        label = f"{high - (high - low) * row / (PLOT_ROWS - 1):8.4f}" if row % 3 == 0 or row == PLOT_ROWS - 1 else ""
        lines.append(f"{label:>8} ┤{''.join(cells)}".rstrip())
    first, last = points[0].started[:10], points[-1].started[:10]
    space = max(1, gap * len(points) - len(first) - len(last))
    return "\n".join([*lines, f"{'':9} {first}{' ' * space}{last}", f"{'':9} ◆ pinned  ● accepted  ○ other"])
