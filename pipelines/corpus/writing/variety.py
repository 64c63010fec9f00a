"""How much texts vary: the share of each pattern, and the runs of three words that are distinct."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Variety:
    """Counts over texts. patterns: pattern → texts; threes: distinct runs of three words; of: how many runs there were
    in all."""

    patterns: Counter[str] = field(default_factory=Counter)
    threes: set[tuple[str, ...]] = field(default_factory=set)
    of: int = 0

    def add(self, text: str, pattern: str = "") -> None:
        """Count a text, and the pattern it was made with."""
        self.patterns[pattern] += 1
        words = re.findall(r"[\w'-]+", text.lower())
        self.threes.update(zip(words, words[1:], words[2:], strict=False))
        self.of += max(0, len(words) - 2)

    @property
    def largest_share(self) -> float:
        """Share of the texts that the most frequent pattern made; 0 of none."""
        return max(self.patterns.values(), default=0) / max(1, self.patterns.total())

    @property
    def distinct_threes(self) -> float:
        """Distinct runs of three words in all runs, from 0 to 1."""
        return len(self.threes) / max(1, self.of)
