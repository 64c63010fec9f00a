"""`mats scan`: archive → manifest, a Parquet data set of one row a chunk."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from mats_core import storage
from mats_core.errors import got_allowed
from pipelines.archive.headers import ScanCounts, Scanner
from pipelines.archive.work_list import WorkList
from pipelines.data.inputs import MANIFEST_SIDECAR, open_source
from pipelines.settings.archive import ScanSettings


@dataclass
class ScanResult:
    """What `mats scan` did: `added` this time, and where the manifest lies."""

    manifest: str
    added: ScanCounts
    known_files: int
    total_rows: int
    wall_s: float = 0.0


def run_scan(settings: ScanSettings, progress: Callable[[ScanCounts], None] | None = None) -> ScanResult:
    """Write (or complete) the manifest data set at `settings.output`; raises SettingsError."""
    from mats_core.model.facts import read_model_facts
    from pipelines.output.lease import Lease
    from pipelines.output.parts import check_identity, forget_beginning, prepare_output
    from pipelines.output.removal import empty_output, remove_partials

    started = time.monotonic()
    facts = read_model_facts(settings.model)
    source = open_source(settings.input, settings.schemes)
    if source.kind in ("manifest", "embeddings"):
        raise got_allowed("input", f"a folder of {source.kind}", "audio files or a list of them")
    prepare_output(settings.output)
    lease = Lease(storage.join(settings.output, "_state"), uuid.uuid4().hex[:12])
    lease.acquire()
    try:
        if settings.overwrite:
            empty_output(settings.output, "scan")
        remove_partials(settings.output)
        identity = {"job": "scan", "chunk_seconds": facts.chunk_s}
        begun = check_identity(settings.output, identity, "manifest")
        sidecar = storage.join(settings.output, MANIFEST_SIDECAR)
        rows = WorkList(storage.join(settings.output, "manifest"), source.own_schema, manifest_only=True)
        with Scanner(facts.chunk_s, settings, settings.decoders) as scanner:
            added, known = rows.extend(source, scanner, {}, progress)
        if rows.total == 0:
            if begun:
                forget_beginning(settings.output)
            raise got_allowed("input", storage.public_uri(settings.input), "a place with audio files in it")
        lease.check()
        told = {
            "rows": rows.total,
            "chunk_seconds": facts.chunk_s,
            "input": storage.public_uri(settings.input),
        }
        storage.write_bytes(sidecar, json.dumps(told, indent=1).encode())
        return ScanResult(settings.output, added, known, rows.total, time.monotonic() - started)
    finally:
        lease.release()
