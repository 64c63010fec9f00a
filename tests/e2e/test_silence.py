"""Silence through a run: marked, answered as such, and left out of what is heard beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mats_core.soundworld.kinds import SAMPLE_RATE
from mats_core.soundworld.recipe import clip_recipe
from mats_core.soundworld.synth import render
from pipelines import run_caption, run_embed_audio

pytestmark = pytest.mark.processes


@pytest.mark.long  # a minute
def test_rows_of_silence_say_so_and_embeddings_are_answered_as_their_sounds(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    clip = render(clip_recipe("test", 0))
    minute = np.zeros(60 * SAMPLE_RATE, np.float32)
    minute[20 * SAMPLE_RATE : 20 * SAMPLE_RATE + len(clip)] = clip
    hiss = np.random.default_rng(1).standard_normal(10 * SAMPLE_RATE)
    sounds = {
        "clip": clip, "minute": minute, "nothing": np.zeros(10 * SAMPLE_RATE), "loud hiss": hiss * 10**-2.5,
        "soft hiss": hiss * 10**-4, "apart": np.stack([clip, -clip], axis=1),
    }  # fmt: skip
    for name, sound in sounds.items():
        soundfile.write(archive / f"{name}.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    given = {"device": "cpu", "input": str(archive)}
    found = run_caption(output=str(tmp_path / "out"), **given).to_pandas()
    rows = {Path(row.uri).stem.replace("%20", " "): row for row in found.itertuples()}
    assert {name for name, row in rows.items() if row.silent} == {"nothing", "soft hiss"}
    assert {row.text for row in rows.values() if row.silent} == {"Silence."}
    assert rows["nothing"].rms_dbfs == -120.0 and rows["soft hiss"].rms_dbfs == pytest.approx(-80.0, abs=0.2)
    assert rows["loud hiss"].rms_dbfs == pytest.approx(-50.0, abs=0.2)
    assert rows["minute"].text == rows["clip"].text == rows["apart"].text
    assert "cancel each other out" in rows["apart"].error_message and rows["apart"].error_code is None
    embedded = run_embed_audio(output=str(tmp_path / "embedded"), **given)
    assert embedded.to_pandas()["silent"].sum() == 2
    again = run_caption(input=str(tmp_path / "embedded"), output=str(tmp_path / "again"), device="cpu").to_pandas()
    same = ["uri", "text", "silent", "peak_dbfs", "rms_dbfs", "clipped", "decoded_s"]
    assert again[same].sort_values("uri").values.tolist() == found[same].sort_values("uri").values.tolist()
    asked = run_caption(output=str(tmp_path / "asked"), answer_silence=True, **given).to_pandas()
    assert "Silence." not in set(asked["text"]) and asked["silent"].sum() == 2
