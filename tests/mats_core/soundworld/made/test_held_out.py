"""Kinds of sound held out of all text: what a model is trained on, what it is told later, how it is measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jobs.soundworld import adapt
from mats_core.errors import SettingsError
from mats_core.model.asking import Reply
from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import WORDS, label_text, parse_kinds
from mats_core.soundworld.made.held_out import (
    HELD_OUT,
    archive_sentences,
    held_out_records,
    held_out_scores,
    held_out_table,
    make_model,
    score_models,
)
from mats_core.soundworld.made.measure import Clips
from mats_core.soundworld.recipe import Event, Recipe


def test_every_fourth_kind_is_held_out() -> None:
    assert len(HELD_OUT) == 6 and len({KINDS[kind].group for kind in HELD_OUT}) >= 4


def test_no_text_names_a_kind_that_is_held_out() -> None:
    """Looked for in every field by the words themselves, as the tables of the language have them."""
    rows = held_out_records(HELD_OUT, 400, 1)
    assert len(rows) > 380
    words = {word for kind in HELD_OUT for word in (WORDS[kind].label, *WORDS[kind].nouns, *WORDS[kind].clauses)}
    texts = [f" {row[name].lower()} " for row in rows for name in ("caption", "instruction", "output")]
    for word in words:
        assert not any(f" {word} " in text.replace(",", " ").replace(".", " ") for text in texts), word
    named = {kind for text in texts for kind in parse_kinds(text)}
    assert named == set(KINDS) - set(HELD_OUT)


def test_every_sentence_of_the_archive_names_one() -> None:
    found = archive_sentences(HELD_OUT, 60)
    assert len(found) == 60 and found == archive_sentences(HELD_OUT, 60)
    assert all(set(parse_kinds(sentence)) & set(HELD_OUT) for sentence in found)
    assert any(set(parse_kinds(sentence)) - set(HELD_OUT) for sentence in found)


def clip(*kinds: str) -> Recipe:
    events = tuple(Event(kind, 0.0, 1.0, 0.0, 0.5, 0.5) for kind in kinds)
    return Recipe(0, 5.0, "together", events, 0.0, -40.0, 0.0, 0.0)


def test_scores_by_hand() -> None:
    """A model that knows dogs and rain, and says dog for every bird."""
    recipes = [clip("dog"), clip("rain", "dog"), clip("bird"), clip("bird", "rain")]
    said = ["a dog", "rain and a dog", "a dog", "rain and a dog"]
    labels = [label_text(["dog"]), label_text(["rain"]), label_text(["bird"]), label_text(["bird", "rain"])]

    def answer(_: Any, requests: list[Any], **__: Any) -> list[Reply]:
        return [Reply(text, 1) for text in (said if requests[0].task == "caption" else labels)]

    model: Any = SimpleNamespace(answer_embeddings=answer, config=SimpleNamespace(santa=None))
    found = held_out_scores(model, Clips(torch.zeros(4, 8), recipes), ["bird"])
    assert found["clips"] == {"held": 2, "others": 2}
    assert found["caption"]["others"] == 1.0
    assert found["caption"]["held"] == pytest.approx(2 * 1 / (3 + 3))  # rain, of three said and three true
    assert found["caption"]["held_kinds"] == 0.0
    assert found["cla_label"]["held"] == found["cla_label"]["held_kinds"] == 1.0
    assert found["cla_label"]["others"] == pytest.approx(2 * 2 / (2 + 3))
    table = held_out_table({"one": found}, {"one": "a model"})
    assert "| model | clips with held-out kinds (2) | other clips (2) |" in table
    assert table.splitlines()[-1] == "| a model | 0.333 | 1.000 | 0.000 | 1.000 | 0.800 |"


def test_a_whole_model_is_made_once(tiny_model_dir: str, tmp_path: Path) -> None:
    log: list[str] = []
    rows = held_out_records(HELD_OUT, 30, 1)
    make_model(tmp_path / "without", Path(tiny_model_dir), rows, 2, log.append)
    made = (tmp_path / "without" / "model" / "mapper.safetensors").stat().st_mtime_ns
    make_model(tmp_path / "without", Path(tiny_model_dir), rows, 2, log.append)
    assert (tmp_path / "without" / "model" / "mapper.safetensors").stat().st_mtime_ns == made
    clips = Clips(torch.nn.functional.normalize(torch.randn(4, 32), dim=-1), [clip("dog"), clip("bird")] * 2)
    models = {"without": tmp_path / "without" / "model"}
    first = score_models(tmp_path, models, clips, HELD_OUT, log.append)
    assert first["without"]["clips"] == {"held": 2, "others": 2}
    assert score_models(tmp_path, models, clips, HELD_OUT, lambda _: pytest.fail("asked again")) == first


def test_a_folder_of_another_experiment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text('{"kinds": ["bird"], "sentences": 1000, "steps": 500, "clips": 1000}')
    with pytest.raises(SettingsError, match=r"work: .* \(steps was 500\)"):
        adapt(tmp_path, kinds="bird", sentences=1000, steps=400, clips=1000)


@pytest.mark.parametrize("kinds", ["bird, unicorn", ", ".join(list(KINDS)[:-2])])
def test_kinds_that_cannot_be_held_out_are_refused(tmp_path: Path, kinds: str) -> None:
    with pytest.raises(SettingsError, match=r"kinds: "):
        adapt(tmp_path / "work", kinds=kinds)
    assert not (tmp_path / "work").exists()
