"""Model files by URI (a local path, a URL, a hub name) as local files, downloaded once into a cache."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mats_core.errors import SettingsError, StorageError, first_line
from mats_core.storage.descriptions import read_shapes
from mats_core.storage.fingerprint import cache_folder, cache_root, hash_settings
from mats_core.storage.listing import FileInfo
from mats_core.storage.names import paths_below
from mats_core.storage.reading import copy_into, list_files, stat
from mats_core.storage.uris import Uri, path_of, public_uri, uri_text

_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+", re.ASCII)
FROZEN_S = 120.0
"""Seconds for which a process may write nothing while others wait for what it makes."""
_TEXTS = ["*.json", "*.txt", "*.model", "*.jinja"]


def strip_scheme(uri: str) -> str:
    """`hf:NAME` → `NAME`; everything else as it is."""
    return uri[3:] if uri.startswith("hf:") else uri


def looks_like_hub_name(uri: str) -> bool:
    """`owner/name`, as the hub spells it; not a path, not a URL."""
    return _HUB_NAME.fullmatch(uri) is not None and ".." not in uri


def local_directory(uri: Uri, setting: str, code: bool = False) -> Path:
    """A local directory with the files of `uri`; downloads once, locked against other processes.

    code=True also fetches a hub model's own Python files, for a user who trusts them.
    Raises SettingsError (named after `setting`) when there is nothing.
    """
    name = strip_scheme(uri_text(uri))
    folder = path_of(name)
    if folder is None:
        return _from_store(name, setting)
    if folder.is_dir():
        return folder
    if looks_like_hub_name(name) and not folder.exists():
        return _from_hub(name, setting, code)
    remedy = "give the path of one, an s3:// or other URL, or a hub name (OWNER/NAME)"
    raise SettingsError(setting, f'"{uri}" is not a directory that exists', remedy)


def local_file(uri: Uri, setting: str) -> Path:
    """One file as a local one: a path, a URL (downloaded once), or `hf:OWNER/NAME/FILE`.

    Raises SettingsError (named after `setting`) when there is nothing.
    """
    uri = uri_text(uri)
    if uri.startswith("hf:"):
        from huggingface_hub import hf_hub_download

        owner, name, file = (*uri[3:].split("/", 2), "", "")[:3]
        if not (owner and name and file):
            raise SettingsError(setting, f'"{uri}" names no file of the hub', "write hf:OWNER/NAME/FILE")
        with _reading_hub(uri, setting, "file"):
            return Path(hf_hub_download(f"{owner}/{name}", file))
    local = path_of(uri)
    if local is None:
        found = [path for path in _from_store(uri, setting).rglob("*") if path.is_file()]
        if len(found) != 1:
            raise SettingsError(setting, f"{public_uri(uri)} is a folder of {len(found)} files", "give one file")
        return found[0]
    if not local.is_file():
        remedy = "give the path of one, its URL, or hf:OWNER/NAME/FILE"
        raise SettingsError(setting, f'"{uri}" is not a file that exists', remedy)
    return local


@contextmanager
def _reading_hub(name: str, setting: str, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # no network, no such name, no permission
        problem = f'"{name}" cannot be read from the hub ({type(error).__name__}: {first_line(error)})'
        remedy = f"check the name and the network, or give a local {what}"
        raise SettingsError(setting, problem, remedy) from error


def _from_hub(name: str, setting: str, code: bool) -> Path:
    """A hub name's files in the hub's own cache; safetensors first, and `.bin` only where there are none.

    A file that is not whole is fetched once more.
    """
    from huggingface_hub import snapshot_download

    texts = [*_TEXTS, "*.py"] if code else _TEXTS
    with _reading_hub(name, setting, "directory"):
        folder = Path(snapshot_download(name, allow_patterns=[*texts, "*.safetensors"]))
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            folder = Path(snapshot_download(name, allow_patterns=[*texts, "*.bin"]))
        broken = [file.name for file in weights if not _is_whole(file)]
        if broken:
            snapshot_download(name, allow_patterns=broken, force_download=True)
    for file in broken:
        read_shapes(folder / file, setting, f"{name}/{file}")
    return folder


def _is_whole(file: Path) -> bool:
    try:
        read_shapes(file, "")
    except SettingsError:
        return False
    return True


def _from_store(uri: str, setting: str) -> Path:
    """Copy a remote directory or file into the cache; a copy counts only while every byte of it is there."""
    try:
        files = sorted(list_files(uri), key=lambda info: info.path)
    except StorageError as error:
        problem = f"{public_uri(uri)} cannot be read ({error.message})"
        raise SettingsError(setting, problem, "check the URL and the access to it") from error
    if not files:
        raise SettingsError(setting, f"{public_uri(uri)} holds no files", "give a directory with files in it")
    key = hash_settings([(info.path, info.size, info.version) for info in files])

    def download(draft: Path) -> None:
        for info in files:
            _download(info, paths_below(draft, [info.path])[info.path], setting)

    try:
        folder = cache_folder("parts") / key[:32]
        paths_below(folder, [info.path for info in files])  # all names are looked at before anything is fetched
        made_once(folder, lambda place: _is_complete(place, files), download)
    except StorageError as error:
        problem = f"{public_uri(uri)} cannot be copied into the cache: {error.message}"
        raise SettingsError(setting, problem, "rename it in the store, if you trust who put it there") from None
    except OSError as error:
        problem = f"{public_uri(uri)} cannot be copied into the cache {cache_root()} ({error})"
        raise SettingsError(setting, problem, "make room there, or set MATS_CACHE to another folder") from error
    return folder


def made_once(place: Path, is_whole: Callable[[Path], bool], make: Callable[[Path], None]) -> None:
    """Have the folder `place` made by `make(draft)`, unless it is whole: by one process, while others wait for it.

    A process that holds the others up and has written nothing for FROZEN_S (it is stopped, or hangs) is not waited for
    any longer: each writes a draft of its own, and the first that is complete is put in place. Raises OSError, and what
    `make` raises.
    """
    if is_whole(place):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with _turn(place) as alone:
        if is_whole(place):
            return
        for left in list(place.parent.glob(f"{place.name}.*.part")) if alone else ():  # of processes that were killed
            shutil.rmtree(left, ignore_errors=True)
        draft = place.with_name(f"{place.name}.{uuid.uuid4().hex[:8]}.{'part' if alone else 'beside'}")
        try:
            draft.mkdir()
            make(draft)
            if not is_whole(place):
                _remove_damaged(place, is_whole)
                draft.rename(place)
        except OSError:
            if not is_whole(place):  # else another process was quicker
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _remove_damaged(place: Path, is_whole: Callable[[Path], bool]) -> None:
    """Remove a folder that is not whole. It is moved away first: another process may make it whole at any moment."""
    aside = place.with_name(f"{place.name}.{uuid.uuid4().hex[:8]}.aside")
    with suppress(FileNotFoundError):
        place.rename(aside)
        if is_whole(aside):
            with suppress(OSError):
                aside.rename(place)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _turn(place: Path) -> Iterator[bool]:
    """Wait until no other process makes `place`; False where one that does is frozen."""
    from filelock import FileLock, Timeout

    def written() -> list[tuple[str, int]]:
        """What drafts hold by now."""
        files = place.parent.glob(f"{place.name}.*.part/**/*")
        return sorted((str(path), path.stat().st_size) for path in files if path.is_file())

    lock, seen, since = FileLock(f"{place}.lock"), None, time.monotonic()
    while True:
        try:
            lock.acquire(timeout=min(1.0, FROZEN_S / 4))
            break
        except Timeout:
            with suppress(OSError):  # a draft that is put in place meanwhile
                if (now := written()) != seen:
                    seen, since = now, time.monotonic()
            if time.monotonic() - since > FROZEN_S:
                break
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _is_complete(folder: Path, files: list[FileInfo]) -> bool:
    """Whether a copy has every file at its full size."""
    paths = ((folder / info.path, info.size) for info in files)
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _download(info: FileInfo, target: Path, setting: str) -> None:
    """One file, in blocks. It counts when all its bytes came, those that were stored as far as the store tells, and the
    object is still the one that was listed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shown = public_uri(info.uri)
    try:
        with target.open("w+b") as file:
            copy_into(file, info.uri)
        now = stat(info.uri)
    except StorageError as error:
        raise SettingsError(setting, f"{shown} cannot be read ({error.message})", "check the access to it") from error
    size = target.stat().st_size
    if size != info.size:
        raise SettingsError(setting, f"of {shown} {size} bytes of {info.size} arrived", "start again")
    if (now.size, now.version) != (info.size, info.version):
        raise SettingsError(setting, f"{shown} was changed while it was downloaded", "start again when it is complete")
    if target.suffix == ".safetensors":
        read_shapes(target, setting, shown)
