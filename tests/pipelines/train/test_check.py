"""What can hardly be meant of a training run, and defaults that follow its length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mats_core.encoders.facts import read_encoder_facts
from mats_core.errors import SettingsError
from mats_core.model.directory import encoder_uri
from pipelines.data import parquet
from pipelines.settings.train import TrainSettings, as_begun, identity
from pipelines.text.caption_buckets import Caption, caption_table, embedding_table
from pipelines.train.check import check_settings, doubts, with_encoder
from pipelines.train.run import run_train


def settings(steps: int, **given: Any) -> TrainSettings:
    training = {"steps": steps, **{name: given.pop(name) for name in ("warmup_steps",) if name in given}}
    data = [{"name": "a", "corpus": "c"}]
    return TrainSettings(output="o", llm="l", encoder="e", embeddings="e", data=data, training=training, **given)


@pytest.mark.parametrize(
    ("steps", "warmup", "checkpoint", "validate"),
    [(90_000, 3000, 500, 1000), (3000, 100, 300, 600), (100, 3, 10, 20), (1, 0, 1, 1), (500_000, 3000, 500, 1000)],
)
def test_what_is_not_given_follows_the_steps(steps: int, warmup: int, checkpoint: int, validate: int) -> None:
    found = settings(steps)
    assert (found.training.warmup_steps, found.checkpoint_every, found.validate_every) == (warmup, checkpoint, validate)
    assert not list(doubts(found))


def test_what_is_given_stands_and_is_doubted_where_it_can_hardly_be_meant() -> None:
    found = settings(100, warmup_steps=100, checkpoint_every=500, validate_every=7)
    assert (found.training.warmup_steps, found.checkpoint_every, found.validate_every) == (100, 500, 7)
    warmup, checkpoint = doubts(found)
    assert warmup.startswith("training.warmup_steps is 100 and the run has 100 steps")
    assert checkpoint.startswith("checkpoint_every is 500: no checkpoint before the end, after 100 steps")
    assert not list(doubts(settings(100, warmup_steps=99, checkpoint_every=99)))


def test_a_run_that_goes_on_keeps_what_it_was_begun_with() -> None:
    """Begun when a warm-up that is not given was 3000 steps, whatever the length of the run."""
    begun = identity(settings(100, warmup_steps=3000))
    found, notes = as_begun(settings(100), begun)
    assert identity(found) == begun
    assert notes == ["training.warmup_steps is 3000, as this run was begun; a new one would have 3"]
    again, _ = as_begun(found, begun)
    assert identity(again) == begun, "it is not taken for given"
    assert as_begun(settings(100), identity(settings(100))) == (settings(100), [])


def test_what_is_given_otherwise_is_not_taken_from_the_run_before() -> None:
    begun = identity(settings(100, warmup_steps=3000))
    found, notes = as_begun(settings(100, warmup_steps=5, wordings="reference"), begun)
    assert (found.training.warmup_steps, found.wordings, notes) == (5, "reference", [])
    longer, _ = as_begun(settings(200), begun)
    assert (longer.training.steps, longer.training.warmup_steps) == (200, 3000), "and the longer run is refused"


def test_a_table_whose_rows_are_all_alike_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"caption": "a", "output": "b"}\n')
    flat = np.ones((40, 4), np.float16)
    captions = caption_table({f"{n:032x}": Caption(f"c{n}", {"a"}, 1) for n in range(40)})
    parquet.write(str(tmp_path / "embeddings" / "part-00000.parquet"), embedding_table(captions, flat))
    facts = {"encoder_fingerprint": "e" * 64, "dim": 4, "rows": 40, "status": "complete"}
    (tmp_path / "_embeddings.json").write_text(json.dumps(facts))
    data = [{"name": "a", "corpus": str(tmp_path / "corpus.jsonl")}]
    given = {"output": str(tmp_path / "out"), "llm": "builtin", "encoder": "builtin", "embeddings": str(tmp_path)}
    with pytest.raises(SettingsError, match=r"^embeddings: the vectors of .* are all alike: 40 .* cosine of 1\.0000"):
        check_settings(TrainSettings(data=data, **given))


def embedded_by(folder: Path, encoder: str | None, fingerprint: str) -> dict[str, Any]:
    """Settings of a training that names no encoder, on an empty table of embeddings that does."""
    (folder / "corpus.jsonl").write_text('{"caption": "a", "output": "b"}\n')
    table = embedding_table(caption_table({"0" * 32: Caption("a", {"a"}, 1)}), np.eye(1, 4, dtype=np.float16))
    parquet.write(str(folder / "embeddings" / "part-00000.parquet"), table)
    facts = {"encoder": encoder, "encoder_fingerprint": fingerprint, "dim": 4, "rows": 1, "status": "complete"}
    (folder / "_embeddings.json").write_text(json.dumps(facts))
    data = [{"name": "a", "corpus": str(folder / "corpus.jsonl")}]
    return {"output": str(folder / "out"), "llm": "builtin", "embeddings": str(folder), "data": data}


def test_the_encoder_that_is_not_named_is_that_of_the_embeddings(tmp_path: Path) -> None:
    fingerprint = read_encoder_facts(encoder_uri("builtin")).fingerprint
    given = embedded_by(tmp_path, "builtin", fingerprint)
    found = with_encoder(TrainSettings(**given))
    assert found.encoder == "builtin" and "encoder" not in found.model_fields_set
    assert check_settings(found).encoder.fingerprint == fingerprint  # type: ignore[union-attr]
    assert identity(found) == identity(TrainSettings(**given, encoder="builtin")), "either way it is one run"
    assert with_encoder(TrainSettings(**given, encoder="other")).encoder == "other"


@pytest.mark.parametrize(
    ("encoder", "told"),
    [
        (None, "^encoder: none is named, and .* does not tell by which it was made; name the CLAP .*encoder: "),
        ("/no/clap", r"^encoder: none is named, and /no/clap, by which .* cannot be read \(.*; name the CLAP"),
        ("builtin", "^encoder: none is named, and builtin, by which .* was made, is another one by now; name the CLAP"),
    ],
)
def test_an_encoder_that_cannot_be_found_any_more_must_be_named(tmp_path: Path, encoder: str | None, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        run_train(**embedded_by(tmp_path, encoder, "e" * 64))
    assert not (tmp_path / "out").exists()
