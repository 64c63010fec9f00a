"""The LLM's tokenizer, exactly as the model was trained with it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mats_core.errors import got_allowed


class SentencePieceTokenizer:
    """LLaMA's tokenizer from `tokenizer.model` alone, by the SentencePiece library itself.

    `transformers` converts such a file into a fast tokenizer and drops the file's own text normalisation on the way: a
    line break, which every prompt holds, may then become another token. Text never turns into special tokens here.
    """

    def __init__(self, file: Path) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise got_allowed("llm", str(file), 'a tokenizer.json, or "pip install sentencepiece" first') from None
        try:
            self._processor = SentencePieceProcessor(model_file=str(file))
        except (OSError, RuntimeError) as error:
            raise got_allowed("llm", str(file), f"a whole SentencePiece model ({error})") from None
        self.bos_token_id = self._known(self._processor.bos_id())
        self.eos_token_id = self._known(self._processor.eos_id())
        self.pad_token_id = self._known(self._processor.pad_id())

    @staticmethod
    def _known(token: int) -> int | None:
        return token if token >= 0 else None

    def __len__(self) -> int:
        return int(self._processor.vocab_size())

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """{"input_ids": ids}; with `add_special_tokens` BOS comes first."""
        head = [self.bos_token_id] if add_special_tokens and self.bos_token_id is not None else []
        return {"input_ids": head + list(self._processor.encode(text))}

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of ids; control tokens (BOS, end, unknown) fall away with `skip_special_tokens`."""
        kept = [int(token) for token in ids if 0 <= int(token) < len(self)]
        if skip_special_tokens:
            kept = [t for t in kept if not (self._processor.is_control(t) or self._processor.is_unknown(t))]
        return str(self._processor.decode(kept))


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer of an LLM directory: by `transformers`, or by SentencePiece where it is all there is."""
    if _sentencepiece_alone(folder):
        return SentencePieceTokenizer(folder / "tokenizer.model")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code, local_files_only=True)


def _sentencepiece_alone(folder: Path) -> bool:
    if (folder / "tokenizer.json").exists() or not (folder / "tokenizer.model").is_file():
        return False
    settings = folder / "tokenizer_config.json"
    values = json.loads(settings.read_bytes()) if settings.is_file() else {}
    return values.get("tokenizer_class", "LlamaTokenizer") in ("LlamaTokenizer", "LlamaTokenizerFast")
