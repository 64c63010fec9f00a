"""Charts: what stands in the picture, and where."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from pipelines.pages.charts import MOST_POINTS, curve_svg


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


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        curve_svg("x", {"a": []})
