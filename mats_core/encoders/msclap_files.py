"""Microsoft CLAP's files: where weights and tokenizer lie, what the package says, and which encoder they make.

No torch here, so that a run learns about an encoder without loading it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mats_core.errors import SettingsError, first_line
from mats_core.storage.fetch import local_directory, local_file, looks_like_hub_name, strip_scheme
from mats_core.storage.fingerprint import cached, combine, fingerprint_file, hash_settings

WEIGHTS = "CLAP_weights_2023.pth"
END_OF_TEXT = "<|endoftext|>"
_HUB_TOKENIZERS = ("gpt2", "openai-community/gpt2")
_TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"]


def is_msclap(uri: str) -> bool:
    """Whether an encoder's URI is Microsoft's CLAP: `msclap:…`, or a local directory with its weights in it."""
    return uri.startswith("msclap:") or (Path(uri).expanduser() / WEIGHTS).is_file()


@dataclass(frozen=True)
class MsClapFacts:
    """`sample_rate` in Hz, `window_seconds`, `dim`; `size` in bytes of weights."""

    fingerprint: str
    sample_rate: int
    window_seconds: float
    dim: int
    size: int


def read_msclap_facts(uri: str) -> MsClapFacts:
    """What `MsClapEncoder(uri)` would say of itself: the weights are hashed once and not loaded.

    Raises SettingsError for a file or a tokenizer that is not there, and where the package is not installed.
    """
    settings = package_settings()
    place, tokenizer = split_uri(uri)
    file = weights_file(place)
    folder = tokenizer_folder(tokenizer, file.parent)
    used = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    return MsClapFacts(
        fingerprint=cached("msclap", [file, *used], lambda: fingerprint(file, load_gpt2_tokenizer(folder))),
        sample_rate=int(settings["sampling_rate"]),
        window_seconds=float(settings["duration"]),
        dim=int(settings["d_proj"]),
        size=file.stat().st_size,
    )


def check_files(uri: str) -> None:
    """SettingsError unless what `uri` names on this machine is there; nothing is read."""
    place, tokenizer = split_uri(uri)
    if "://" not in place and not place.startswith("hf:"):
        weights_file(place)
    if tokenizer and "://" not in tokenizer and not _on_the_hub(tokenizer):
        local_directory(tokenizer, "encoder.tokenizer")


def _on_the_hub(tokenizer: str) -> bool:
    """Whether a tokenizer's name is the hub's to know: `gpt2`, `owner/name`, `hf:…`."""
    name = strip_scheme(tokenizer)
    return name in _HUB_TOKENIZERS or looks_like_hub_name(name)


def fingerprint(weights: Path, tokenizer: Any) -> str:
    """Which encoder these weights and this tokenizer are."""
    return combine([("weights", fingerprint_file(weights)), ("tokenizer", _tokenizer_hash(tokenizer))])


def split_uri(uri: str) -> tuple[str, str | None]:
    """`msclap:PLACE?tokenizer=WHERE` → (PLACE, WHERE or None)."""
    place, mark, query = uri.removeprefix("msclap:").partition("?tokenizer=")
    if mark and not query:
        raise SettingsError("encoder", f"{uri} names no tokenizer", "write msclap:FILE?tokenizer=DIRECTORY")
    if not place:
        raise SettingsError("encoder", f"{uri} names no file", f"write msclap:FILE, the path or URL of {WEIGHTS}")
    return place, query or None


def weights_file(place: str) -> Path:
    """The weights as a local file; downloaded once when they are elsewhere. A directory holds them by their name."""
    if place.startswith("hf:"):
        return local_file(f"{place}/{WEIGHTS}" if place.count("/") == 1 else place, "encoder")
    if "://" not in place:
        folder = Path(place).expanduser()
        if folder.is_dir():
            if not (folder / WEIGHTS).is_file():
                raise SettingsError("encoder", f"there is no {WEIGHTS} in {place}", "name the file, or its directory")
            return folder / WEIGHTS
    return local_file(place, "encoder")


def package_folder() -> Path:
    """Where the installed `msclap` package lies, without importing it."""
    found = importlib.util.find_spec("msclap")
    if found is None or not found.submodule_search_locations:
        raise SettingsError(
            "encoder",
            "Microsoft CLAP needs the msclap package, which is not installed",
            'run `pip install "mats-audio[msclap]"`, or choose an encoder hf:…',
        )
    return Path(next(iter(found.submodule_search_locations)))


def package_settings() -> dict[str, Any]:
    """The package's own configuration of CLAP 2023."""
    import yaml

    return yaml.safe_load((package_folder() / "configs" / "config_2023.yml").read_text())


def load_gpt2_tokenizer(folder: Path) -> Any:
    """GPT-2's tokenizer with "!" as padding, as the package has it; SettingsError for another one."""
    from transformers import GPT2TokenizerFast

    try:
        with _quiet("transformers.tokenization_utils_base"):  # it guesses a model from "clap" in a path, and warns
            tokenizer = GPT2TokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers raises anything
        why = f"{folder} holds no tokenizer that can be loaded ({first_line(error)})"
        raise SettingsError("encoder.tokenizer", why, "give a directory of GPT-2's tokenizer") from None
    if tokenizer.convert_tokens_to_ids("!") != 0 or END_OF_TEXT not in tokenizer.get_vocab():
        why = f'{folder} holds another tokenizer than GPT-2\'s, where "!" is 0 and {END_OF_TEXT} is known'
        raise SettingsError("encoder.tokenizer", why, "give a directory of GPT-2's own tokenizer")
    tokenizer.add_special_tokens({"pad_token": "!"})
    return tokenizer


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Show only errors of this logger."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def tokenizer_folder(where: str | None, beside: Path) -> Path:
    """The tokenizer's directory: the one named, a directory before a hub name; without a name a folder `gpt2` beside
    the weights, then the hub's.

    SettingsError says what is missing.
    """
    name = strip_scheme(where) if where is not None else None
    if name is not None and (name not in _HUB_TOKENIZERS or Path(name).is_dir()):
        return local_directory(name, "encoder.tokenizer")
    if where is None and (beside / "gpt2").is_dir():
        return beside / "gpt2"
    from huggingface_hub import snapshot_download

    reason: Exception | None = None
    for name, offline in [*((name, True) for name in _HUB_TOKENIZERS), (_HUB_TOKENIZERS[1], False)]:
        try:
            folder = Path(snapshot_download(name, allow_patterns=_TOKENIZER_FILES, local_files_only=offline))
        except Exception as error:  # not cached; then: no network, no permission
            reason = error
            continue
        if any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
            return folder
    raise SettingsError(
        "encoder.tokenizer",
        f"GPT-2's tokenizer (tokenizer.json, or vocab.json and merges.txt) is neither here nor fetched from the hub, "
        f"which cannot be reached ({type(reason).__name__})",
        'name its directory by "msclap:FILE?tokenizer=DIRECTORY", or put it in a folder gpt2 beside the weights',
    )


def _tokenizer_hash(tokenizer: Any) -> str:
    """Hash of what a tokenizer does, whichever of its files it was read from."""
    texts = ["A dog barks twice, then rain; 3 bells!", "naïve café ☔ 雨の音  tail ", "engine idling 1234 !! don't"]
    return hash_settings([sorted(tokenizer.get_vocab().items()), tokenizer(texts, verbose=False)["input_ids"]])
