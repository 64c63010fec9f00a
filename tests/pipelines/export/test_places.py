from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.export.places import MOST_NAME, Names, common_root, safe_steps


@settings(deadline=None)  # others may use the machine too
@given(st.lists(st.text(max_size=300), min_size=1, max_size=8))
def test_no_name_leads_out_of_the_output(names: list[str]) -> None:
    given_out = Names()
    paths = [given_out.path(name, ".vtt") for name in dict.fromkeys(names)]
    assert len({path.lower() for path in paths}) == len(paths)
    for path in paths:
        for step in path.split("/"):
            assert step not in ("", ".", "..") and "\\" not in step and "\0" not in step
            assert len(step.encode()) <= 255  # raises for what is no UTF-8


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("../../etc/passwd", ["etc", "passwd"]),
        ("a\\..\\b.wav", ["a", "b.wav"]),
        ("C:\\x.wav", ["C_", "x.wav"]),
        ("con.wav", ["_con.wav"]),
        ("-rf", ["_-rf"]),
        ("...", ["_"]),
        ('a "bell".wav', ["a _bell_.wav"]),  # docs/finding.md says so
        ("a\n\x00b", ["a__b"]),
    ],
)
def test_hostile_paths(path: str, steps: list[str]) -> None:
    assert safe_steps(path) == steps


def test_long_names_are_told_apart() -> None:
    one, other = (safe_steps("x" * 300 + end)[0] for end in "ab")
    assert one != other and len(one.encode()) <= MOST_NAME


def test_paths_are_those_of_the_archive() -> None:
    uris = ["/archive/a/one.wav", "/archive/a/one.flac", "/archive/b/one.wav", "/archive/a/ONE.wav"]
    root = common_root(iter(uris))
    assert root == "/archive/"
    names = Names(root)
    assert [names.path(uri, ".vtt") for uri in uris[:3]] == ["a/one.vtt", "a/one.flac.vtt", "b/one.vtt"]
    assert names.path(uris[3], ".vtt") == "a/ONE.wav.vtt"  # for a file system that knows no case
    assert names.path(uris[0], ".vtt") == "a/one.vtt"
