from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mats_core.errors import SettingsError
from pipelines.search.run import open_run
from pipelines.serve.finding import Finder, Found, Query
from pipelines.serve.remembering import Remembering
from pipelines.serve.runs import Served, open_served, plain_message
from tests.pipelines.pages.made_up import error, row, write_run
from tests.pipelines.search.made_up import chunk_rows, unit_vectors, windows_of
from tests.pipelines.search.made_up import write_run as write_heard


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))


def made(place: Path, rows: int = 60, **facts: Any) -> Served:
    """A run: every third row barks, every seventh failed, confidence grows."""
    table = [
        error(at, f"/in/{at:02d}.wav", "timeout", "slow")
        if at % 7 == 6
        else row(at, f"/in/{at:02d}.wav", text="A dog barks." if at % 3 == 0 else "Rain.", silent=at == 4,
                 format="flac" if at % 2 else "wav", confidence=at / rows, **facts)
        for at in range(rows)
    ]  # fmt: skip
    return open_served(write_run(place, table))


def ids(found: Found) -> list[int]:
    return [each["row_id"] for _, each, _ in found.rows]


def everything(finder: Finder, **asked: Any) -> list[tuple[int, int]]:
    """All rows of a query, page by page."""
    rows: list[tuple[int, int]] = []
    query = Query(**asked)
    for _ in range(50):
        page = finder.page(query, 5)
        rows += [(run, each["row_id"]) for run, each, _ in page.rows]
        assert page.total >= len(rows)
        if not page.next:
            assert page.total == len(rows)
            return rows
        query = query.model_copy(update={"after": page.next})
    raise AssertionError("it never ends")


@pytest.mark.parametrize(
    ("asked", "holds"),
    [
        ({}, lambda at: True),
        ({"q": "barking dogs"}, lambda at: at % 3 == 0 and at % 7 != 6),
        ({"q": "dog", "format": "flac"}, lambda at: at % 3 == 0 and at % 7 != 6 and at % 2),
        ({"error": "any"}, lambda at: at % 7 == 6),
        ({"error": "timeout"}, lambda at: at % 7 == 6),
        ({"error": "none"}, lambda at: at % 7 != 6),
        ({"silent": "yes"}, lambda at: at == 4),
        ({"silent": "no", "error": "none"}, lambda at: at != 4 and at % 7 != 6),
        ({"low": 0.25, "high": 0.5}, lambda at: 15 <= at <= 30 and at % 7 != 6),
        ({"name": "0.WAV"}, lambda at: at % 10 == 0),
        ({"name": "in/0"}, lambda at: False),
        ({"name": "'; DROP TABLE rows; --"}, lambda at: False),
        ({"task": "QA"}, lambda at: False),
        ({"q": "!?"}, lambda at: False),
    ],
)
def test_filters_and_words_find_their_rows_page_by_page(tmp_path: Path, asked: dict[str, Any], holds: Any) -> None:
    finder = Finder([made(tmp_path / "run")])
    assert everything(finder, **asked) == [(0, at) for at in range(60) if holds(at)]


def test_several_runs_follow_one_another_and_one_may_be_chosen(tmp_path: Path) -> None:
    finder = Finder([made(tmp_path / "one", 10), made(tmp_path / "two", 15), made(tmp_path / "three", 5)])
    both = [(run, at) for run, many in ((0, 10), (1, 15), (2, 5)) for at in range(many)]
    assert everything(finder) == both
    assert everything(finder, run=1, q="rain") == [(1, at) for at in range(15) if at % 3 and at % 7 != 6]
    with pytest.raises(SettingsError, match="no run 3"):
        finder.page(Query(run=3))


def test_a_page_behind_a_row_is_the_same_whatever_was_asked_before(tmp_path: Path) -> None:
    served = made(tmp_path / "run")
    assert ids(Finder([served]).page(Query(after="0.40"), 5)) == [41, 42, 43, 44, 45]
    assert ids(Finder([served]).page(Query(after="not a place"), 3)) == [0, 1, 2]
    assert Finder([served]).page(Query(after="0.99999999"), 3).rows == []


def test_what_was_said_is_found_at_once_and_in_its_new_words(tmp_path: Path) -> None:
    served = made(tmp_path / "run", 12)
    finder = Finder([served])
    assert finder.page(Query(q="dog")).total == 3 and finder.page(Query(said="any")).total == 0
    whole = served.whole(3)
    assert whole is not None
    served.corrections.correct(whole, 0, "Ann", {"text": "A cat purrs."})
    served.look()
    assert ids(finder.page(Query(q="dog"))) == [0, 9] and ids(finder.page(Query(q="purring cat"))) == [3]
    assert ids(finder.page(Query(said="text"))) == [3] and finder.page(Query(said="none")).total == 11
    served.corrections.correct(whole, 1, "Ann", {"mark": "wrong"})
    served.look()
    assert ids(finder.page(Query(said="wrong"))) == [3] and ids(finder.page(Query(said="right"))) == []


class Given:
    """Asks with a vector that is given."""

    def __init__(self, vector: np.ndarray) -> None:
        self.vector = vector

    def text(self, words: str, bridge: str) -> np.ndarray:
        """As `Asker.text`."""
        return self.vector


def test_sounds_are_found_through_the_index_and_joined_with_words(tmp_path: Path) -> None:
    vectors = unit_vectors(40)
    run = write_heard(tmp_path / "run", chunk_rows(windows_of(vectors), answers=True), job="caption")
    served = open_served(str(run))
    finder = Finder([served])
    with pytest.raises(SettingsError, match="not ready yet"):
        finder.page(Query(q="x", by="sound"))
    served.opened = open_run(str(run))
    pooled = vectors[4:6].mean(axis=0) - served.opened.index.mean  # of row 2
    served.asker = Given((pooled / np.linalg.norm(pooled)).astype(np.float32))  # type: ignore[assignment]
    found = finder.page(Query(q="anything", by="sound"), 5)
    assert ids(found)[0] == 2 and found.rows[0][2]["by"] == "sound"  # type: ignore[index]
    assert len(set(ids(found))) == 5 and found.next == "5"
    first = ids(finder.page(Query(q="a siren wails", by="both"), 40))
    assert set(ids(finder.page(Query(q="siren", by="words"), 40))) <= set(first)
    narrow = finder.page(Query(q="anything", by="sound", name=served.name(served.row(7)["uri"])), 5)  # type: ignore[index]
    assert ids(narrow) == [7]


def test_names_are_told_below_the_common_folder_never_above(tmp_path: Path) -> None:
    uris = ["/data/archive/a/1.wav", "/data/archive/b/2.wav", "file:///data/archive/b/%FF.wav", "s3://bucket/x/3.wav"]
    served = open_served(write_run(tmp_path / "run", [row(at, uri) for at, uri in enumerate(uris)]))
    assert [served.name(uri) for uri in uris] == ["a/1.wav", "b/2.wav", "b/%FF.wav", "3.wav"]
    assert served.name("/etc/passwd") == "passwd"
    asked = ("1", "A/", "archive", "data/", "/", "%ff", "b/", "bucket", "x", ".wav", "file:")
    for part in asked:  # and nobody finds out what is above by looking for it
        told = [at for at, uri in enumerate(uris) if part.lower() in served.name(uri).lower()]
        assert ids(Finder([served]).page(Query(name=part))) == told, part


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("no file /home/me/x.wav here", "no file … here"),
        ('"/home/me/two words/x.wav" is none', '"…" is none'),
        ("/data/archive/a/1.wav: it ends at file:///data/archive/b/2.wav", "…/a/1.wav: it ends at …/b/2.wav"),
        ("/data/archived/x.wav or /old/data/archive/x", "… or …"),
        ("s3://key:secret@bucket/x.wav?token=1 and 3/4 of it", "… and 3/4 of it"),
        ("s3://bucket/a/x.wav?X-Amz-Signature=abc is gone", "…/x.wav is gone"),
        ("tar+file:///mnt/a.tar!512+99/x.wav: torn", "… torn"),
        ("file:///etc/passwd", "…"),
        (None, ""),
    ],
)
def test_a_message_names_what_is_served_and_no_other_place(message: str | None, told: str) -> None:
    assert plain_message(message, ["/data/archive/", "s3://bucket/a/", "/"]) == told


def test_what_another_server_says_is_seen_in_a_while_and_of_this_sound_alone(tmp_path: Path) -> None:
    one, two = made(tmp_path / "run", 12), open_served(str(tmp_path / "run"))
    finder = Finder([two])
    assert finder.page(Query(said="any")).total == 0
    whole = one.whole(3)
    assert whole is not None
    one.corrections.correct(whole, 0, "Ann", {"text": "A cat purrs."})
    one.corrections.correct({**whole, "row_id": 5, "uri": "/in/another.wav"}, 0, "Ann", {"text": "A cow."})
    assert finder.page(Query(said="any")).total == 0, "the folder is not listed for every page"
    two._seen_at -= 100
    assert ids(finder.page(Query(q="cat"))) == [3] and ids(finder.page(Query(said="any"))) == [3]
    assert ids(finder.page(Query(q="cow"))) == [] and finder.page(Query(said="none")).total == 11


def test_what_is_said_while_a_page_is_made_is_on_the_next(tmp_path: Path) -> None:
    """Two people at once: no rows of before are kept under what was said after."""
    served = made(tmp_path / "run", 12)
    finder, said, whole = Finder([served]), served.said, served.whole(3)
    assert whole is not None
    for most in (1, 2):  # between any two looks at what was said

        def looked(most: int = most, seen: list[int] = []) -> Any:  # noqa: B006 (counts its calls)
            found, _ = said(), seen.append(1)
            if len(seen) == most:
                newest = served.corrections.newest(3)
                change = {"text": f"A cat{most}."}
                served.corrections.correct(whole, newest.version if newest else 0, "Ann", change)
                served.take(3)
            return found

        served.said = looked  # type: ignore[method-assign]
        finder.page(Query(q=f"cat{most}"))
        served.said = said  # type: ignore[method-assign]
        assert ids(finder.page(Query(q=f"cat{most}"))) == [3]


@pytest.mark.parametrize("wrong", [{"by": "magic"}, {"low": 2}, {"q": "x" * 600}, {"path": "/etc"}])
def test_what_no_query_can_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Query(**wrong)


def test_what_was_made_last_is_kept_and_older_goes() -> None:
    made: list[str] = []
    kept = Remembering(2)
    for key in "aababcac":
        assert kept.get(key, lambda key=key: made.append(key) or key.upper()) == key.upper()  # type: ignore[misc]
    assert "".join(made) == "abca", "b and a were the last two when c came, and took the place of a"
