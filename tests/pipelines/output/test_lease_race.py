"""Two runs that want one OUTPUT at the same moment, on stores that create no file only where there is none."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from pipelines.output.lease import Lease, LeaseHeld
from tests.store_servers import Faults, FaultyProxy, Habits


@pytest.mark.parametrize("habit", ["refused", "ignored"])
def test_there_are_never_two_holders(store: Any, monkeypatch: pytest.MonkeyPatch, habit: str) -> None:
    proxy = FaultyProxy(store, Faults(stall=0.2, stall_s=0.03, seed=2), Habits(if_absent=habit))
    for name, value in {**store.keys, "MATS_STORAGE": json.dumps({"s3://": {"endpoint": proxy.endpoint}})}.items():
        monkeypatch.setenv(name, value)
    store.client().create_bucket(Bucket=f"leases-{habit}")
    barrier = Barrier(2)

    def acquire(lease: Lease) -> bool:
        barrier.wait()
        try:
            lease.acquire()
        except LeaseHeld:
            return False
        return True

    for race in range(12):
        leases = [Lease(f"s3://leases-{habit}/{race}", f"run{number}") for number in range(2)]
        with ThreadPoolExecutor(2) as pool:
            held = list(pool.map(acquire, leases))
        assert sum(held) == 1, f"race {race}: {held}"
        holder = leases[held.index(True)]
        holder.check()
        holder.release()
    proxy.close()
