"""How much memory a model takes on its device, by the sizes of its files, and whether a GPU has it. No torch here."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mats_core.encoders.facts import is_msclap, read_hearing, split_uri, weights_file
from mats_core.errors import SettingsError
from mats_core.generation.slots import (
    PROMPT_TOKENS,
    SPARE,
    LlmSizes,
    choose_slots,
    llm_sizes,
    reading_bytes,
    slot_bytes,
)
from mats_core.model.config import PACKED
from mats_core.model.directory import check_model_dir, part_uri, resolve
from mats_core.pretrained import weight_shapes
from mats_core.storage.descriptions import read_object, read_shapes
from mats_core.storage.fetch import local_directory

HEARD_WINDOWS = 64
"""Windows an encoder takes at once."""
_TABLE = re.compile(r"embed_tokens|wte|wpe|lm_head")
DEVICE_BYTES = 600_000_000
"""What a process takes of a GPU before it has done anything."""
HEARING = 45
"""Bytes an encoder works with, for each byte of float32 samples that it hears at once: 40 measured of HTSAT."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that a model takes on its device: LLM, mapper and encoder, and `hearing`, what the encoder works with.

    sizes: the LLM's, None where its config.json does not say them; number_bytes: of one of the numbers it computes
    with; beams, answer_tokens: of the longest answer; llm_dtype: what the LLM is kept in.
    """

    llm: int
    mapper: int
    encoder: int
    hearing: int
    sizes: LlmSizes | None
    number_bytes: int
    beams: int
    answer_tokens: int
    llm_dtype: str

    @property
    def held(self) -> int:
        """What stays there beside the answers."""
        return self.llm + self.mapper + self.encoder + self.hearing + DEVICE_BYTES

    @property
    def writing(self) -> int:
        """What prompts are read with, and one answer is written in."""
        if self.sizes is None:
            return 0
        one = slot_bytes(self.sizes, PROMPT_TOKENS, self.answer_tokens, self.beams, self.number_bytes)
        return reading_bytes(self.sizes, self.number_bytes) + one

    @property
    def total(self) -> int:
        """Below this nothing can be answered."""
        return int((self.held + self.writing) / (1 - SPARE))

    def slots(self, free: int) -> int:
        """How many answers are written at once where so many bytes are free before the model is there; 0: it does not
        fit."""
        if self.total > free:
            return 0
        if self.sizes is None:
            return 1
        answer = (PROMPT_TOKENS, self.answer_tokens, self.beams, self.number_bytes)
        return max(1, choose_slots(free - self.held, self.sizes, *answer))

    def __str__(self) -> str:
        work = (self.total - self.llm - self.encoder - self.mapper) / 1e9
        parts = (self.llm / 1e9, self.encoder / 1e9, self.mapper / 1e9)
        inside = "LLM {:.1f} in {}, encoder {:.1f}, mapper {:.1f}, {:.1f} to work in"
        return f"{self.total / 1e9:.1f} GB ({inside.format(parts[0], self.llm_dtype, *parts[1:], work)})"


def read_needs(
    uri: str,
    allow_parts: Sequence[str] = (),
    *,
    llm_dtype: str = "bfloat16",
    encoder_dtype: str = "float32",
    mapper_dtype: str = "float32",
    beams: int | None = None,
    max_new_tokens: int | None = None,
    encoder: bool = True,
) -> MemoryNeeds:
    """What a model needs in these number types, by the sizes of its files. encoder=False: where it is left out.

    beams, max_new_tokens: the model's own where they are not given. Raises SettingsError for a model that is not whole.
    """
    config = check_model_dir(uri, allow_parts)
    folder = resolve(uri)
    llm = local_directory(str(part_uri(folder, config.llm)), "llm")
    each = 2 if llm_dtype in PACKED else _BYTES[llm_dtype]
    stated = read_object(llm / "config.json", "llm") if (llm / "config.json").is_file() else {}
    heard, hearing = part_uri(folder, config.encoder) if encoder else None, 0
    if heard is not None:
        rate, window_s = read_hearing(heard)
        hearing = int(HEARING * 4 * rate * window_s * HEARD_WINDOWS)
    return MemoryNeeds(
        llm=_llm_bytes(llm, each, PACKED.get(llm_dtype)),
        mapper=_numbers(folder / "mapper.safetensors") * _BYTES[mapper_dtype],
        encoder=_numbers(_weights_of(heard)) * _BYTES[encoder_dtype] if heard is not None else 0,
        hearing=hearing, sizes=llm_sizes(stated), number_bytes=each, llm_dtype=llm_dtype,
        beams=beams or config.decoding.beams, answer_tokens=max_new_tokens or config.decoding.max_new_tokens,
    )  # fmt: skip


def _weights_of(encoder: str) -> Path:
    """Where an encoder's weights are on this machine: a file, or a folder."""
    return weights_file(split_uri(encoder)[0]) if is_msclap(encoder) else local_directory(encoder, "encoder")


def _numbers(place: Path) -> int:
    """How many numbers the weights in a file or folder are, by their headers; of pickles, by their size as float32."""
    files = [place] if place.is_file() else sorted(place.glob("*"))
    tensors = [file for file in files if file.suffix == ".safetensors"]
    if tensors:
        return sum(math.prod(shape) for file in tensors for shape in read_shapes(file, "model").values())
    return sum(file.stat().st_size for file in files if file.suffix in (".bin", ".pth")) // 4


def _llm_bytes(folder: Path, each: int, bits: int | None) -> int:
    """Bytes of an LLM whose numbers take `each`; bits: of those in linear layers, where they are packed."""
    shapes = weight_shapes(folder, "llm")
    if shapes is None:  # pickles, in the type that its config.json says
        stated = read_object(folder / "config.json", "llm")
        width = _BYTES.get(str(stated.get("torch_dtype") or stated.get("dtype")).removeprefix("torch."), 2)
        numbers = sum(file.stat().st_size for file in folder.glob("*.bin")) // width
        tables = 2 * int(stated.get("vocab_size") or 0) * int(stated.get("hidden_size") or stated.get("n_embd") or 0)
    else:
        numbers = sum(math.prod(shape) for shape in shapes.values())
        tables = sum(math.prod(shape) for name, shape in shapes.items() if _TABLE.search(name))
    if bits is None:
        return numbers * each
    return tables * each + int((numbers - tables) * (bits / 8 + 4 / 128))  # and scales, at most two a 128 numbers


def check_card(
    uri: str,
    allow_parts: Sequence[str],
    card: str,
    memory: tuple[int, int] | None,
    *,
    llm_dtype: str,
    mapper_dtype: str = "float32",
    encoder_dtype: str = "float32",
    encoder: bool = True,
) -> None:
    """SettingsError where a GPU called `card` has no room for a model; see `read_needs`.

    memory: (free, all) bytes of the GPU; None on a CPU, which pages.
    """
    if memory is None:
        return
    asked = partial(
        read_needs, uri, allow_parts, mapper_dtype=mapper_dtype, encoder_dtype=encoder_dtype, encoder=encoder
    )
    needs = asked(llm_dtype=llm_dtype)
    free, total = memory
    if needs.total <= free:
        return
    remedy = "choose a larger card, or --device cpu"
    if needs.total <= total:
        remedy = f"free it from what else runs there, {remedy}"
    if llm_dtype not in PACKED:
        smaller = asked(llm_dtype="int8")
        if smaller.total <= free:
            remedy = f"give --llm-dtype int8 (needs {smaller.total / 1e9:.1f} GB), {remedy}"
    why = f"the model needs {needs}, and {card} has {free / 1e9:.1f} GB free of {total / 1e9:.1f}"
    raise SettingsError("device", why, remedy)
