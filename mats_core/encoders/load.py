"""The encoder of a URI."""

from __future__ import annotations

from mats_core.encoders.base import ClapEncoder
from mats_core.encoders.facts import is_msclap
from mats_core.storage.uris import Uri, uri_text


def load_encoder(uri: Uri, device: str = "auto", dtype: str = "auto", *, tokenizer: Uri | None = None) -> ClapEncoder:
    """The encoder of a URI, ready to embed texts and audio.

    `hf:NAME`, or a bare directory or hub name, is a `ClapModel` of transformers; `msclap:FILE`, or a directory with its
    weights, is Microsoft's. dtype: "auto" is float32. tokenizer: of Microsoft's, GPT-2's: a directory or hub name.
    Raises SettingsError for anything missing or broken.
    """
    uri = uri_text(uri)
    if is_msclap(uri):
        from mats_core.encoders.msclap import MsClapEncoder

        return MsClapEncoder(
            uri, device=device, dtype=dtype, tokenizer=None if tokenizer is None else uri_text(tokenizer)
        )
    from mats_core.encoders.clap import HfClapEncoder

    return HfClapEncoder(uri, device=device, dtype=dtype)
