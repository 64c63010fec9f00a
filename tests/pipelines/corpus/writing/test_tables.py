"""tables/ holds every label of every closed set with what is written of it, for a person to read.

`python -m tests.pipelines.corpus.writing.test_tables` writes the files anew; then read what `git diff` shows.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.corpus.clips import PublishedClip
from pipelines.corpus.definition import CorpusSet, list_corpus_sets, load_corpus_set
from pipelines.corpus.writing.captions import caption
from pipelines.corpus.writing.draws import Draws
from pipelines.corpus.writing.phrases import TABLES, entry, key, table
from pipelines.corpus.writing.questions import askable, presence
from pipelines.corpus.writing.records import answer_words, clip_facts, vocabulary
from pipelines.evaluate.datasets.definition import list_evaluation_sets, load_evaluation_set

FOLDER = Path(__file__).parent / "tables"
CLOSED = [name for name in list_corpus_sets() if load_corpus_set(name).labels]


def lines(definition: CorpusSet) -> list[str]:
    """Label, answer, a sentence of it alone, of it and the next two labels of the set, and a question, with tabs."""
    found = ["label\tanswer\tsentence\twith the next two labels\tquestion"]
    labels, words = definition.labels, vocabulary(definition)
    for at, label in enumerate(labels):
        said = entry(definition.subject, label)
        draws = Draws(f"table {definition.name} {label}")
        three = tuple(labels[(at + more) % len(labels)] for more in range(3))
        facts = clip_facts(PublishedClip(label, definition.name, "train", three), words)
        several = caption(facts.told, None, "", draws).text if definition.tag == "[multi events]" else ""
        question = presence(said, draws)[1] if askable(said) else ""
        answer = answer_words([label], definition.spoken)[0]
        found.append("\t".join([label, answer, caption([said], None, "", draws).text, several, question]))
    return found


@pytest.mark.parametrize("name", CLOSED)
def test_every_label_of_every_set_has_its_sentence_in_a_table_that_a_person_reads(name: str) -> None:
    assert (FOLDER / f"{name}.tsv").read_text(encoding="utf-8").splitlines() == lines(load_corpus_set(name))


@pytest.mark.parametrize("name", CLOSED)
def test_no_label_of_a_set_is_left_to_the_rule_for_unknown_ones(name: str) -> None:
    definition = load_corpus_set(name)
    known = {label for each in TABLES[definition.subject] for label in table(each)}
    assert [label for label in definition.labels if key(label) not in known] == []


@pytest.mark.parametrize("name", sorted(set(CLOSED) & set(list_evaluation_sets())))
def test_answers_are_the_words_that_evaluation_expects(name: str) -> None:
    definition, evaluated = load_corpus_set(name), load_evaluation_set(name)
    labels = evaluated.labels or definition.labels
    expected = [word.casefold() for word in evaluated.label_set(labels).spoken]
    assert [answer_words([label], definition.spoken)[0].casefold() for label in labels] == expected


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in CLOSED:
        (FOLDER / f"{each}.tsv").write_text("\n".join(lines(load_corpus_set(each))) + "\n", encoding="utf-8")
