"""Pairs of sound and caption → how much noise to train with: `_noise.json` beside caption embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mats_core import storage
from mats_core.encoders.base import stack_windows
from mats_core.encoders.facts import read_encoder_facts, refuse_other_encoder
from mats_core.errors import SettingsError
from mats_core.memory.noise import NoiseEstimate
from mats_core.model.directory import encoder_uri
from mats_core.storage.fingerprint import sealed
from pipelines.cluster.session import check_device
from pipelines.data.embeddings import has_facts, list_parts, read_facts
from pipelines.data.inputs import Input, open_input
from pipelines.data.lists import read_table
from pipelines.settings.calling import by_name
from pipelines.settings.text import NOISE, NoiseSettings

CAPTION = "caption"
FEWEST = 2


@dataclass
class NoiseResult:
    """estimate: of the pairs that could be used; left_out: those that could not, and why; uri: what was written."""

    estimate: NoiseEstimate
    uri: str
    left_out: list[str] = field(default_factory=list)


@by_name(NoiseSettings)
def run_noise(settings: NoiseSettings, hearing: Callable[[], None] = lambda: None) -> NoiseResult:
    """Estimate the noise of the encoder that made `settings.embeddings`, and write it there, for `mats train`.

    hearing: called where the settings are found to be right and work begins.

    Raises SettingsError for embeddings or pairs that cannot be read, pairs of another encoder, fewer than two pairs.
    """
    import torch

    from mats_core.encoders.load import load_encoder
    from mats_core.memory.noise import estimate_noise

    facts = read_facts(settings.embeddings, "text", "embeddings")
    check_device(settings.device, None)
    named = encoder_uri(settings.encoder or str(facts.encoder), allow_parts=settings.allow_parts)
    fingerprint = read_encoder_facts(named).fingerprint
    shown, remedy = storage.public_uri(settings.embeddings), "name the encoder that made the embeddings (--encoder)"
    refuse_other_encoder("encoder", shown, facts.encoder_fingerprint, fingerprint, remedy)
    left_out: list[str] = []
    listed: Input | None = None
    if storage.is_dir(settings.pairs) and has_facts(settings.pairs):
        heard = read_facts(settings.pairs, "audio", "pairs")
        shown, again = storage.public_uri(settings.pairs), 'hear the pairs again with "mats embed-audio"'
        refuse_other_encoder("pairs", shown, heard.encoder_fingerprint, fingerprint, again)
    else:
        listed = _open_list(settings.pairs)
    hearing()
    encoder = load_encoder(named, device=settings.device)
    pairs = _heard(settings.pairs, left_out) if listed is None else _listed(listed, encoder, left_out)
    captions: list[str] = []
    sounds: list[np.ndarray] = []
    for caption, vector in pairs:
        captions.append(caption)
        sounds.append(vector)
        if len(captions) == settings.most:
            break
    if len(captions) < FEWEST:
        why = f"; left out: {left_out[0]}" if left_out else ""
        raise SettingsError("pairs", f"{len(captions)} pairs can be used{why}", "give about 30 sounds with captions")
    text = encoder.embed_text(captions).cpu()  # [N, D]
    estimate = estimate_noise(torch.from_numpy(np.stack(sounds)), text)
    told = {"encoder_fingerprint": encoder.fingerprint, "of": storage.public_uri(settings.pairs), **asdict(estimate)}
    uri = storage.join(settings.embeddings, NOISE)
    storage.write_bytes(uri, json.dumps(sealed(told), indent=1).encode())
    return NoiseResult(estimate, uri, left_out)


def _check_captions(names: Sequence[str], pairs: str) -> None:
    if CAPTION not in names:
        problem = f"{storage.public_uri(pairs)} has no column `{CAPTION}` (it has {', '.join(names)})"
        raise SettingsError("pairs", problem, "give sounds (`uri`) with a caption each")


def _heard(pairs: str, left_out: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Pairs of an OUTPUT of `mats embed-audio`: the mean of a chunk's windows, float32 [D]."""
    from mats_core.audio.windows import pool_windows

    for part in list_parts(pairs):
        schema, batches = read_table(part.uri)
        _check_captions(schema.names, pairs)
        for row in (row for batch in batches for row in batch.to_pylist()):
            if row["windows"] and row[CAPTION]:
                vectors = np.array([each["embedding"] for each in row["windows"]], np.float32)  # [W, D]
                yield str(row[CAPTION]), pool_windows(vectors, [each["weight"] for each in row["windows"]])
            else:
                why = row["error_code"] or f"there is no {CAPTION}"
                left_out.append(f"{storage.public_uri(row['uri'])}: {why}")


class _Ears:
    """An encoder alone, as `asking` hears with it."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def stack_windows(self, windows: Sequence[np.ndarray]) -> Any:
        """Windows [T] → [W, window samples], padded."""
        return stack_windows(windows, self.encoder.pad)

    def embed_windows(self, windows: Any) -> np.ndarray:
        """Windows [T], or what `stack_windows` made of them → unit embeddings float32 [W, D]."""
        stacked = self.stack_windows(windows) if isinstance(windows, (list, tuple)) else windows
        return np.asarray(self.encoder.embed_audio(stacked).cpu().numpy())


def _open_list(pairs: str) -> Input:
    """A list with columns `uri` and `caption`; SettingsError for what is none."""
    try:
        return open_input(pairs, columns=[CAPTION])
    except SettingsError as error:
        remedy = f"give a list with columns `uri` and `{CAPTION}`, or OUTPUT of `mats embed-audio` on one"
        raise SettingsError("pairs", error.problem, remedy) from None


def _listed(given: Input, encoder: Any, left_out: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Pairs of a list, heard here: all windows of a sound as one, float32 [D]."""
    from mats_core.audio.file import AudioError
    from mats_core.audio.windows import pool_windows
    from mats_core.model.hearing.clips import embed_sound

    for entry in given.entries:
        caption = entry.own.get(CAPTION)
        if entry.error is not None or not caption:
            left_out.append(f"{entry.path}: {': '.join(entry.error) if entry.error else f'there is no {CAPTION}'}")
            continue
        try:
            clips = embed_sound(_Ears(encoder), entry.uri)  # type: ignore[arg-type]
        except AudioError as error:
            left_out.append(f"{entry.path}: {error}")
            continue
        vectors, weights = ([x for clip in clips for x in getattr(clip, name)] for name in ("embeddings", "weights"))
        yield str(caption), pool_windows(vectors, weights)
