"""Captions against reference captions, by `aac-metrics`: BLEU, ROUGE-L, METEOR, CIDEr-D, SPICE, SPIDEr, FENSE.

BLEU, ROUGE-L and CIDEr-D need nothing but the package. METEOR and SPICE are Java programs, FENSE needs weights; all
three are fetched once by ``aac-metrics-download``. What cannot run is named with its remedy, and has no value.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mats_core.errors import first_line
from mats_core.scoring import aac
from mats_core.scoring.aac import cache_folder, java_missing, stanford_missing, tokenize
from mats_core.scoring.bootstrap import compute
from mats_core.scoring.items import Answers, Item, Metric, Scores, Unavailable
from mats_core.scoring.metric import no_answer, of_rows, of_values

BLEU = tuple(f"bleu_{n}" for n in (1, 2, 3, 4))
_PACKAGE = 'pip install "aac-metrics<0.5.5" nltk'
_DOWNLOAD = "aac-metrics-download (about 1 GB)"
_NO_REFERENCE = "no reference caption"
_SBERT = "models--sentence-transformers--paraphrase-TinyBERT-L6-v2"
_ECHECKER = "echecker_clotho_audiocaps_base.ckpt"

# What is fetched for a metric, in MB; aac-metrics-download fetches METEOR's other languages as well. Where from:
# meteor: meteor-1.5.jar (6 318 693 bytes) and paraphrase-en.gz (61 813 011), as they lie in pycocoevalcap 1.2 on PyPI.
# spice: spice-1.0.jar and its libraries (31 MB, the same package) and the archive of CoreNLP 3.6.0, whose size nobody
#   was found to state: about 400 MB, as the archive is 482 MB of 4.5.10 (stanfordnlp.github.io/CoreNLP/download.html).
# _SBERT: pytorch_model.bin, 268 MB in its list of files on huggingface.co.
# _ECHECKER: a fine-tuned bert-base-uncased, whose own file is 440 MB in its list of files there.
_SIZES = {"meteor": 68, "spice": 430, _SBERT: 268, _ECHECKER: 440}

Candidates = list[str]
References = list[list[str]]


def needs(name: str) -> Unavailable | None:
    """What a caption metric wants that is not here; None when it can run."""
    for module in ("aac_metrics", "nltk"):
        if importlib.util.find_spec(module) is None and not (module == "nltk" and stanford_missing() is None):
            return Unavailable(name, f"{module} is not installed", _PACKAGE)
    if name in ("meteor", "spice", "spider"):
        java = java_missing()
        if java:
            return Unavailable(name, java, f"a Java of that version (AAC_METRICS_JAVA_PATH names it); {_DOWNLOAD}")
        jar = _jar("meteor" if name == "meteor" else "spice")
        if not jar.is_file():
            return Unavailable(name, f"{jar.name} is not there ({jar.parent})", _DOWNLOAD)
    if name == "fense":
        absent = [path for path in _fense_files() if not path.exists()]
        if absent:
            return Unavailable(name, f"{', '.join(p.name for p in absent)} not downloaded", _DOWNLOAD)
    return None


@dataclass(frozen=True)
class Download:
    """What a caption metric reads besides packages. there: bytes of it that are here; megabytes: to fetch, about."""

    what: str
    place: Path
    megabytes: int
    there: int


def downloads(name: str) -> list[Download]:
    """What a caption metric fetches: Java programs with what lies beside them, weights; nothing for most."""
    programs = {"meteor": "METEOR 1.5, a Java program", "spice": "SPICE 1.0 with Stanford CoreNLP 3.6, Java programs"}
    if name == "fense":
        sbert, detector = _fense_files()
        wanted = [(f"the sentence encoder {_SBERT.split('--')[-1]}", sbert, _SIZES[_SBERT])]
        wanted.append((f"the detector of errors {_ECHECKER}", detector, _SIZES[_ECHECKER]))
    else:
        program = "spice" if name == "spider" else name
        folder = cache_folder() / program
        wanted = [(programs[program], folder, _SIZES[program])] if program in programs else []
    return [Download(what, place, size, _bytes_at(place)) for what, place, size in wanted]


def _bytes_at(place: Path) -> int:
    files = [place] if place.is_file() else place.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def score(items: Sequence[Item], answers: Answers, wanted: Sequence[str], seed: int) -> Scores:
    """Kind ``caption``: every metric of ``wanted`` that can run here; the others are named with what to install.

    CIDEr-D weighs n-grams by their frequency in the references of all items, answered or not: so a clip's value depends
    on which items there are (statistic ``mean_of_set``), but not on which of them got an answer. Its interval keeps
    those weights. BLEU is the corpus's: its interval resamples counts.
    """
    why = [
        reason or ("" if item.references else _NO_REFERENCE)
        for reason, item in zip(no_answer(answers), items, strict=True)
    ]
    there = [i for i, item in enumerate(items) if item.references]
    at = [i for i in there if not why[i]]
    scores = Scores()
    nothing = None if at else "no clip has both an answer and a reference caption"
    blocked = {name: needs(name) or (Unavailable(name, nothing, "answers") if nothing else None) for name in wanted}
    scores.unavailable = [each for each in blocked.values() if each is not None]
    able = [name for name in wanted if blocked[name] is None]
    if not able:
        return scores
    raw = [str(answers[i] or "") for i in there], [list(items[i].references) for i in there]
    tokens, scores.details["tokenizer"] = _tokens(*raw)
    places = [k for k, i in enumerate(there) if not why[i]]
    for name in able:
        try:
            scores.metrics[name] = _metric(name, items, at, raw if name == "fense" else tokens, places, why, seed)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            remedy = "more than one clip" if len(there) < 2 else _DOWNLOAD
            scores.unavailable.append(Unavailable(name, first_line(error), remedy))
    return scores


def _metric(
    name: str,
    items: Sequence[Item],
    at: list[int],
    every: tuple[Candidates, References],
    places: list[int],
    why: list[str],
    seed: int,
) -> Metric:
    """One metric. every: texts of all items with references; places: which of them are those at ``at``, that count."""
    answered = [every[0][k] for k in places], [every[1][k] for k in places]
    if name in BLEU:
        counts = [bleu_counts(c, r) for c, r in zip(*answered, strict=True)]
        own = _spread([compute(name, [row]) for row in counts], at, len(items))
        return of_rows(name, items, _spread(counts, at, len(items)), own, why, name, seed)
    if name in ("cider_d", "spider"):
        cider = _published("cider_d", *every)[1]
        values = [cider[k] for k in places]
        if name == "spider":  # (CIDEr-D + SPICE) / 2, of Liu et al. 2017
            values = [(c + s) / 2 for c, s in zip(values, _published("spice", *answered)[1], strict=True)]
        values = _spread(values, at, len(items))
        rows = [None if v is None else (v,) for v in values]
        return of_rows(name, items, rows, values, why, "mean_of_set", seed)
    value, each = _published(name, *answered)
    metric = of_values(name, items, _spread(each, at, len(items)), why, seed)
    if metric.value is None or metric.low is None or metric.high is None or abs(value - metric.value) < 1e-6:
        return metric
    # note: METEOR's corpus value pools its counts; the interval is that of the captions' mean, moved to it
    shift = value - metric.value
    note = "corpus value; its interval is that of the mean of the captions' own values"
    return replace(metric, value=metric.value + shift, low=metric.low + shift, high=metric.high + shift, note=note)


def bleu_counts(candidate: str, references: Sequence[str]) -> tuple[float, ...]:
    """What corpus BLEU sums up of one caption of tokens (Papineni et al. 2002), counted as aac-metrics does.
    Returns n-grams that are right (each at most as often as in one reference), n = 1 … 4; n-grams guessed, n = 1 … 4;
    its length; the length of the reference nearest in length (the shorter of two as near).
    """
    ours, theirs = candidate.split(), [reference.split() for reference in references]
    correct, guessed = [], []
    for n in (1, 2, 3, 4):
        most: Counter[tuple[str, ...]] = Counter()
        for tokens in theirs:
            most |= _ngrams(tokens, n)
        correct.append(float(sum((_ngrams(ours, n) & most).values())))
        guessed.append(float(max(0, len(ours) - n + 1)))
    nearest = min((abs(len(tokens) - len(ours)), len(tokens)) for tokens in theirs)[1]
    return (*correct, *guessed, float(len(ours)), float(nearest))


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _tokens(candidates: Candidates, references: References) -> tuple[tuple[Candidates, References], str]:
    """Both sides as tokens, in one call of the tokenizer."""
    flat, name = tokenize([*candidates, *(text for each in references for text in each)])
    rest = iter(flat[len(candidates) :])
    return (flat[: len(candidates)], [[next(rest) for _ in each] for each in references]), name


def _spread(values: Sequence[object], at: Sequence[int], count: int) -> list:
    """Values of the items at ``at`` among ``count`` items, None elsewhere."""
    known = dict(zip(at, values, strict=True))
    return [known.get(i) for i in range(count)]


def _published(name: str, candidates: Candidates, references: References) -> tuple[float, list[float]]:
    """aac-metrics' value of the corpus and of each caption. FENSE takes sentences, the others tokens."""
    corpus, each = aac.function(name)(candidates, references)
    return float(corpus[name]), np.asarray(each[name], dtype=np.float64).tolist()


def _jar(program: str) -> Path:
    return cache_folder() / program / {"meteor": "meteor-1.5.jar", "spice": "spice-1.0.jar"}[program]


def _fense_files() -> list[Path]:
    """FENSE's two models, where sentence-transformers and aac-metrics keep them."""
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    return [Path(HF_HUB_CACHE) / _SBERT, Path(torch.hub.get_dir()) / "fense_data" / _ECHECKER]
