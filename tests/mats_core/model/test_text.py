"""Answers as shown, and what is no text."""

from __future__ import annotations

import pytest

from mats_core.errors import SettingsError
from mats_core.model.text import clean_answer, has_surrogate


@pytest.mark.parametrize(
    ("raw", "gentle", "reference"),
    [
        ("  a dog ,barks  and\n rain ", "A dog, barks and rain", "A dog, barks and rain"),
        ("Ein Hund bellt über Café", "Ein Hund bellt über Café", "Ein hund bellt uber cafe"),
        ("two birds,a BELL", "Two birds, a BELL", "Two birds, a bell"),
        ("狗叫", "狗叫", ""),
        ("1,000 birds", "1,000 birds", "1, 000 birds"),
        ("½ a beat", "½ a beat", "1/2 a beat"),
        ("after 1½ s – ⅔ of it", "After 1½ s – ⅔ of it", "After 1 1/2 s - 2/3 of it"),
        ("a song in C♯", "A song in C♯", "A song in c#"),
        ("¿qué? ¡olé!", "¿qué? ¡olé!", "?que? !ole!"),
        ("at 20 ℃ ± 1 €, “so”", "At 20 ℃ ± 1 €, “so”", 'At 20 degC +- 1 EUR, "so"'),
        ("", "", ""),
    ],
)
def test_clean_up(raw: str, gentle: str, reference: str) -> None:
    assert clean_answer(raw, "gentle") == gentle
    assert clean_answer(raw, "reference") == reference
    assert clean_answer(gentle, "gentle") == gentle


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(SettingsError, match='answer_style: "loud" is no style; choose gentle or reference'):
        clean_answer("rain", "loud")  # type: ignore[arg-type]


def test_bytes_that_are_no_text() -> None:
    assert has_surrogate("caf\udce9")
    assert not has_surrogate("café") and not has_surrogate("rain")
