"""Columns of every Arrow type, three values each, as lists of other people have them."""

from __future__ import annotations

import decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

FAR = 253402300800000000
"""Microseconds until the year 10000."""


def _extension(kind: Any, values: list[Any]) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))


COLUMNS: dict[str, pa.Array] = {
    "bool": pa.array([True, False, None]),
    "float16": pa.array([1.5, -0.25, None], pa.float16()),
    "uint64": pa.array([2**64 - 1, 0, None], pa.uint64()),
    "string": pa.array(["a", "", None]),
    "large_string": pa.array(["ä", "", None], pa.large_string()),
    "binary": pa.array([b"\xff", b"", None]),
    "large_binary": pa.array([b"\x00", b"", None], pa.large_binary()),
    "fixed_binary": pa.array([b"ab", b"cd", None], pa.binary(2)),
    "dictionary": pa.array(["x", "y", None]).dictionary_encode(),
    "dictionary_int": pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int8()), pa.array([5, 7])),
    "run_end": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", None])),
    "list": pa.array([[1, None], [], None], pa.list_(pa.int8())),
    "large_list": pa.array([["x"], [], None], pa.large_list(pa.string())),
    "fixed_list": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int16(), 2)),
    "map": pa.array([[("a", 1), ("b", None)], [], None], pa.map_(pa.string(), pa.int8())),
    "struct": pa.array([{"a": 1, "b": ["x"]}, {"a": None, "b": None}, None]),
    "date32": pa.array([0, 2**30, None], pa.date32()),
    "date64": pa.array([0, 86_400_000 * 3_000_000, None], pa.date64()),
    "time32": pa.array([1, 86_399_999, None], pa.time32("ms")),
    "time64_us": pa.array([1, 86_399_999_999, None], pa.time64("us")),
    "time64_ns": pa.array([1, 86_399_999_999_999, None], pa.time64("ns")),
    "zone": pa.array([0, 1, None], pa.timestamp("us", "Europe/Berlin")),
    "zone_offset": pa.array([0, 1, None], pa.timestamp("us", "+05:30")),
    "zone_unknown": pa.array([0, FAR, None], pa.timestamp("us", "Nowhere/None")),
    "decimal128": pa.array([decimal.Decimal("1.50"), decimal.Decimal("-0.01"), None], pa.decimal128(38, 2)),
    "decimal256": pa.array([decimal.Decimal(10**60), decimal.Decimal(-1), None], pa.decimal256(76, 2)),
    **{f"timestamp_{unit}": pa.array([0, FAR, None], pa.timestamp(unit)) for unit in ("ms", "us")},
    "timestamp_ns": pa.array([-(2**63) + 1, 2**63 - 1, None], pa.timestamp("ns")),
    "timestamp_before": pa.array([-(2**62), 0, None], pa.timestamp("us")),
    **{f"span_{unit}": pa.array([1, 2**62, None], pa.duration(unit)) for unit in ("s", "ms", "us", "ns")},
    "null": pa.nulls(3),
}
for _name, _make in {
    "string_view": lambda: pa.array(["a", "b" * 40, None], pa.string_view()),
    "binary_view": lambda: pa.array([b"a", b"b" * 40, None], pa.binary_view()),
    "list_view": lambda: pa.array([[1], [], None], pa.list_view(pa.int8())),
    "large_list_view": lambda: pa.array([[1], [], None], pa.large_list_view(pa.int8())),
    "decimal32": lambda: pa.array([decimal.Decimal("1.5"), None, None], pa.decimal32(5, 2)),
    "decimal64": lambda: pa.array([decimal.Decimal("1.5"), None, None], pa.decimal64(15, 2)),
    "uuid": lambda: _extension(pa.uuid(), [b"a" * 16, b"\xff" * 16, None]),
    "json": lambda: _extension(pa.json_(), ['{"a": 1}', "[]", None]),
    "bool8": lambda: _extension(pa.bool8(), [1, 0, None]),
    "opaque": lambda: _extension(pa.opaque(pa.int32(), "kind", "vendor"), [1, 2, None]),
    "tensor": lambda: _extension(pa.fixed_shape_tensor(pa.float32(), [2]), [[1, 2], [3, 4], [5, 6]]),
}.items():
    try:
        COLUMNS[_name] = _make()  # type: ignore[no-untyped-call]
    except (AttributeError, NotImplementedError):  # older versions of pyarrow have no such type
        continue

REFUSED: dict[str, pa.DataType] = {
    "union": pa.sparse_union([pa.field("a", pa.int64()), pa.field("b", pa.string())]),
    "dense_union": pa.dense_union([pa.field("a", pa.int64()), pa.field("b", pa.string())]),
    "months": pa.month_day_nano_interval(),
    "inside": pa.list_(pa.struct([("a", pa.month_day_nano_interval())])),
    "one_name_twice": pa.struct([pa.field("a", pa.int64()), pa.field("a", pa.int64())]),
}


def same_values(kept: pa.Array, given: pa.Array) -> bool:
    """Whether two columns hold the same, whatever type holds it: compared as Arrow prints every value."""
    return [_shown(kept, index) for index in range(len(kept))] == [_shown(given, index) for index in range(len(given))]


def _shown(column: pa.Array, index: int) -> str:
    """One value as text: a moment as its number, so that none is out of reach."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    one, kind = column.slice(index, 1), column.type
    if not one.is_valid()[0].as_py():
        return "null"
    if pa.types.is_map(kind):
        at = column.offsets[index].as_py(), column.offsets[index + 1].as_py()
        each = range(*at)
        return str([(_shown(column.keys, place), _shown(column.items, place)) for place in each])
    if pa.types.is_struct(kind):
        return str([(kind.field(at).name, _shown(column.field(at), index)) for at in range(kind.num_fields)])
    if hasattr(one[0], "values") and one[0].values is not None:
        inner = one[0].values
        return str([_shown(inner, place) for place in range(len(inner))])
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time64(kind):
        return str(one.cast(pa.int64())[0])
    if pa.types.is_date64(kind):
        return str(one.cast(pa.int64())[0].as_py() // 86_400_000)
    if pa.types.is_date32(kind):
        return str(one.cast(pa.int32())[0])
    return str(one[0].as_py())
