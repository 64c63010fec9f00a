"""An LLM as the writer: asked in one form, its text taken where the checks allow, a template elsewhere, all counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from pipelines.corpus.clips import Asked, PublishedClip
from pipelines.corpus.definition import load_corpus_set
from pipelines.corpus.writing import llm_writer
from pipelines.corpus.writing.llm_writer import LlmWriter, first_sentence, instruction, llm_facts, rewrite_records
from pipelines.corpus.writing.records import write_records
from tests.tiny import make_chain_llm, make_tiny_llm

DOGS = [PublishedClip(str(at), "esc50", "train", ("dog",)) for at in range(6)]


def test_what_the_llm_is_asked_names_the_sounds_and_what_is_known_of_them() -> None:
    asked: list[str] = []

    def write(prompts: Sequence[str]) -> list[str]:
        asked.extend(prompts)
        return [""] * len(prompts)

    rewrite_records(
        [PublishedClip("1", "fsd50k", "train", ("Bark", "Dog", "Rain"))], load_corpus_set("fsd50k"), 0, write
    )
    assert len(asked) == 2
    for prompt in asked:
        assert "\nSounds: a bark and rain\nKnown: " in prompt and "{" not in prompt and prompt.endswith("Sentence:")
        assert any(style in prompt for style in instruction()[1])
    assert len(instruction()[1]) == 8


def test_a_text_is_taken_where_it_is_right_and_who_wrote_is_told() -> None:
    definition = load_corpus_set("esc50")
    texts = ["A dog barks at the door.", '"a dog barks"', "A dog and a cat.", "Something is heard."]
    records = rewrite_records(DOGS, definition, 0, lambda prompts: [texts[at % 4] for at in range(len(prompts))])
    by = Counter(record["written_by"] for record in records)
    plain = [record for clip in DOGS for record in write_records(clip, definition, 0)]
    assert [record["id"] for record in records] == [record["id"] for record in plain]
    assert set(by) == {"llm", "template: names another", "template: names not all", "template"}
    for record, template in zip(records, plain, strict=True):
        same = {name: record[name] for name in template if name != "caption"}
        assert same == {name: template[name] for name in template if name != "caption"}
        if record["written_by"] == "llm":
            assert record["caption"] in ("A dog barks at the door.", "A dog barks.")
        else:
            assert record["caption"] == template["caption"]
        if record["instruction"]:  # its answer follows from what the template says
            assert record["written_by"] == "template"


def test_published_captions_are_not_rewritten() -> None:
    def write(prompts: Sequence[str]) -> list[str]:
        raise AssertionError("nothing is to be asked")

    clip = PublishedClip("a", "clotho", "development", captions=("A dog barks.",))
    assert [r["written_by"] for r in rewrite_records([clip], load_corpus_set("clotho"), 0, write)] == ["publisher"]
    asked = (Asked("Is there a dog?", "yes", "audio_qa"),)
    clip = PublishedClip("a", "clothoaqa", "train", captions=("A dog barks.",), questions=asked)
    assert [r["written_by"] for r in rewrite_records([clip], load_corpus_set("clothoaqa"), 0, write)] == ["publisher"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A dog barks.\nSentence: a cat", "A dog barks."),
        ('\n  "a dog barks"\n', "A dog barks."),
        ("a dog barks .", "A dog barks."),
        ("Sentence: a dog barks", "A dog barks."),
        ("", ""),
    ],
)
def test_the_sentence_is_the_first_line(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_a_text_depends_on_its_prompt_and_not_on_the_others(kind: str, tmp_path: Path) -> None:
    writer = LlmWriter(str(make_tiny_llm(tmp_path / kind, kind)), "cpu")
    prompts = ["a dog", "rain over water and wind", "bird", "What can you hear ? Is there a dog", "siren siren"]
    together = writer(prompts)
    assert any(together)
    writer.batch = 2
    assert writer(prompts[::-1]) == together[::-1]
    assert [writer([prompt])[0] for prompt in prompts] == together


def test_a_prompt_that_is_too_long_for_the_llm_is_not_asked(tmp_path: Path) -> None:
    writer = LlmWriter(str(make_tiny_llm(tmp_path / "llm")), "cpu")
    texts = writer(["dog " * 600, "a dog"])
    assert texts[0] == "" and texts[1]


def test_an_llm_that_writes_one_sentence(tmp_path: Path) -> None:
    """From tokens to records: it is taken for the clips that it fits."""
    writer = LlmWriter(str(make_chain_llm(tmp_path / "llm", "a dog bell .")), "cpu")
    assert writer(["Sentence:", "dog Sentence:"]) == ["a dog bell .", "a dog bell ."]
    definition = load_corpus_set("audioset_strong")
    labels = [("Dog", "Bell"), ("Dog",), ("Rain", "Bell")]
    clips = [PublishedClip(str(at), "audioset_strong", "train", each) for at, each in enumerate(labels)]
    by = [record["written_by"] for record in rewrite_records(clips, definition, 1, writer)]
    assert by == ["llm", "template: names another", "template: names not all"]


def test_memory_that_does_not_suffice_halves_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    writer = LlmWriter(str(make_tiny_llm(tmp_path / "llm")), "cpu")
    prompts = ["a dog", "rain", "bird bell", "wind", "siren"]
    expected = writer(prompts)
    tried: list[int] = []
    generate = writer._generate

    def narrow(rows: Sequence[Sequence[int]]) -> list[str]:
        tried.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError
        return generate(rows)

    monkeypatch.setattr(writer, "_generate", narrow)
    assert writer(prompts) == expected
    assert tried[0] == 5 and max(tried[2:]) <= 2


def test_what_is_no_llm_is_refused_by_the_name_of_its_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        llm_facts(str(tmp_path / "nothing"))
    assert refused.value.setting == "writer"
    facts = llm_facts(str(make_tiny_llm(tmp_path / "llm")))
    assert facts.bytes > 0 and facts == llm_facts(str(tmp_path / "llm"))
    assert len(llm_writer.instruction_mark()) == 16
