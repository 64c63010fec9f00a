"""Bytes at any URI: the only room that knows file systems (local paths, and through fsspec s3://, gs://, az://, …).

Use it as `from mats_core import storage; storage.read_bytes(uri)`. Public are the names imported here and those of
uris, fetch and fingerprint. Every room may import it; it imports `mats_core.errors` alone.

    uris         what a URI is: local or remote, its public form, its place below another, members of archives
    errors       what clients raise, as StorageError; what passes by itself, and `with_retries`
    clients      which client talks to which store, by MATS_STORAGE; calls to it
    listing      files below a folder, a prefix, a glob
    reading      open, read, copy, list, look up
    writing      write, create, remove
    names        names that others gave, before one becomes a path
    hosts        hosts that no file and no redirect may lead to
    descriptions  JSON and safetensors headers of others, within bounds
    fetch        model files by URI or hub name, as local files in a cache
    fingerprint  hashes of model files and settings
    archives/    members of tar archives, rows of Parquet files
    stores/      how single stores differ: S3 that is not Amazon's, files over ranges, what a store can
"""

# ruff: noqa: F401 (imported here to be used from elsewhere)

from mats_core.errors import StorageError
from mats_core.storage.clients import arrow, filesystem, is_known_scheme
from mats_core.storage.errors import error_from
from mats_core.storage.listing import FileInfo, Listed
from mats_core.storage.reading import copy_into, exists, is_dir, list_files, list_members, open_binary, read_bytes, stat
from mats_core.storage.uris import join, lies_in, local_path, public_uri, same_place, scheme, uri_from_path
from mats_core.storage.writing import (
    abort_uploads,
    create_bytes,
    creates_if_absent,
    make_dirs,
    remove_tree,
    whole_file,
    write_bytes,
    write_from,
)
