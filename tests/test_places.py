"""Public functions take a place as text, as a `pathlib.Path` and as a URL alike.

Public is what `mats_core` and `mats_core.storage` export, and what the command line takes from pipelines. A place is
typed `Uri`, and mypy then asks for its text before anything else is done with it; a function that types it `str` is
found here by its signature.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

import mats_core
from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.uris import Uri, path_of, to_uri, uri_text
from pipelines.data.inputs import open_input
from pipelines.data.lists import read_table
from pipelines.settings.archive import CaptionSettings
from pipelines.settings.text import EmbedTextSettings
from tests.recordings import encode, melody

ROOT = Path(__file__).parents[1]
_NAMES = """
    uri url path folder directory out output out_path input answers source target base root place truth checkpoint
    llm clap encoder memory model run_a run_b name_or_path archive embeddings
"""
PLACES = frozenset(_NAMES.split())
"""What a parameter that names a place is called."""
NO_PLACES = {
    "mats_core.MatsModel.__init__": "the parts themselves, loaded",
    "pipelines.pages.answers.path_text": "what a row says, as text",
    "mats_core.storage.FileInfo.__init__": "what a listing says, as text",
}
RESULTS = ("Result", "Progress", "Estimate", "Comparison")
"""Ends of the names of classes that tell what was done; nobody gives them a place."""


def public() -> Iterator[tuple[str, Any]]:
    """(name, function or class) of everything public."""
    for room in (mats_core, storage):
        names = room.__all__ if hasattr(room, "__all__") else [name for name in vars(room) if name[0] != "_"]
        for name in names:
            yield f"{room.__name__}.{name}", getattr(room, name)
    files = [file for file in (ROOT / "jobs").rglob("*.py") if "benchmarks" not in file.parts]
    for file in sorted(files):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipelines"):
                for alias in node.names:
                    found = getattr(importlib.import_module(str(node.module)), alias.name, None)
                    yield f"{node.module}.{alias.name}", found


def functions() -> dict[str, Callable[..., Any]]:
    """Every public function and method, by name; settings are pydantic's and have a test of their own."""
    found: dict[str, Callable[..., Any]] = {}
    for name, each in public():
        if inspect.isfunction(each):
            found[name] = each
        elif inspect.isclass(each) and not issubclass(each, BaseModel) and not name.endswith(RESULTS):
            for method, value in vars(each).items():
                value = getattr(value, "__func__", value)
                if inspect.isfunction(value) and (method[0] != "_" or method == "__init__"):
                    found[f"{name}.{method}"] = value
    return found


def takes_paths(annotation: Any) -> bool:
    """Whether a parameter, annotated so, takes `os.PathLike` where it takes text."""
    kinds = [kind.strip() for kind in str(annotation).split("|")]
    return "str" not in kinds or "Uri" in kinds or "os.PathLike[str]" in kinds


def wrong_places(function: Callable[..., Any]) -> list[str]:
    """The parameters of a function that name a place, and take it as text alone."""
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.name in PLACES and not takes_paths(each.annotation)]


def test_every_public_function_takes_a_place_as_text_and_as_path() -> None:
    found = functions()
    assert len(found) > 60
    assert {"mats_core.load_model", "mats_core.storage.read_bytes"} <= set(found)
    assert {
        name: wrong for name, each in found.items() if (wrong := wrong_places(each)) and name not in NO_PLACES
    } == {}


def test_a_place_that_is_typed_as_text_would_be_found() -> None:
    def fingerprinted(uri: str, out: str | None = None, model: Uri = "", text: str = "") -> None:
        """What a new function might look like."""

    assert wrong_places(fingerprinted) == ["uri", "out"]


@pytest.mark.parametrize("folded", ["s3://bucket/a b.wav", "https://host/x.wav", "file:///tmp/a.wav", "gs://b/c"])
def test_a_url_that_went_through_pathlib_is_one_again(folded: str) -> None:
    assert uri_text(Path(folded)) == folded
    assert uri_text(folded) == folded


def test_the_home_and_the_percent_signs_of_a_file_url_are_read() -> None:
    assert path_of("~/x") == Path.home() / "x"
    assert path_of("file:///a%20b/%C3%BC") == Path("/a b/ü")
    assert path_of("s3://bucket/x") is None
    assert to_uri("file:///a%20b.wav") == "file:///a%20b.wav"
    assert to_uri(b"/a.wav") == to_uri(Path("/a.wav")) == "/a.wav"


def spellings(path: Path) -> list[Uri]:
    """A local path in every way that it may be given."""
    assert " " in str(path), "so that a URL has to be decoded"
    return [str(path), path, f"file://{str(path).replace(' ', '%20')}", f"FILE://{str(path).replace(' ', '%20')}"]


def test_storage_reads_and_writes_whatever_the_spelling(tmp_path: Path) -> None:
    for number, uri in enumerate(spellings(tmp_path / "a b" / "x.bin")):
        storage.make_dirs(spellings(tmp_path / "a b")[number])
        storage.write_bytes(uri, b"12345")
        assert storage.read_bytes(uri) == b"12345"
        with storage.open_binary(uri) as file:
            assert file.read() == b"12345"
        assert storage.exists(uri) and not storage.is_dir(uri)
        assert storage.stat(uri).size == 5
        assert [each.size for each in storage.list_files(spellings(tmp_path / "a b")[number])] == [5]
        assert storage.same_place(uri, tmp_path / "a b" / "x.bin")
        assert storage.lies_in(uri, tmp_path)
        assert storage.read_bytes(storage.join(spellings(tmp_path / "a b")[number], "x.bin")) == b"12345"
        storage.remove_tree(uri)
        assert not (tmp_path / "a b" / "x.bin").exists()


def test_an_input_is_the_same_whatever_the_spelling(tmp_path: Path) -> None:
    folder = tmp_path / "in put"
    folder.mkdir()
    (folder / "a.wav").write_bytes(b"12345")
    pq.write_table(pa.table({"uri": ["a.wav"], "n": [7]}), folder / "list.parquet")
    for kind, path in (("files", folder), ("files", folder / "a.wav"), ("list", folder / "list.parquet")):
        for uri in spellings(path):
            source = open_input(uri)
            assert source.kind == kind
            assert [(entry.path, entry.size, entry.error) for entry in source.entries] == [("a.wav", 5, None)]
    assert [read_table(uri_text(uri))[0].names for uri in spellings(folder / "list.parquet")] == [["uri", "n"]] * 4


def test_settings_take_paths_wherever_they_take_text(tmp_path: Path) -> None:
    settings = CaptionSettings(input=tmp_path, output=Path("s3://bucket/out"), model=tmp_path / "m")  # type: ignore[arg-type]
    assert (settings.input, settings.output) == (str(tmp_path), "s3://bucket/out")
    assert settings.model == str(tmp_path / "m")
    text = EmbedTextSettings(corpora=[tmp_path / "a.jsonl", "b.jsonl"], output=tmp_path)  # type: ignore[list-item, arg-type]
    assert text.corpora == [str(tmp_path / "a.jsonl"), "b.jsonl"]


@pytest.mark.processes
def test_a_model_and_a_sound_are_the_same_whatever_the_spelling(tmp_path: Path, tiny_model_dir: str) -> None:
    folder = tmp_path / "my model"
    folder.symlink_to(tiny_model_dir)
    (tmp_path / "my sound.wav").write_bytes(encode(melody(8000, 0.5), 8000, "wav"))
    model = mats_core.load_model(folder)
    answers = {model.answer(uri) for uri in spellings(tmp_path / "my sound.wav")}
    assert len(answers) == 1
    memory = mats_core.SantaMemory.load(model.parts["memory"], mmap=False)
    for number, uri in enumerate(spellings(folder)):
        assert mats_core.check_model_dir(uri) == model.config
        assert mats_core.load_model(uri, memory=False, encoder=False).fingerprint == model.fingerprint
        kept = spellings(tmp_path / f"memory {number}")[number]
        memory.save(kept)
        assert mats_core.SantaMemory.load(kept).count == memory.count
        with pytest.raises(SettingsError, match=r"^encoder: .* is not a directory that exists"):
            mats_core.load_encoder(spellings(tmp_path / "no encoder")[number])
