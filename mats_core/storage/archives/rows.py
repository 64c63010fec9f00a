"""Sounds in the rows of a Parquet file, as data sets on the Hub hold them: a column of bytes, or of records with
`bytes` and `path`. Use it through `storage.open_binary`.

A row group is read forwards, a few megabytes at a time, and where it was left it is taken up again: whoever asks for
row after row reads a file once, and never holds it whole.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from mats_core.errors import StorageError, first_line
from mats_core.storage.listing import Listed
from mats_core.storage.uris import split_row

AHEAD = 8 << 20
"""Bytes that a store is asked for at once."""
_PIECE, _STREAM = 4 << 20, 1 << 20  # bytes of sound at once, and of pages; the rows of a piece are so many
_MOST_ROWS = 1024
_here = threading.local()


def open_row(uri: str, opened: Callable[..., BinaryIO], most: int | None, listed: Listed | None) -> BinaryIO:
    """The bytes of a row's sound. opened: `storage.open_binary`; most: bytes; listed: as that has them.

    Raises StorageError: not_found (there is no such row), empty_audio (it holds no bytes), too_large, io_error (no
    whole Parquet file, or not that column).
    """
    place, row, column = split_row(uri)
    version = _file_version(listed.version, row) if listed else ""
    last: _Column | None = getattr(_here, "column", None)
    if last is None or last.key != (place, column, version) or not last.can_reach(row):
        _here.column = None
        if last is not None:
            last.close()
        last = _told(lambda: _Column(place, column, version, opened))
    try:
        found = _told(lambda: last.bytes_at(row))
    except StorageError:
        last.close()
        raise
    _here.column = last
    if found is None:
        raise StorageError("empty_audio", f"is row {row} of a Parquet file, which holds no bytes in `{column}`")
    if most is not None and len(found) > most:
        raise StorageError("too_large", f"the sound in the row has {len(found)} bytes, {most} are allowed")
    return io.BytesIO(found)


def version_of(version: str, row: int) -> str:
    """The version of a row of a file that has this version."""
    return f"{version}-row{row}"


def _file_version(version: str, row: int) -> str:
    end = f"-row{row}"
    return version.removesuffix(end) if version.endswith(end) else ""


def _told(action: Callable[[], Any]) -> Any:
    """What an action gives; what pyarrow raises of a torn file as StorageError."""
    import pyarrow as pa

    try:
        return action()
    except (pa.ArrowException, OSError) as error:
        # note: a failing store raises its own OSError through pyarrow, with a number or of its own class
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise StorageError("io_error", f"is in no whole Parquet file: {first_line(error)}") from None


class _Column:
    """A column of an open file, read forwards within one row group after the other."""

    def __init__(self, place: str, column: str, version: str, opened: Callable[..., BinaryIO]) -> None:
        import pyarrow.parquet as pq

        self.key, self._name = (place, column, version), column
        listed = Listed(0, version) if version else None
        self._file = opened(place, read_ahead=AHEAD, listed=listed)
        try:
            self._parquet = pq.ParquetFile(
                self._file, page_checksum_verification=True, pre_buffer=False, buffer_size=_STREAM
            )
        except BaseException:
            self._file.close()
            raise
        told = self._parquet.metadata
        self._groups = [told.row_group(number).num_rows for number in range(told.num_row_groups)]
        self._batches: Iterator[Any] = iter(())
        self._group, self._first, self._held = -1, 0, None  # the row group, and the rows that are held of the file

    def close(self) -> None:
        """Close the file."""
        self._batches, self._held = iter(()), None
        self._file.close()

    def can_reach(self, row: int) -> bool:
        """Whether the row is held or still to come."""
        return row >= self._first or self._group_of(row)[0] != self._group

    def _group_of(self, row: int) -> tuple[int, int]:
        """(row group, its first row) of a row; not_found where the file ends before it."""
        first = 0
        for group, count in enumerate(self._groups):
            if row < first + count:
                return group, first
            first += count
        raise StorageError("not_found", f"is row {row} of a Parquet file that has {first}")

    def bytes_at(self, row: int) -> bytes | None:
        """What stands in a row: its bytes, None where there are none."""
        group, first = self._group_of(row)
        if group != self._group:
            self._begin(group, first)
        while self._held is None or row >= self._first + len(self._held):
            if self._held is not None:
                self._first += len(self._held)
            self._held = None  # note: before the next piece comes, for each may be large
            self._held = next(self._batches)
        value = self._held[row - self._first]
        return value.as_buffer().to_pybytes() if value.is_valid else None

    def _begin(self, group: int, first: int) -> None:
        if self._name not in self._parquet.schema_arrow.names:
            raise StorageError("io_error", f"is in a Parquet file without a column `{self._name}`")
        told = self._parquet.metadata.row_group(group)
        inside = (told.column(number) for number in range(told.num_columns))
        own = (each for each in inside if f"{each.path_in_schema}.".startswith(f"{self._name}."))
        size = sum(each.total_uncompressed_size for each in own)
        rows = max(1, min(_MOST_ROWS, _PIECE * told.num_rows // max(1, size)))
        batches = self._parquet.iter_batches(rows, row_groups=[group], columns=[self._name], use_threads=False)
        self._group, self._first, self._held = group, first, None
        self._batches = (bytes_of(batch.column(0)) for batch in batches)


def bytes_of(column: Any) -> Any:
    """The bytes in a column of sounds as an Arrow array, null where a row has none."""
    import pyarrow as pa

    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    if not pa.types.is_struct(column.type):
        return column
    return column.flatten()[column.type.get_field_index("bytes")]  # note: flatten knows of rows that are null
