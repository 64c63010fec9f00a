"""Which encoder, LLM, memory or model is this? A hash of stored tensors, tokenizer and preprocessing."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mats_core.errors import SettingsError

# Files that say nothing about answers.
_IGNORED = ("README.md", "LICENSE", "generation_config.json", "training_args.bin", ".gitattributes")
_IGNORED_KEYS = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "base_model_name_or_path")
_WORTH_CACHING = 256 * 2**20  # bytes; below that, hashing takes under a second


def fingerprint_directory(folder: Path) -> str:
    """Hash of every file that can change an answer; the same for each path, device and dtype choice."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in _IGNORED and not path.relative_to(folder).parts[0].startswith(".")
    ]
    return cached("directory", files, lambda: combine((p.relative_to(folder).as_posix(), hash_file(p)) for p in files))


def fingerprint_file(path: Path) -> str:
    """Hash of one weights file."""
    return cached("file", [path], lambda: hash_file(path))


def combine(parts: Iterable[tuple[str, str]]) -> str:
    """One fingerprint out of named ones, in the order given."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def hash_settings(values: Any) -> str:
    """Hash of plain settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def sealed(facts: dict[str, Any]) -> dict[str, Any]:
    """The JSON object `facts` with a `checksum` of all of it, for `unsealed`."""
    return {**facts, "checksum": hash_settings(json.loads(json.dumps(facts)))}


def unsealed(facts: Any) -> dict[str, Any]:
    """A JSON object without its `checksum`; ValueError where it is none, or was changed since it was sealed.

    One without a checksum passes: earlier versions wrote none.
    """
    if not isinstance(facts, dict):
        raise ValueError(f"it holds a {type(facts).__name__}, not a JSON object")
    rest = {name: value for name, value in facts.items() if name != "checksum"}
    if "checksum" in facts and facts["checksum"] != hash_settings(rest):
        raise ValueError("it was changed since it was written: its checksum is another")
    return rest


def hash_file(path: Path) -> str:
    """SHA-256; of a JSON object without what only tells where and when it was written."""
    if path.suffix == ".json" and path.stat().st_size < 2**20:
        try:
            values = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            return hash_settings({key: value for key, value in values.items() if key not in _IGNORED_KEYS})
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_root() -> Path:
    """Where downloads and fingerprints are kept: $MATS_CACHE, else ~/.cache/mats."""
    return Path(os.environ.get("MATS_CACHE") or Path.home() / ".cache" / "mats")


def cache_folder(name: str) -> Path:
    """A folder of the cache, made where there is none, that nobody but its user can write into or read (0700).

    SettingsError for one that another user owns, or may write into: what lies there would be believed. Raises OSError
    where it cannot be made.
    """
    root = cache_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = root / name
    folder.mkdir(mode=0o700, exist_ok=True)
    for place in (root, folder):
        for status in (place.lstat(), place.stat()):  # of a link, and of what it points to
            open_to_all = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IWOTH
            if status.st_uid != os.geteuid() or open_to_all:
                who = "any user may write into it" if open_to_all else f"user {status.st_uid} owns it"
                remedy = "remove it, or set MATS_CACHE to a folder of your own"
                raise SettingsError("MATS_CACHE", f"the cache {place} cannot be believed: {who}", remedy)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def noted(kind: str, key: str) -> str | None:
    """What `note` has kept under a key; None where there is nothing, or no cache."""
    with suppress(OSError):
        return (cache_folder(kind) / key).read_text(encoding="utf-8")
    return None


def note(kind: str, key: str, text: str) -> None:
    """Keep a text in the cache, whole or not at all; where the cache cannot be written, nothing happens."""
    with suppress(OSError):
        place = cache_folder(kind) / key
        draft = place.with_suffix(f".{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(place)


def cached(kind: str, files: list[Path], make: Callable[[], str]) -> str:
    """Remember the hash of large files by path, size and time of change; `kind` says what was made of them."""
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    if sum(size for _, size, _ in stats) < _WORTH_CACHING:
        return make()
    key = hash_settings([kind, stats])
    known = noted("fingerprints", key)
    if known is None:
        known = make()
        note("fingerprints", key, known)  # a read-only home costs time at the next start, nothing else
    return known.strip()
