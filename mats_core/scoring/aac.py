"""The published caption tools: metrics of `aac-metrics`, and the tokens they want.

`aac-metrics` is used without its package's `__init__`, which imports sentence-transformers, torchmetrics and
transformers (ten seconds, and an error where one of them does not fit) for metrics that need none of them.

Tokens are Penn Treebank's in lower case without punctuation. The published tools use Stanford's PTBTokenizer (CoreNLP
3.4.1, Java). Where it is not installed, NLTK's tokenizer of the same rules takes its place. Known differences:
Stanford's also rewrites British spellings as American ones, keeps more of what looks like an abbreviation, a URL or a
number together ("a.m.", "1/2"), and escapes brackets. On plain captions the two agree; the tokenizer that ran is named
with the scores.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

_HEAVY = frozenset({"fense"})  # what does need them
STANFORD = "Stanford PTBTokenizer 3.4.1"
NLTK = "NLTK Treebank tokenizer"

# What the caption metrics drop (the list of coco-caption's evaluation), and what NLTK writes for the same signs.
_DROPPED = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())  # noqa: SIM905
_NLTK_SIGNS = frozenset('()[]{}"…')
_SPACE = re.compile(r"\s+")
_JAVA = (8, 13)  # aac-metrics refuses others


def function(name: str) -> Callable[..., Any]:
    """A function of `aac_metrics.functional` by the name of its metric. ImportError where it cannot be loaded."""
    if name in _HEAVY or "aac_metrics.functional" in sys.modules:
        return getattr(importlib.import_module("aac_metrics.functional"), name)
    return getattr(_module(f"functional.{name}"), name)


def _module(name: str) -> ModuleType:
    """A module of aac-metrics, its packages standing in as empty ones while it is imported."""
    spec = importlib.util.find_spec("aac_metrics")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("aac_metrics is not installed")
    root = Path(next(iter(spec.submodule_search_locations)))
    stand_ins = {"aac_metrics": root, "aac_metrics.functional": root / "functional"}
    for package, folder in stand_ins.items():
        empty = ModuleType(package)
        empty.__path__ = [str(folder)]
        sys.modules[package] = empty
    try:
        return importlib.import_module(f"aac_metrics.{name}")
    finally:
        # note: the packages go, so that a later import gets the real ones; the modules in them are real and stay
        for package in stand_ins:
            del sys.modules[package]


def tokenize(texts: Sequence[str]) -> tuple[list[str], str]:
    """Texts as tokens with a space between, and the name of the tokenizer; Stanford's where it can run."""
    plain = [_SPACE.sub(" ", text).strip() for text in texts]
    if not any(plain):
        return plain, NLTK
    if stanford_missing() is None:
        preprocess = _module("utils.tokenization").preprocess_mono_sents
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
