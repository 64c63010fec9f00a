"""Spectrograms of the embedded CLAP."""

from __future__ import annotations

import numpy as np

from mats_core.soundworld.kinds import SAMPLE_RATE
from mats_core.soundworld.made.spectrograms import feature_extractor_config, log_mel
from mats_core.soundworld.recipe import sample_recipe
from mats_core.soundworld.synth import render


def test_log_mel_is_what_the_feature_extractor_of_transformers_computes() -> None:
    from transformers import ClapFeatureExtractor

    settings = feature_extractor_config()
    settings.pop("feature_extractor_type")
    extractor = ClapFeatureExtractor(**settings)
    for seconds in (1.3, 2.6, 5.0):
        waveform = render(sample_recipe([3, 4], seconds=seconds))
        theirs = extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="np")["input_features"][0, 0]
        assert np.abs(log_mel(waveform) - theirs).max() < 1e-2  # dB
