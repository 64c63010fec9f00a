"""Model files by URI (a local path, a URL, a hub name) as local files, downloaded once into a cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mats_core.errors import SettingsError, StorageError, first_line
from mats_core.storage.fingerprint import cache_root, hash_settings
from mats_core.storage.listing import FileInfo
from mats_core.storage.reading import list_files, open_binary, stat
from mats_core.storage.uris import Uri, path_of, public_uri, uri_text

_BLOCK = 8 << 20
_TEXTS = ["*.json", "*.txt", "*.model", "*.jinja"]


def strip_scheme(uri: str) -> str:
    """`hf:NAME` → `NAME`; everything else as it is."""
    return uri[3:] if uri.startswith("hf:") else uri


def looks_like_hub_name(uri: str) -> bool:
    """`owner/name`, as the hub spells it; not a path, not a URL."""
    return uri.count("/") == 1 and "://" not in uri and not uri.startswith((".", "/", "~"))


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
        return _from_store(uri, setting) / uri.rpartition("/")[2]
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
        check_safetensors(folder / file, setting, f"{name}/{file}")
    return folder


def _is_whole(file: Path) -> bool:
    try:
        check_safetensors(file, "", "")
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
    folder = cache_root() / "parts" / key[:32]
    if _is_complete(folder, files):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_complete(folder, files):
                shutil.rmtree(folder, ignore_errors=True)  # something cut it short
                for left in folder.parent.glob(f"{folder.name}.*.part"):  # of a process that was killed
                    shutil.rmtree(left, ignore_errors=True)
                draft = folder.with_name(f"{folder.name}.{os.getpid()}.part")
                try:
                    for info in files:
                        _download(info, draft / info.path, setting)
                    draft.rename(folder)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        problem = f"{public_uri(uri)} cannot be copied into the cache {cache_root()} ({error})"
        raise SettingsError(setting, problem, "make room there, or set MATS_CACHE to another folder") from error
    return folder


def _is_complete(folder: Path, files: list[FileInfo]) -> bool:
    """Whether a copy has every file at its full size."""
    paths = ((folder / info.path, info.size) for info in files)
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _download(info: FileInfo, target: Path, setting: str) -> None:
    """One file, in blocks. It counts when all its bytes came and the object is still the one that was listed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shown = public_uri(info.uri)
    try:
        with open_binary(info.uri, read_ahead=_BLOCK) as remote, target.open("wb") as file:
            shutil.copyfileobj(remote, file, _BLOCK)
        now = stat(info.uri)
    except StorageError as error:
        raise SettingsError(setting, f"{shown} cannot be read ({error.message})", "check the access to it") from error
    size = target.stat().st_size
    if size != info.size:
        raise SettingsError(setting, f"of {shown} {size} bytes of {info.size} arrived", "start again")
    if (now.size, now.version) != (info.size, info.version):
        raise SettingsError(setting, f"{shown} was changed while it was downloaded", "start again when it is complete")
    if target.suffix == ".safetensors":
        check_safetensors(target, setting, shown)


def check_safetensors(file: Path, setting: str, shown: str) -> None:
    """SettingsError unless the header is whole and the file has the length it tells; no tensor is read.

    `shown` is what the message calls the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np"):
            pass
    except (SafetensorError, OSError) as error:
        problem = f"{shown} is not a whole safetensors file ({error})"
        raise SettingsError(setting, problem, "copy or download it anew") from error
