"""Results of jobs as tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.archive.run import RunResult
from pipelines.data.results import Rows, pruned_rows, read_rows, without_rows


@dataclass
class Written(Rows):
    """Rows in a folder."""

    place: Path

    def rows_at(self) -> str:
        """The folder."""
        return str(self.place)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Two parts; the one of an older version has no `lost_s`, and its rows come last."""
    pq.write_table(pa.table({"row_id": [3, 2], "text": ["d", "c"]}), tmp_path / "part-0.parquet")
    pq.write_table(pa.table({"row_id": [0, 1], "text": ["a", "b"], "lost_s": [0.0, 1.0]}), tmp_path / "part-1.parquet")
    return Written(tmp_path)


def test_rows_come_in_their_order(written: Written) -> None:
    assert written.to_arrow().to_pydict() == {
        "row_id": [0, 1, 2, 3], "text": ["a", "b", "c", "d"], "lost_s": [0.0, 1.0, None, None],
    }  # fmt: skip
    assert written.to_pandas(["text", "lost_s"]).columns.tolist() == ["text", "lost_s"]
    assert written.to_pandas(["text"]).text.tolist() == ["a", "b", "c", "d"]
    for wanted, told in (
        ("confidence", "choose one of row_id, text, lost_s"),
        ("txt", r"did you mean text\? The others"),
    ):
        with pytest.raises(KeyError, match=f'there is no column "{wanted}"; {told}'):
            written.to_pandas([wanted])
    with pytest.raises(KeyError, match='there is no column "text"; there are no rows'):
        Written(written.place / "none").to_arrow(["text"])


def test_the_columns_that_folders_are_named_by_are_there(tmp_path: Path) -> None:
    for number, kind in enumerate(("dog", "bird")):
        (tmp_path / f"kind={kind}").mkdir()
        pq.write_table(pa.table({"row_id": [number], "text": ["a"]}), tmp_path / f"kind={kind}" / "part-0.parquet")
    assert read_rows(str(tmp_path)).to_pydict() == {"row_id": [0, 1], "text": ["a", "a"], "kind": ["dog", "bird"]}
    assert read_rows(str(tmp_path), ["kind"]).to_pydict() == {"kind": ["dog", "bird"]}


def test_rows_without_an_id_stay_as_they_lie(tmp_path: Path) -> None:
    assert read_rows(str(tmp_path)).num_rows == 0
    pq.write_table(pa.table({"caption": ["b"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "2.parquet")
    assert read_rows(str(tmp_path))["caption"].to_pylist() == ["b", "a"]


def test_rows_of_files_that_are_gone_are_left_out_where_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    pq.write_table(pa.table({"row_id": range(10), "text": list("abcdefghij")}), tmp_path / "answers" / "1.parquet")
    assert pruned_rows(str(tmp_path)) == []
    (tmp_path / "_run.json").write_text('{"pruned": [[7, 9], [0, 0], [3, 4]]}')
    assert "".join(read_rows(str(tmp_path / "answers"), ["text"])["text"].to_pylist()) == "bcfg"
    manifest = pa.table({"uri": ["a"]})
    assert without_rows(manifest, [[0, 9]]) is manifest, "it has no row ids"


def test_a_result_is_shown_in_a_line() -> None:
    result = RunResult("complete", "out", 12, 12, {"not_audio": 1}, 60.0, 2.0, {"settings": {"long": "x" * 5000}})
    assert repr(result) == (
        "RunResult(status='complete', output='out', rows=12, new_rows=12, errors={'not_audio': 1}, seconds=60.0, "
        "wall_s=2.0, begun_with='')"
    )
