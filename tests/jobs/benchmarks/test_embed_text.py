"""The corpus has the lengths of real captions."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.benchmarks.embed_text import MOST_TOKENS, run_benchmark, worded_captions
from mats_core.errors import SettingsError


def test_captions_are_distinct_with_a_long_tail() -> None:
    texts = worded_captions(400)
    lengths = np.array([len(text.split()) for text in texts])
    assert len(set(texts)) == 400
    assert 9 <= np.median(lengths) <= 11 and 16 < np.percentile(lengths, 95) < lengths.max() <= MOST_TOKENS


def test_too_few_captions_are_refused() -> None:
    with pytest.raises(SettingsError, match="captions: 3 are too few; choose at least 64"):
        run_benchmark(None, 3, False, None, True)
