"""Captions, questions and records: what they say of a clip, and that nothing is asked that was not told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mats_core.soundworld.language import (
    NUMBERS,
    Content,
    Sound,
    caption,
    corpus_record,
    label_text,
    parse_kinds,
    parse_order,
    question,
)
from mats_core.soundworld.recipe import sample_recipe


def test_captions_name_every_sound_and_the_order() -> None:
    for seed in range(1500):
        recipe = sample_recipe([8, seed])
        rng = np.random.default_rng(seed)
        content = Content.of(recipe, rng)
        text = caption(content, rng)
        assert sorted(parse_kinds(text)) == sorted(recipe.labels()), text
        assert parse_order(text) == (recipe.ordered()), text


def test_captions_by_hand() -> None:
    assert parse_order("A dog barks, then rain falls.") == ["dog", "rain"]
    assert parse_order("Rain after a dog.") == ["dog", "rain"]
    assert parse_order("A dog barks while rain falls.") == []
    assert parse_order("A bell, then a cat, with wind in the background.") == ["bell", "cat"]
    assert parse_kinds("Bluebells") == []
    assert label_text(["wind", "dog"]) == "dog, wind"
    wordings = {
        caption(Content("sequence", (Sound("dog"), Sound("rain"))), np.random.default_rng(i)) for i in range(200)
    }
    assert len(wordings) > 30


def test_questions_are_answered_from_the_content() -> None:
    content = Content("sequence", (Sound("dog", pitch="low"), Sound("rain")))
    rng = np.random.default_rng(0)
    assert question(content, rng, "first")[1:] == ("dog", "first")
    assert question(content, rng, "last")[1:] == ("rain", "last")
    assert question(content, rng, "count")[1:] == (NUMBERS[2], "count")
    assert question(content, rng, "overlap")[1:] == ("one after another", "overlap")
    assert question(content, rng, "pitch")[:2] == ("Is the pitch of the dog low or high?", "low")
    asked = [question(content, np.random.default_rng(i), "presence") for i in range(400)]
    for text, answer, _ in asked:
        assert (answer == "yes") == ("dog" in text or "rain" in text), text
    assert 0.4 < np.mean([a == "yes" for _, a, _ in asked]) < 0.6


def test_a_training_record_never_asks_for_what_its_caption_does_not_tell() -> None:
    for seed in range(600):
        rng = np.random.default_rng(seed)
        record = corpus_record(Content.of(sample_recipe([6, seed]), rng), rng, "QA")
        if "pitch of the" in record["instruction"]:
            assert any(w in record["caption"].lower() for w in ("low", "deep", "high")), record
        if "slow or fast" in record["instruction"]:
            told = ("slow", "unhurried", "fast", "rapid", "quick")
            assert any(w in record["caption"].lower() for w in told), record


@pytest.mark.processes
def test_writing_the_corpus_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom jobs.soundworld import corpus\n"
        "corpus(Path(sys.argv[1]), 3, 1)\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "text.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert len((tmp_path / "text.jsonl").read_text().splitlines()) == 3
