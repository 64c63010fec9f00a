"""Writing and removing. A reader sees whole files only; of several who create one file at once, one succeeds."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import BinaryIO

from mats_core.errors import StorageError
from mats_core.storage.clients import READ_ONLY, call_store, coded, filesystem, open_client, remote_type, s3_pages
from mats_core.storage.errors import store_code, with_retries
from mats_core.storage.uris import OBJECT_STORES, local_path, public_uri, scheme

_BLOCK = 8 << 20


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file so that a reader sees the old one or the new one, never a part. Folders are made."""
    path = local_path(uri)
    with coded(uri):
        if path is None:
            _check_writable(uri)
            make_dirs(uri.rpartition("/")[0])
            call_store(uri, lambda fs, name: fs.pipe_file(name, data))  # one PUT: object stores show it whole
            return
        with _draft_of(path, data) as draft:
            os.replace(draft, path)


@contextmanager
def _draft_of(path: bytes, data: bytes) -> Iterator[bytes]:
    """A file with `data` beside `path`, to be moved or linked there; removed at the end. Folders are made."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    draft = path + b"." + uuid.uuid4().hex[:8].encode() + b".partial"
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def write_from(uri: str, file: BinaryIO) -> None:
    """Write what a file holds, from its start, to a store. An object store shows it when it is whole, and nothing of it
    where that fails."""
    with coded(uri):
        _check_writable(uri)
        fs, name = filesystem(uri)
        file.seek(0)
        out = fs.open(name, "wb")
        try:
            shutil.copyfileobj(file, out, _BLOCK)
        except BaseException:
            # note: closed as usual, what is there so far would stand for the whole
            with suppress(Exception):
                out.discard()
            out.closed = True
            raise
        out.close()


def abort_uploads(uri: str) -> int:
    """Throw away the uploads to S3 below a folder that were begun and never ended, as by a writer that was killed: they
    are in no listing and are paid for. Returns how many. Raises StorageError, as where listing them is not allowed.
    """
    if scheme(uri) not in ("s3", "s3a"):
        return 0
    count = 0
    with coded(uri):
        fs, name = open_client(uri)
        bucket, key, _ = fs.split_path(name.rstrip("/"))
        for page in s3_pages(fs, "list_multipart_uploads", Bucket=bucket, Prefix=f"{key}/"):
            for each in page.get("Uploads", ()):
                upload = {"Bucket": bucket, "Key": each["Key"], "UploadId": each["UploadId"]}
                with_retries(partial(fs.call_s3, "abort_multipart_upload", **upload))
                count += 1
    return count


def create_bytes(uri: str, data: bytes) -> bool:
    """Write a whole small file where there is none; False where there is one already, which stays as it is.

    One of several who try at once succeeds: on local disks, and on stores that know conditional writes (S3, Google). On
    others the file is looked for first, so the later of two that start together overwrites the earlier.
    """
    path = local_path(uri)
    with coded(uri):
        if path is None:
            return _create_remote(uri, data)
        with _draft_of(path, data) as draft:
            try:
                try:
                    # note: unlike a rename it never replaces; unlike open("x") it shows the whole file
                    os.link(draft, path)
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    with open(path, "xb") as file:
                        file.write(data)
            except FileExistsError:
                return False
            return True


# Of file systems without links (FAT, some network mounts).
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def _create_remote(uri: str, data: bytes) -> bool:
    _check_writable(uri)
    make_dirs(uri.rpartition("/")[0])
    fs, name = open_client(uri)
    try:
        with_retries(lambda: fs.pipe_file(name, data, mode="create"))
        return True
    except Exception as error:
        if isinstance(error, FileExistsError) or store_code(error) in _TAKEN:
            # note: an answer that was lost on the way makes a second try, which meets the first: the content tells
            return bool(call_store(uri, lambda fs, name: fs.cat_file(name)) == data)
        if not isinstance(error, (TypeError, NotImplementedError)) and store_code(error) not in _NO_CONDITIONS:
            raise
    if remote_type(uri) is not None:
        return False
    write_bytes(uri, data)
    return True


_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")
_NO_CONDITIONS = ("NotImplemented", "501", "InvalidRequest")
"""What a store says that speaks S3 and knows no conditional writes."""


def make_dirs(uri: str) -> None:
    """Make a folder and those above it; object stores have none, so there it does nothing (never a
    bucket)."""
    path = local_path(uri)
    with coded(uri):
        if path is not None:
            os.makedirs(path, exist_ok=True)
        elif scheme(uri) not in OBJECT_STORES:
            _check_writable(uri)
            call_store(uri, lambda fs, name: fs.makedirs(name, exist_ok=True))


def _check_writable(uri: str) -> None:
    if scheme(uri) in READ_ONLY or scheme(uri).startswith("tar+"):
        raise StorageError("refused", f"{scheme(uri)}:// is read-only; write to a folder or an object store")


def remove_tree(uri: str) -> None:
    """Remove a folder with all below it, or one file; nothing there is no error. A root or a bucket is
    refused."""
    path = local_path(uri)
    with coded(uri):
        if path is not None:
            if path in (b"/", os.fsencode(os.path.expanduser("~"))):
                raise StorageError("refused", f"{uri} is not removed as a whole")
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.unlink(path)
            return
        fs, name = open_client(uri)
        if not name.strip("/") or (scheme(uri) in OBJECT_STORES and "/" not in name.strip("/")):
            raise StorageError("refused", f"{public_uri(uri)} is not removed as a whole")
        try:
            names = with_retries(lambda: fs.find(name))
        except FileNotFoundError:
            return
        plain = [each for each in names if not glob.has_magic(each)]
        if plain:
            with_retries(lambda: fs.rm(plain))
        for each in set(names) - set(plain):
            with_retries(partial(fs.rm_file, each))  # note: fs.rm takes "*" for a pattern
        if scheme(uri) not in OBJECT_STORES and fs.exists(name):
            with_retries(lambda: fs.rm(name, recursive=True))
