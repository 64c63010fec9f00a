"""Calls to stores: their errors as StorageError, and patience where they pass by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from mats_core.errors import SettingsError
from mats_core.storage.clients import open_store
from mats_core.storage.errors import StorageError, error_from, is_passing, is_vague, store_code
from mats_core.storage.listing import remote_info
from mats_core.storage.retries import steady
from mats_core.storage.uris import scheme

Result = TypeVar("Result")


@contextmanager
def coded(uri: str) -> Iterator[None]:
    """Errors of any client library become StorageErrors."""
    try:
        yield
    except (StorageError, SettingsError, MemoryError):
        raise
    except Exception as error:  # note: fsspec back ends raise the exceptions of their own client libraries
        raise error_from(_explained(error, uri), uri) from None


def _explained(error: Exception, uri: str) -> Exception:
    """The error, or what the store says of its cause where it was asked by HEAD: such an answer has no text."""
    if scheme(uri) not in ("s3", "s3a") or not is_vague(error):
        return error
    try:
        fs, name = open_store(uri)
        bucket, key, _ = fs.split_path(name)
        if not key:
            fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
        else:
            fs.call_s3("get_object", Bucket=bucket, Key=key, Range="bytes=0-0")
    except Exception as told:
        return error if is_vague(told) or is_passing(told) else told
    return error


def at_store(uri: str, action: Callable[[Any, str], Result]) -> Result:
    """`action` of (file system, path in it), tried again where its error may pass by itself."""
    fs, name = open_store(uri)
    return steady(lambda: action(fs, name))


def info_of(uri: str) -> dict[str, Any]:
    """What the store says of a remote file or folder."""
    return at_store(uri, lambda fs, name: remote_info(fs, name, scheme(uri)))


def remote_type(uri: str) -> str | None:
    """What a store has there: "file", "directory" or None. Raises what the client raises, as for a missing bucket."""
    try:
        return str(info_of(uri)["type"])
    except FileNotFoundError as error:
        if store_code(error) == "NoSuchBucket":
            raise
        return None
