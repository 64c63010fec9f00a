"""What a run measures of itself."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines.cluster.progress import Meter


def block(rows: int, decoded: float, began: float, ready: float) -> pa.Table:
    return pa.table(
        {
            "row_id": list(range(rows)),
            "decoded_s": [5.0] * rows,
            "_decode_s": [0.2] * rows,
            "_decode_cpu_s": [0.1] * rows,
            "_embed_s": [0.5] * rows,
            "_answer_s": [1.0] * rows,
            "_decoded_at": [decoded] * rows,
            "_began_at": [began] * rows,
            "_ready_at": [ready] * rows,
        }
    )


def test_the_sustained_rate_by_hand() -> None:
    meter = Meter()
    assert meter.count_block(block(10, decoded=90, began=95, ready=95)).schema.names == ["row_id", "decoded_s"]
    meter.count_block(block(10, decoded=96, began=100, ready=100))  # the last actor is ready at 100
    meter.count_block(block(10, decoded=101, began=103, ready=95))
    assert meter.batch_fill is None
    assert meter.seconds == pytest.approx({"decode_s": 6.0, "embed_s": 15.0, "answer_s": 30.0})
    # 20 rows began at 100 or later; 10 of them were decoded before: 1 s of the CPU, 0.5 s of two cores
    assert meter.sustained_rate(ended=109.5, cores=2) == {
        "rows": 20,
        "seconds": 10.0,
        "rows_per_s": 2.0,
        "real_time_factor": 10.0,
    }
