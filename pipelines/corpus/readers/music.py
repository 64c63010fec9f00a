"""Tables of music that are laid out as no other: FMA's three lines of header, MTG-Jamendo's tags to the line's end."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipelines.corpus.clips import PublishedClip
from pipelines.published.folder import Folder
from pipelines.published.tables import lines, table

Found = Iterator[tuple[PublishedClip, dict[str, str]]]
JAMENDO_COLUMNS = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]


def read_fma(folder: Folder) -> Found:
    """The tracks of the training part with their genres, as tracks.csv numbers and genres.csv names them."""
    definition, path = folder.definition, folder.needed("tracks")
    genres = {row["genre_id"]: row["title"] for _, row in table(folder, "genres", ",", None, ["genre_id", "title"])}
    rows = lines(folder, path)
    groups, names = (next(rows, (0, []))[1] for _ in range(2))
    at = {pair: index for index, pair in enumerate(zip(groups, names, strict=False))}
    needed = [("set", "split"), ("track", "genres")]
    if any(pair not in at for pair in needed):
        problem = "its first two lines have no columns set/split and track/genres"
        raise folder.wrong(path, problem)
    split, told = (at[pair] for pair in needed)
    for line, row in rows:
        if row[0] == "track_id":
            continue
        if len(row) != len(names):
            raise folder.wrong(f"{path}:{line}", f"{len(row)} fields where {len(names)} are expected")
        if row[split].strip() != definition.split:
            continue
        numbers = re.findall(r"\d+", row[told])
        unknown = [number for number in numbers if number not in genres]
        if unknown:
            raise folder.wrong(f"{path}:{line}", f"genre {', '.join(unknown)} is not in {folder.path('genres')}")
        labels = tuple(dict.fromkeys(genres[number].strip() for number in numbers))
        yield PublishedClip(row[0].strip(), definition.name, definition.split, labels), {}


def read_mtg_jamendo(folder: Folder) -> Found:
    """The tracks of a split with their tags, as `instrument---piano`."""
    definition, path = folder.definition, folder.needed("table")
    rows = lines(folder, path, "\t")
    header = [cell.strip() for cell in next(rows, (0, []))[1]]
    if header != JAMENDO_COLUMNS:
        raise folder.wrong(path, f"its columns are {', '.join(header)}, not {', '.join(JAMENDO_COLUMNS)}")
    first = len(JAMENDO_COLUMNS) - 1
    for line, row in rows:
        tags = tuple(dict.fromkeys(cell.strip() for cell in row[first:] if cell.strip()))
        if not tags:
            raise folder.wrong(f"{path}:{line}", f"no tags after {first} fields")
        yield PublishedClip(row[0].strip(), definition.name, definition.split, tags), {}
