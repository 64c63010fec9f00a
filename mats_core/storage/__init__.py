"""Bytes at any URI: the only place that knows file systems (local paths, and through fsspec s3://, gs://, az://, …).

Use it as `from mats_core import storage; storage.read_bytes(uri)`. Anything may import it; it imports nothing above
`mats_core.errors`.
"""

from mats_core.storage.clients import is_known_scheme
from mats_core.storage.errors import StorageError, error_from
from mats_core.storage.listing import FileInfo, Listed
from mats_core.storage.reading import (
    arrow,
    exists,
    filesystem,
    is_dir,
    join,
    lies_in,
    list_files,
    list_members,
    open_binary,
    read_bytes,
    same_place,
    stat,
)
from mats_core.storage.uris import local_path, public_uri, scheme, uri_from_path
from mats_core.storage.writing import abort_uploads, create_bytes, make_dirs, remove_tree, write_bytes, write_from

__all__ = [
    "FileInfo",
    "Listed",
    "StorageError",
    "abort_uploads",
    "arrow",
    "create_bytes",
    "error_from",
    "exists",
    "filesystem",
    "is_dir",
    "is_known_scheme",
    "join",
    "lies_in",
    "list_files",
    "list_members",
    "local_path",
    "make_dirs",
    "open_binary",
    "public_uri",
    "read_bytes",
    "remove_tree",
    "same_place",
    "scheme",
    "stat",
    "uri_from_path",
    "write_bytes",
    "write_from",
]
