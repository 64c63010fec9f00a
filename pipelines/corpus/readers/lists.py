"""JSON files of objects, names of files, and the YAML file of MACS."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import Field

from mats_core import storage
from mats_core.errors import first_line
from pipelines.corpus.clips import PublishedClip
from pipelines.published.folder import Folder, columns_of
from pipelines.published.layouts import NameLayout, RecordLayout
from pipelines.published.origins import origin_of
from pipelines.published.tables import members, objects, table

ENDINGS = (".wav", ".au", ".flac", ".mp3", ".ogg", ".m4a")
Found = Iterator[tuple[PublishedClip, dict[str, str]]]


class RecordOptions(RecordLayout):
    """Which fields say what."""

    named: bool = Field(False, description="The file is an object: name → record.")
    captions: list[str] = Field(default_factory=list, description="Fields with a caption each.")
    lists: dict[str, str] = Field(
        {"records": ""},
        description="Role of each file → where its clips come from ('': as the definition says); of several, the role "
        "goes before the id.",
    )


def read_records(folder: Folder) -> Found:
    """Clips of JSON files; see `RecordOptions`."""
    options, definition = folder.options(RecordOptions), folder.definition
    paths = {role: folder.needed(role) for role in options.lists}
    codes: dict[str, str] | None = None
    if options.label_table:
        code, name = options.label_table
        codes = {row[code]: row[name] for _, row in table(folder, "labels", ",", None, [code, name])}
    needed = [*columns_of(options.id), *options.keep, *options.captions, *filter(None, [options.label])]
    for role, place in options.lists.items():
        path = paths[role]
        for index, record in _records(folder, path, options):
            where = f"{path}[{index}]"
            absent = [name for name in needed if name not in record and name != "index"]
            if absent:
                raise folder.wrong(where, f"no field {', '.join(absent)} among {', '.join(record)}")
            if not options.keeps(record):
                continue
            clip_id = folder.filled(where, options.id, record | {"index": index})
            labels: tuple[str, ...] = ()
            if options.label:
                label = str(record[options.label])
                if codes is not None and label not in codes:
                    raise folder.wrong(
                        where, f'"{label}" is not a label of {folder.path("labels")} ({", ".join(codes)})'
                    )
                labels = (label if codes is None else codes[label],)
            captions = tuple(text for name in options.captions if (text := str(record[name] or "").strip()))
            several = len(options.lists) > 1
            origin = origin_of(folder, record, where) if not several or place else {}
            clip_id = f"{role}/{clip_id}" if several else clip_id
            clip = PublishedClip(clip_id, definition.name, definition.split, labels, captions=captions)
            yield clip, {each: value for each, value in origin.items() if not place or each == place}


def _records(folder: Folder, path: str, options: RecordOptions) -> Iterator[tuple[Any, dict[str, Any]]]:
    if not options.named:
        yield from objects(folder, path, options.under)
        return
    for name, record in members(folder, path):
        if not isinstance(record, dict):
            raise folder.wrong(f"{path}[{name}]", "not a JSON object of objects")
        yield name, record


class NameOptions(NameLayout):
    """What a file's name says."""

    column: str | None = Field(None, description="Column of the file `names`, which is read where it is there.")


def read_names(folder: Folder) -> Found:
    """A clip for every name that fits: of the file `names` where there is one, else of the audio files."""
    options, definition = folder.options(NameOptions), folder.definition
    listed = folder.path("names")
    if options.column and listed is not None:
        rows = table(folder, "names", ",", None, [options.column])
        names: Iterator[tuple[str, str]] = ((f"{listed}:{line}", row[options.column]) for line, row in rows)
    else:
        heard = (path for path in sorted(folder.found) if posixpath.splitext(path)[1].lower() in ENDINGS)
        names = ((path, path) for path in heard)
    read = 0
    for where, name in names:
        if options.skips(name):
            continue
        label = options.label_of(name)
        if label is None:
            raise folder.wrong(where, f"the name {name} does not say a label, as {options.pattern}")
        read += 1
        yield PublishedClip(posixpath.basename(name), definition.name, definition.split, (label,)), {}
    if not read:
        shown = " or ".join([*definition.paths("names"), f"audio files named as {options.pattern}"])
        problem = f"{storage.public_uri(folder.uri)} has no {shown}"
        raise folder.wrong("names", problem, f"get it: {definition.source}")


def read_macs(folder: Folder) -> Found:
    """The clips of MACS with their annotators' sentences."""
    definition, path = folder.definition, folder.needed("captions")
    with folder.reading(path):
        text = storage.read_bytes(folder.found[path]).decode("utf-8-sig")
    try:
        told = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise folder.wrong(path, f"not a readable YAML file ({first_line(error)})") from None
    try:
        files = [
            (str(file["filename"]), [str(each["sentence"]) for each in file["annotations"]]) for file in told["files"]
        ]
    except (KeyError, TypeError):
        problem = "not a list `files` of `filename` and `annotations` with a `sentence` each"
        raise folder.wrong(path, problem) from None
    for name, sentences in files:
        captions = tuple(text for each in sentences if (text := each.strip()))
        yield PublishedClip(name, definition.name, definition.split, captions=captions), {}
