"""Names of others, before one becomes a path."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from mats_core.errors import StorageError
from mats_core.storage.names import name_fault, paths_below

FAULTY = {
    "": "is empty",
    "/etc/passwd": "is absolute",
    "C:/x": "is absolute",
    "c:x": "is absolute",
    "../x": "leaves its folder",
    "a/../../x": "leaves its folder",
    "..": "leaves its folder",
    "..\\x": "holds a backslash",
    "a\\b": "holds a backslash",
    "a//b": "holds an empty part",
    "a/./b": "holds an empty part",
    "a/": "holds an empty part",
    "a\x00b": "holds a control character",
    "a\nb": "holds a control character",
    "a\x1b[31mb": "holds a control character",
    "a\u2028b": "holds a control character",
    "NUL": "is the name of a device",
    "a/con.json": "is the name of a device",
    "aux .txt": "is the name of a device",
    "com1": "is the name of a device",
    "é" * 128: "more than 255 bytes",
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_name_that_may_be_no_path(name: str, tmp_path: Path) -> None:
    assert FAULTY[name] in str(name_fault(name))
    with pytest.raises(StorageError, match=f"refused: the name .* {FAULTY[name]}") as told:
        paths_below(tmp_path, ["good", name])
    assert str(told.value).isprintable()  # what it holds cannot move a terminal's cursor


def test_names_that_may(tmp_path: Path) -> None:
    names = ["config.json", "a/b c.txt", "…/雨.wav", ".hidden", "a/..b", "console", "é" * 127, "ab:c", "%2e%2e/x"]
    assert paths_below(tmp_path, names) == {name: tmp_path / name for name in names}


@pytest.mark.parametrize(
    "pair",
    [
        ("Config.json", "config.json"), ("a/x", "A/y"), ("straße", "STRASSE"), ("a", "a/b"), ("a/b", "a"), ("a", "a"),
        (unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")),
    ],
)  # fmt: skip
def test_two_names_that_some_file_systems_take_for_one(pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"refused: the names .* are one on some file systems"):
        paths_below(tmp_path, pair)


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="path of more than 4095 bytes"):
        paths_below(tmp_path, ["/".join(["a" * 250] * 17)])
