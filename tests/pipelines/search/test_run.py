from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

from mats_core.encoders.load import load_encoder
from mats_core.errors import SettingsError
from mats_core.model.directory import encoder_uri
from mats_core.soundworld.recipe import clip_recipe
from mats_core.soundworld.synth import render
from pipelines.data.schemas import SEGMENTS_TYPE, with_column
from pipelines.output.corrections import Corrections
from pipelines.output.folder import open_output
from pipelines.search.run import file_and_moment, find, open_run, run_search
from pipelines.settings.search import SearchSettings
from tests.pipelines.search.made_up import CAPTIONS, chunk_rows, unit_vectors, windows_of, write_run

CLIPS = 60


class Given:
    """Asks with a vector that is given."""

    def __init__(self, vector: np.ndarray) -> None:
        self.vector = vector

    def text(self, words: str, bridge: str) -> np.ndarray:
        """As `Asker.text`."""
        return self.vector


def _find(run: Path, vector: np.ndarray, **settings: Any) -> list[dict[str, Any]]:
    opened = open_run(str(run))
    moved = vector - opened.index.mean
    asked = SearchSettings(run=str(run), **{"bridge": "none", **settings})
    given = Given((moved / np.linalg.norm(moved)).astype(np.float32))
    return find(asked, opened, given, opened.allowed(asked.where))  # type: ignore[arg-type]


def test_windows_come_with_file_times_score_and_caption(tmp_path: Path) -> None:
    vectors = unit_vectors(20)
    run = write_run(tmp_path / "run", chunk_rows(windows_of(vectors)))
    hits = _find(run, vectors[5], query="x", most=3)
    assert len(hits) == 3
    first = hits[0]
    assert (first["uri"], first["start_s"], first["end_s"]) == ("/sounds/0002.wav", 125.0, 129.0)
    assert first["score"] == pytest.approx(1.0, abs=1e-3) and first["by"] == "sound" and first["caption"] is None


def test_captions_are_searched_too_and_the_two_joined(tmp_path: Path) -> None:
    vectors = unit_vectors(40)
    run = write_run(tmp_path / "run", chunk_rows(windows_of(vectors), answers=True), job="caption")
    pooled = vectors[:2].mean(axis=0)  # of row 0, "a dog barks"
    both = _find(run, pooled, query="barking dog", most=5)
    assert both[0]["uri"] == "/sounds/0000.wav" and both[0]["by"] == "both" and both[0]["caption"] == CAPTIONS[0]
    assert (both[0]["score"], both[0]["cosine"]) == (1.0, pytest.approx(0.979, abs=1e-3)), "the first of both"
    for by in ("both", "words", "sound"):
        scores = [hit["score"] for hit in _find(run, unit_vectors(3)[2], query="dog bark", by=by)]
        assert len(scores) > 3 and scores == sorted(scores, reverse=True), by
    words = _find(run, pooled, query="siren", by="words")
    assert {hit["caption"] for hit in words} == {"a siren wails"} and len(words) == 4
    assert {hit["by"] for hit in words} == {"words"}
    assert {hit["by"] for hit in _find(run, pooled, query="dog", by="sound")} == {"sound"}


def test_conditions_prune_and_captions_of_another_run(tmp_path: Path) -> None:
    vectors = windows_of(unit_vectors(20))
    run = write_run(tmp_path / "run", chunk_rows(vectors))
    answers = write_run(tmp_path / "answers", chunk_rows(vectors, answers=True), job="caption")
    hits = _find(run, vectors[4][0], query="x", where="format = 'wav' and start_s >= 60")
    assert {hit["row_id"] for hit in hits} == {1, 5, 7}
    with open_output(str(run), {"job": "embed-audio"}, results="embeddings") as out:
        out.write_run({"job": "embed-audio", "status": "complete", "pruned": [[4, 9]]})
    assert {hit["row_id"] for hit in _find(run, vectors[4][0], query="x")} == {0, 1, 2, 3}
    opened = open_run(str(run))
    opened.take_captions(str(answers))
    asked = SearchSettings(run=str(run), query="dog barks", where="text like '%dog%'", bridge="none")
    found = find(asked, opened, Given(unit_vectors(1)[0]), opened.allowed(asked.where))  # type: ignore[arg-type]
    assert {hit["row_id"] for hit in found} == {0, 2} and found[0]["caption"] in (CAPTIONS[0], CAPTIONS[2])
    other = write_run(tmp_path / "other", chunk_rows(vectors, first=500, answers=True), job="caption")
    with pytest.raises(SettingsError, match="answers other sounds"):
        opened.take_captions(str(other))


def test_what_was_put_right_is_what_is_searched_and_shown(tmp_path: Path) -> None:
    """Of a corrected row the model's words find nothing, nor do its segments; nor are they asked by --where."""
    vectors = windows_of(unit_vectors(20))
    segments = [[{"start_s": 0.0, "end_s": 300.0, "text": f"heard {at}"}] for at in range(len(vectors))]
    rows = with_column(chunk_rows(vectors, answers=True), "segments", segments, SEGMENTS_TYPE)
    run = write_run(tmp_path / "run", rows, job="caption")
    sounds = write_run(tmp_path / "sounds", chunk_rows(vectors))
    row = rows.slice(3, 1).to_pylist()[0]
    assert row["text"] == "a siren wails"
    Corrections(str(run)).correct(row, 0, "Ann", {"text": "a kettle whistles"})
    (hit,) = _find(run, vectors[3][0], query="kettle", by="words")
    assert (hit["row_id"], hit["caption"]) == (3, "a kettle whistles")
    assert [hit["row_id"] for hit in _find(run, vectors[3][0], query="siren", by="words")] == [8]
    found = _find(run, vectors[3][0], query="x", where="text like '%kettle%'", most=1)
    assert [(hit["row_id"], hit["caption"]) for hit in found] == [(3, "a kettle whistles")]
    assert _find(run, vectors[8][0], query="x", where="row_id = 8", most=1)[0]["caption"] == "heard 8"
    opened = open_run(str(sounds))
    assert opened.captions is None
    opened.take_captions(str(run))
    assert opened.captions is not None
    assert opened.captions.to_pylist()[2:4] == ["dogs bark while it rains", "a kettle whistles"]


def test_captions_of_another_run_are_of_the_channel_that_was_heard(tmp_path: Path) -> None:
    """Both channels of a file begin at one moment; what was put right of one, before rows had ids, is of that one."""
    vectors = windows_of(unit_vectors(4))
    both = {"uri": ["/sounds/0.wav"] * 2, "start_s": [0.0] * 2, "only_channel": [0, 1]}
    sounds, rows = (chunk_rows(vectors, answers=answers) for answers in (False, True))
    for name, values in both.items():
        sounds, rows = (with_column(each, name, values, pa.array(values).type) for each in (sounds, rows))
    run = write_run(tmp_path / "run", rows.take([1, 0]), job="caption")
    row = rows.slice(1, 1).to_pylist()[0]
    Corrections(str(run)).correct({**row, "chunk_id": None}, 0, "Ann", {"text": "a kettle whistles"})
    opened = open_run(str(write_run(tmp_path / "sounds", sounds)))
    opened.take_captions(str(run))
    assert opened.captions is not None
    assert opened.captions.to_pylist() == [CAPTIONS[0], "a kettle whistles"]


def test_sounds_that_are_all_alike_are_searched_and_that_is_said(tmp_path: Path) -> None:
    flat = np.ones((40, 32), np.float32) + 1e-3 * unit_vectors(40)
    alike = write_run(tmp_path / "alike", chunk_rows(windows_of(flat / np.linalg.norm(flat, axis=1, keepdims=True))))
    assert open_run(str(alike)).notes == [
        "the windows' vectors are all alike (mean cosine 1.0000): a search tells nothing"
    ]
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(40))))
    assert open_run(str(run)).notes == []


def test_nothing_allowed_is_nothing_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(6))))
    assert _find(run, unit_vectors(1)[0], query="x", where="duration_s > 1000") == []


def test_what_is_asked_must_be_something(tmp_path: Path) -> None:
    for given in ({}, {"query": " "}, {"query": "x", "novel": True}, {"query": "x", "reference": "r"}):
        with pytest.raises(ValueError, match=r"nothing is asked|no words and no sound|is for --novel"):
            SearchSettings(run=str(tmp_path), **given)


def test_a_moment_is_told_from_a_name(tmp_path: Path) -> None:
    named = tmp_path / "take@3"
    named.write_bytes(b"")
    assert file_and_moment("a.wav") == ("a.wav", None)
    assert file_and_moment("a.wav@12.5") == ("a.wav", 12.5)
    assert file_and_moment("s3://me@host/a.wav") == ("s3://me@host/a.wav", None)
    assert file_and_moment(str(named)) == (str(named), None)
    with pytest.raises(SettingsError, match="moment"):
        file_and_moment("a.wav@-1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """A run over sounds of the embedded world as the shipped model hears them, and what is in each file."""
    place = tmp_path_factory.mktemp("world")
    encoder = load_encoder(encoder_uri("builtin"), device="cpu")
    recipes = [clip_recipe("test", index) for index in range(CLIPS)]
    sounds = [np.asarray(render(recipe), np.float32) for recipe in recipes]
    vectors = encoder.embed_audio(torch.stack([torch.as_tensor(encoder.pad(each)) for each in sounds])).numpy()
    rows = chunk_rows([each[None] for each in vectors])
    paths = [str(place / f"{number:02d} <b>.wav") for number in range(CLIPS)]
    for path, sound in zip(paths, sounds, strict=True):
        soundfile.write(path, sound, 16_000)
    rows = rows.set_column(rows.schema.get_field_index("uri"), "uri", [paths])
    rows = rows.set_column(rows.schema.get_field_index("start_s"), "start_s", [[0.0] * CLIPS])
    run = write_run(place / "run", rows, fingerprint=encoder.fingerprint)
    return run, {path: recipe.labels() for path, recipe in zip(paths, recipes, strict=True)}


@pytest.mark.parametrize(
    ("query", "kind"), [("telephone", "telephone"), ("a wailing siren", "siren"), ("dog barks", "dog")]
)
def test_words_find_their_sounds(world: tuple[Path, dict[str, list[str]]], query: str, kind: str) -> None:
    run, truth = world
    there = sum(kind in labels for labels in truth.values())
    hits = run_search(run=run, query=query, most=min(3, there)).hits
    assert there and all(kind in truth[hit["uri"]] for hit in hits)


@pytest.mark.processes
def test_a_sound_finds_itself_and_a_page_plays_it(world: tuple[Path, dict[str, list[str]]], tmp_path: Path) -> None:
    run, truth = world
    like = next(iter(truth))
    page, out = tmp_path / "found.html", tmp_path / "found.jsonl"
    result = run_search(run=run, like=like, most=4, page=str(page), out=str(out))
    assert result.hits[0]["uri"] == like and result.hits[0]["score"] > 0.99
    assert [json.loads(line)["uri"] for line in out.read_text().splitlines()] == [hit["uri"] for hit in result.hits]
    html = page.read_text()
    assert html.count("<audio") == 4 and "<b>.wav" not in html and "&lt;b&gt;.wav" in html


def test_the_novel_are_told_from_the_rest(world: tuple[Path, dict[str, list[str]]]) -> None:
    run, _ = world
    result = run_search(run=run, novel=True, most=5)
    scores = [hit["score"] for hit in result.hits]
    assert scores == sorted(scores, reverse=True) and {hit["by"] for hit in result.hits} == {"novel"}
