"""Charts: what is drawn lies where it should, and what is written is text."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from pipelines.pages.charts import MOST_POINTS, Point, curve_svg, history_svg, reliability_svg, terminal_plot


def test_a_picture_has_a_line_a_name_and_round_ticks() -> None:
    svg = curve_svg("Loss & more", {"a": [(0, 1.0), (10, 3.0)], "b <x>": [(10, 2.0)], "none": [(1, float("nan"))]})
    root = ElementTree.fromstring(svg)
    names = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Loss & more", "a", "b <x>", "1", "2", "3", "0", "10", "step"} <= set(names)
    assert "none" not in names
    lines = [each.get("points") for each in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert lines[0] == "60.0,224.0 490.0,28.0"  # the lowest point at the bottom left, the highest at the top right


def test_long_curves_are_thinned_to_their_means() -> None:
    svg = curve_svg("x", {"a": [(i, float(i % 2)) for i in range(10 * MOST_POINTS)]})
    (line,) = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}polyline")
    points = (line.get("points") or "").split()
    assert len(points) == MOST_POINTS
    assert len({point.split(",")[1] for point in points}) == 1  # 0, 1, 0, 1, … is 0.5 everywhere


def test_confidence_that_comes_true_lies_on_the_diagonal() -> None:
    """A dot a bin, the larger the more answers; the line joins those that stand for enough of them."""
    svg = reliability_svg(
        "True?", {"captions": [(0.0, 0.0, 25), (0.5, 1.0, 1), (1.0, 1.0, 100)], "a < b": [(0.5, 0.5, 9)]}
    )
    root = ElementTree.fromstring(svg)
    diagonal, line = (each.get("points") for each in root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert diagonal == line == "60.0,364.0 410.0,28.0"
    dots = [each.get("r") for each in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert dots == ["4.5", "2.5", "7", "7"]
    tips = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert tips[1] == "captions: 1 answers of confidence 0.500, 1.000 of them right"
    assert (tips[3] or "").startswith("a < b")


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        curve_svg("x", {"a": []})


def test_a_metric_over_time_as_text_and_picture() -> None:
    points = [
        Point(run_id, f"2026-11-{day:02d}T03:00:00Z", right, right - 0.02, right + 0.02, 400)
        for day, (run_id, right) in enumerate((("a", 0.8), ("b", 0.9), ("c", 0.5)), start=1)
    ]
    roles = {"a": "pinned", "b": "accepted", "c": ""}
    lines = terminal_plot(points, roles).splitlines()
    height = {mark: next(i for i, line in enumerate(lines) if mark in line) for mark in "◆●○"}
    assert height["●"] < height["◆"] < height["○"]
    picture = history_svg("bells/accuracy <night>", points, roles)
    assert picture.count("<title>") == 3
    assert "&lt;night&gt;" in picture
    ElementTree.fromstring(picture)
