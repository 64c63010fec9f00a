"""`mats benchmark search --bridges`: which way from words to sounds finds best, on sounds whose content is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.benchmarks.measuring import print_figures, print_table, say, workplace

RARE = 6
"""Windows of a kind that are left in the run where it is rare."""
BATCH = 50


def run_benchmark(clips: int, folder: str | None, as_json: bool) -> int:
    """Measure and print."""
    with workplace(folder) as place:
        figures = measure(place, clips)
    print_figures(figures, as_json, print_ways)
    return 0


def measure(place: Path, clips: int) -> dict[str, Any]:
    """Precision@10 and recall@100 of each way, over the kinds of sound; and with all but RARE windows of a kind taken
    out, precision@RARE. Each kind is asked for in all its wordings; a kind is an item of the bootstrap."""
    from mats_core.model.directory import resolve
    from mats_core.model.model import load_model
    from mats_core.soundworld.language import WORDS

    model = load_model(str(resolve("builtin")), "cpu")
    say(f"{clips} sounds of the embedded world, and their captions")
    vectors, labels, captions = heard(model, clips)
    run = write_run(place / "run", vectors, captions)
    ways = _Ways(run, model, vectors)
    kinds = [kind for kind in WORDS if sum(kind in each for each in labels) > RARE]
    draw = np.random.default_rng(0)
    values: dict[str, list[list[float]]] = {name: [] for name in ways.names}
    for kind in kinds:
        there = np.array([kind in each for each in labels])
        few = ~there
        few[draw.permutation(np.flatnonzero(there))[:RARE]] = True
        asked = dict.fromkeys([WORDS[kind].label, *WORDS[kind].nouns, *WORDS[kind].clauses])
        found: dict[str, list[list[float]]] = {name: [] for name in ways.names}
        for words in asked:
            for name, ranked in ways(words, np.ones(clips, bool)).items():
                hits = there[ranked]
                found[name].append([hits[:10].mean(), hits[:100].sum() / there.sum()])
            for name, ranked in ways(words, few).items():
                found[name][-1].append(there[ranked][:RARE].mean())
        for name, each in found.items():
            values[name].append(np.mean(each, axis=0).tolist())
        say(f"{kind}: {len(asked)} wordings, {int(there.sum())} sounds")
    return {"clips": clips, "kinds": len(kinds), "ways": {name: _summed(each) for name, each in values.items()}}


def _summed(values: list[list[float]]) -> dict[str, list[float]]:
    from mats_core.scoring.bootstrap import interval

    columns = zip(("precision", "recall", "rare"), np.array(values).T, strict=True)
    return {name: [float(column.mean()), *interval("mean", column[:, None])] for name, column in columns}


def heard(model: Any, clips: int) -> tuple[np.ndarray, list[list[str]], list[str]]:
    """Of sounds that the model has never met: vectors float32 [N, D], what is in each, and what the model says."""
    import torch

    from mats_core.model.asking import Request
    from mats_core.soundworld.recipe import clip_recipe
    from mats_core.soundworld.synth import render

    vectors, labels, captions = [], [], []
    for start in range(0, clips, BATCH):
        recipes = [clip_recipe("test", index) for index in range(start, min(start + BATCH, clips))]
        sounds = [np.asarray(render(recipe), np.float32) for recipe in recipes]
        padded = torch.stack([torch.as_tensor(model.encoder.pad(each)) for each in sounds])
        vectors.append(model.encoder.embed_audio(padded).numpy())
        labels += [recipe.labels() for recipe in recipes]
        captions += [each.text for each in model.answer_embeddings(vectors[-1], [Request()] * len(recipes))]
    return np.concatenate(vectors), labels, captions


def write_run(place: Path, vectors: np.ndarray, captions: list[str]) -> str:
    """An OUTPUT as `mats caption --with-embedding` writes it, a row a sound."""
    from pipelines.output.folder import open_output
    from pipelines.output.parts import part_name

    count = len(vectors)
    rows = pa.table(
        {
            "row_id": np.arange(count),
            "uri": [f"/{row}.wav" for row in range(count)],
            "start_s": np.zeros(count),
            "decoded_s": np.full(count, 5.0),
            "text": captions,
            "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
        }
    )
    with open_output(str(place), {"job": "caption"}, results="answers") as out:
        out.put_table(f"answers/{part_name(0, out.run_id, 0)}", rows)
    return str(place)


class _Ways:
    """Each way as a ranking of the 100 sounds that it finds first, by their rows."""

    def __init__(self, run: str, model: Any, vectors: np.ndarray) -> None:
        import torch

        from mats_core.memory.bridges import Bridge, BridgeSettings
        from pipelines.search.asking import Asker
        from pipelines.search.run import open_run

        self.opened, self.asker = open_run(run), Asker("builtin", "cpu")
        audio = torch.from_numpy(vectors)
        santa, projection = (Bridge(BridgeSettings(kind=kind), model.memory) for kind in ("santa", "projection"))
        self.moved = {
            "santa, as the model has it": santa.move(audio, model.config.santa).numpy(),
            "santa, texts alone": model.memory.transfer(audio, neighbors=32, mix=1.0, noise=None).numpy(),
            "projection": projection.move(audio).numpy(),
        }  # fmt: skip
        self.own = {
            "none": {"bridge": "none", "by": "sound"},
            "mean-shift": {"bridge": "mean-shift", "by": "sound"},
            "echo": {"bridge": "echo", "by": "sound"},
            "captions as words": {"by": "words"},
            "echo, and captions as words": {"bridge": "echo", "by": "both"},
        }
        self.vectors = vectors
        self.names = ("the bare words", *self.moved, *self.own)

    def __call__(self, words: str, allowed: np.ndarray) -> dict[str, np.ndarray]:
        """Rows [≤ 100] a way, the best first, among those allowed."""
        from pipelines.search.run import find
        from pipelines.settings.search import SearchSettings

        rows = np.flatnonzero(allowed)
        bare = self.asker.encoder.embed_text([words]).numpy()[0]
        phrase = self.asker.text(words, "none")
        found = {"the bare words": rows[np.argsort(-(self.vectors[rows] @ bare))[:100]]}
        for name, moved in self.moved.items():
            found[name] = rows[np.argsort(-(moved[rows] @ phrase))[:100]]
        self.opened.there = allowed
        for name, given in self.own.items():
            settings = SearchSettings(run=self.opened.run, query=words, most=100, **given)  # type: ignore[arg-type]
            hits = find(settings, self.opened, self.asker, allowed)
            found[name] = np.array([hit["row_id"] for hit in hits], np.int64)
        return found


def print_ways(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    rows = [
        (name, *(f"{mean:.3f}  {low:.3f} – {high:.3f}" for mean, low, high in each.values()))
        for name, each in figures["ways"].items()
    ]
    title = f"{figures['clips']} sounds, {figures['kinds']} kinds, 95 % intervals over kinds"
    print_table(title, ("", "precision@10", "recall@100", f"precision@{RARE} where the kind is rare"), rows)
