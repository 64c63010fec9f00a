"""Writing and removing. A reader sees whole files only; of several who create one file at once, one succeeds.

Not every store that speaks S3 creates a file only where there is none: some refuse the condition (OpenStack Swift),
some ignore it. `creates_if_absent` tells, by trying; `create_bytes` takes a way of its own there.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, Any, BinaryIO

from mats_core.errors import StorageError
from mats_core.storage.clients import READ_ONLY, call_store, coded, filesystem, open_client, remote_type, s3_pages
from mats_core.storage.errors import is_passing, store_code, store_words, with_retries
from mats_core.storage.uris import OBJECT_STORES, Uri, local_path, public_uri, scheme, uri_text

_BLOCK = 8 << 20
_CLAIM_S = 10.0
"""How long another's claim may stay before it is taken for one that a killed process left."""
_MOST_WAIT_S = 120.0
_DELETES_AT_ONCE = 16


def write_bytes(uri: Uri, data: bytes) -> None:
    """Write a whole file so that a reader sees the old one or the new one, never a part. Folders are made."""
    uri = uri_text(uri)
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
    draft = _draft_beside(path)
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def _draft_beside(path: bytes) -> bytes:
    """A new name beside `path`, whose folder is made. It begins with a dot: where a killed process leaves such a file,
    nobody who reads the folder takes it for data."""
    folder, name = os.path.split(path)
    os.makedirs(folder or b".", exist_ok=True)
    return os.path.join(folder, b"." + name + b"." + uuid.uuid4().hex[:8].encode() + b".partial")


@contextmanager
def whole_file(uri: Uri) -> Iterator[IO[bytes]]:
    """A file to write into, which is in its place when all is written, and not before. Folders are made."""
    path = local_path(uri)
    if path is None:
        with tempfile.TemporaryFile() as file:
            yield file
            write_from(uri, file)
        return
    with coded(uri_text(uri)):
        draft = _draft_beside(path)
    try:
        with open(draft, "wb") as made:
            yield made
        with coded(uri_text(uri)):
            os.replace(draft, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def write_from(uri: Uri, file: BinaryIO, part_bytes: int | None = None) -> None:
    """Write what a file holds, from its start, to a store. An object store shows it when it is whole, and nothing of it
    where that fails. A file of more than `part_bytes` goes to S3 in parts of that size: 5 MiB at least, 50 MiB by
    default, which makes 500 GB of the 10 000 parts that there may be."""
    with coded(uri):
        _check_writable(uri)
        fs, name = filesystem(uri)
        file.seek(0)
        out = fs.open(name, "wb", **({"block_size": part_bytes} if part_bytes else {}))
        try:
            shutil.copyfileobj(file, out, _BLOCK)
        except BaseException:
            # note: closed as usual, what is there so far would stand for the whole
            with suppress(Exception):
                out.discard()
            out.closed = True
            raise
        out.close()


def abort_uploads(uri: Uri) -> int:
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


def create_bytes(uri: Uri, data: bytes) -> bool:
    """Write a whole small file where there is none; False where there is one already, which stays as it is.

    One of several who try at once succeeds, everywhere: on local disks by a link, on stores that know conditional
    writes (S3, Google) by such a write. Elsewhere by claims: whoever wants the file puts an empty one, of a name of its
    own, beside it, and writes only where the list then shows its claim alone and the file is not there. Of two, the one
    who claims later sees the other's claim, or the file that the other wrote before it removed its claim. That holds
    even where listings lag; only who needs more than 5 s from the last look to the end of the write may overwrite
    another's file.
    """
    uri = uri_text(uri)
    path = local_path(uri)
    with coded(uri):
        if path is None:
            return _create_conditionally(uri, data) if creates_if_absent(uri) else _create_by_claim(uri, data)
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


def creates_if_absent(uri: Uri) -> bool:
    """Whether the store of `uri` itself lets one of several create a file at once, tried beside `uri` once a process
    for each bucket. Local disks do. Raises StorageError where nothing can be written."""
    return not refused_condition(uri)


def refused_condition(uri: Uri) -> str:
    """Why `creates_if_absent` is False, in the store's own words if it says anything; "" where it is True."""
    uri = uri_text(uri)
    if local_path(uri) is not None:
        return ""
    with coded(uri):
        _check_writable(uri)
        folder = uri.rpartition("/")[0]
        make_dirs(folder)
        trial = f"{folder}/trial-{uuid.uuid4().hex[:8]}"
        fs, name = open_client(trial)
        place = (scheme(uri), str(fs.s3.meta.endpoint_url) if hasattr(fs, "s3") else "", name.split("/")[0])
        if place not in _REFUSED:
            try:
                _REFUSED[place] = _try_condition(fs, name)
            finally:
                remove_tree(trial)
        return _REFUSED[place]


_REFUSED: dict[tuple[str, str, str], str] = {}
"""By scheme, endpoint and bucket: what `refused_condition` found."""


def _try_condition(fs: Any, name: str) -> str:
    refused: Exception | None = None
    for data in (b"1", b"2"):
        try:
            with_retries(partial(fs.pipe_file, name, data, mode="create"))
        except Exception as error:
            if is_passing(error):
                raise
            refused = error
            break
    # note: asked outside of the `except`, whose error would be taken for the cause of another
    if refused is None:
        return "it accepts the condition and writes all the same"
    if _is_taken(refused) and with_retries(lambda: fs.exists(name)):
        return ""  # also where the answer to the first was lost, and it was sent again
    with_retries(partial(fs.pipe_file, name, data))  # note: raises what stands against any writing
    return store_words(refused) or type(refused).__name__


def _is_taken(error: Exception) -> bool:
    return isinstance(error, FileExistsError) or store_code(error) in (
        "PreconditionFailed",
        "ConditionalRequestConflict",
    )


def _create_conditionally(uri: str, data: bytes) -> bool:
    try:
        call_store(uri, lambda fs, name: fs.pipe_file(name, data, mode="create"))
        return True
    except Exception as error:
        if not _is_taken(error):
            raise
    try:
        # note: an answer that was lost on the way makes a second try, which meets the first: the content tells
        return bool(call_store(uri, lambda fs, name: fs.cat_file(name)) == data)
    except FileNotFoundError:
        return _create_conditionally(uri, data)  # removed in this moment


def _create_by_claim(uri: str, data: bytes) -> bool:
    fs, name = open_client(uri)
    folder, _, file = name.rpartition("/")
    mine = f"{file}.claim-{uuid.uuid4().hex}"
    seen: dict[str, float] = {}
    until = time.monotonic() + _MOST_WAIT_S
    while remote_type(uri) is None:
        claimed = time.monotonic()
        with_retries(lambda: fs.pipe_file(f"{folder}/{mine}", b""))
        try:
            names = with_retries(lambda: fs.ls(folder, detail=False))
            listed = {each for name in names if (each := name.rpartition("/")[2]).startswith(f"{file}.claim-")}
            alone = listed == {mine}  # note: where not even that is listed, the listing is behind and tells nothing
            if alone and remote_type(uri) is None and time.monotonic() - claimed < _CLAIM_S / 2:
                write_bytes(uri, data)
                return True
        finally:
            with_retries(lambda: _remove_file(fs, f"{folder}/{mine}"))
        now = time.monotonic()
        if now > until:
            problem = "the store creates no file only where there is none, and is too slow to be sure without"
            raise StorageError("io_error", f"{public_uri(uri)} cannot be created: {problem}")
        seen = {each: seen.get(each, now) for each in listed - {mine}}
        for each, since in seen.items():
            if now - since > _CLAIM_S:
                with_retries(partial(_remove_file, fs, f"{folder}/{each}"))
        time.sleep(random.uniform(0, 0.3))  # drawn, so that two who met do not meet again
    return False


def _remove_file(fs: Any, name: str) -> None:
    with suppress(FileNotFoundError):
        fs.rm_file(name)


def make_dirs(uri: Uri) -> None:
    """Make a folder and those above it; object stores have none, so there it does nothing (never a
    bucket)."""
    path = local_path(uri)
    with coded(uri):
        if path is not None:
            os.makedirs(path, exist_ok=True)
        elif scheme(uri) not in OBJECT_STORES:
            _check_writable(uri)
            call_store(uri, lambda fs, name: fs.makedirs(name, exist_ok=True))


def _check_writable(uri: Uri) -> None:
    if scheme(uri) in READ_ONLY or scheme(uri).startswith("tar+"):
        raise StorageError("refused", f"{scheme(uri)}:// is read-only; write to a folder or an object store")


def remove_tree(uri: Uri) -> None:
    """Remove a folder with all below it, or one file; nothing there is no error, nor what another removes at the same
    time. A root or a bucket is refused."""
    uri = uri_text(uri)
    path = local_path(uri)
    with coded(uri):
        if path is not None:
            if path in (b"/", os.fsencode(os.path.expanduser("~"))):
                raise StorageError("refused", f"{uri} is not removed as a whole")
            while os.path.lexists(path):
                with suppress(FileNotFoundError):
                    shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
            return
        fs, name = open_client(uri)
        if not name.strip("/") or (scheme(uri) in OBJECT_STORES and "/" not in name.strip("/")):
            raise StorageError("refused", f"{public_uri(uri)} is not removed as a whole")
        # note: one by one: fs.rm takes "*" for a pattern, and requests that delete many are refused by some stores
        with ThreadPoolExecutor(_DELETES_AT_ONCE) as pool:
            for _ in pool.map(lambda each: with_retries(partial(_remove_file, fs, each)), _names_below(fs, name, uri)):
                pass
        if scheme(uri) not in OBJECT_STORES and fs.exists(name):
            with_retries(lambda: fs.rm(name, recursive=True))


def _names_below(fs: Any, name: str, uri: str) -> list[str]:
    """The file of this name, if there may be one, and all files below the folder of this name."""
    if scheme(uri) not in ("s3", "s3a"):
        try:
            return list(with_retries(lambda: fs.find(name)))
        except FileNotFoundError:
            return []
    bucket, key, _ = fs.split_path(name.rstrip("/"))
    pages = s3_pages(fs, "list_objects_v2", Bucket=bucket, Prefix=f"{key}/")
    keys = [key, *(each["Key"] for page in pages for each in page.get("Contents", ()))]
    return [f"{bucket}/{each}" for each in keys]
