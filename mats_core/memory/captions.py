"""The captions of a memory: a Parquet file of others, read within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mats_core.errors import SettingsError, first_line

COLUMNS = ("caption", "source")
_MOST_A_ROW, _MOST_BESIDES = (
    4096,
    64 << 20,
)  # bytes: the mean of a caption and its source, and what small files may have


def check_captions(path: Path, count: Any) -> None:
    """SettingsError unless the file's own index is whole and promises `count` rows of text of a bearable size; None for
    any count. Nothing else of the file is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema, rows, groups = file.schema_arrow, file.metadata.num_rows, file.metadata
            size = sum(groups.row_group(at).total_byte_size for at in range(groups.num_row_groups))
    except (pa.ArrowException, OSError) as error:
        raise _wrong(f"{path} is no whole Parquet file ({first_line(error)})") from None
    if not set(COLUMNS) <= set(schema.names) or count not in (None, rows):
        raise _wrong(f"{path} has {rows} rows of {sorted(schema.names)}, and should have {count} of caption and source")
    kinds = {name: _text_of(schema.field(name).type) for name in COLUMNS}
    if wrong := [
        name for name, kind in kinds.items() if not (pa.types.is_string(kind) or pa.types.is_large_string(kind))
    ]:
        raise _wrong(f"the column {wrong[0]} of {path} is of {schema.field(wrong[0]).type}, not of text")
    _check_size(path, size, rows)


def read_captions(path: Path, count: int) -> Any:
    """Columns caption and source as a table, each distinct text held once: a few bytes can stand for many rows of it.

    SettingsError for a file that is not as `check_captions` wants it, or that holds more than its index says.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_captions(path, count)
    read, size = [], 0
    try:
        with pq.ParquetFile(path, read_dictionary=list(COLUMNS)) as file:
            for batch in file.iter_batches(batch_size=65_536, columns=list(COLUMNS)):
                read.append(batch)
                size += batch.nbytes
                _check_size(path, size, count)
        return pa.Table.from_batches(read).unify_dictionaries()
    except (pa.ArrowException, OSError) as error:
        raise _wrong(f"{path} cannot be read ({first_line(error)})") from None


def _text_of(kind: Any) -> Any:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _check_size(path: Path, size: int, rows: int) -> None:
    if size > _MOST_BESIDES + rows * _MOST_A_ROW:
        raise _wrong(f"{path} unpacks to {size >> 20} MiB, too much for {rows} captions")


def _wrong(why: str) -> SettingsError:
    return SettingsError("memory", why, 'copy it again, or rebuild the memory with "mats build-memory"')
