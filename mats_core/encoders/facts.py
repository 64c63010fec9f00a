"""What a job must know about an encoder before loading it; read from its files, without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from mats_core.encoders.msclap_files import is_msclap, read_msclap_facts
from mats_core.errors import SettingsError, checked
from mats_core.storage.fetch import local_directory
from mats_core.storage.fingerprint import fingerprint_directory

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

    feature_size: int = Field(64, ge=1, description="mel bands")
    sampling_rate: int = Field(48_000, ge=1)
    hop_length: int = Field(480, ge=1)
    max_length_s: float = Field(10, gt=0)
    fft_window_size: int = Field(1024, ge=2)
    frequency_min: float = 0
    frequency_max: float = 14_000
    truncation: str = "fusion"
    padding: str = "repeatpad"

    @property
    def max_samples(self) -> int:
        """Samples of a window."""
        return round(self.max_length_s * self.sampling_rate)


def read_encoder_facts(uri: str, setting: str = "encoder") -> EncoderFacts:
    """Facts of msclap:FILE, hf:NAME or a ClapModel directory; raises SettingsError that says what is missing."""
    if is_msclap(uri):
        found = read_msclap_facts(uri)
        return EncoderFacts(uri, found.fingerprint, found.dim, found.size)
    folder = local_directory(uri, setting)
    try:
        config = json.loads((folder / "config.json").read_bytes())
        if config.get("model_type") != "clap":
            raise ValueError(f"its config.json is of a {config.get('model_type')}")
        dim = int(config["projection_dim"])
    except (OSError, ValueError, KeyError, TypeError) as error:
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
            try:
                values = json.loads(path.read_bytes())
            except ValueError as error:
                raise SettingsError("encoder", f"{path} is not JSON ({error})", "copy or make it again") from None
            found: FeatureSettings = checked(FeatureSettings, values.get("feature_extractor", values), name)
            return found
    raise SettingsError(
        "encoder", f"preprocessor_config.json is missing in {folder}", "give a complete ClapModel directory"
    )


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
