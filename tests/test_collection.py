"""What conftest.py does with tests before they run: marks, order, and the end of the Ray they share."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest

HERE = Path(__file__).parent


class Item:
    """A test, as far as the hook looks at it."""

    def __init__(self, name: str, *fixtures: str, marks: tuple[str, ...] = ()) -> None:
        self.path, self.fixturenames, self.marks = HERE / name, fixtures, set(marks)

    def add_marker(self, name: str) -> None:
        self.marks.add(name)

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.marks else None


def collected(monkeypatch: pytest.MonkeyPatch, items: list[Any], chosen: Any = lambda item: True) -> list[Any]:
    """The tests in the order in which they run, when -m or -k has left those that are chosen."""
    monkeypatch.setattr(conftest, "_sharing", set())
    hook = conftest.pytest_collection_modifyitems(items)
    next(hook)
    items[:] = filter(chosen, items)
    with pytest.raises(StopIteration):
        next(hook)
    return items


def test_files_that_share_a_ray_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of such a file's tests, in the order they had."""
    a, b, c, d = Item("a.py"), Item("b.py"), Item("b.py", "shared_ray"), Item("c.py", "shared_ray")
    assert collected(monkeypatch, [a, b, c, d]) == [b, c, d, a]
    assert conftest._sharing == {HERE / "b.py", HERE / "c.py"}
    assert [each.marks for each in (a, b, c)] == [set(), set(), {"processes"}]


def test_a_file_whose_tests_on_ray_are_left_out_shares_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a Ray that nobody uses would be kept running for it."""
    a, b, c = Item("a.py"), Item("b.py"), Item("b.py", "shared_ray", marks=("long",))
    d = Item("c.py", "shared_ray")
    chosen = lambda item: "long" not in item.marks  # noqa: E731
    assert collected(monkeypatch, [a, b, c, d], chosen) == [d, a, b]
    assert conftest._sharing == {HERE / "c.py"}


def test_what_starts_processes_is_marked_before_a_choice_by_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [Item("e2e/a.py"), Item("a.py", marks=("long",)), Item("a.py", "shared_ray"), Item("a.py", "store")]
    found = collected(monkeypatch, items, lambda item: "processes" not in item.marks)
    assert [each.marks for each in found] == [{"store"}]


def test_a_ray_that_a_test_has_ended_is_not_ended_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    for there in (False, True):
        ray = SimpleNamespace(shutdown=lambda: ended.append(True), is_initialized=lambda there=there: there)
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setattr(conftest, "_shared", {"127.0.0.1:1"})
        conftest._end_shared_ray()
        assert ended == [True] * there and conftest._shared == set()
