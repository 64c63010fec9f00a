"""A stand-in for the model, run by the real pipeline: work list, lease, Ray, decoding, parts.

An answer is a hash of the decoded sound, so a row that was mixed up or decoded wrongly shows.
Run as a module it is the driver that `tests.e2e.chaos` kills: one JSON argument, see `main`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable

import pyarrow as pa

from jobs.benchmarks.scale import WaitingModel, Waits, run_waiting
from pipelines.archive.run import RunResult
from pipelines.cluster.progress import Progress
from pipelines.settings.archive import RunSettings
from tests.e2e.freezing import PATIENCE


class StandIn(WaitingModel):
    """Waits `row_s` a row and answers with a hash of the sound."""

    def texts(self, rows: pa.Table) -> list[str | None]:
        """The hash of each row's samples; None where nothing was decoded."""
        return [None if sound is None else _digest(sound) for sound in rows["pcm"].to_pylist()]


def _digest(sound: bytes) -> str:
    return hashlib.blake2b(sound, digest_size=12).hexdigest()


def run_stand_in(
    settings: RunSettings,
    waits: Waits,
    progress: Callable[[Progress], None] | None = None,
    name: str = "stand-in",
) -> RunResult:
    """The run of `mats caption` with a stand-in for the model; `name` labels its counters."""
    return run_waiting(settings, waits, progress, name=name, model=StandIn, decodes=True)


def main() -> int:
    """`python -m tests.e2e.stand_in '{"settings": {…}, "waits": {…}}'`: exit code 0 when complete."""
    given = json.loads(sys.argv[1])
    # note: classes of a module that runs as __main__ do not travel to workers
    from tests.e2e import stand_in

    if given.get("apart"):  # as on a machine of its own, and with little patience
        from pipelines.output import lease

        for name, seconds in PATIENCE.items():
            setattr(lease, name, seconds)
        lease.this_machine = lambda: f"machine of {os.getpid()}"  # type: ignore[assignment]
    result = stand_in.run_stand_in(RunSettings(**given["settings"]), Waits(**given["waits"]))
    print(json.dumps({"status": result.status, "new_rows": result.new_rows}))
    return 0 if result.status in ("complete", "complete_before") else 1


if __name__ == "__main__":
    sys.exit(main())
