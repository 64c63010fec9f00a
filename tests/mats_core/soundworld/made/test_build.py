"""Making and measuring the shipped model; and that text-only training cannot reach audio."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import mats_core
from mats_core.errors import SettingsError
from mats_core.soundworld import synth
from mats_core.soundworld.corpus import write_corpus
from mats_core.soundworld.recipe import sample_recipe
from mats_core.storage import StorageError


def test_text_only_training_would_fail_if_audio_reached_it(
    tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every way to sound is cut: synthesis, spectrograms, the audio tower. LLM, mapper and adapter still learn."""
    from transformers import ClapAudioModel

    import mats_core.encoders.clap
    from mats_core.soundworld.made import spectrograms, text_training
    from mats_core.soundworld.made.ablation import embed_mels
    from mats_core.soundworld.made.pretrain import pretrain_reading

    def heard(*args: object, **kwargs: object) -> None:
        raise AssertionError("audio reached text-only training")

    for owner, name in (
        (synth, "render"),
        (spectrograms, "render"),
        (spectrograms, "log_mel"),
        (spectrograms, "mel_spectrograms"),
    ):
        monkeypatch.setattr(owner, name, heard)
    monkeypatch.setattr(mats_core.encoders.clap.HfClapEncoder, "embed_audio", heard)
    monkeypatch.setattr("mats_core.encoders.clap.MelSpectrogram.forward", heard)
    monkeypatch.setattr(ClapAudioModel, "forward", heard)
    parts = Path(tiny_model_dir)
    encoder = mats_core.encoders.clap.HfClapEncoder(str(parts / "encoder"), device="cpu")
    with pytest.raises(AssertionError, match="audio reached"):
        spectrograms.render(sample_recipe(1))
    with pytest.raises(AssertionError, match="audio reached"):
        embed_mels(encoder, np.zeros((1, spectrograms.FRAMES, spectrograms.MELS), np.float16))
    corpus = text_training.text_corpus(encoder.embed_text, records=40, rounds=1)
    again = text_training.asked_again(corpus, rounds=1)
    assert again.captions == corpus.captions and torch.equal(again.embeddings, corpus.embeddings)
    assert again.outputs != corpus.outputs
    settings = text_training.training_settings(0.003, seed=0, steps=100).model_copy(update={"batch_size": 4})
    losses: list[str] = []
    text_training.train_mats(corpus, parts / "encoder", parts / "llm", settings, log=losses.append)
    assert len(losses) == 1
    assert float(losses[0].split("loss ")[1].split()[0]) < 8
    before = pretrain_reading(corpus, parts / "encoder", parts / "llm", tmp_path / "short", steps=2)
    after = pretrain_reading(corpus, parts / "encoder", parts / "llm", tmp_path / "llm", steps=25)
    assert after < before - 1
    assert (tmp_path / "llm" / "model.safetensors").exists()


def test_the_shipped_model_hears_what_it_is_shipped_for() -> None:
    """A small share of what `mats soundworld evaluate` measures (0.94 on 1000 clips), with a floor below it."""
    from mats_core.soundworld.made.build import evaluate
    from mats_core.soundworld.made.card import measured_table

    numbers = evaluate(mats_core.load_model("builtin", device="cpu", dtype="float32"), 48, 1, log=lambda _: None)
    captions, gap = numbers["captions"], numbers["gap"]
    assert captions["label_f1"] > 0.85
    assert captions["label_f1"] - numbers["chance_f1"] > 0.6
    assert numbers["cla_label_f1"] > 0.8
    assert gap["before"]["pair_cosine"] < gap["after"]["pair_cosine"] < 1
    assert gap["before"]["centroid_distance"] > gap["after"]["centroid_distance"]
    assert numbers["scenes"]["minutes"] == 3
    assert numbers["scenes"]["segments_f1"] > numbers["scenes"]["single_answer_f1"]
    asked = numbers["questions"]
    assert sum(asked[kind]["questions"] for kind in asked if kind != "all") == asked["all"]["questions"] == 48
    assert f"| captions, label F1 | {captions['label_f1']:.3f} |" in measured_table(numbers, None)


def test_a_clip_and_its_recipe_are_two_files(tmp_path: Path) -> None:
    from jobs.soundworld import clip

    for name in ("c.json", "c", "c.wav.json"):
        with pytest.raises(SettingsError, match=r"out: .* is no name of a WAV file; choose one that ends with \.wav"):
            clip(tmp_path / "new" / name)
    assert not list(tmp_path.iterdir())
    assert clip(tmp_path / "c.WAV") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"c.WAV", "c.json"}


def test_numbers_are_shown_before_they_are_written_and_a_bad_place_is_found_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs.soundworld import evaluate

    done: list[str] = []
    monkeypatch.setattr("mats_core.model.model.load_model", lambda *_, **__: done.append("loaded"))
    monkeypatch.setattr("mats_core.soundworld.made.build.evaluate", lambda *_: {"f1": 0.5})
    monkeypatch.setattr("mats_core.soundworld.made.card.measured_table", lambda numbers, _: f"a table of {numbers}")
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "x.json"):
        with pytest.raises(SettingsError, match=r"^out: "):
            evaluate("builtin", 10, 0, out)
    assert done == []
    assert evaluate("builtin", 10, 0, tmp_path / "missing" / "x.json") == 0
    assert json.loads((tmp_path / "missing" / "x.json").read_text()) == {"f1": 0.5}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    capsys.readouterr()
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate("builtin", 10, 0, tmp_path / "y.json")
    assert capsys.readouterr().out == "a table of {'f1': 0.5}\n"


class _Encoder:
    """Embeds every text as the same vector, by its number."""

    def __init__(self, number: int) -> None:
        self.fingerprint, self.vector, self.asked = f"{number}" * 64, torch.eye(2)[number - 1], 0

    def embed_text(self, texts: list[str]) -> torch.Tensor:
        self.asked += 1
        return self.vector.repeat(len(texts), 1)


def test_the_kept_text_corpus_is_its_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mats_core.soundworld.made import ablation
    from mats_core.soundworld.made.text_training import text_corpus

    monkeypatch.setattr(ablation, "text_corpus", lambda embed: text_corpus(embed, records=3, rounds=1))
    one, two = _Encoder(1), _Encoder(2)
    for encoder in (one, two, one):
        made = ablation.saved_text_corpus(tmp_path, encoder)  # type: ignore[arg-type]
        assert made.embeddings.tolist() == [encoder.vector.tolist()] * 3
    assert (one.asked, two.asked) == (1, 1)


def test_what_a_build_keeps_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mats_core.soundworld.made import ablation
    from mats_core.soundworld.made.build import Times
    from mats_core.soundworld.made.text_training import text_corpus

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    times = Times(tmp_path / "times.json", lambda _: None)
    with times("first"):
        pass
    before = (tmp_path / "times.json").read_text()
    monkeypatch.setattr(ablation, "text_corpus", lambda embed: text_corpus(embed, records=3, rounds=1))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        ablation.saved_text_corpus(tmp_path, _Encoder(1))  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="No space left"), times("second"):
        pass
    with pytest.raises(StorageError, match="No space left"):
        write_corpus(tmp_path / "text.jsonl", records=3, rounds=1)
    assert (tmp_path / "times.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["times.json"]


def test_the_table_of_noise_names_the_estimates_and_the_best() -> None:
    from mats_core.soundworld.made.ablation import noise_grid_table

    estimate = {"pairs": 30, "variance": 0.01758, "mean_square": 0.0019}
    f1 = {0.0: (0.9, 0.92), 0.0019: (0.91, 0.93), 0.003: (0.92, 0.941), 0.018: (0.93, 0.93)}
    rows = [{"noise_variance": at, "without_santa": bare, "best": best} for at, (bare, best) in f1.items()]
    assert noise_grid_table({"estimate": estimate, "grid": rows}).splitlines()[2:] == [
        "| 0 | 0.9000 | 0.9200 |  |",
        "| 0.0019 | 0.9100 | 0.9300 | their mean squared difference a dimension |",
        "| 0.003 | 0.9200 | 0.9410 | the best |",
        "| 0.018 | 0.9300 | 0.9300 | the estimate of 30 pairs, as the paper's |",
    ]
