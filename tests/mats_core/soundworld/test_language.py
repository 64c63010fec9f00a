"""Captions, questions and records: what they say of a clip, and that nothing is asked that was not told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mats_core.soundworld.corpus import (
    QUESTION_SHARES,
    TASK_SHARES,
    minute_record,
    text_content_and_record,
    text_record,
)
from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import (
    NUMBERS,
    QUESTION_KINDS,
    WORDS,
    Content,
    Sound,
    caption,
    corpus_record,
    facts_list,
    label_text,
    named_once,
    parse_kinds,
    parse_order,
    question,
    question_kind,
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


def test_a_question_tells_its_kind() -> None:
    met = set()
    for seed in range(3000):
        rng = np.random.default_rng(seed)
        asked, _, kind = question(Content.of(sample_recipe([6, seed]), rng, attributes=1.0), rng)
        assert question_kind(asked) == kind, asked
        met.add(kind)
    assert met == set(QUESTION_KINDS)


def test_kinds_of_question_are_asked_as_often_as_they_are_given() -> None:
    content = Content("sequence", (Sound("dog", pitch="low", rate="fast"), Sound("rain")))  # which all can be asked of
    shares = dict.fromkeys(QUESTION_KINDS, 0.0) | {"presence": 3.0, "last": 1.0}
    rng = np.random.default_rng(0)
    asked = [question(content, rng, shares=shares)[2] for _ in range(2000)]
    assert set(asked) == {"presence", "last"}
    assert 0.7 < asked.count("presence") / len(asked) < 0.8
    alone = Content("single", (Sound("dog"),))
    shares["count"] = 1.0
    assert {question(alone, rng, shares=shares)[2] for _ in range(200)} == {"presence", "count"}  # it has no last
    assert question(alone, rng, "which", shares)[1:] == ("dog", "which")


def test_the_corpus_asks_what_its_shares_say() -> None:
    assert set(QUESTION_SHARES) == set(QUESTION_KINDS)
    records = [text_record(index) for index in range(3000)]
    for task, share in TASK_SHARES.items():
        assert abs(sum(record["task"] == task for record in records) / len(records) - share) < 0.03
    kinds = [question_kind(record["instruction"]) for record in records if record["task"] == "QA"]
    assert all(kinds.count(kind) > 40 for kind in QUESTION_KINDS)
    assert kinds.count("presence") > 1.5 * kinds.count("which")
    assert kinds.count("last") > 1.4 * kinds.count("first") > 0


def test_both_answers_to_whether_sounds_come_together_are_asked_for_equally_often() -> None:
    """Though clips whose sounds follow one another can be asked for the first and the last too."""
    answers = []
    for index in range(8000):
        record = text_record(index)
        if record["task"] == "QA" and question_kind(record["instruction"]) == "overlap":
            answers.append(record["output"])
    assert len(answers) > 200
    assert 0.4 < answers.count("together") / len(answers) < 0.6


def test_a_caption_can_be_asked_for_something_else() -> None:
    """As often for each task, and of what its clip can be asked."""
    first, second = ([text_record(index, asking=asking) for index in range(1000)] for asking in (0, 1))
    assert [record["caption"] for record in first] == [record["caption"] for record in second]
    same = [
        a["instruction"] == b["instruction"] and a["output"] == b["output"] for a, b in zip(first, second, strict=True)
    ]
    assert sum(same) < 200  # "yes" of two questions, labels of two lists
    for task, share in TASK_SHARES.items():
        assert abs(sum(record["task"] == task for record in second) / len(second) - share) < 0.05
    for index, record in enumerate(second):
        content, _ = text_content_and_record(index)
        if record["task"] == "cla_label":
            assert record["output"] == label_text(content.kinds)
        elif question_kind(record["instruction"]) == "last":
            assert record["output"] == WORDS[content.in_order[-1].kind].label


def test_a_list_of_facts_tells_all_that_a_record_may_ask() -> None:
    sounds = (Sound("dog", pitch="high", rate="slow"), Sound("rain"))
    assert facts_list(Content("sequence", sounds)) == "one after another: high slow dog, rain"
    assert facts_list(Content("background", (*sounds, Sound("wind")))) == "over the last: high slow dog, rain, wind"
    for index in range(200):
        content, record = text_content_and_record(index)
        assert record == text_record(index)
        assert parse_kinds(facts_list(content)) == content.kinds
        assert set(parse_kinds(record["caption"])) == set(content.kinds)


def test_a_minute_is_asked_what_the_captions_of_its_windows_tell() -> None:
    """And nothing of order, pitch or rate, which their mean cannot hold."""
    asked: set[str] = set()
    for index in range(1500):
        record = minute_record(index)
        assert record == minute_record(index)
        assert 2 <= len(record["caption"]) <= 12
        heard = {kind for text in record["caption"] for kind in parse_kinds(text)}
        assert 1 <= len(heard) <= 3
        if record["task"] in ("caption", "cla_label"):
            assert set(parse_kinds(record["output"])) == heard and parse_order(record["output"]) == [], record
        elif record["task"] == "QA":
            kind = question_kind(record["instruction"])
            asked.add(kind)
            if kind == "which":
                assert record["output"] == label_text(sorted(heard))
            elif kind == "count":
                assert record["output"] == NUMBERS[len(heard)]
            elif kind == "presence":
                named = next(k for k in KINDS if f" {WORDS[k].label} " in record["instruction"])
                assert record["output"] == ("yes" if named in heard else "no")
    assert asked == {"which", "count", "presence", "group"}


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
    assert len((tmp_path / "text.jsonl").read_text().splitlines()) == 4  # one of them of a minute


def test_sounds_are_named_once_in_any_order() -> None:
    rng = np.random.default_rng(0)
    said = [named_once("Rain falls while a low dog barks and a rapid barking dog is heard.", rng) for _ in range(60)]
    assert all(sorted(parse_kinds(text)) == ["dog", "rain"] and text.count(", ") == 1 for text in said)
    assert {parse_kinds(text)[0] for text in said} == {"dog", "rain"}
    assert len(set(said)) > 6
