"""From a model directory to a `MatsModel`. Weights are safetensors; nothing in the directory is ever executed."""

from __future__ import annotations

import os

import torch

from mats_core.device import pick_device, pick_dtype
from mats_core.errors import SettingsError
from mats_core.model.config import Part
from mats_core.model.directory import PARTS, model_fingerprint, part_uri, read_config, resolve
from mats_core.model.llm import add_adapter, check_rank, load_adapter, load_llm
from mats_core.model.mapper import build_mapper
from mats_core.model.model import MatsModel, load_encoder_part, load_memory_part
from mats_core.weights import load_weights, read_tensors


def load_model(
    uri: str | os.PathLike[str],
    device: str = "auto",
    dtype: str = "auto",
    *,
    trust_remote_code: bool = False,
    encoder: bool = True,
    memory: bool = True,
    merge_adapter: bool | None = None,
) -> MatsModel:
    """Load a model directory and everything it names; "builtin" is the embedded model.

        model = load_model("builtin")
        print(model.answer("street.wav"))
        print(model.answer("street.wav", "QA", question="Is a dog barking?"))

    uri: a local directory, or the URL of one, which is downloaded once. device: "auto" is the first GPU where there is
    one. dtype: of the LLM; "auto" is bfloat16 on CUDA and float32 on CPU. trust_remote_code: let an LLM that brings
    Python files of its own run them. encoder=False or memory=False leaves that part out (the model then answers
    embeddings only; answers without Santa). merge_adapter: add LoRA into the LLM's weights, which is faster and, in
    float32, exact; by default that is done in float32 only.
    Raises SettingsError for anything missing, broken or of another model.
    """
    uri = os.fspath(uri)
    folder = resolve(uri)
    config = read_config(folder, uri)
    place, number = pick_device(device), pick_dtype(dtype, device)
    where = {name: part_uri(folder, getattr(config, name)) for name in PARTS}
    llm, tokenizer, llm_part = load_llm(str(where["llm"]), place, number, trust_remote_code)
    _same("llm", where["llm"], config.llm, llm_part)
    hidden = int(llm.get_input_embeddings().embedding_dim)
    if hidden != config.hidden_size:
        why = f"{where['llm']} is {hidden} wide, and this model needs an LLM {config.hidden_size} wide"
        raise SettingsError("llm", why, "give the LLM this model was made with")
    with torch.device("meta"):  # shapes alone, until they are known to be those of the file
        mapper = build_mapper(config.mapper, config.embedding_dim, hidden)
    load_weights(mapper, read_tensors(folder / "mapper.safetensors", "model"), "mapper.safetensors")
    if config.adapter is not None:
        state = read_tensors(folder / "adapter" / "adapter_model.safetensors", "model")
        check_rank(state, config.adapter.rank)
        llm = add_adapter(llm, config.adapter)
        load_adapter(llm, state)
        if merge_adapter if merge_adapter is not None else number is torch.float32:
            llm.merge_adapter()
    clap, encoder_part = load_encoder_part(where["encoder"] if encoder else None, place)
    _same("encoder", where["encoder"], config.encoder, encoder_part)
    bank, memory_part = load_memory_part(where["memory"] if memory else None, config.encoder)
    _same("memory", where["memory"], config.memory, memory_part)
    llm.requires_grad_(False)
    return MatsModel(
        config,
        mapper.to(place).eval(),
        llm.to(place).eval(),
        tokenizer,
        encoder=clap,
        memory=bank,
        parts={name: path for name, path in where.items() if path},
        fingerprint=model_fingerprint(folder, config),
    )


def _same(name: str, where: str | None, recorded: Part | None, found: Part | None) -> None:
    """SettingsError where a part is another one than `mats.json` records."""
    if recorded is None or found is None or recorded.fingerprint in ("", found.fingerprint):
        return
    raise SettingsError(
        name,
        f"{where} is {found.fingerprint[:12]}, and this model was made with {recorded.fingerprint[:12]}",
        f"give the {name} this model was made with",
    )
