"""The MATS model: CLAP embedding → mapper → vectors in an LLM's prompt → answer."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from mats_core.errors import got_allowed
from mats_core.model.asking import Answer, Reply, Request
from mats_core.model.config import (
    AdapterConfig,
    DecodingSettings,
    MapperConfig,
    ModelConfig,
    SantaSettings,
    TaskPrompt,
)
from mats_core.model.mapper import build_mapper
from mats_core.model.prompts import format_prompt, validate_request
from mats_core.model.tokens import PromptTokens, Sequences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mats_core.encoders.clap import ClapEncoder
    from mats_core.memory.santa import SantaMemory


@dataclass
class TargetScores:
    """What the LLM makes of each sample's target. All [B]: mean loss a token, tokens right, tokens."""

    loss: torch.Tensor
    correct: torch.Tensor
    tokens: torch.Tensor


class MatsModel:
    """A loaded model. Make one with `load_model(uri)` or, untrained, with `MatsModel.new(...)`."""

    def __init__(
        self,
        config: ModelConfig,
        mapper: torch.nn.Module,
        llm: Any,
        tokenizer: Any,
        *,
        encoder: ClapEncoder | None = None,
        memory: SantaMemory | None = None,
        parts: dict[str, str] | None = None,
        fingerprint: str = "",
    ) -> None:
        self.config, self.mapper, self.llm, self.tokenizer = config, mapper, llm, tokenizer
        self.encoder, self.memory = encoder, memory
        self.parts = parts or {}  # where encoder, llm and memory were read from
        self.fingerprint = fingerprint
        self.tokens = PromptTokens(tokenizer, config.mapper.vectors, config.max_target_tokens)
        told = getattr(self.causal_lm.config.get_text_config(), "max_position_embeddings", None)
        self.positions = max(0, told or 0)  # tokens the LLM was made to read and write; 0 where it does not say
        accepts = inspect.signature(self.causal_lm.forward).parameters
        self._keeps_logits = "logits_to_keep" in accepts

    # -- making one ------------------------------------------------------------------------------------

    @classmethod
    def new(
        cls,
        llm: str,
        *,
        encoder: str | None = None,
        embedding_dim: int | None = None,
        memory: str | None = None,
        mapper: MapperConfig | None = None,
        adapter: AdapterConfig | None = AdapterConfig(),
        tasks: dict[str, TaskPrompt] | None = None,
        wordings: str = "varied",
        noise_variance: float = 0.015,
        answer_style: str = "gentle",
        santa: SantaSettings | None = None,
        decoding: DecodingSettings | None = None,
        max_target_tokens: int = 150,
        seed: int = 0,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
    ) -> MatsModel:
        """An untrained model around an LLM directory and, unless `embedding_dim` is given, an encoder.

        adapter=None trains the mapper alone. Weights are drawn from `seed`, the same on every device.
        Raises SettingsError when a part is missing or does not fit.
        """
        from mats_core.model import llm as loading

        if encoder is None and embedding_dim is None:
            raise got_allowed("embedding_dim", None, "a size, when no encoder is given")
        place, number = loading.pick_device(device), loading.pick_dtype(dtype, device)
        language_model, tokenizer, llm_part = loading.load_llm(llm, place, number, trust_remote_code)
        listener, encoder_part = loading.load_encoder_part(encoder, place)
        dim = listener.dim if listener is not None else int(embedding_dim or 0)
        bank, memory_part = loading.load_memory_part(memory, encoder_part)
        hidden = int(language_model.get_input_embeddings().embedding_dim)
        config = ModelConfig(
            embedding_dim=dim,
            hidden_size=hidden,
            mapper=mapper or MapperConfig(),
            adapter=adapter,
            wordings=wordings,
            noise_variance=noise_variance,
            answer_style=answer_style,  # type: ignore[arg-type]
            max_target_tokens=max_target_tokens,
            encoder=encoder_part,
            llm=llm_part,
            memory=memory_part,
            santa=santa or SantaSettings(noise_variance=noise_variance),
            decoding=decoding or DecodingSettings(),
        )
        if tasks is not None:
            config = ModelConfig.model_validate({**config.model_dump(), "tasks": tasks})
        with _seeded(seed):
            network = build_mapper(config.mapper, dim, hidden)
            if adapter is not None:
                language_model = loading.add_adapter(language_model, adapter)
        network.to(place).eval()
        language_model.eval()
        where = {name: uri for name, uri in (("encoder", encoder), ("llm", llm), ("memory", memory)) if uri}
        return cls(config, network, language_model, tokenizer, encoder=listener, memory=bank, parts=where)

    # -- where it lives --------------------------------------------------------------------------------

    @property
    def causal_lm(self) -> Any:
        """The `transformers` causal LLM inside; LoRA layers, when there are any, are part of it."""
        return self.llm.get_base_model() if self.config.adapter is not None else self.llm

    @property
    def device(self) -> torch.device:
        return next(self.mapper.parameters()).device

    def save(self, uri: str | os.PathLike[str], include: Sequence[str] = (), **options: Any) -> None:
        """Write a model directory; see `checkpoint.save_model`."""
        from mats_core.model.directory import save_model

        save_model(self, uri, include, **options)

    # -- embedding → vectors → loss or text -------------------------------------------------------------

    def prefix(self, embedding: torch.Tensor) -> torch.Tensor:
        """Vectors for the LLM: [B, D] of any length → float32 [B, vectors, hidden]. Adds no noise.

        The embedding is normalised first. Gradients flow to the mapper.
        """
        embedding = torch.as_tensor(embedding, dtype=torch.float32, device=self.device)
        if embedding.ndim != 2 or embedding.shape[1] != self.config.embedding_dim:
            raise ValueError(f"embedding must be [B, {self.config.embedding_dim}], got {list(embedding.shape)}")
        return self.mapper(F.normalize(embedding, dim=-1))

    def _embed(self, ids: torch.Tensor, sound: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Token embeddings [B, T, H] with the prefix in the gaps."""
        words = self.causal_lm.get_input_embeddings()(ids)
        return words.masked_scatter(sound[..., None], prefix.to(words.dtype))

    def scores(self, prefix: torch.Tensor, prompts: Sequence[str], outputs: Sequence[str]) -> TargetScores:
        """Loss and accuracy of each sample's target after its prompt; prefix as from `prefix`."""
        return self.score(prefix, self.tokens.for_loss(prompts, outputs, self.device))

    def score(self, prefix: torch.Tensor, batch: Sequences) -> TargetScores:
        """`scores` of prompts and targets that are token ids already (`PromptTokens.for_loss`)."""
        assert batch.targets is not None
        inputs: dict[str, Any] = {"inputs_embeds": self._embed(batch.ids, batch.sound, prefix)}
        # Causal attention and right padding: no mask needed, and none is faster.
        keep = batch.ids.shape[1] - batch.first_target + 1  # the position before a token predicts it
        if self._keeps_logits:
            inputs["logits_to_keep"] = keep
        logits = self.causal_lm(**inputs, use_cache=False).logits[:, -keep:-1]
        targets = batch.targets[:, batch.first_target :]
        rows, columns = torch.nonzero(targets != -100, as_tuple=True)
        wanted = targets[rows, columns]
        picked = logits[rows, columns].float()  # [target tokens of the batch, vocabulary]
        if self.config.pad_row:
            picked = F.pad(picked, (0, 1))
        each = F.cross_entropy(picked, wanted, reduction="none")
        zeros = torch.zeros(len(targets), device=each.device)
        tokens = zeros.index_add(0, rows, torch.ones_like(each))
        correct = zeros.index_add(0, rows, (picked.detach().argmax(-1) == wanted).float())
        return TargetScores(zeros.index_add(0, rows, each) / tokens, correct, tokens)

    def loss(self, embedding: torch.Tensor, prompts: Sequence[str], outputs: Sequence[str]) -> torch.Tensor:
        """Mean cross-entropy of each sample's answer and end token: [B]. Adds no noise.

        prompts: whole strings with `<SpeechHere>` where the vectors go; outputs: answers without end token.
        A sample's loss does not depend on its batch.
        """
        return self.scores(self.prefix(embedding), prompts, outputs).loss

    @torch.inference_mode()
    def generate(
        self,
        embedding: torch.Tensor,
        prompts: Sequence[str],
        settings: DecodingSettings | dict[str, Any] | None = None,
        return_ids: bool = False,
    ) -> Any:
        """Answers before clean-up, one a row: list[str]; with `return_ids` also list[list[int]].

        embedding: [B, D], after Santa where Santa is wanted; no noise is added. prompts: whole strings.
        settings: over the model's own decoding. Ids are those generated, the end token included where one was.
        """
        from transformers import GenerationConfig, LogitsProcessorList

        from mats_core.generation.repetition import NoRepetition

        chosen = self.config.decoding.updated(settings)
        batch = self.tokens.for_generation(prompts, self.device)
        words = self._embed(batch.ids, batch.sound, self.prefix(embedding))
        beams: dict[str, Any] = {}
        if chosen.beams > 1:
            beams["length_penalty"] = chosen.length_penalty
        ids = self.causal_lm.generate(
            inputs_embeds=words,
            logits_processor=LogitsProcessorList([NoRepetition(chosen.repetition_penalty, chosen.no_repeat_ngram)]),
            attention_mask=batch.real.long(),  # `generate` counts positions from it, so padding takes none
            generation_config=GenerationConfig(
                num_beams=chosen.beams,
                do_sample=False,
                max_new_tokens=chosen.max_new_tokens,
                min_new_tokens=max(chosen.min_length - 1, 0) or None,
                pad_token_id=self.tokens.eos,
                bos_token_id=self.tokenizer.bos_token_id,
                eos_token_id=self.tokens.eos,
                **beams,
            ),
        )
        rows = [self._until_end(row) for row in ids.tolist()]
        texts = [self.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        return (texts, rows) if return_ids else texts

    def _until_end(self, ids: list[int]) -> list[int]:
        return ids[: ids.index(self.tokens.eos) + 1] if self.tokens.eos in ids else ids

    # -- sound and questions → answers (answering.py) ----------------------------------------------------

    def validate_request(self, task: str, question: str | None = None, tag: str | None = None) -> None:
        """SettingsError for an unknown task, QA without a question, or a text that holds the sound's place."""
        validate_request(task, question, tuple(self.config.tasks), tag)

    def prompt(self, task: str, question: str | None = None, tag: str | None = None) -> str:
        """The whole prompt for a request. A question replaces the task's instruction, a tag the task's tag."""
        self.validate_request(task, question, tag)
        known = self.config.tasks[task]
        asked = question.strip() if question and question.strip() else known.instruction
        return format_prompt(asked, known.tag if tag is None else tag, self.config.prompt_template)

    def embed_windows(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Unit embeddings float32 [N, D] of windows [T] (float32, or int16 divided by 32768)."""
        from mats_core.model.asking import embed_windows

        return embed_windows(self, windows)

    def answer_embeddings(
        self,
        embedding: Any,
        requests: Sequence[Request],
        decoding: DecodingSettings | dict[str, Any] | None = None,
        santa: SantaSettings | dict[str, Any] | None = None,
        explain: bool = False,
    ) -> list[Reply]:
        """Santa → vectors → LLM → clean-up for embeddings [B, D] before Santa; one reply a row."""
        from mats_core.model.asking import answer_embeddings

        return answer_embeddings(self, embedding, requests, decoding, santa, explain)

    def answers(self, source: Any, task: str = "caption", **asked: Any) -> list[Answer]:
        """One answer a chunk of about a minute; see `answering.answers`."""
        from mats_core.model.asking import answers

        return answers(self, source, task, **asked)

    def answer(self, source: Any, task: str = "caption", **asked: Any) -> str:
        """The chunks' answers, one a line. source: path, URI, or (waveform float32 [T], sample rate)."""
        return "\n".join(part.text for part in self.answers(source, task, **asked))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from `seed`, then give the global CPU generator back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def load_model(uri: str | os.PathLike[str], device: str = "auto", dtype: str = "auto", **options: Any) -> MatsModel:
    """Load a model directory; `"builtin"` is the embedded one. See `checkpoint.load_model`."""
    from mats_core.model.directory import load_model as load

    return load(uri, device, dtype, **options)


__all__ = ["Answer", "MatsModel", "Reply", "Request", "TargetScores", "load_model"]
