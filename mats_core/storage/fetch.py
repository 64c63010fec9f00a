"""Model files by URI (a local path, a URL, a hub name) as local files, downloaded once into a cache."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mats_core.errors import SettingsError, StorageError, first_line
from mats_core.storage.descriptions import read_shapes
from mats_core.storage.fingerprint import cache_folder, cache_root, hash_settings
from mats_core.storage.listing import FileInfo
from mats_core.storage.names import paths_below
from mats_core.storage.reading import list_files, open_binary, stat
from mats_core.storage.uris import Uri, path_of, public_uri, uri_text

_BLOCK = 8 << 20
_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+", re.ASCII)
_MD5 = re.compile(r"[0-9a-f]{32}")
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
        folder = _from_store(uri, setting)
        return next(path for path in folder.rglob("*") if path.is_file())
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
    from filelock import FileLock

    try:
        files = sorted(list_files(uri), key=lambda info: info.path)
    except StorageError as error:
        problem = f"{public_uri(uri)} cannot be read ({error.message})"
        raise SettingsError(setting, problem, "check the URL and the access to it") from error
    if not files:
        raise SettingsError(setting, f"{public_uri(uri)} holds no files", "give a directory with files in it")
    key = hash_settings([(info.path, info.size, info.version) for info in files])
    try:
        folder = cache_folder("parts") / key[:32]
        draft = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        paths = paths_below(draft, [info.path for info in files])
        if _is_complete(folder, files):
            return folder
        with FileLock(f"{folder}.lock"):
            if not _is_complete(folder, files):
                shutil.rmtree(folder, ignore_errors=True)  # something cut it short
                for left in folder.parent.glob(f"{folder.name}.*.part"):  # of a process that was killed
                    shutil.rmtree(left, ignore_errors=True)
                try:
                    for info in files:
                        _download(info, paths[info.path], setting)
                    draft.rename(folder)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)
    except StorageError as error:
        problem = f"{public_uri(uri)} cannot be copied into the cache: {error.message}"
        raise SettingsError(setting, problem, "rename it in the store, if you trust who put it there") from None
    except OSError as error:
        problem = f"{public_uri(uri)} cannot be copied into the cache {cache_root()} ({error})"
        raise SettingsError(setting, problem, "make room there, or set MATS_CACHE to another folder") from error
    return folder


def _is_complete(folder: Path, files: list[FileInfo]) -> bool:
    """Whether a copy has every file at its full size."""
    paths = ((folder / info.path, info.size) for info in files)
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _download(info: FileInfo, target: Path, setting: str) -> None:
    """One file, in blocks. It counts when all its bytes came and the object is still the one that was listed.

    A version that looks like an MD5 is one in most stores: where the bytes have another, they are fetched again, and
    are believed when the same come twice.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    shown = public_uri(info.uri)
    try:
        digest = _copy(info.uri, target)
        if _MD5.fullmatch(info.version) and digest != info.version:
            again = _copy(info.uri, target)
            if again not in (digest, info.version):
                raise SettingsError(setting, f"{shown} arrives otherwise each time", "check the network, start again")
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


def _copy(uri: str, target: Path) -> str:
    """The MD5 of what was copied."""
    digest = hashlib.md5(usedforsecurity=False)
    with open_binary(uri, read_ahead=_BLOCK) as remote, target.open("wb") as file:
        while block := remote.read(_BLOCK):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()
