"""`mats search`: the windows of a run that are like what is asked.

index up to date ─ condition ─ query ─ nearest windows ─┐
                                 └─ captions with its words ─┴─ joined ─ rows
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mats_core import storage
from mats_core.errors import SettingsError, counted
from mats_core.spread import LEAST_ROWS, ROWS_ALIKE
from pipelines.cluster.progress import Progress
from pipelines.data import generations, parquet
from pipelines.data.embeddings import SIDECAR
from pipelines.data.results import kept_rows, pruned_rows
from pipelines.data.schemas import with_column
from pipelines.output.corrections import corrected, read_corrections
from pipelines.output.record import read_run
from pipelines.search.asking import Asker, echoed, unit
from pipelines.search.build import Found, bring_up
from pipelines.search.index import Index
from pipelines.search.novel import distances_to_others
from pipelines.search.reading import vectors_folder
from pipelines.search.results import COLUMNS, check_table, write_table
from pipelines.search.shards import Source
from pipelines.search.where import rows_where
from pipelines.search.words import JOINED_AT, joined, rank_captions
from pipelines.settings.base import anchored
from pipelines.settings.calling import by_name
from pipelines.settings.search import SearchSettings

CANDIDATES = 200
"""Fewest windows and captions that are ranked before the two are joined."""


@dataclass
class SearchResult:
    """What was found, the best first.

    hits: a dict a window: uri, start_s, end_s, score, cosine (to the query; null with --novel), by (sound, words, both
    or novel), caption, row_id. They are sorted by score: the cosine where sounds alone are searched, 1 − cosine with
    --novel, else places, where 1 is the first place by all that was searched. windows: how many were searched, which
    are those of the run for whose rows `where` holds; notes: what to know about the result, such as parts of the run
    that are not in the index; query_s: seconds of the search itself.
    """

    hits: list[dict[str, Any]]
    windows: int
    notes: list[str] = field(default_factory=list)
    query_s: float = 0.0

    def to_arrow(self) -> pa.Table:
        """The windows as a table."""
        return pa.Table.from_pylist(self.hits, COLUMNS)


@by_name(SearchSettings)
def run_search(settings: SearchSettings, progress: Callable[[Progress], None] | None = None) -> SearchResult:
    """Find windows of `settings.run`; builds or extends its index first. Raises SettingsError."""
    if settings.out is not None:
        check_table(settings.out, settings.overwrite)
    if settings.page is not None:
        from pipelines.pages.render import check_page

        check_page(settings.page, settings.overwrite, "page")
    opened = open_run(settings.run, settings.address, progress)
    if settings.answers is not None:
        opened.take_captions(settings.answers)
    asker = Asker(settings.model or opened.model, settings.device, tuple(settings.allow_parts))
    if not settings.novel:
        asker.check(opened.encoder, storage.public_uri(opened.run))
    began = time.monotonic()
    rows = opened.allowed(settings.where)
    hits = _novel(settings, opened, rows, progress) if settings.novel else find(settings, opened, asker, rows)
    windows = opened.index.windows if rows is None else int(opened.index.windows_of(rows).sum())
    result = SearchResult(hits, windows, opened.notes, round(time.monotonic() - began, 3))
    if settings.out is not None:
        write_table(settings.out, result.to_arrow())
    if settings.page is not None:
        from pipelines.search.page import write_page

        write_page(settings.page, settings, hits)
    return result


class OpenRun:
    """A run with its index: what is searched, and which rows may be found (`there`, None: all). rows: those of the
    index, with what was put right in place of the run's own."""

    def __init__(self, run: str, found: Found, encoder: str, model: str) -> None:
        self.run, self.encoder, self.model = run, encoder, model
        self.index = Index(run, found.standing)
        self.notes: list[str] = []
        if found.lacking:
            parts = f"{counted(len(found.lacking), 'part file')} of {storage.public_uri(run)}"
            self.notes.append(f"{parts} not in its index, and so not searched: {found.why}")
        alike = float(np.square(self.index.mean, dtype=np.float64).sum())
        if self.index.windows >= LEAST_ROWS and alike >= ROWS_ALIKE:
            self.notes.append(f"the windows' vectors are all alike (mean cosine {alike:.4f}): a search tells nothing")
        self.rows = corrected(self.index.rows, read_corrections(run))
        pruned = pruned_rows(run)
        self.there: np.ndarray | None = None
        if pruned and "row_id" in self.index.rows.schema.names:
            self.there = kept_rows(self.index.rows["row_id"].to_numpy(), pruned)

    @property
    def captions(self) -> pa.ChunkedArray | None:
        """The rows' captions; None where the run has none."""
        return self.rows["text"] if "text" in self.rows.schema.names else None

    def take_captions(self, answers: str) -> None:
        """Let the answers of another run over the same chunks be the captions. Raises SettingsError."""
        files = generations.files(storage.join(answers, "answers"))
        shown = storage.public_uri(answers)
        if not files:
            raise SettingsError("answers", f"{shown} holds no answers", "give the OUTPUT of `mats caption`")
        told = pa.concat_tables([_answers_in(info.uri) for info in files], promote_options="permissive")
        told = corrected(told, read_corrections(answers)).combine_chunks()
        where = pc.index_in(self.index.rows["chunk_id"], value_set=told["chunk_id"].combine_chunks())
        if where.null_count == len(where):
            problem = f"{shown} answers other sounds than those of {storage.public_uri(self.run)}"
            raise SettingsError("answers", problem, "give a run of `mats caption` over these embeddings or their files")
        self.rows = with_column(self.rows, "text", told["text"].take(where), pa.string())
        if "segments" in self.rows.schema.names:
            self.rows = self.rows.drop_columns(["segments"])

    def allowed(self, where: str | None) -> np.ndarray | None:
        """bool [rows]: which may be found; None for all."""
        mask = self.there
        if where is not None:
            chosen = rows_where(self.rows, where)
            mask = chosen if mask is None else chosen & mask
        return mask

    def described(
        self, windows: np.ndarray, scores: Sequence[float], by: Sequence[str], cosines: Sequence[float | None]
    ) -> list[dict[str, Any]]:
        """Windows as `SearchResult.hits`."""
        rows = self.index.row_of(windows)
        chosen = pa.array(rows)
        starts, ends = self.index.times(windows)
        uris = self.index.rows["uri"].take(chosen).to_pylist()
        ids = self.index.rows["row_id"].take(chosen).to_pylist()
        texts = [None] * len(rows) if self.captions is None else self.captions.take(chosen).to_pylist()
        told = self.rows["segments"].take(chosen).to_pylist() if "segments" in self.rows.schema.names else []
        for at, segments in enumerate(told):
            middle = (starts[at] + ends[at]) / 2
            own = [each["text"] for each in segments or () if each["start_s"] <= middle <= each["end_s"]]
            texts[at] = own[0] if own else texts[at]
        return [
            {"uri": uris[at], "start_s": float(starts[at]), "end_s": float(ends[at]), "score": float(scores[at]),
             "cosine": cosines[at], "by": by[at], "caption": texts[at], "row_id": ids[at]}
            for at in range(len(rows))
        ]  # fmt: skip


def _answers_in(uri: str) -> pa.Table:
    """Of the answers in a part file, what tells of which sound and question they are. Raises NotParquet."""
    needed, older = (
        ("row_id", "uri", "start_s", "chunk_id", "text"),
        ("task", "question", "text_unsure", "only_channel"),
    )
    return parquet.read(uri, needed, older)


def open_run(run: str, address: str | None = None, progress: Callable[[Progress], None] | None = None) -> OpenRun:
    """A run with its index brought up to date. Raises SettingsError where there is nothing to search."""
    run = anchored(run)  # for the workers, which may stand elsewhere
    folder = vectors_folder(run)
    told = generations.told(run, SIDECAR) or {}
    record = read_run(run) or {}
    model = (record.get("settings") or {}).get("model") or "builtin"
    source = Source(storage.join(run, folder), folder, float(told.get("window_seconds") or 0.0))
    found = bring_up(run, source, address, progress)
    return OpenRun(run, found, str(told.get("encoder_fingerprint") or ""), str(model))


def find(settings: SearchSettings, opened: OpenRun, asker: Asker, rows: np.ndarray | None) -> list[dict[str, Any]]:
    """The windows that are nearest to what is asked, of these rows (`OpenRun.allowed`)."""
    index = opened.index
    allowed = None if rows is None else index.windows_of(rows)
    if not index.windows or (allowed is not None and not allowed.any()):
        return []
    wanted = max(settings.most, CANDIDATES)
    words = (settings.query or "").strip()
    text = opened.captions if words and settings.by != "sound" else None
    if settings.by == "words" and text is None:
        remedy = "search by sound, or name the answers of a run over the same sounds: --answers"
        raise SettingsError("by", "there are no words to search: no QUERY, or no captions", remedy)
    by_words = np.zeros(0, np.int64) if text is None else rank_captions(text, words, wanted, rows)
    vector = query_vector(settings, index, asker, allowed)
    scores, windows = index.search(vector[None], wanted, allowed)
    ranked, cosines = windows[0][windows[0] >= 0], scores[0][windows[0] >= 0]
    known = dict(zip(ranked.tolist(), cosines.tolist(), strict=True))
    of_words = _best_windows(index, by_words, vector, known)
    by_sound = text is None  # also where there are no words, or no captions
    rankings = [of_words] if settings.by == "words" else [ranked.tolist()] + ([] if by_sound else [of_words])
    places = joined(rankings)
    chosen = list(places)[: settings.most]
    cosine = [known[each] for each in chosen]
    best = len(rankings) / (JOINED_AT + 1)
    sorted_by = cosine if by_sound else [places[each] / best for each in chosen]
    heard = set() if settings.by == "words" else set(ranked.tolist())
    said = set() if settings.by == "sound" else set(of_words)
    by = ["both" if each in heard and each in said else "words" if each in said else "sound" for each in chosen]
    return opened.described(np.array(chosen, np.int64), sorted_by, by, cosine)


def query_vector(settings: SearchSettings, index: Index, asker: Asker, allowed: np.ndarray | None) -> np.ndarray:
    """What is asked as one unit vector [D]: words, a sound, or midway between the two."""
    found = []
    if words := (settings.query or "").strip():
        text = asker.text(words, settings.bridge)
        if len(text) != index.dim:
            problem = f"it embeds into {len(text)} numbers, and the run has {index.dim}"
            raise SettingsError("model", problem, "name the model that the run was made with")
        found.append(echoed(text, index, allowed) if settings.bridge == "echo" else text)
    if settings.like is not None:
        found.append(asker.sound(*file_and_moment(settings.like), index.mean))
    return unit(np.sum(found, axis=0))


def file_and_moment(like: str) -> tuple[str, float | None]:
    """FILE@SECONDS → both; a name that has an @ of its own, and no number behind it, is a file."""
    file, at, seconds = like.rpartition("@")
    try:
        moment = float(seconds)
    except ValueError:
        return like, None
    if not at or not file or storage.exists(like):
        return like, None
    if not 0 <= moment < 1e7:
        raise SettingsError("like", f'"{seconds}" is no moment in a file', "give seconds from 0 on")
    return file, moment


def _best_windows(index: Index, rows: np.ndarray, vector: np.ndarray, known: dict[int, float]) -> list[int]:
    """Of each row the window that is nearest to `vector`; its cosine goes into `known`."""
    best = []
    for row in rows:
        windows = np.arange(index.first[row], index.first[row + 1])
        if len(windows):
            scores = index.vectors(windows) @ vector
            at = int(scores.argmax())
            known.setdefault(int(windows[at]), float(scores[at]))
            best.append(int(windows[at]))
    return best


def _novel(
    settings: SearchSettings, opened: OpenRun, rows: np.ndarray | None, progress: Callable[[Progress], None] | None
) -> list[dict[str, Any]]:
    """The windows furthest from all others, or from those of the reference."""
    reference = None
    if settings.reference is not None:
        other = open_run(settings.reference, settings.address, progress)
        opened.notes += other.notes
        if (other.encoder, other.index.dim) != (opened.encoder, opened.index.dim):
            problem = f"{storage.public_uri(settings.reference)} was embedded by another encoder"
            raise SettingsError("reference", problem, "choose a run of the same model")
        reference = other.index
    index = opened.index
    windows = np.arange(index.windows) if rows is None else np.flatnonzero(index.windows_of(rows))
    far = distances_to_others(index, windows, reference, progress)
    order = np.argsort(-far, kind="stable")[: settings.most]
    return opened.described(windows[order], far[order].tolist(), ["novel"] * len(order), [None] * len(order))
