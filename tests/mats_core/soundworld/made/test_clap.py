"""The pretraining of the embedded CLAP: what counts as a wrong caption, and that it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from mats_core.encoders.clap import HfClapEncoder
from mats_core.model.directory import BUILTIN
from mats_core.soundworld.language import Content, Sound
from mats_core.soundworld.made.clap import contrastive, pretrain_clap
from mats_core.soundworld.made.spectrograms import log_mel
from mats_core.soundworld.recipe import clip_recipe
from mats_core.soundworld.synth import render

DOG_THEN_RAIN = Content("sequence", (Sound("dog"), Sound("rain")))
RAIN_THEN_DOG = DOG_THEN_RAIN.swapped()
TOGETHER = Content("together", (Sound("dog"), Sound("rain")))
SCALE = torch.tensor(3.0)


def test_clips_of_the_same_sounds_in_the_same_layout_do_not_count_against_each_other() -> None:
    unit = torch.eye(4)[:3]
    alike = torch.stack([unit[0], unit[0], unit[2]])  # the first two clips sound the same, and so do their captions
    same, right = contrastive(alike, alike, [DOG_THEN_RAIN, DOG_THEN_RAIN, TOGETHER], SCALE)
    other, _ = contrastive(alike, alike, [DOG_THEN_RAIN, RAIN_THEN_DOG, TOGETHER], SCALE)
    assert same < 1e-6
    assert right == 1.0
    assert other == pytest.approx(2 / 3 * np.log(2), abs=1e-6), "a coin between two of three clips"


def test_a_caption_turned_round_is_a_wrong_one() -> None:
    unit = torch.eye(4)[:2]
    contents = [DOG_THEN_RAIN, TOGETHER]
    told, right = contrastive(unit, torch.cat([unit, torch.eye(4)[3:]]), contents, SCALE)
    assert told < 1e-6
    assert right == 1.0
    confused, _ = contrastive(unit, torch.cat([unit, unit[:1]]), contents, SCALE)  # turned round it sounds the same
    assert confused == pytest.approx(0.5 * 0.5 * np.log(2), abs=1e-6)


def test_a_clap_is_trained_and_saved_as_one_of_transformers(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BUILTIN / "encoder")
    mels = np.stack([log_mel(render(clip_recipe("pretrain", index))) for index in range(8)])
    first = pretrain_clap(mels, tmp_path / "short", tokenizer, steps=1, batch=8, log=lambda _: None)
    last = pretrain_clap(mels, tmp_path / "encoder", tokenizer, steps=40, batch=8, log=lambda _: None)
    assert last["labels"] < 0.93 * first["labels"]
    encoder = HfClapEncoder(str(tmp_path / "encoder"), device="cpu")
    assert encoder.embed_text(["A dog barks."]).shape == (1, 128)
