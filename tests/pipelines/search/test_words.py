from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from pipelines.search.words import joined, rank_captions, search_words


def test_words_that_tell_nothing_and_endings_go() -> None:
    assert search_words("The sound of a barking dog, dogs") == ["bark", "dog"]
    assert search_words("the") == ["the"]  # all there is
    assert search_words("Glöckchen über 東京") == ["glöckchen", "über", "東京"]


def test_captions_are_ranked_by_bm25() -> None:
    told = ["a dog barks", "dogs and a cat", "rain", None, "a dog barks while a dog runs far away", "hotdog"]
    text = pa.chunked_array([told[:3], told[3:]])
    assert rank_captions(text, "dog", 10).tolist() == [0, 1, 4]  # not within a word; twice in a long caption is less
    lengths = [len(each) for each in told if each]
    rarity = math.log(1 + (6 - 3 + 0.5) / (3 + 0.5))

    def score(row: int, count: int) -> float:
        held = 1.2 * (0.25 + 0.75 * len(told[row] or "") / (sum(lengths) / len(lengths)))
        return rarity * count * 2.2 / (count + held)

    assert score(0, 1) > score(1, 1) > score(4, 2)
    assert rank_captions(text, "barking dog", 10).tolist() == [0, 4, 1]
    assert rank_captions(text, "dog", 1).tolist() == [0]
    assert rank_captions(text, "dog", 10, np.array([False, True, True, True, True, True])).tolist() == [1, 4]


def test_a_query_is_no_pattern() -> None:
    text = pa.chunked_array([["a.b (c)", "axb", "[noise]"]])
    assert rank_captions(text, "a.b", 5).tolist() == [0]  # the word b: a tells nothing
    assert rank_captions(text, ".* (", 5).tolist() == []
    assert rank_captions(text, "[noise]", 5).tolist() == [2]


def test_rankings_are_joined_by_reciprocal_ranks() -> None:
    found = joined([[7, 8, 9], [9, 7]])
    assert list(found) == [7, 9, 8]
    assert found[7] == 1 / 61 + 1 / 62 and found[9] == 1 / 63 + 1 / 61 and found[8] == 1 / 62
