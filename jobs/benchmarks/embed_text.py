"""`mats benchmark embed-text`: Microsoft CLAP's text tower by the `msclap` package itself and by `mats embed-text`."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmarks.inputs import random_clap
from jobs.benchmarks.measuring import print_driver_memory, print_figures, print_table, run_mats, say, timed, workplace
from mats_core.errors import SettingsError
from pipelines.cluster.plan import usable_cores

RECORDS_A_CAPTION = 3
PACKAGE_BATCH, PACKAGE_RECORDS = 64, 192
MEDIAN_TOKENS, MOST_TOKENS = 11, 70
"""Lengths of real captions, the end token among them; `msclap` fails on more than 77."""

DRIVER_CAPTIONS = (10_000, 1_000_000)
EMBED_TEXT = ("embed-text", "--overwrite", "--device", "cpu")


def run_benchmark(weights: str | None, captions: int, driver_memory: bool, folder: str | None, as_json: bool) -> int:
    """Measure and print; raises SettingsError."""
    if captions < PACKAGE_BATCH:
        raise SettingsError("captions", f"{captions} are too few", f"choose at least {PACKAGE_BATCH}")
    with workplace(folder) as place:
        figures = measure_driver(place) if driver_memory else compare(place, weights, captions)
    show = partial(print_driver_memory, what="captions") if driver_memory else print_comparison
    print_figures(figures, as_json, show)
    return 0


def compare(place: Path, weights: str | None, captions: int) -> dict[str, Any]:
    """(a) the package's get_text_embeddings, (b) `mats embed-text`: records/s, and how far vectors differ."""
    texts = worded_captions(captions)
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(captions), RECORDS_A_CAPTION))
    records = [texts[at] for at in order]
    lines = [json.dumps({"caption": text, "output": "x"}) for text in records]
    (place / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    tokenizer = place / "gpt2"
    if not tokenizer.exists():
        make_tokenizer(tokenizer, texts)
    file = Path(weights) if weights else random_clap(place / "CLAP_weights_2023.pth")
    say("(a) msclap's get_text_embeddings")
    asked = records[:PACKAGE_RECORDS]
    vectors, lengths, package_s = run_package(file, tokenizer, asked)
    say("(b) mats embed-text")
    encoder = f"msclap:{file.absolute()}?tokenizer={tokenizer.absolute()}"
    wall_s = run_mats(*EMBED_TEXT, "corpus.jsonl", "out", "--encoder", encoder, cwd=place)
    run = json.loads((place / "out" / "_run.json").read_text())
    package_rate, rate = len(asked) / package_s, run["records_per_s"]
    return {
        "records": len(records),
        "captions": captions,
        "tokens": {"median": float(np.median(lengths)), "p95": float(np.percentile(lengths, 95)), "max": max(lengths)},
        "cores": usable_cores(),
        "package_records": len(asked),
        "package_records_per_s": round(package_rate, 2),
        "records_per_s": rate,
        "with_start_records_per_s": round(len(records) / wall_s, 2),
        "ratio": round(rate / package_rate, 2),
        "largest_difference": largest_difference(place / "out", asked, vectors),
    }


def worded_captions(count: int) -> list[str]:
    """`count` distinct captions whose lengths are those of real ones: log-normal, a long tail."""
    rng = np.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in ("ra", "be", "si", "do", "lu") for b in ("in", "ll", "ren", "gs") for c in "aeiouy"]
    found: dict[str, None] = {}
    while len(found) < count:
        length = int(np.clip(round(rng.lognormal(np.log(MEDIAN_TOKENS - 1), 0.45)), 3, MOST_TOKENS))
        found.setdefault(" ".join(rng.choice(words, length)))
    return list(found)


def make_tokenizer(folder: Path, texts: Sequence[str]) -> None:
    """A byte-level BPE as GPT-2's ("!" is 0), learnt from these texts: about one token a word."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2TokenizerFast

    learnt = ByteLevelBPETokenizer()
    learnt.train_from_iterator(texts, vocab_size=3000, min_frequency=1, special_tokens=[], show_progress=False)
    special = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
    GPT2TokenizerFast(tokenizer_object=learnt._tokenizer, **special).save_pretrained(folder)


def run_package(file: Path, tokenizer: Path, texts: Sequence[str]) -> tuple[np.ndarray, list[int], float]:
    """The package's own wrapper on `texts`: unit vectors [N, 1024], token counts, seconds (after a first batch)."""
    import torch
    from transformers import GPT2TokenizerFast

    from mats_core.encoders.msclap import Gpt2FromConfiguration

    for name in ("torchaudio", "torchaudio.transforms"):  # note: imported by the package, not used for text
        sys.modules.setdefault(name, types.ModuleType(name))
    import msclap.CLAPWrapper as package
    import msclap.models.clap as classes

    class Tokenizer:
        @staticmethod
        def from_pretrained(name: str) -> Any:
            return GPT2TokenizerFast.from_pretrained(str(tokenizer))

    classes.AutoModel, package.AutoTokenizer = Gpt2FromConfiguration, Tokenizer
    torch.set_num_threads(usable_cores())
    clap = package.CLAPWrapper(file, version="2023", use_cuda=False)
    clap.get_text_embeddings(list(texts[:4]))
    batches = [list(texts[at : at + PACKAGE_BATCH]) for at in range(0, len(texts), PACKAGE_BATCH)]
    found, seconds = timed(lambda: [clap.get_text_embeddings(batch) for batch in batches])
    lengths = [len(row) for row in clap.tokenizer([f"{text} <|endoftext|>" for text in texts])["input_ids"]]
    return torch.nn.functional.normalize(torch.cat(found), dim=-1).numpy(), lengths, seconds


def largest_difference(out: Path, texts: Sequence[str], vectors: np.ndarray) -> float:
    """Largest difference of any number of any stored vector from the package's."""
    import pyarrow.parquet as pq

    table = pq.read_table(out / "embeddings")
    stored = np.asarray(table["embedding"].combine_chunks().flatten(), np.float32).reshape(len(table), -1)
    rows = {text: at for at, text in enumerate(table["caption"].to_pylist())}
    return float(np.abs(stored[[rows[text] for text in texts]] - vectors).max())


def measure_driver(place: Path) -> dict[str, Any]:
    """Peak memory of the driver for few and for many captions, with the embedded encoder, which is small and fast."""
    found = {}
    for count in DRIVER_CAPTIONS:
        say(f"{count} captions")
        corpus, out = place / f"corpus-{count}.jsonl", place / f"out-{count}"
        with corpus.open("w") as file:
            for number in range(count):
                file.write(f'{{"caption": "sound {number} of a bell, then {number % 977} steps", "output": "x"}}\n')
        run_mats(*EMBED_TEXT, str(corpus), str(out))
        run = json.loads((out / "_run.json").read_text())
        if run["captions"] != count:
            raise RuntimeError(f"{run['captions']} captions came out of {count}")
        found[str(count)] = run["driver_peak_mb"]
    return {"driver_peak_mb": found}


def print_comparison(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    tokens = figures["tokens"]
    title = (
        f"{figures['records']} records, {figures['captions']} captions, tokens: median {tokens['median']:.0f}, "
        f"95 % {tokens['p95']:.0f}, most {tokens['max']}; {figures['cores']} cores"
    )
    a, b = figures["package_records_per_s"], figures["records_per_s"]
    rows = [
        ("records/s", f"{a:.1f}", f"{b:.1f}", f"{figures['ratio']:.1f}"),
        ("records/s with start-up", "", f"{figures['with_start_records_per_s']:.1f}"),
        ("largest difference", "", f"{figures['largest_difference']:.1e}"),
    ]
    print_table(title, ("", "msclap (a)", "mats embed-text (b)", "b/a"), rows)
