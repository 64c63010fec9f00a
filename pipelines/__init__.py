"""Ray graphs: typed settings in, a result object out. No printing, no command line; Ray lives here and nowhere below.

    from pipelines import run_caption

    result = run_caption(input="sounds/", output="out/", task="QA", question="Is there rain?")
    print(result)
    result.to_pandas(["uri", "start_s", "text", "error_code"])

A job is a function of this name: `run_` and what `mats` calls it. It takes its settings as an object or by their names,
and `progress`, a function that is told how far it is; what cannot work raises SettingsError before any work starts.

settings                   one pydantic model a job
published                  data sets as their publishers ship them
data                       what INPUT may be, corpora, columns of Parquet
output                     an OUTPUT and its life: identity, lease, part files
cluster                    a Ray for a run, its stages, its counters
archive                    sounds → manifest, audio embeddings, answers; `compact`: many part files → few
corpus                     published labels, captions and questions → a corpus
text                       corpora → caption embeddings → memory
train                      embeddings and corpora → model directory
adapt                      sentences and a model → a model that knows their words
search                     a run with embeddings and a question → windows of its sounds
sample                     a run → clips for a person to judge, and how many answers are right by them
export                     a run → tables, subtitles, manifests, data sets of other programs
serve                      runs → pages and an API: find, listen, ask, put right
evaluate                   data sets and a model → predictions, metrics, history, gate, comparison
calibrate                  judged answers and a model → what the model's confidence is worth
pages                      any of these → one HTML page

May import mats_core; jobs imports it. Nothing is imported here before it is used, so that
`import pipelines.settings.archive` answers at once: Ray and torch are imported by the functions that need them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; below, each name is imported when it is first used
    from mats_core.errors import SettingsError as SettingsError
    from pipelines.adapt.run import AdaptResult as AdaptResult
    from pipelines.adapt.run import run_adapt as run_adapt
    from pipelines.archive.caption import run_caption as run_caption
    from pipelines.archive.dry_run import Estimate as Estimate
    from pipelines.archive.dry_run import run_dry as run_dry
    from pipelines.archive.embed_audio import run_embed_audio as run_embed_audio
    from pipelines.archive.run import RunResult as RunResult
    from pipelines.archive.scan import ScanResult as ScanResult
    from pipelines.archive.scan import run_scan as run_scan
    from pipelines.calibrate.run import CalibrateResult as CalibrateResult
    from pipelines.calibrate.run import run_calibrate as run_calibrate
    from pipelines.compact import CompactResult as CompactResult
    from pipelines.compact import run_compact as run_compact
    from pipelines.corpus.run import CorpusResult as CorpusResult
    from pipelines.corpus.run import run_corpus as run_corpus
    from pipelines.evaluate.run import run_evaluate as run_evaluate
    from pipelines.evaluate.scores import Evaluation as Evaluation
    from pipelines.export.run import ExportResult as ExportResult
    from pipelines.export.run import run_export as run_export
    from pipelines.pages.report import write_report as write_report
    from pipelines.sample.run import SampleResult as SampleResult
    from pipelines.sample.run import run_sample as run_sample
    from pipelines.search.run import SearchResult as SearchResult
    from pipelines.search.run import run_search as run_search
    from pipelines.serve.run import ServeResult as ServeResult
    from pipelines.serve.run import run_serve as run_serve
    from pipelines.text.build_memory import BuildMemoryResult as BuildMemoryResult
    from pipelines.text.build_memory import run_build_memory as run_build_memory
    from pipelines.text.embed_text import EmbedTextResult as EmbedTextResult
    from pipelines.text.embed_text import run_embed_text as run_embed_text
    from pipelines.text.noise import NoiseResult as NoiseResult
    from pipelines.text.noise import run_noise as run_noise
    from pipelines.train.run import TrainResult as TrainResult
    from pipelines.train.run import run_train as run_train

_WHERE = {
    "run_caption": "pipelines.archive.caption",
    "run_dry": "pipelines.archive.dry_run",
    "run_embed_audio": "pipelines.archive.embed_audio",
    "run_scan": "pipelines.archive.scan",
    "run_compact": "pipelines.compact",
    "run_corpus": "pipelines.corpus.run",
    "run_embed_text": "pipelines.text.embed_text",
    "run_build_memory": "pipelines.text.build_memory",
    "run_noise": "pipelines.text.noise",
    "run_train": "pipelines.train.run",
    "run_adapt": "pipelines.adapt.run",
    "run_evaluate": "pipelines.evaluate.run",
    "run_calibrate": "pipelines.calibrate.run",
    "run_search": "pipelines.search.run",
    "run_export": "pipelines.export.run",
    "run_sample": "pipelines.sample.run",
    "run_serve": "pipelines.serve.run",
    "write_report": "pipelines.pages.report",
    "RunResult": "pipelines.archive.run",
    "Estimate": "pipelines.archive.dry_run",
    "ScanResult": "pipelines.archive.scan",
    "CompactResult": "pipelines.compact",
    "CorpusResult": "pipelines.corpus.run",
    "EmbedTextResult": "pipelines.text.embed_text",
    "BuildMemoryResult": "pipelines.text.build_memory",
    "NoiseResult": "pipelines.text.noise",
    "TrainResult": "pipelines.train.run",
    "AdaptResult": "pipelines.adapt.run",
    "CalibrateResult": "pipelines.calibrate.run",
    "Evaluation": "pipelines.evaluate.scores",
    "ExportResult": "pipelines.export.run",
    "SampleResult": "pipelines.sample.run",
    "SearchResult": "pipelines.search.run",
    "ServeResult": "pipelines.serve.run",
    "SettingsError": "mats_core.errors",
}

__all__ = [*_WHERE]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
