"""What a job must know about an encoder before loading it: where its files lie, what they say, and which it is.

Microsoft CLAP is a weights file, the msclap package and GPT-2's tokenizer; any other a `ClapModel` directory. No torch.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mats_core.errors import SettingsError, checked, first_line
from mats_core.pretrained import check_tokenizer, panics_told
from mats_core.storage.descriptions import read_object
from mats_core.storage.fetch import local_directory, local_file, looks_like_hub_name, strip_scheme
from mats_core.storage.fingerprint import cached, combine, fingerprint_directory, fingerprint_file, hash_settings

WEIGHTS = "CLAP_weights_2023.pth"
END_OF_TEXT = "<|endoftext|>"
HUB_TOKENIZERS = ("gpt2", "openai-community/gpt2")
_TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"]
_MSCLAP_HEARING = (44_100, 7.0)  # without the package, which says the same


@dataclass(frozen=True)
class EncoderFacts:
    """`uri` is what `load_encoder` takes, `size` the bytes of its weights."""

    uri: str
    fingerprint: str
    dim: int
    size: int


class FeatureSettings(BaseModel):
    """What a `preprocessor_config.json` of `ClapFeatureExtractor` says. Its defaults are used where it is silent."""

    model_config = ConfigDict(extra="ignore")

    feature_size: int = Field(64, ge=1, le=4096, description="mel bands")
    sampling_rate: int = Field(48_000, ge=1, le=768_000)
    hop_length: int = Field(480, ge=1, le=1_000_000)
    max_length_s: float = Field(10, gt=0, le=3600)
    fft_window_size: int = Field(1024, ge=2, le=1 << 20)
    frequency_min: float = Field(0, ge=0, le=1e6)
    frequency_max: float = Field(14_000, ge=0, le=1e6)
    truncation: str = "fusion"
    padding: str = "repeatpad"

    @property
    def max_samples(self) -> int:
        """Samples of a window."""
        return round(self.max_length_s * self.sampling_rate)


def read_encoder_facts(uri: str, setting: str = "encoder") -> EncoderFacts:
    """Facts of msclap:FILE, hf:NAME or a ClapModel directory; raises SettingsError that says what is missing."""
    if is_msclap(uri):
        place, tokenizer = split_uri(uri)
        dim, file = int(package_settings()["d_proj"]), weights_file(place)
        folder = tokenizer_folder(tokenizer, file.parent)
        used = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
        name = cached("msclap", [file, *used], lambda: fingerprint(file, load_gpt2_tokenizer(folder)))
        return EncoderFacts(uri, name, dim, file.stat().st_size)
    folder = local_directory(uri, setting)
    try:
        config = read_object(folder / "config.json", setting)
        if config.get("model_type") != "clap":
            raise ValueError(f"its config.json is of a {config.get('model_type')}")
        dim = int(config["projection_dim"])
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(setting, f"{uri} is no CLAP encoder ({error})", "give a ClapModel directory") from None
    weights = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin")]
    if not any(path.parent == folder for path in weights):
        raise SettingsError(setting, f"the weights of {uri} are missing", "give a complete ClapModel directory")
    return EncoderFacts(uri, fingerprint_directory(folder), dim, sum(path.stat().st_size for path in weights))


def read_hearing(uri: str) -> tuple[int, float]:
    """(sample rate in Hz, window in seconds) of an encoder; raises SettingsError where its files do not say."""
    if is_msclap(uri):
        return _MSCLAP_HEARING
    features = read_features(local_directory(uri, "encoder"))
    return features.sampling_rate, float(features.max_length_s)


def read_features(folder: Path) -> FeatureSettings:
    """What a ClapModel directory says about the sound it takes; raises SettingsError where it says nothing."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if path.is_file():
            values = read_object(path, "encoder")
            found: FeatureSettings = checked(FeatureSettings, values.get("feature_extractor", values), name)
            return found
    why = f"preprocessor_config.json is missing in {folder}"
    raise SettingsError("encoder", why, "give a complete ClapModel directory")


REBUILD = 'rebuild it with "mats build-memory"'


def refuse_other_memory(uri: str, made_with: str, encoder: str) -> None:
    """`refuse_other_encoder` for a memory, where an encoder that is not known passes."""
    refuse_other_encoder("memory", f"the memory {uri}", made_with, encoder, REBUILD, unknown_passes=True)


def refuse_other_encoder(
    setting: str, what: str, made_with: str, encoder: str, remedy: str, *, unknown_passes: bool = False
) -> None:
    """SettingsError where `what` was made with another encoder than it is to be used with.

    made_with, encoder: fingerprints, "" where not known; `unknown_passes` lets that pass. remedy: what to do.
    """
    if made_with == encoder or (unknown_passes and "" in (made_with, encoder)):
        return
    name = f"encoder {made_with[:12]}" if made_with else "an encoder that it does not name"
    raise SettingsError(setting, f"{what} was made with {name}, not with {encoder[:12] or 'an unknown one'}", remedy)


def is_msclap(uri: str) -> bool:
    """Whether an encoder's URI is Microsoft's CLAP: `msclap:…`, or a local directory with its weights in it."""
    return uri.startswith("msclap:") or (Path(uri).expanduser() / WEIGHTS).is_file()


def check_files(uri: str) -> None:
    """SettingsError unless what `uri` names on this machine is there; nothing is read."""
    place, tokenizer = split_uri(uri)
    if "://" not in place and not place.startswith("hf:"):
        weights_file(place)
    name = strip_scheme(tokenizer or HUB_TOKENIZERS[0])
    if "://" not in name and name not in HUB_TOKENIZERS and not looks_like_hub_name(name):
        local_directory(name, "encoder.tokenizer")


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
    folder = Path(place).expanduser()
    if "://" in place or not folder.is_dir():
        return local_file(place, "encoder")
    if not (folder / WEIGHTS).is_file():
        raise SettingsError("encoder", f"there is no {WEIGHTS} in {place}", "name the file, or its directory")
    return folder / WEIGHTS


def package_folder() -> Path:
    """Where the installed `msclap` package lies, without importing it."""
    found = importlib.util.find_spec("msclap")
    if found is None or not found.submodule_search_locations:
        remedy = 'run `pip install "mats-audio[msclap]"`, or choose an encoder hf:…'
        raise SettingsError("encoder", "Microsoft CLAP needs the msclap package, which is not installed", remedy)
    return Path(next(iter(found.submodule_search_locations)))


def package_settings() -> dict[str, Any]:
    """The package's own configuration of CLAP 2023."""
    import yaml

    return yaml.safe_load((package_folder() / "configs" / "config_2023.yml").read_text())


def load_gpt2_tokenizer(folder: Path) -> Any:
    """GPT-2's tokenizer with "!" as padding, as the package has it; SettingsError for another one."""
    from transformers import GPT2TokenizerFast

    logger = logging.getLogger("transformers.tokenization_utils_base")
    before = logger.level
    logger.setLevel(logging.ERROR)  # it guesses a model from "clap" in a path, and warns
    try:
        check_tokenizer(folder, "encoder.tokenizer", str(folder))
        with panics_told(RuntimeError):
            tokenizer = GPT2TokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except SettingsError:
        raise
    except Exception as error:  # transformers raises anything
        why = f"{folder} holds no tokenizer that can be loaded ({first_line(error)})"
        raise SettingsError("encoder.tokenizer", why, "give a directory of GPT-2's tokenizer") from None
    finally:
        logger.setLevel(before)
    if tokenizer.convert_tokens_to_ids("!") != 0 or END_OF_TEXT not in tokenizer.get_vocab():
        why = f'{folder} holds another tokenizer than GPT-2\'s, where "!" is 0 and {END_OF_TEXT} is known'
        raise SettingsError("encoder.tokenizer", why, "give a directory of GPT-2's own tokenizer")
    tokenizer.add_special_tokens({"pad_token": "!"})
    return tokenizer


def tokenizer_folder(where: str | None, beside: Path) -> Path:
    """The tokenizer's directory: the one named, a directory before a hub name; without a name a folder `gpt2` beside
    the weights, then the hub's.

    SettingsError says what is missing.
    """
    name = strip_scheme(where) if where is not None else None
    if name is not None and (name not in HUB_TOKENIZERS or Path(name).is_dir()):
        return local_directory(name, "encoder.tokenizer")
    if where is None and (beside / "gpt2").is_dir():
        return beside / "gpt2"
    from huggingface_hub import snapshot_download

    reason: Exception | None = None
    for name, offline in [*((name, True) for name in HUB_TOKENIZERS), (HUB_TOKENIZERS[1], False)]:
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
