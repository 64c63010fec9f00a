"""`mats noise`: pairs as a list and as what `mats embed-audio` has heard, and what training takes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from jobs.text import noise
from mats_core.encoders.load import load_encoder
from mats_core.errors import SettingsError
from mats_core.memory.noise import estimate_noise
from mats_core.storage.fingerprint import fingerprint_directory, sealed
from pipelines.data.embeddings import EmbeddingsFacts, told_of
from pipelines.data.schemas import WINDOWS_TYPE
from pipelines.settings.base import build
from pipelines.settings.text import NoiseSettings
from pipelines.settings.train import TrainSettings
from pipelines.text.noise import run_noise
from tests.tiny import SAMPLE_RATE, make_tiny_encoder
from tests.training_world import records, values, write_embeddings

CAPTIONS = ["a rain with dog", "a bell with siren", "a bird with wind"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLAP, embeddings of captions, and three sounds with captions in a list; two more rows cannot be used."""
    folder = tmp_path_factory.mktemp("noise")
    make_tiny_encoder(folder / "clap")
    write_embeddings(folder / "emb", [r["caption"] for r in records()], fingerprint_directory(folder / "clap"))
    for at in range(3):
        tone = 0.2 * np.sin(np.arange(2 * SAMPLE_RATE) * (at + 1) / 20)
        soundfile.write(folder / f"{at}.wav", tone, SAMPLE_RATE)
    (folder / "notes.wav").write_text("no sound")
    rows = [*((f"{at}.wav", text) for at, text in enumerate(CAPTIONS)), ("notes.wav", "a dog"), ("0.wav", "")]
    (folder / "pairs.csv").write_text("uri,caption\n" + "".join(f"{uri},{text}\n" for uri, text in rows))
    return folder


def settings(world: Path, **changes: Any) -> NoiseSettings:
    given = {"embeddings": world / "emb", "pairs": world / "pairs.csv", "encoder": world / "clap", "device": "cpu"}
    return build(NoiseSettings, {**given, **changes})


@pytest.mark.processes
def test_a_list_is_heard_and_training_takes_what_it_says(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert noise(settings(world)) == 0
    encoder = load_encoder(world / "clap", device="cpu")
    sounds = []
    for at in range(3):
        samples, _ = soundfile.read(world / f"{at}.wav", dtype="int16")
        sounds.append(encoder.embed_audio(torch.from_numpy(encoder.pad(samples.astype(np.float32) / 32768))[None]))
    expected = estimate_noise(torch.cat(sounds), encoder.embed_text(CAPTIONS))
    told = json.loads((world / "emb" / "_noise.json").read_text())
    assert told["variance"] == pytest.approx(expected.variance, rel=1e-3)
    assert told["mean_square"] == pytest.approx(expected.mean_square, rel=1e-3)
    said = capsys.readouterr().out
    assert f"{told['variance']:.4g} ±" in said and f"{told['mean_square']:.4g} (mean squared" in said
    assert "notes.wav: not_audio" in said and "0.wav: there is no caption" in said
    given = values(world, world / "out", llm="l", encoder="e", training={"noise_variance": "estimated"})
    assert build(TrainSettings, given).training.noise_variance == told["variance"]
    assert run_noise(settings(world, most=2)).estimate.pairs == 2


def test_pairs_that_were_heard_before(world: Path, tmp_path: Path) -> None:
    encoder = load_encoder(world / "clap", device="cpu")
    vectors = np.eye(3, 32, dtype=np.float32)
    windows = [[{"start_s": 0.0, "weight": 5.0, "embedding": vector.tolist()}] for vector in vectors]
    columns = {
        "uri": ["a", "b", "c", "d"], "error_code": [None, None, None, "not_audio"], "caption": [*CAPTIONS, "x"],
        "windows": pa.array([*windows, None], WINDOWS_TYPE),
    }  # fmt: skip
    (tmp_path / "embeddings").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "embeddings" / "part-0.parquet")
    heard = {"dim": 32, "sample_rate": SAMPLE_RATE, "window_seconds": 5.0}
    facts = EmbeddingsFacts(str(tmp_path), encoder_fingerprint=encoder.fingerprint, **heard)  # type: ignore[arg-type]
    (tmp_path / "_embeddings.json").write_text(json.dumps(told_of(facts)))
    result = run_noise(settings(world, pairs=tmp_path))
    assert result.estimate == estimate_noise(torch.from_numpy(vectors), encoder.embed_text(CAPTIONS))
    assert result.left_out == ["d: not_audio"]
    other = EmbeddingsFacts(str(tmp_path), encoder_fingerprint="other", **heard)  # type: ignore[arg-type]
    (tmp_path / "_embeddings.json").write_text(json.dumps(told_of(other)))
    with pytest.raises(SettingsError, match=r"^pairs: "):
        run_noise(settings(world, pairs=tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"embeddings": "gone"}, r"^embeddings: gone holds no embeddings"),
        ({"pairs": "gone.csv"}, r"^pairs: there is no list gone\.csv; give a list with columns `uri` and `caption`"),
        ({"pairs": "bare.csv"}, r"^pairs: .*caption"),
        ({"embeddings": "foreign"}, r"^encoder: "),
        ({"pairs": "one.csv"}, r"^pairs: 0 pairs can be used; left out: gone\.wav: not_found"),
    ],
)
def test_wrong_pairs_are_named(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare.csv").write_text("uri\n0.wav\n")
    (tmp_path / "one.csv").write_text("uri,caption\ngone.wav,a dog\n")
    write_embeddings(tmp_path / "foreign", CAPTIONS, "another encoder's")
    hearing: list[bool] = []
    with pytest.raises(SettingsError, match=said):
        run_noise(settings(world, **changes), lambda: hearing.append(True))
    assert bool(hearing) == (changes.get("pairs") == "one.csv")  # all else is refused before any work


def test_training_says_what_is_missing(world: Path, tmp_path: Path) -> None:
    given = values(world, tmp_path, llm="l", encoder="e", training={"noise_variance": "estimated"})
    with pytest.raises(SettingsError, match=r"run mats noise .* --pairs PAIRS first"):
        build(TrainSettings, {**given, "embeddings": str(tmp_path)})
    (tmp_path / "_noise.json").write_text(json.dumps(sealed({"variance": 0.02})).replace("0.02", "0.2"))
    with pytest.raises(SettingsError, match="is not what mats noise wrote"):
        build(TrainSettings, {**given, "embeddings": str(tmp_path)})
    with pytest.raises(SettingsError, match="name the run's embeddings"):
        build(TrainSettings, {**given, "embeddings": None})
    with pytest.raises(SettingsError, match="noise_variance"):
        build(TrainSettings, {**given, "training": {"noise_variance": "guessed"}})
