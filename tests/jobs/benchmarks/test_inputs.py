"""What benchmarks are fed with is the same for everyone."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from jobs.benchmarks.inputs import RATE, lift, random_llama, world_captions, write_captions, write_clips


def test_clips_are_of_the_lengths_asked_for_and_the_same_again(tmp_path: Path) -> None:
    seconds = write_clips(tmp_path / "a", 5, 1.0)
    lengths = [soundfile.info(path).duration for path in sorted((tmp_path / "a").rglob("*.wav"))]
    assert len(lengths) == 5 and all(0.2 - 1e-3 <= length <= 1.0 for length in lengths)
    assert sum(lengths) == pytest.approx(seconds)
    write_clips(tmp_path / "b", 5, 1.0)
    for path in (tmp_path / "a").rglob("*.wav"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
        assert soundfile.info(path).samplerate == RATE


def test_captions_are_distinct_and_a_corpus_is_left_alone(tmp_path: Path) -> None:
    texts = list(world_captions(300))
    assert len(set(texts)) == 300
    assert texts[:50] == list(islice(world_captions(50), 50))
    write_captions(tmp_path / "c.jsonl", 3)
    assert [json.loads(line)["caption"] for line in (tmp_path / "c.jsonl").read_text().splitlines()] == texts[:3]
    write_captions(tmp_path / "c.jsonl", 100)
    assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 3


def test_a_lift_keeps_lengths_and_angles() -> None:
    vectors = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    lifted = vectors @ lift(8, 32)
    assert lifted.shape == (6, 32)
    np.testing.assert_allclose(lifted @ lifted.T, vectors @ vectors.T, atol=1e-4)


def test_a_random_llama_has_the_sizes_asked_for_and_leaves_the_number_type_alone() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    llm = random_llama(torch.device("cpu"), vocab_size=20, **sizes)
    assert llm.get_input_embeddings().weight.shape == (20, 16)
    assert llm.dtype == torch.get_default_dtype() == torch.float32
