"""A query → a page of rows: in order of the archive by what stands in them, or by sound through the index of `search`.

A page begins behind the last row of the one before it (`after`), by run and row: no page costs more than the first, and
none changes by what is added. What is found by sound is a ranking of MOST_HEARD windows, and `after` a place in it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field, model_validator

from mats_core.errors import SettingsError
from pipelines.output.corrections import Correction
from pipelines.search.asking import Asker
from pipelines.search.run import OpenRun, query_vector
from pipelines.search.words import joined, search_words
from pipelines.serve.catalog import words_of
from pipelines.serve.remembering import Remembering
from pipelines.serve.runs import Served
from pipelines.settings.search import SearchSettings

PAGE = 24
MOST_HEARD = 240
"""Windows that a search by sound ranks."""
REMEMBERED, MASKS = 64, 16
"""Rankings, and masks of a byte a row, that are kept."""


class Query(BaseModel, extra="forbid"):
    """What is looked for, as it stands in the address of a page."""

    q: str = Field("", max_length=500, description="Words, all of which a row has at the beginning of its words.")
    by: Literal["words", "sound", "both"] = Field("words", description="Words in the texts, or what sounds like them.")
    run: int | None = Field(None, ge=0, description="Number of one run; default: all.")
    name: str = Field("", max_length=500, description="Part of the file's name.")
    task: str = Field("", max_length=100)
    format: str = Field("", max_length=40)
    error: str = Field("", max_length=40, description="any, none, or an error code.")
    silent: Literal["", "yes", "no"] = ""
    low: float | None = Field(None, ge=0, le=1, description="Lowest confidence.")
    high: float | None = Field(None, ge=0, le=1, description="Highest confidence.")
    said: Literal["", "any", "none", "right", "wrong", "text"] = Field(
        "", description="Corrected: any, none; marked right, wrong; given another text."
    )
    after: str = Field("", max_length=60, description="Where the page before ended: its `next`.")

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_empty(cls, values: Any) -> Any:
        """A form sends its empty fields too."""
        return {name: value for name, value in values.items() if value != ""} if isinstance(values, dict) else values

    @property
    def key(self) -> Hashable:
        """The query without its place."""
        return tuple(sorted(self.model_dump(exclude={"after"}).items(), key=lambda item: item[0]))

    @property
    def filters(self) -> bool:
        """Whether anything but the words narrows the rows."""
        return bool(self.name or self.task or self.format or self.error or self.silent or self.said) or (
            self.low is not None or self.high is not None
        )


@dataclass
class Found:
    """A page: (run, row of the catalog, window or None) each; where the next begins ("": nowhere); of how many."""

    rows: list[tuple[int, dict[str, Any], dict[str, Any] | None]]
    next: str
    total: int


@dataclass
class Finder:
    """Finds rows of several runs; keeps the masks and rankings of the last searches."""

    runs: Sequence[Served]
    _masks: Remembering = field(default_factory=lambda: Remembering(MASKS))
    _rankings: Remembering = field(default_factory=lambda: Remembering(REMEMBERED))

    def page(self, query: Query, most: int = PAGE) -> Found:
        """The page of a query. Raises SettingsError for one that cannot be answered."""
        chosen = range(len(self.runs)) if query.run is None else [query.run]
        if query.run is not None and query.run >= len(self.runs):
            raise SettingsError("run", f"there is no run {query.run}", f"choose one of 0 … {len(self.runs) - 1}")
        for number in chosen:
            self.runs[number].said()  # what other servers wrote, before anything is looked up by `changes`
        if query.q.strip() and query.by != "words":
            return self._ranked(query, list(chosen), most)
        masks = {number: self._mask(query, number) for number in chosen}
        rows: list[tuple[int, dict[str, Any], dict[str, Any] | None]] = []
        start, after = _place(query.after)
        last = ""
        for number in chosen:
            wanted = most - len(rows)
            if number < start:
                continue
            mask, behind = masks[number], after + 1 if number == start else 0
            if mask is None:
                places = np.arange(behind, min(behind + wanted + 1, self.runs[number].catalog.rows))
            else:
                places = _first(mask, behind, wanted + 1)
            if wanted == 0 and len(places):
                break
            rows += [(number, row, None) for row in self.runs[number].catalog.listed(places[:wanted])]
            last = f"{number}.{places[:wanted][-1]}" if len(places) else last
            if len(places) > wanted:
                break
        else:
            last = ""
        total = sum(
            self.runs[number].catalog.rows if mask is None else int(mask.sum()) for number, mask in masks.items()
        )
        return Found(rows, last, total)

    def _mask(self, query: Query, number: int) -> np.ndarray | None:
        """bool [rows]: which rows of a run the query means; None: all."""
        if not query.filters and not query.q.strip():
            return None
        served = self.runs[number]
        key = (number, query.key, served.changes)  # note: read first, so that no older mask stands under a newer key
        return self._masks.get(key, lambda: mask_of(query, served, served.said()))

    def _ranked(self, query: Query, chosen: list[int], most: int) -> Found:
        changes = tuple(self.runs[number].changes for number in chosen)
        ranking = self._rankings.get((query.key, changes), lambda: self._rank(query, chosen))
        start = int(query.after) if query.after.isdecimal() else 0
        shown = ranking[start : start + most]
        rows: list[tuple[int, dict[str, Any], dict[str, Any] | None]] = []
        for number in chosen:
            known = self.runs[number].catalog.by_ids([hit["row_id"] for run, hit in shown if run == number])
            rows += [
                (number, known[hit["row_id"]], hit) for run, hit in shown if run == number and hit["row_id"] in known
            ]
        order = {(run, hit["row_id"], hit["start_s"]): at for at, (run, hit) in enumerate(shown)}
        rows.sort(key=lambda each: order[each[0], each[1]["row_id"], each[2]["start_s"]])  # type: ignore[index]
        end = start + most
        return Found(rows, str(end) if end < len(ranking) else "", len(ranking))

    def _rank(self, query: Query, chosen: list[int]) -> list[tuple[int, dict[str, Any]]]:
        """(run, window) of what sounds like the words, the best first; of several runs by their places in turn."""
        found: dict[tuple[int, int], dict[str, Any]] = {}
        rankings: list[list[tuple[int, int]]] = []
        for number in chosen:
            served = self.runs[number]
            if served.opened is None or served.asker is None:
                continue
            hits = heard(query, served, served.opened, served.asker)
            found.update({(number, at): hit for at, hit in enumerate(hits)})
            rankings.append([(number, at) for at in range(len(hits))])
        if not rankings:
            remedy = "search in words, or caption with --with-embedding"
            raise SettingsError("by", "no run that is asked has embeddings, or their index is not ready yet", remedy)
        places = sorted(found, key=lambda place: (place[1], place[0]))
        return [(number, found[number, at]) for number, at in places][:MOST_HEARD]


def _place(after: str) -> tuple[int, int]:
    """(run, number of the row) behind which a page begins."""
    number, dot, row = after.partition(".")
    if not dot or not (number.isdecimal() and row.isdecimal()) or len(row) > 15:
        return 0, -1
    return int(number), int(row)


def _first(mask: np.ndarray, start: int, most: int) -> np.ndarray:
    """Where the first `most` are true from `start` on."""
    found: list[np.ndarray] = []
    for at in range(start, len(mask), 1 << 20):
        found.append(at + np.flatnonzero(mask[at : at + (1 << 20)]))
        if sum(map(len, found)) >= most:
            break
    return np.concatenate(found)[:most] if found else np.zeros(0, np.int64)


def heard(query: Query, served: Served, opened: OpenRun, asker: Asker) -> list[dict[str, Any]]:
    """The windows of a run that are nearest to the words, each row once; with `by` both, joined with rows that have
    the words, the shortest texts first."""
    index = opened.index
    rows = opened.there
    if query.filters:
        mask = mask_of(query.model_copy(update={"q": ""}), served, served.said())
        ids = served.catalog.ids(np.flatnonzero(mask))
        chosen = np.asarray(pc.is_in(index.rows["row_id"], value_set=pa.array(ids)).combine_chunks())
        rows = chosen if rows is None else rows & chosen
    allowed = None if rows is None else index.windows_of(rows)
    if not index.windows or (allowed is not None and not allowed.any()):
        return []
    settings = SearchSettings(run=opened.run, query=query.q, by="sound")
    vector = query_vector(settings, index, asker, allowed)
    scores, windows = index.search(vector[None], 2 * MOST_HEARD, allowed)
    there = windows[0] >= 0
    hits: dict[int, dict[str, Any]] = {}
    cosines = scores[0][there].tolist()
    for hit in opened.described(windows[0][there], cosines, ["sound"] * len(cosines), cosines):
        hits.setdefault(hit["row_id"], hit)
    ranked = list(hits)[:MOST_HEARD]
    if query.by == "both":
        places = np.flatnonzero(mask_of(query, served, served.said()))
        ranked = list(joined([ranked, served.catalog.shortest(places, MOST_HEARD)]))[:MOST_HEARD]
    nothing = {"start_s": None, "end_s": None, "score": None, "by": "words"}
    return [hits.get(row, {**nothing, "row_id": row}) for row in ranked]


def mask_of(query: Query, served: Served, said: Mapping[int, Correction]) -> np.ndarray:
    """bool [rows]: which rows of a run the query means."""
    catalog = served.catalog
    condition, values = condition_of(query, served.prefixes)
    mask = np.ones(catalog.rows, bool) if condition == "true" else catalog.where(condition, values)
    if query.q.strip():
        asked = search_words(query.q)
        texts = {row: each.text for row, each in said.items() if each.text is not None}
        with_words = catalog.with_words(asked)
        if texts:  # their words count, and the run's own do not
            with_words[catalog.places(list(texts))] = False
            with_words[catalog.places([row for row, text in texts.items() if _has(text, asked)])] = True
        mask &= with_words
    if query.said:
        kinds = {
            "right": [row for row, each in said.items() if each.mark == "right"],
            "wrong": [row for row, each in said.items() if each.mark == "wrong"],
            "text": [row for row, each in said.items() if each.text is not None],
        }
        chosen = np.zeros(catalog.rows, bool)
        chosen[catalog.places(kinds.get(query.said, list(said)))] = True
        mask &= ~chosen if query.said == "none" else chosen
    return mask


def condition_of(query: Query, prefixes: Sequence[str] = ()) -> tuple[str, list[Any]]:
    """What a query asks of the catalog's columns, as SQL with its values. prefixes: what URIs begin with and names do
    not, the longest first."""
    parts: list[str] = []
    values: list[Any] = []

    def add(sql: str, *given: Any) -> None:
        parts.append(sql)
        values.extend(given)

    if query.name:
        cut = "".join(f"WHEN starts_with(uri, ?) THEN substr(uri, {len(each) + 1}) " for each in prefixes)
        name = "regexp_extract(uri, '[^/]*$')"  # as `Served.name` has it
        name = f"CASE {cut}ELSE {name} END" if cut else name
        add(f"contains(lower({name}), lower(?))", *prefixes, query.name)
    for name in ("task", "format"):
        if getattr(query, name):
            add(f"{name} = ?", getattr(query, name))
    if query.error:
        one = {"any": "error_code IS NOT NULL", "none": "error_code IS NULL"}.get(query.error)
        add(one) if one else add("error_code = ?", query.error)
    if query.silent:
        add("silent" if query.silent == "yes" else "silent IS NOT TRUE")
    if query.low is not None:
        add("confidence >= ?", query.low)
    if query.high is not None:
        add("confidence <= ?", query.high)
    return " AND ".join(parts) or "true", values


def _has(text: str, asked: Sequence[str]) -> bool:
    words = words_of(text)
    return all(any(word.startswith(each) for word in words) for each in asked)
