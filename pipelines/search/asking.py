"""Words or a sound → a unit vector in the space of the index, to search with.

CLAP's texts and sounds lie apart. The index holds sounds with the mean of all sounds taken out; a text comes to them by
one of BRIDGES:

    none        the text's embedding as it is
    mean-shift  with the mean of the model's memory of texts taken out (the product's own bridge, `memory.bridges`)
    echo        the same, and then halfway to the sounds it finds first, weighted by how near they are

Words are put into PHRASE first: CLAP learnt captions, and a bare word is none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mats_core.batches import raised
from mats_core.encoders.facts import refuse_other_encoder
from mats_core.errors import SettingsError
from mats_core.model.directory import check_model_dir, encoder_uri, part_uri, resolve
from mats_core.spread import refuse_collapsed
from mats_core.storage.fingerprint import note, noted
from mats_core.storage.uris import public_uri
from pipelines.search.index import Index
from pipelines.search.shards import centred

BRIDGES = ("echo", "mean-shift", "none")
PHRASE = "the sound of {}"
HEARD_FIRST, NEARNESS, HALFWAY = 20, 30.0, 0.5
"""Of echo: how many sounds, the factor on their cosines before the softmax, and how far to go."""


@dataclass
class Asker:
    """The encoder, and the mean of the memory's texts, of a model; each is loaded when it is first needed."""

    model: str
    device: str = "auto"
    allow_parts: tuple[str, ...] = ()

    @cached_property
    def encoder(self) -> Any:
        """The model's CLAP."""
        from mats_core.encoders.load import load_encoder

        return load_encoder(encoder_uri(self.model, "model", self.allow_parts), device=self.device)

    @cached_property
    def reader(self) -> Any:
        """The same, for texts: SettingsError where it cannot tell them apart."""
        refuse_collapsed(self.encoder, public_uri(self.model), "model")
        return self.encoder

    def check(self, made_with: str, shown: str) -> None:
        """Load the encoder; SettingsError where the run's embeddings are of another one ("": it does not say which)."""
        own = self.encoder.fingerprint
        if made_with:
            remedy = "name the model that the run was made with: --model"
            refuse_other_encoder("run", shown, made_with, own, remedy)

    @cached_property
    def text_mean(self) -> np.ndarray | None:
        """Mean of the texts in the model's memory, float32 [D]; None where it has no memory."""
        from mats_core.memory.bridges import text_mean
        from mats_core.memory.santa import SantaMemory

        config = check_model_dir(self.model, self.allow_parts)
        where = part_uri(resolve(self.model), config.memory)
        if where is None:
            return None
        memory = SantaMemory.load(where)
        if (known := noted("text-mean", memory.fingerprint)) is not None:
            return np.array(json.loads(known), np.float32)
        mean = text_mean(memory)
        note("text-mean", memory.fingerprint, json.dumps(mean.tolist()))
        return mean

    def text(self, words: str, bridge: str = "echo") -> np.ndarray:
        """Words → float32 [D] unit, without the echo."""
        found = np.asarray(self.reader.embed_text([PHRASE.format(words.strip())]).cpu().numpy()[0], np.float32)
        if bridge == "none" or self.text_mean is None:
            return found
        return centred(found, self.text_mean)

    def sound(self, uri: str, start_s: float | None, mean: np.ndarray) -> np.ndarray:
        """A whole file, or the window of it that begins at `start_s` → float32 [D] unit in the space of the index.

        Raises SettingsError for what cannot be heard.
        """
        from mats_core.audio.file import AudioError
        from mats_core.audio.windows import pool_windows
        from mats_core.model.hearing.clips import embed_clips, embed_sound

        hearing: Any = _Hearing(self.encoder)
        try:
            if start_s is None:
                clips = embed_sound(hearing, uri)
            else:
                clips = raised(embed_clips(hearing, [(start_s, self._window(uri, start_s))]))
        except AudioError as error:
            problem = f"{public_uri(uri)} cannot be heard ({error.code}: {error.message})"
            raise SettingsError("like", problem, "name a sound: FILE, or FILE@SECONDS") from None
        vectors = np.concatenate([clip.embeddings for clip in clips])
        return centred(pool_windows(vectors, np.concatenate([clip.weights for clip in clips])), mean)

    def _window(self, uri: str, start_s: float) -> np.ndarray:
        """One window of a file, int16 [T] at the encoder's rate."""
        from mats_core.audio.file import AudioError
        from mats_core.audio.sandbox import DecodeRequest, warm_decoder
        from mats_core.storage.uris import to_uri

        request = DecodeRequest(to_uri(uri), start_s, self.encoder.window_seconds)
        (heard,) = raised(warm_decoder().decode_many([request], self.encoder.sample_rate))
        if not len(heard.samples):
            raise AudioError("empty_audio", f"there is no sound at {start_s:g} s")
        return np.asarray(heard.samples)


@dataclass
class _Hearing:
    """An encoder as `mats_core.model.asking` wants a model that is to hear, and not to answer."""

    encoder: Any

    def stack_windows(self, windows: Any) -> Any:
        """Windows [T] → [W, window samples], padded."""
        from mats_core.encoders.base import stack_windows

        return stack_windows(windows, self.encoder.pad)

    def embed_windows(self, windows: Any) -> np.ndarray:
        """[W, window samples], or a list of windows → float32 [W, D]."""
        stacked = self.stack_windows(windows) if isinstance(windows, (list, tuple)) else windows
        return np.asarray(self.encoder.embed_audio(stacked).cpu().numpy())


def echoed(query: np.ndarray, index: Index, allowed: np.ndarray | None = None) -> np.ndarray:
    """A text's vector [D] moved halfway to the sounds that are nearest to it."""
    scores, windows = index.search(query[None], HEARD_FIRST, allowed)
    there = windows[0] >= 0
    if not there.any():
        return query
    weights = np.exp(NEARNESS * (scores[0][there] - scores[0][there].max()))
    heard = (weights / weights.sum()) @ index.vectors(windows[0][there])
    return unit((1 - HALFWAY) * query + HALFWAY * heard)


def unit(vector: np.ndarray) -> np.ndarray:
    """`vector` [D] of length 1."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
