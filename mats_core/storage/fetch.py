"""Model parts by URI: a local path, an object store, or a hub name → local files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mats_core.errors import SettingsError, got_allowed
from mats_core.storage.errors import StorageError
from mats_core.storage.fingerprint import cache_root, hash_settings

if TYPE_CHECKING:
    from mats_core.storage.listing import FileInfo

_BLOCK = 8 << 20
_TEXTS = ["*.json", "*.txt", "*.model", "*.jinja"]


def strip_scheme(uri: str) -> str:
    """`hf:NAME` → `NAME`; everything else as it is."""
    return uri[3:] if uri.startswith("hf:") else uri


def looks_like_hub_name(uri: str) -> bool:
    """`owner/name`, as the hub spells it; not a path, not a URL."""
    return uri.count("/") == 1 and "://" not in uri and not uri.startswith((".", "/", "~"))


def local_directory(uri: str, setting: str, code: bool = False) -> Path:
    """A local directory with the files of `uri`; downloads once, locked against other processes.

    code=True also fetches a hub model's own Python files, for a user who trusts them.
    Raises SettingsError (named after `setting`) when there is nothing.
    """
    name = strip_scheme(uri)
    if "://" in name and not name.startswith("file://"):
        return _from_store(name, setting)
    folder = Path(name.removeprefix("file://")).expanduser()
    if folder.is_dir():
        return folder
    if looks_like_hub_name(name) and not folder.exists():
        return _from_hub(name, setting, code)
    raise got_allowed(setting, uri, "a directory that exists, an s3:// or other fsspec URL, or a hub name")


def local_file(uri: str, setting: str) -> Path:
    """One file as a local one: a path, a URL (downloaded once), or `hf:OWNER/NAME/FILE`.

    Raises SettingsError (named after `setting`) when there is nothing.
    """
    if uri.startswith("hf:"):
        return _file_from_hub(uri, setting)
    if "://" in uri and not uri.startswith("file://"):
        return _from_store(uri, setting) / uri.rpartition("/")[2]
    file = Path(uri.removeprefix("file://")).expanduser()
    if not file.is_file():
        raise got_allowed(setting, uri, "a file that exists, or its URL")
    return file


def _file_from_hub(uri: str, setting: str) -> Path:
    from huggingface_hub import hf_hub_download

    owner, _, rest = uri[3:].partition("/")
    name, _, file = rest.partition("/")
    if not (owner and name and file):
        raise got_allowed(setting, uri, "hf:OWNER/NAME/FILE")
    try:
        return Path(hf_hub_download(f"{owner}/{name}", file))
    except Exception as error:  # no network, no such name, no permission
        raise got_allowed(setting, uri, f"a file of the hub that can be read ({_short(error)})") from error


def _from_hub(name: str, setting: str, code: bool) -> Path:
    """A hub name's files in the hub's own cache; safetensors first, and `.bin` only where there are none.

    A file that is not whole is fetched once more.
    """
    from huggingface_hub import snapshot_download

    texts = [*_TEXTS, "*.py"] if code else _TEXTS
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*texts, "*.safetensors"]))
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            folder = Path(snapshot_download(name, allow_patterns=[*texts, "*.bin"]))
        broken = [file.name for file in weights if not _is_whole(file)]
        if broken:
            snapshot_download(name, allow_patterns=broken, force_download=True)
    except Exception as error:  # no network, no such name, no permission
        allowed = f"a local directory, or a hub name that can be read ({_short(error)})"
        raise got_allowed(setting, name, allowed) from error
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

    from mats_core.storage import reading

    try:
        files = sorted(reading.list_files(uri), key=lambda info: info.path)
    except StorageError as error:
        raise got_allowed(setting, uri, f"something that can be read ({error})") from error
    if not files:
        raise got_allowed(setting, uri, "a directory with files in it")
    key = hash_settings([(info.path, info.size, info.version) for info in files])
    folder = cache_root() / "parts" / key[:32]
    if _holds(folder, files):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _holds(folder, files):
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
        raise got_allowed(setting, uri, f"room to keep it in {cache_root()} ($MATS_CACHE; {error})") from error
    return folder


def _holds(folder: Path, files: list[FileInfo]) -> bool:
    """Whether a copy has every file at its full size."""
    try:
        return all((folder / info.path).stat().st_size == info.size for info in files)
    except OSError:
        return False


def _download(info: FileInfo, target: Path, setting: str) -> None:
    """One file, in blocks. It counts when all its bytes came and the object is still the one that was listed."""
    from mats_core.storage import reading

    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    try:
        with reading.open_binary(info.uri, read_ahead=_BLOCK) as source, target.open("wb") as file:
            while block := source.read(_BLOCK):
                file.write(block)
                size += len(block)
        now = reading.stat(info.uri)
    except StorageError as error:
        raise got_allowed(setting, info.uri, f"a file that can be read ({error})") from error
    if size != info.size:
        raise got_allowed(setting, info.uri, f"a file of {info.size} bytes; {size} arrived")
    if (now.size, now.version) != (info.size, info.version):
        raise got_allowed(setting, info.uri, "a file that stays as it is; it was changed during the download")
    if target.suffix == ".safetensors":
        check_safetensors(target, setting, info.uri)


def check_safetensors(file: Path, setting: str, shown: str) -> None:
    """SettingsError unless the header is whole and the file has the length it tells; no tensor is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np"):
            pass
    except (SafetensorError, OSError) as error:
        raise got_allowed(setting, shown, f"a whole safetensors file ({error})") from error


def _short(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first[:200]}"
