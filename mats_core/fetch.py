"""Model parts by URI: a local directory, an object store, or a hub name → a local directory."""

from __future__ import annotations

import os
from pathlib import Path

from mats_core.errors import SettingsError
from mats_core.fingerprint import cache_root, hash_settings


def strip_scheme(uri: str) -> str:
    """`hf:NAME` → `NAME`; everything else as it is."""
    return uri[3:] if uri.startswith("hf:") else uri


def looks_like_hub_name(uri: str) -> bool:
    """`owner/name`, as the hub spells it; not a path, not a URL."""
    return uri.count("/") == 1 and "://" not in uri and not uri.startswith((".", "/", "~"))


def local_directory(uri: str, setting: str) -> Path:
    """A local directory with the files of `uri`; downloads once, locked against other processes.

    Raises SettingsError (named after `setting`) when there is nothing.
    """
    name = strip_scheme(uri)
    if "://" in name and not name.startswith("file://"):
        return _from_store(name, setting)
    folder = Path(name.removeprefix("file://")).expanduser()
    if folder.is_dir():
        return folder
    if looks_like_hub_name(name) and not folder.exists():
        return _from_hub(name, setting)
    raise SettingsError(setting, uri, "a directory that exists, an s3:// or other fsspec URL, or a hub name")


def _from_hub(name: str, setting: str) -> Path:
    from huggingface_hub import snapshot_download

    kept = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=kept))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*kept, "*.bin"]))
    except Exception as error:  # no network, no such name, no permission
        raise SettingsError(setting, name, f"a local directory, or a hub name that can be read ({error})") from error
    return folder


def _from_store(uri: str, setting: str) -> Path:
    """Copy a remote directory into the cache; a copy counts only when every byte has arrived."""
    from filelock import FileLock

    from mats_core import storage

    try:
        files = sorted(storage.list_files(uri), key=lambda info: info.path)
    except storage.StorageError as error:
        raise SettingsError(setting, uri, f"a directory that can be read ({error})") from error
    if not files:
        raise SettingsError(setting, uri, "a directory with files in it")
    key = hash_settings([(info.path, info.size, info.version) for info in files])
    folder = cache_root() / "parts" / key[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        draft = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        for info in files:
            target = draft / info.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(storage.read_bytes(info.uri))
            if target.stat().st_size != info.size:
                raise SettingsError(setting, info.uri, f"a file of {info.size} bytes; fewer arrived")
        draft.rename(folder)
    return folder
