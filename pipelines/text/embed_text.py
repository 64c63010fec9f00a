"""Text corpora → caption embeddings, on Ray Data.

    files ─Read (tasks)─▶ captions by bucket ─shuffle─▶ one bucket at a time ─EmbedBucket (actors)─▶ part file
              └─▶ what was found in each file ─▶ _corpora.json, checked before any model is loaded

A bucket is what caption_ids fall into by their value, so all records of a caption meet in one, and its part holds
exactly its captions in the order of their ids. What a part holds depends on the corpora and on nothing else: not on
the number of workers, not on a restart. A part that is there is done. The driver sees counts only.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.encoders.facts import EncoderFacts, read_encoder_facts
from mats_core.errors import SettingsError
from mats_core.model.directory import encoder_uri, recorded_uri
from mats_core.model.places import remember_places
from mats_core.storage.fingerprint import hash_settings
from pipelines.cluster.progress import Progress, peak_mb
from pipelines.cluster.session import check_device
from pipelines.data import parquet
from pipelines.data.corpus import FileReport, check_columns, check_error_rate, corpus_files, ending
from pipelines.data.embeddings import FOLDER, SIDECAR, EmbeddingsFacts, has_facts, list_parts, told_of
from pipelines.data.results import Rows
from pipelines.output.folder import Output, open_output
from pipelines.settings.calling import by_name
from pipelines.settings.text import EmbedTextSettings
from pipelines.text.caption_buckets import EmbedBucket, bucket_of_part, read_corpora

REPORT = "_corpora.json"
OUR_NAMES = ("_run.json", SIDECAR, REPORT, FOLDER)
RECORD_BYTES = {".parquet": 60, ".csv": 120}
"""Bytes a record takes on disk, about; 250 in JSON."""

MOST_BUCKETS = 4096
SHUFFLE_PARTITIONS = 256
READ_TASKS = 2000
BYTES_AN_ACTOR = 700e6
READ_CPUS, ENCODER_CPUS = 0.5, 1.0


@dataclass
class EmbedTextResult(Rows):
    """What `mats embed-text` did; `to_pandas()` gives a row a distinct caption.

    `status`: complete, complete_before (there was nothing to do), interrupted. run:
    OUTPUT's `_run.json`."""

    status: str
    output: str
    run: dict[str, Any] = field(repr=False)

    def rows_at(self) -> str:
        """The folder of the rows."""
        return storage.join(self.output, FOLDER)


@by_name(EmbedTextSettings)
def run_embed_text(settings: EmbedTextSettings, progress: Callable[[Progress], None] | None = None) -> EmbedTextResult:
    """Embed every distinct caption of the corpora into OUTPUT/embeddings.

    Raises SettingsError before any model is loaded: files that are missing or not what they say, more bad records than
    `max_error_rate`, an OUTPUT of other corpora or another encoder.
    """
    tell = progress or (lambda _: None)
    started = time.time()
    check_columns(settings.columns)
    files = corpus_files(settings.corpora, "corpora")
    check_device(settings.device, settings.address)
    parts = storage.join(settings.output, FOLDER)
    for info in files:
        if storage.lies_in(info.uri, parts):
            problem = f"{storage.public_uri(settings.output)} would receive embeddings where a corpus lies"
            raise SettingsError("output", problem, "choose another folder than the corpora's")
    facts = read_encoder_facts(encoder_uri(settings.encoder, allow_parts=settings.allow_parts))
    remember_places([facts.uri])  # as of one who trains with it: a model may then take it from these embeddings
    buckets = _bucket_count(files, settings.bucket_records)
    known = (
        f"{len(files)} files, {hash_settings([(f.path, f.size, f.version) for f in files])[:16]}"  # version: etag, time
    )
    identity = {
        "job": "embed-text", "encoder": facts.fingerprint, "corpora": known, "columns": settings.columns,
        "batch_size": settings.batch_size, "buckets": buckets,
    }  # fmt: skip
    with open_output(settings.output, identity, results=FOLDER, overwrite=settings.overwrite, written=OUR_NAMES) as out:
        previous = out.read_run()
        if previous is not None and previous.get("status") == "complete" and has_facts(settings.output):
            return EmbedTextResult("complete_before", settings.output, previous)
        corpora = [storage.public_uri(uri) for uri in settings.corpora]
        shown = {**settings.model_dump(), "corpora": corpora, "output": storage.public_uri(settings.output)}
        run: dict[str, Any] = {
            "job": "embed-text", "settings": shown, "files": len(files), "buckets": buckets,
        }  # fmt: skip
        work = _Embedding(settings, facts, buckets, out, tell)
        with out.recorded(run, started, work.describe):
            work.run(files)
            # before the run is complete, since then it is not taken up again
            out.tell(SIDECAR, told_of(EmbeddingsFacts(
                settings.output, encoder=_told(settings.encoder), encoder_fingerprint=facts.fingerprint,
                dim=facts.dim, dtype="float16", rows=work.rows(), records=work.usable, corpora=corpora,
            )))  # fmt: skip
        return EmbedTextResult(run["status"], settings.output, run)


def _told(encoder: str) -> str:
    """An encoder as the sidecar names it, for whoever reads that elsewhere."""
    return storage.public_uri(encoder if encoder == "builtin" else recorded_uri(encoder))


class _Embedding:
    """One run's way through Ray, and what it counted."""

    def __init__(
        self, settings: EmbedTextSettings, facts: EncoderFacts, buckets: int, out: Output, tell: Callable[..., None]
    ) -> None:
        self.settings, self.facts, self.buckets, self.out, self.tell = settings, facts, buckets, out, tell
        self.parts = storage.join(settings.output, FOLDER)
        self.done = sorted(_done(settings.output))
        self.reports: list[FileReport] = []
        self.bad = self.usable = self.before = self.new = self.captions = 0
        self.embed_s = 0.0
        self.first_at, self.last_at = math.inf, 0.0

    def run(self, files: list[storage.FileInfo]) -> None:
        from pipelines.cluster.session import ray_session, readable_errors

        self.tell(Progress("start"))
        with ray_session(self.settings.address, self.settings.actors or 0) as there:
            captions = self._read(files)
            self._check()
            if self.before < self.usable:
                for block in readable_errors(self._embed(captions, there)):
                    self.out.check()
                    for row in block.to_pylist():
                        self.new += row["records"]
                        self.captions += row["captions"]
                        self.embed_s += row["ended_at"] - row["began_at"]
                        self.first_at = min(self.first_at, row["began_at"])
                        self.last_at = max(self.last_at, row["ended_at"])
                    self.tell(Progress("run", self.before + self.new, self.usable, self.before, self.bad))

    def _read(self, files: list[storage.FileInfo]) -> Any:
        """Captions by bucket as a Ray Data set, all read; fills `reports`."""
        import ray

        from pipelines.cluster.session import readable_errors

        folder = self.out.join("_state", f"reports-{self.out.run_id}")
        uris = pa.table({"uri": [info.uri for info in files], "number": range(len(files))})
        size = -(-len(uris) // READ_TASKS)
        shards = [uris.slice(at, size) for at in range(0, len(uris), size)]
        given = (self.settings.columns, self.buckets, self.done, folder)
        read = ray.data.from_arrow(shards).map_batches(
            read_corpora, fn_args=given, batch_format="pyarrow", batch_size=None, num_cpus=READ_CPUS
        )
        captions = next(readable_errors(make() for make in (read.materialize,)))
        for number in range(len(files)):
            found = json.loads(storage.read_bytes(storage.join(folder, f"{number}.json")))
            self.before += found.pop("done")
            report = FileReport(**{**found, "problems": Counter(found["problems"])})
            self.bad += report.bad
            self.usable += report.records - report.bad
            self.reports.append(report)
        storage.remove_tree(folder)
        return captions

    def _check(self) -> None:
        """Write what was found in the files, then refuse too many bad records, or nothing at all."""
        found = {"files": [report.as_dict() for report in self.reports]}
        storage.write_bytes(storage.join(self.settings.output, REPORT), json.dumps(found, indent=1).encode())
        check_error_rate(self.reports, self.settings.max_error_rate)
        if not self.usable:
            problem = f"no usable record in {', '.join(map(storage.public_uri, self.settings.corpora))}"
            raise SettingsError("corpora", problem, "give corpora with at least one record that has a caption")

    def _embed(self, captions: Any, there: Any) -> Iterator[pa.Table]:
        """Counts of each bucket as it is done."""
        from ray.data import ActorPoolStrategy
        from ray.data.grouped_data import GroupedData

        from pipelines.cluster.execution import bounded_retries

        on_gpu = there.gpus >= 1 and self.settings.device != "cpu"
        left = self.buckets - len(self.done)
        actors = self.settings.actors or _actor_count(there, on_gpu, self.facts.size, left)
        if not there.own and actors * ENCODER_CPUS + READ_CPUS > there.cpus:
            problem = f"a cluster of {there.cpus:g} CPUs has no room for {actors} actors and a reader"
            raise SettingsError("address", problem, "ask for fewer (--actors), or join a larger cluster")
        given = (self.parts, self.facts.uri, self.facts.dim)
        how = (self.settings.device, self.settings.batch_size, self.out.run_id)
        grouped = captions.groupby("bucket", num_partitions=min(self.buckets, SHUFFLE_PARTITIONS))
        counts = grouped.map_groups(
            EmbedBucket, fn_constructor_args=(*given, *how), batch_format="pyarrow",
            compute=ActorPoolStrategy(size=actors), num_cpus=ENCODER_CPUS,
            num_gpus=min(1.0, there.gpus / actors) if on_gpu else None,
            **bounded_retries(GroupedData.map_groups),
        )  # fmt: skip
        yield from counts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)

    def rows(self) -> int:
        """Captions that OUTPUT has."""
        return sum(parquet.row_count(info.uri) for info in list_parts(self.settings.output))

    def describe(self) -> dict[str, Any]:
        """What came of the run, for its record. Rates are from the first bucket's start to the last one's end."""
        busy = max(0.0, self.last_at - self.first_at)
        return {
            "records": sum(report.records for report in self.reports), "bad": self.bad,
            "problems": dict(sum((report.problems for report in self.reports), Counter())),
            "records_new": self.new, "captions_new": self.captions, "captions": self.rows(),
            "embed_s": round(self.embed_s, 3), "busy_s": round(busy, 3),
            "records_per_s": round(self.new / busy, 3) if busy > 0 else 0.0, "driver_peak_mb": peak_mb(),
        }  # fmt: skip


def _bucket_count(files: list[storage.FileInfo], bucket_records: int) -> int:
    """How many parts there are to be: by the corpora's sizes alone, so that every run of them agrees."""
    records = sum(info.size / RECORD_BYTES.get(ending(info.uri), 250) for info in files)
    return int(min(MOST_BUCKETS, max(1, -(-records // bucket_records))))


def _actor_count(there: Any, on_gpu: bool, model_bytes: int, buckets: int) -> int:
    """Encoder actors: one a GPU, else as many as cores and memory allow; never more than buckets."""
    if on_gpu:
        return max(1, min(int(there.gpus), buckets))
    fitting = int(0.6 * there.memory / (2 * model_bytes + BYTES_AN_ACTOR))
    return max(1, min(int(there.cpus) if there.own else int(there.cpus) - 1, fitting, buckets))


def _done(output: str) -> set[int]:
    """Buckets whose parts are there; raises SettingsError for a file that is no part."""
    found = set()
    for info in list_parts(output):
        try:
            found.add(bucket_of_part(info.path))
        except (IndexError, ValueError):
            problem = f"{storage.public_uri(info.uri)} is no part that `mats embed-text` wrote"
            raise SettingsError("output", problem, "move this file away") from None
    return found
