"""A table of embeddings: its facts and its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.data import parquet
from pipelines.data.embeddings import (
    EmbeddingsFacts,
    check_spread,
    copy_facts,
    has_facts,
    list_parts,
    part_rows,
    read_facts,
    read_part,
    told_of,
)

TEXT = {
    "encoder": "builtin", "encoder_fingerprint": "e" * 64, "dim": 4, "dtype": "float16", "rows": 3, "records": 5,
    "corpora": ["a/ü.json"], "status": "complete",
}  # fmt: skip
AUDIO = {
    "encoder_fingerprint": "e" * 64, "dim": 4, "sample_rate": 16_000, "window_seconds": 7.0, "rows": 3,
    "status": "complete",
}  # fmt: skip


@pytest.mark.parametrize(("told", "kind"), [(TEXT, "text"), (AUDIO, "audio")])
def test_facts_are_written_as_they_always_were_and_come_back(tmp_path: Path, told: dict[str, Any], kind: str) -> None:
    uri = str(tmp_path)
    assert not has_facts(uri)
    written = told_of(EmbeddingsFacts(uri, **told))
    (tmp_path / "_embeddings.json").write_text(json.dumps(written))
    assert written.pop("checksum") and written == told
    assert read_facts(uri, kind, "input") == EmbeddingsFacts(uri, **told)
    copy_facts(uri, str(tmp_path / "copy"))
    assert has_facts(str(tmp_path / "copy"))
    assert read_facts(str(tmp_path / "copy"), kind, "input").dim == 4


def test_facts_with_a_flipped_bit_or_cut_are_refused_by_name_wherever_it_is(tmp_path: Path) -> None:
    """One bit after the other; what is still read is what was written, without its checksum or with another space."""
    (tmp_path / "_embeddings.json").write_text(json.dumps(told_of(EmbeddingsFacts(str(tmp_path), **TEXT)), indent=1))
    whole = (tmp_path / "_embeddings.json").read_bytes()
    said, read = [], 0
    for bit in range(0, 8 * len(whole), 3):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "_embeddings.json").write_bytes(changed)
        try:
            found = read_facts(str(tmp_path), "text", "embeddings")
        except SettingsError as error:
            said.append(str(error))
        else:
            assert found == EmbeddingsFacts(str(tmp_path), **TEXT)
            read += 1
    assert len(said) > 20 * read
    assert all(each.startswith("embeddings: ") and str(tmp_path) in each and "embed-text" in each for each in said)
    for size in range(0, len(whole), 7):
        (tmp_path / "_embeddings.json").write_bytes(whole[:size])
        with pytest.raises(SettingsError, match="holds no embeddings that can be read"):
            read_facts(str(tmp_path), "text", "embeddings")


def test_facts_of_other_programs_are_passed_over_and_what_is_not_told_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "_embeddings.json").write_text(json.dumps({"dim": 8, "lifted": True}))
    facts = read_facts(str(tmp_path), "text", "embeddings")
    assert (facts.dim, facts.rows, facts.encoder_fingerprint, facts.kind) == (8, None, "", "text")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"^input: .* holds no embeddings that can be read .*; give the OUTPUT of .mats embed-audio.$"),
        ("{torn", "holds no embeddings that can be read"),
        ("3", "holds no embeddings that can be read"),
        (json.dumps({**AUDIO, "dim": "4"}), "has no dim"),
        (json.dumps(TEXT), r"holds embeddings of captions; give the OUTPUT of .mats embed-audio.$"),
        (
            json.dumps({**AUDIO, "status": "interrupted"}),
            r"is not finished \(interrupted\); run .mats embed-audio",
        ),
    ],
)
def test_what_is_no_finished_table_of_the_kind_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "_embeddings.json").write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_facts(str(tmp_path), "audio", "input")


def test_parts_are_those_of_the_table_and_hold_what_its_facts_say(tmp_path: Path) -> None:
    uri = str(tmp_path)
    with pytest.raises(SettingsError, match="has no rows; give a table with rows in it"):
        part_rows(uri, None)
    for name, rows in (("embeddings/part-1", 2), ("embeddings/part-0", 1), ("other", 9)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"a": range(rows)}), tmp_path / f"{name}.parquet")
    assert [info.path for info in list_parts(uri)] == ["part-0.parquet", "part-1.parquet"]
    parts = part_rows(uri, 3)
    assert list(parts.values()) == [1, 2]
    assert part_rows(uri, None) == parts
    with pytest.raises(SettingsError, match="is to have 4 rows and has 3; embed again"):
        part_rows(uri, 4)
    last = list(parts)[-1]
    assert [batch.to_pylist() for batch in read_part(last, 1)] == [[{"a": 0}], [{"a": 1}]]
    Path(last).write_bytes(b"torn")
    with pytest.raises(SettingsError, match=r"^embeddings: .*part-1\.parquet cannot be read"):
        part_rows(uri, 3)
    with pytest.raises(SettingsError, match=r"^embeddings: .*part-1\.parquet cannot be read .no whole Parquet file"):
        list(read_part(last, 1))


def _write_rows(folder: Path, facts: EmbeddingsFacts, vectors: np.ndarray) -> None:
    """A table in two parts."""
    half = len(vectors) // 2
    for number, rows in enumerate((vectors[:half], vectors[half:])):
        if facts.kind == "text":
            flat = pa.array(rows.astype(np.float16).reshape(-1), pa.float16())
            table = pa.table({"embedding": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])})
        else:
            windows = [[{"start_s": 0.0, "weight": 7.0, "embedding": each.tolist()}] for each in rows] + [None]
            table = pa.table({"windows": pa.array(windows)})
        parquet.write(str(folder / "embeddings" / f"part-{number:06d}.parquet"), table)


@pytest.mark.parametrize("told", [TEXT, AUDIO])
def test_a_table_whose_rows_are_all_alike_is_refused_with_the_figure(tmp_path: Path, told: dict[str, Any]) -> None:
    facts = EmbeddingsFacts(str(tmp_path), **told)
    draw = np.random.default_rng(0)
    _write_rows(tmp_path, facts, 1 + 0.001 * draw.normal(size=(40, 4)))
    with pytest.raises(SettingsError, match=r"^data: the vectors of .* are all alike: 40 .* cosine of 1\.0000"):
        check_spread(facts, "data")
    _write_rows(tmp_path, facts, draw.normal(size=(40, 4)))
    check_spread(facts, "data")
    _write_rows(tmp_path, facts, np.ones((20, 4)))  # too few to be judged
    check_spread(facts, "data")
