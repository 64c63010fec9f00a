"""Captions as tokens, as the caption metrics want them: Penn Treebank tokens in lower case without punctuation.

The published tools use Stanford's PTBTokenizer (CoreNLP 3.4.1, Java). Where it is not installed, NLTK's tokenizer of
the same rules takes its place. Known differences: Stanford's also rewrites British spellings as American ones, keeps
more of what looks like an abbreviation, a URL or a number together ("a.m.", "1/2"), and escapes brackets. On plain
captions the two agree; the tokenizer that ran is named with the scores.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from mats_core.scoring.aac import tokenization

STANFORD = "Stanford PTBTokenizer 3.4.1"
NLTK = "NLTK Treebank tokenizer"

# What the caption metrics drop (the list of coco-caption's evaluation), and what NLTK writes for the same signs.
_DROPPED = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())  # noqa: SIM905
_NLTK_SIGNS = frozenset('()[]{}"…')
_SPACE = re.compile(r"\s+")
_JAVA = (8, 13)  # aac-metrics refuses others


def tokenize(texts: Sequence[str]) -> tuple[list[str], str]:
    """Texts as tokens with a space between, and the name of the tokenizer; Stanford's where it can run."""
    plain = [_SPACE.sub(" ", text).strip() for text in texts]
    if not any(plain):
        return plain, NLTK
    if stanford_missing() is None:
        preprocess = tokenization().preprocess_mono_sents
        # note: its Java side cannot tell an empty line from the end
        full = [i for i, text in enumerate(plain) if text]
        done = dict(zip(full, preprocess([plain[i] for i in full]), strict=True))
        return [done.get(i, "") for i in range(len(plain))], STANFORD
    return [_nltk(text) for text in plain], NLTK


@lru_cache(maxsize=1 << 17)  # note: a model and its baselines are scored against the same references
def _nltk(text: str) -> str:
    from nltk.tokenize import NLTKWordTokenizer

    # note: a full stop before the end of a line would stay glued to its word
    sentences = re.split(r"(?<=[.!?])\s+", text)
    tokens = [token for part in sentences for token in NLTKWordTokenizer().tokenize(part)]
    kept = (token.lower() for token in tokens if token not in _DROPPED and token not in _NLTK_SIGNS)
    return " ".join(kept)


def cache_folder() -> Path:
    """Where aac-metrics keeps its Java programs."""
    return Path(os.environ.get("AAC_METRICS_CACHE_PATH") or Path.home() / ".cache") / "aac-metrics"


def java_missing() -> str | None:
    """What is wrong with Java for the metrics that need it; None when it will do."""
    program = os.environ.get("AAC_METRICS_JAVA_PATH") or "java"
    found = shutil.which(program)
    if found is None:
        return f"Java {_JAVA[0]} to {_JAVA[1]} is not installed"
    try:
        shown = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{found} does not run ({error})"
    match = re.search(r'version "(?:1\.)?(\d+)', shown.stderr + shown.stdout)
    version = int(match.group(1)) if match else 0
    if not _JAVA[0] <= version <= _JAVA[1]:
        return f"Java {_JAVA[0]} to {_JAVA[1]} is needed, {found} is {version or 'of unknown version'}"
    return None


def stanford_missing() -> str | None:
    """Why Stanford's tokenizer cannot run; None when it can."""
    jar = cache_folder() / "stanford_nlp" / "stanford-corenlp-3.4.1.jar"
    return java_missing() if jar.is_file() else f"{jar} is not there"
