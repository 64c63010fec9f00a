"""Which encoder, LLM, memory or model is this? A hash of stored tensors, tokenizer and preprocessing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

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
        except ValueError:
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


def cached(kind: str, files: list[Path], make: Callable[[], str]) -> str:
    """Remember the hash of large files by path, size and time of change; `kind` says what was made of them."""
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    if sum(size for _, size, _ in stats) < _WORTH_CACHING:
        return make()
    note = cache_root() / "fingerprints" / hash_settings([kind, stats])
    if note.exists():
        return note.read_text().strip()
    value = make()
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_suffix(f".{os.getpid()}")
        draft.write_text(value)
        draft.replace(note)
    except OSError:
        pass  # a read-only home costs time at the next start, nothing else
    return value
