"""What the files of a model say of themselves, read within bounds: JSON, and the headers of safetensors files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mats_core.errors import SettingsError, first_line

MOST_BYTES = 8 << 20
"""Of a description in JSON: a configuration that names 20 000 classes has 2 MB."""
MOST_DEPTH = 64
_MOST_HEADER = 16 << 20  # bytes; a tensor takes about a hundred
_MOST_TENSORS = 100_000  # of one file; the largest LLMs have that many in all their files


def read_json(path: Path, setting: str, shown: str = "", most_bytes: int = MOST_BYTES) -> Any:
    """The value in a JSON file of others; SettingsError, which calls the file `shown`, unless it is JSON and neither
    large nor deep."""
    shown = shown or str(path)
    if not path.is_file():
        raise SettingsError(setting, f"there is no {path.name} at {shown}", "give a complete directory")
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
        value = json.loads(data) if len(data) <= most_bytes else None
        deep = _is_deep(value)
    except RecursionError:
        deep = True
    except (OSError, ValueError) as error:  # an UnicodeDecodeError is a ValueError, too
        raise SettingsError(setting, f"{shown} is not JSON ({first_line(error)})", "copy or make it again") from None
    if deep or len(data) > most_bytes:
        why = f"is nested more than {MOST_DEPTH} levels deep" if deep else f"has more than {most_bytes >> 20} MiB"
        raise SettingsError(setting, f"{shown} {why}", "give the model's own file")
    return value


def read_object(path: Path, setting: str, shown: str = "") -> dict[str, Any]:
    """As `read_json`, of a file that is to hold a JSON object."""
    value = read_json(path, setting, shown)
    if not isinstance(value, dict):
        why = f"{shown or path} holds a {type(value).__name__}, not a JSON object"
        raise SettingsError(setting, why, "copy or make it again")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_DEPTH + 1):
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
        level = [below for each in inner for below in each if isinstance(below, (dict, list))]
        if not level:
            return False
    return True


def read_shapes(file: Path, setting: str, shown: str = "") -> dict[str, list[int]]:
    """Tensor → shape of a safetensors file, from its header alone.

    SettingsError unless the header is whole, of a bearable size, and the file has the length it tells.
    """
    shown = shown or str(file)

    def refused(why: str) -> SettingsError:
        return SettingsError(setting, why, "give the model's own weights")

    if not file.is_file():
        raise refused(f"{shown} is not a file")
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > _MOST_HEADER:
            # note: what is no safetensors file at all says any number here
            raise refused(f"{shown} is not a whole safetensors file (a header of {length} bytes is too large)")
        names = opened.read(length).count(b'"data_offsets"')
    if names > _MOST_TENSORS:
        raise refused(f"{shown} holds {names} tensors, more than the {_MOST_TENSORS} a file may have")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as tensors:
            return {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        problem = f"{shown} is not a whole safetensors file ({first_line(error)})"
        raise SettingsError(setting, problem, "copy or download it anew") from error
