"""Caption metrics: published values, values worked by hand, and what happens where a metric cannot run."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from mats_core.scoring import Item, aac, captions, compute, score
from mats_core.scoring.aac import NLTK, STANFORD, stanford_missing, tokenize

RUNS_HERE = ["cider_d", "rouge_l", "bleu_1", "bleu_2", "bleu_3", "bleu_4"]


def item(name: str, *references: str) -> Item:
    return Item(name, f"{name}.wav", "caption", references=references)


# The example that aac-metrics publishes with its values (README of 0.5.4).
PUBLISHED = [
    item(
        "man",
        "a man speaks.",
        "someone speaks.",
        "a man is speaking while a bird is chirping in the background",
    ),
    item("rain", "rain is falling hard on a surface"),
]
ANSWERS = ["a man is speaking", "rain falls"]


def test_published_values() -> None:
    scores = score("caption", PUBLISHED, ANSWERS, metrics=RUNS_HERE)
    assert scores.unavailable == []
    assert scores.metrics["cider_d"].value == pytest.approx(0.9614, abs=5e-5)
    assert scores.metrics["cider_d"].values == pytest.approx((1.3641, 0.5587), abs=5e-5)
    assert scores.metrics["bleu_1"].value == pytest.approx(0.4278, abs=5e-5)
    assert scores.details["tokenizer"] == (STANFORD if stanford_missing() is None else NLTK)


def test_values_by_hand() -> None:
    # "a dog barks" against "a dog runs": unigrams 2 of 3, bigrams 1 of 2, no brevity penalty; LCS 2 of 3 and 3.
    # "rain" against "heavy rain falls": 1 of 1, brevity exp(1 − 3/1); LCS 1, precision 1, recall 1/3, β = 1.2.
    items = [item("a", "a dog runs"), item("b", "heavy rain falls")]
    scores = score("caption", items, ["A dog barks.", "Rain"], metrics=["rouge_l", "bleu_1", "bleu_2"])
    rouge_b = (1 + 1.2**2) * 1 * (1 / 3) / (1 / 3 + 1.2**2 * 1)
    assert scores.metrics["rouge_l"].values == pytest.approx((2 / 3, rouge_b))
    # Corpus: 3 of 4 unigrams, 1 of 2 bigrams, 4 words against 6.
    brevity = math.exp(1 - 6 / 4)
    assert scores.metrics["bleu_1"].value == pytest.approx(3 / 4 * brevity)
    assert scores.metrics["bleu_2"].value == pytest.approx(math.sqrt(3 / 4 * 1 / 2) * brevity)
    assert scores.metrics["bleu_1"].values == pytest.approx((2 / 3, math.exp(1 - 3)))


def test_corpus_bleu_from_counts_is_that_of_the_library() -> None:
    bleu = aac.function("bleu")
    candidates = ["a dog barks and a dog barks again", "wind", "the rain falls on the roof", "birds sing"]
    references = [["a dog barks twice", "dogs bark"], ["wind blows", "gusts"], ["rain falls on a roof"], ["a cow"]]
    rows = [captions.bleu_counts(c, r) for c, r in zip(candidates, references, strict=True)]
    for n in (1, 2, 3, 4):
        corpus, each = bleu(candidates, references, n=n)
        assert compute(f"bleu_{n}", rows) == pytest.approx(float(corpus[f"bleu_{n}"]))
        assert [compute(f"bleu_{n}", [row]) for row in rows] == pytest.approx(each[f"bleu_{n}"].tolist())


@pytest.mark.long
def test_the_package_is_loaded_without_what_it_imports_for_others() -> None:
    code = (
        "import sys; from mats_core.scoring import aac; aac.function('cider_d'); aac.function('spice');"
        "heavy = ('sentence_transformers', 'transformers', 'torchmetrics', 'aac_metrics');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_order_and_absent_answers() -> None:
    items = [*PUBLISHED, item("gone", "a bell rings"), item("none")]
    scores = score("caption", items, [*ANSWERS, None, "a bell"], metrics=["cider_d", "bleu_1"])
    assert scores.metrics["bleu_1"].value == pytest.approx(0.4278, abs=5e-5)
    metric = scores.metrics["cider_d"]
    assert metric.n == 2
    assert metric.left_out == (("gone", "no answer"), ("none", "no reference caption"))
    assert metric.values[2:] == (None, None)
    assert metric.low is not None and metric.high is not None and metric.low <= metric.value <= metric.high
    turned = score("caption", items[2::-1], [None, *ANSWERS[::-1]], metrics=["cider_d"]).metrics["cider_d"]
    assert turned.values[1:] == pytest.approx(metric.values[1::-1])


def test_a_clips_cider_does_not_depend_on_which_others_were_answered() -> None:
    items = [*PUBLISHED, item("gone", "a man speaks and rain falls")]
    some, every = (
        score("caption", items, [*ANSWERS, last], metrics=["cider_d"]).metrics["cider_d"] for last in (None, "a man")
    )
    assert some.values == (*every.values[:2], None)
    assert some.statistic == "mean_of_set"
    fewer = score("caption", PUBLISHED, ANSWERS, metrics=["cider_d"]).metrics["cider_d"]
    assert fewer.values != pytest.approx(some.values[:2], abs=0.01)  # but it does on which items there are


def publish_instead(monkeypatch: pytest.MonkeyPatch, name: str, corpus: float, each: list[float]) -> None:
    """Let the published tools give these values of one metric, whatever the captions."""
    real = aac.function
    stand_in = lambda candidates, references: ({name: corpus}, {name: each})  # noqa: E731
    monkeypatch.setattr(aac, "function", lambda asked: stand_in if asked == name else real(asked))


def test_spider_is_half_of_cider_and_spice_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "needs", lambda name: None)
    publish_instead(monkeypatch, "spice", 0.3, [0.2, 0.4])
    scores = score("caption", [*PUBLISHED, item("gone", "a bell")], [*ANSWERS, None], metrics=["cider_d", "spider"])
    cider, spider = (scores.metrics[name].values[:2] for name in ("cider_d", "spider"))
    assert spider == pytest.approx([(cider[0] + 0.2) / 2, (cider[1] + 0.4) / 2])


def test_without_any_answer_every_metric_is_named_with_the_reason() -> None:
    scores = score("caption", PUBLISHED, [None, None], metrics=["cider_d", "bleu_1"])
    assert scores.metrics == {}
    assert [each.name for each in scores.unavailable] == ["cider_d", "bleu_1"]
    assert all("no clip has both an answer" in each.why for each in scores.unavailable)


def test_an_empty_answer_counts_and_is_worth_nothing() -> None:
    scores = score("caption", PUBLISHED, ["", "rain is falling hard on a surface"], metrics=RUNS_HERE)
    for name in ("cider_d", "rouge_l", "bleu_1"):
        assert scores.metrics[name].n == 2
        assert scores.metrics[name].values[0] == pytest.approx(0, abs=1e-6)


def test_what_cannot_run_is_named_and_has_no_value(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(tmp_path))
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", "no-java-here")
    scores = score("caption", PUBLISHED, ANSWERS, metrics=["meteor", "spice", "spider", "cider_d"])
    assert list(scores.metrics) == ["cider_d"]
    assert [each.name for each in scores.unavailable] == ["meteor", "spice", "spider"]
    assert all("Java 8 to 13" in each.why and each.install for each in scores.unavailable)
    assert {each["name"] for each in scores.as_dict()["unavailable"]} == {"meteor", "spice", "spider"}


def test_one_clip_has_no_cider() -> None:
    scores = score("caption", PUBLISHED[:1], ANSWERS[:1], metrics=["cider_d", "rouge_l"])
    assert list(scores.metrics) == ["rouge_l"]
    assert "CIDEr-D" in scores.unavailable[0].why


@pytest.mark.processes
def test_a_java_that_will_do_and_its_jar_make_meteor_run(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", str(java))
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(tmp_path))
    absent = captions.needs("meteor")
    assert absent is not None and "meteor-1.5.jar" in absent.why
    jar = tmp_path / "aac-metrics" / "meteor" / "meteor-1.5.jar"
    jar.parent.mkdir(parents=True)
    jar.touch()
    assert captions.needs("meteor") is None
    # A corpus value that is not the mean of the captions' own, as METEOR's is not.
    publish_instead(monkeypatch, "meteor", 0.5, [0.2, 0.4])
    metric = score("caption", PUBLISHED, ANSWERS, metrics=["meteor"]).metrics["meteor"]
    assert metric.value == pytest.approx(0.5) and metric.values == (0.2, 0.4)
    assert (metric.low, metric.high) == pytest.approx((0.4, 0.6))
    assert "corpus value" in metric.note


def test_tokens() -> None:
    texts = ["A dog barks, then: a cat's high-pitched meow (loud)!", "It can't stop. Rain\nfalls...", ""]
    tokens, name = tokenize(texts)
    assert name in (NLTK, STANFORD)
    assert tokens == [
        "a dog barks then a cat 's high-pitched meow loud",
        "it ca n't stop rain falls",
        "",
    ]
