"""`mats scan`: archive → manifest, a Parquet data set of one row a chunk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.archive.headers import ScanCounts, Scanner, no_audio
from pipelines.archive.work_list import WorkList
from pipelines.data.inputs import MANIFEST_SIDECAR, open_input
from pipelines.data.results import Rows
from pipelines.settings.archive import ScanSettings
from pipelines.settings.calling import by_name

MANIFEST = "manifest"


@dataclass
class ScanResult(Rows):
    """What `mats scan` did: `added` this time, and where the manifest lies; `to_pandas()` gives its rows."""

    manifest: str
    added: ScanCounts
    known_files: int
    total_rows: int
    wall_s: float = 0.0

    def rows_at(self) -> str:
        """The folder of the rows."""
        return storage.join(self.manifest, MANIFEST)


@by_name(ScanSettings)
def run_scan(settings: ScanSettings, progress: Callable[[ScanCounts], None] | None = None) -> ScanResult:
    """Write (or complete) the manifest data set at `settings.output`; raises SettingsError."""
    from mats_core.model.facts import read_model_facts
    from pipelines.archive.run import refuse_in_place
    from pipelines.output.folder import open_output

    started = time.monotonic()
    facts = read_model_facts(settings.model, settings.allow_parts)
    inputs = open_input(settings.input, settings.schemes, settings.columns, settings.all_files)
    if inputs.kind in ("manifest", "embeddings"):
        problem = f"{storage.public_uri(settings.input)} is a folder of {inputs.kind}, which has been scanned already"
        raise SettingsError("input", problem, "choose audio files or a list of them")
    refuse_in_place(settings, inputs)
    identity = {"job": "scan", "chunk_seconds": facts.chunk_s}
    with open_output(settings.output, identity, results=MANIFEST, overwrite=settings.overwrite) as out:
        rows = WorkList(out.join(MANIFEST), inputs.own_schema, manifest_only=True, out=out)
        with Scanner(facts.chunk_s, settings, settings.decoders) as scanner:
            added, known = rows.extend(inputs, scanner, {}, progress)
        if rows.total == 0:
            out.forget()
            raise no_audio(settings.input)
        sidecar = {"rows": rows.total, "chunk_seconds": facts.chunk_s, "input": storage.public_uri(settings.input)}
        out.tell(MANIFEST_SIDECAR, sidecar)
        return ScanResult(settings.output, added, known, rows.total, time.monotonic() - started)
