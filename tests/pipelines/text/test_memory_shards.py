"""Which rows of a table are read and chosen, without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.text.memory_shards import Piece, Selection, draws, read_piece, select_rows, unit_rows


@pytest.mark.parametrize(("start", "stop"), [(0, 100), (29, 31), (30, 60), (95, 100), (10, 95)])
def test_a_piece_is_exactly_its_rows(table: Path, start: int, stop: int) -> None:
    piece = Piece(str(table / "embeddings" / "part-00000.parquet"), start, stop)
    found = pa.concat_tables(read_piece(piece, ["caption"]))["caption"].to_pylist()
    assert found == [f"c{n}" for n in range(start, stop)]


def test_rows_are_chosen_by_source_and_draw(table: Path) -> None:
    rows = pq.read_table(table / "embeddings")
    of_a = select_rows(rows, Selection(("a",), 0))
    assert of_a["caption"].to_pylist() == [f"c{n}" for n in range(0, 100, 2)]
    assert len(select_rows(rows, Selection(("b", "c"), 0))) == 100
    ids = rows["caption_id"].to_pylist()
    threshold = int(np.sort(draws(ids, 5, "cap"))[24])
    some = select_rows(rows, Selection(None, 5, threshold))
    assert len(some) == 25
    assert select_rows(rows.slice(50), Selection(None, 5, threshold)).num_rows < 25  # a row's draw is its own
    assert select_rows(rows, Selection(None, 6, threshold))["caption"] != some["caption"]


def test_unit_rows_and_what_they_refuse() -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.array([3, 4, 0, 2], np.float16)), 2)
    np.testing.assert_allclose(unit_rows(column.slice(1)), [[0, 1]])
    np.testing.assert_allclose(unit_rows(column)[0], [0.6, 0.8], atol=1e-6)
    with pytest.raises(ValueError, match="NaN"):
        unit_rows(pa.FixedSizeListArray.from_arrays(pa.array(np.array([np.nan, 4], np.float16)), 2))
