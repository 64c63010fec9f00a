"""The MATS model: CLAP embedding → mapper → vectors in an LLM's prompt → answer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from mats_core.confidence.calibration import read_calibration
from mats_core.confidence.scores import Beam
from mats_core.device import card_memory, dtype_name, exact_float32, pick_device, pick_dtype
from mats_core.encoders.base import ClapEncoder, stack_windows
from mats_core.encoders.facts import refuse_other_memory
from mats_core.encoders.load import load_encoder
from mats_core.errors import SettingsError
from mats_core.generation.beam_search import Written
from mats_core.generation.writer import Writer
from mats_core.memory.bridges import Bridge, BridgeSettings, prompt_with_captions
from mats_core.memory.santa import SantaMemory
from mats_core.model.asking import Answering, Reply, Request
from mats_core.model.config import (
    PACKED,
    AdapterConfig,
    DecodingSettings,
    MapperConfig,
    ModelConfig,
    Part,
    SantaSettings,
    TaskPrompt,
)
from mats_core.model.directory import PARTS, model_fingerprint, part_uri, read_config, recorded_uri, resolve, save_model
from mats_core.model.hearing import clips
from mats_core.model.llm import add_adapter, check_rank, load_adapter, load_llm, merge_lora, pack_weights
from mats_core.model.mapper import build_mapper
from mats_core.model.needs import check_card
from mats_core.model.prompts import clean_answer, format_prompt, validate_request
from mats_core.model.tokens import PromptTokens, Sequences
from mats_core.storage.fetch import local_directory
from mats_core.storage.uris import Uri, uri_text
from mats_core.weights import load_weights, outline, read_tensors

LORA = AdapterConfig()


@dataclass
class TargetScores:
    """What the LLM makes of each sample's target. All [B]: mean loss a token, tokens right, tokens."""

    loss: torch.Tensor
    correct: torch.Tensor
    tokens: torch.Tensor


class MatsModel(Answering):
    """A model that answers questions about sound. Make one with `load_model(uri)` or, untrained, `MatsModel.new(...)`.

        model = load_model("builtin")
        model.answer("street.wav")                                        # a caption
        model.answer("street.wav", "QA", question="Is a dog barking?")
        model.answers("street.wav", segments=True)                        # with times, a window each

    Attributes: `config`, everything but weights; `encoder` and `memory`, None where it was loaded without;
    `fingerprint`, which model it is; `device`; `number_types`. Its answers do not depend on what is asked beside them.
    """

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
        self.packed: str | None = None  # "int8" or "int4", where the LLM's weights are kept so
        self.tokens = PromptTokens(tokenizer, config.mapper.vectors, config.max_target_tokens)
        self.writer = Writer(self.causal_lm, bos=tokenizer.bos_token_id, end=self.tokens.eos)
        positions = getattr(self.causal_lm.config.get_text_config(), "max_position_embeddings", None)
        self.positions = max(0, positions or 0)  # tokens the LLM was made to read and write; 0 where it does not say
        self._takes_logits_to_keep = "logits_to_keep" in inspect.signature(self.causal_lm.forward).parameters

    @classmethod
    def new(
        cls,
        llm: Uri,
        *,
        encoder: Uri | None = None,
        embedding_dim: int | None = None,
        memory: Uri | None = None,
        seed: int = 0,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
        mapper: MapperConfig | None = None,
        adapter: AdapterConfig | None = LORA,
        prompt_template: str | None = None,
        tasks: dict[str, TaskPrompt] | None = None,
        long_tag: str | None = None,
        wordings: str | None = None,
        max_target_tokens: int | None = None,
        noise_variance: float | None = None,
        pad_row: bool | None = None,
        answer_style: Literal["gentle", "reference"] | None = None,
        santa: SantaSettings | None = None,
        decoding: DecodingSettings | None = None,
    ) -> MatsModel:
        """An untrained model around an LLM directory and, unless `embedding_dim` is given, an encoder.

        mapper, prompt_template and what follows: `ModelConfig`'s, and its defaults; adapter=None trains the mapper
        alone. Weights are drawn from `seed`, alike on every device. Raises SettingsError for a part that does not fit.
        """
        if encoder is None and embedding_dim is None:
            raise SettingsError("embedding_dim", "neither it nor an encoder is given", "give one of them")
        place, number = pick_device(device), pick_dtype(dtype, device)
        language_model, tokenizer, llm_part = load_llm(uri_text(llm), place, number, trust_remote_code)
        clap, encoder_part = load_encoder_part(encoder, place)
        dim = clap.dim if clap is not None else int(embedding_dim or 0)
        bank, memory_part = load_memory_part(memory, encoder_part)
        hidden = int(language_model.get_input_embeddings().embedding_dim)
        santa = santa or (None if noise_variance is None else SantaSettings(noise_variance=noise_variance))
        chosen = {
            "mapper": mapper, "prompt_template": prompt_template, "tasks": tasks, "long_tag": long_tag,
            "wordings": wordings, "max_target_tokens": max_target_tokens, "noise_variance": noise_variance,
            "pad_row": pad_row, "answer_style": answer_style, "santa": santa, "decoding": decoding,
        }  # fmt: skip
        given = {"adapter": adapter, **{name: value for name, value in chosen.items() if value is not None}}
        parts = {"encoder": encoder_part, "llm": llm_part, "memory": memory_part}
        config = ModelConfig(embedding_dim=dim, hidden_size=hidden, **parts, **given)
        with torch.random.fork_rng(devices=[]):  # the global CPU generator is given back as it was
            torch.manual_seed(seed)
            network = build_mapper(config.mapper, dim, hidden)
            if config.adapter is not None:
                language_model = add_adapter(language_model, config.adapter)
        network.to(place).eval()
        language_model.eval()
        where = {name: uri_text(uri) for name, uri in (("encoder", encoder), ("llm", llm), ("memory", memory)) if uri}
        return cls(config, network, language_model, tokenizer, encoder=clap, memory=bank, parts=where)

    def __repr__(self) -> str:
        parts = [name for name in ("encoder", "memory") if getattr(self, name) is not None]
        own = f"{self.fingerprint[:12] or 'untrained'}, {self.number_types['llm']} on {self.device}"
        return f"MatsModel({own}; with {' and '.join(parts) or 'neither encoder nor memory'})"

    @property
    def causal_lm(self) -> Any:
        """The `transformers` causal LLM inside; LoRA layers, when there are any, are part of it."""
        return self.llm.get_base_model() if self.config.adapter is not None else self.llm

    @property
    def device(self) -> torch.device:
        """Where the mapper is, and with it the whole model."""
        return next(self.mapper.parameters()).device

    @property
    def number_types(self) -> dict[str, str]:
        """What LLM, mapper and encoder are kept in: "float32", "bfloat16", …; of the LLM also "int8" or "int4"."""
        types = {"llm": self.packed or dtype_name(self.causal_lm.dtype), "mapper": dtype_name(self._mapper_dtype)}
        return types | ({"encoder": dtype_name(self.encoder.dtype)} if self.encoder is not None else {})

    @property
    def _mapper_dtype(self) -> torch.dtype:
        return next(self.mapper.parameters()).dtype

    def save(self, uri: Uri, include: Sequence[str] = (), *, weights: str = "float32") -> None:
        """Write a model directory that `load_model` reads.

        uri: a local directory, made when missing. include: which of "encoder", "llm" and "memory" are copied inside;
        the others are named by URI. weights: "float32", or "float16" for half the size (mapper and adapter rounded).
        Raises SettingsError where it cannot be written.
        """
        save_model(uri_text(uri), self.config, self.mapper, self.llm, self.parts, include, weights)

    @exact_float32()
    def prefix(self, embedding: torch.Tensor) -> torch.Tensor:
        """Vectors for the LLM: [B, D] of any length → float32 [B, vectors, hidden]. Adds no noise.

        The embedding is normalised first. Gradients flow to the mapper.
        """
        embedding = torch.as_tensor(embedding, dtype=torch.float32, device=self.device)
        if embedding.ndim != 2 or embedding.shape[1] != self.config.embedding_dim:
            raise ValueError(f"embedding must be [B, {self.config.embedding_dim}], got {list(embedding.shape)}")
        return self.mapper(F.normalize(embedding, dim=-1).to(self._mapper_dtype)).float()

    def _embed(self, ids: torch.Tensor, sound: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Token embeddings [B, T, H] with the prefix in the gaps."""
        words = self.causal_lm.get_input_embeddings()(ids)  # [B, T, H]
        return words.masked_scatter(sound[..., None], prefix.to(words.dtype))

    @exact_float32()
    def score(self, prefix: torch.Tensor, batch: Sequences) -> TargetScores:
        """Loss and accuracy of each sample's target after its prompt; prefix as from `prefix`, batch of `for_loss`."""
        assert batch.targets is not None
        inputs: dict[str, Any] = {"inputs_embeds": self._embed(batch.ids, batch.sound, prefix)}
        # Causal attention and right padding: no mask needed, and none is faster.
        keep = batch.ids.shape[1] - batch.first_target + 1  # the position before a token predicts it
        if self._takes_logits_to_keep:
            inputs["logits_to_keep"] = keep
        logits = self.causal_lm(**inputs, use_cache=False).logits[:, -keep:-1]  # [B, keep − 1, vocabulary]
        targets = batch.targets[:, batch.first_target :]  # [B, keep − 1]
        rows, columns = torch.nonzero(targets != -100, as_tuple=True)  # both [N], target tokens of the batch
        wanted = targets[rows, columns]  # [N]
        picked = logits[rows, columns].float()  # [N, vocabulary]
        if self.config.pad_row:
            picked = F.pad(picked, (0, 1))
        each = F.cross_entropy(picked, wanted, reduction="none")  # [N]
        zeros = torch.zeros(len(targets), device=each.device)  # [B]
        tokens = zeros.index_add(0, rows, torch.ones_like(each))
        correct = zeros.index_add(0, rows, (picked.detach().argmax(-1) == wanted).float())
        return TargetScores(zeros.index_add(0, rows, each) / tokens, correct, tokens)

    def loss(self, embedding: torch.Tensor, prompts: Sequence[str], outputs: Sequence[str]) -> torch.Tensor:
        """Mean cross-entropy of each sample's answer and end token: [B]. Adds no noise.

        prompts: whole strings with `<SpeechHere>` where the vectors go; outputs: answers without end token.
        A sample's loss does not depend on its batch.
        """
        return self.score(self.prefix(embedding), self.tokens.for_loss(prompts, outputs, self.device)).loss

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
        rows = [written.ids for written in self.write(embedding, prompts, settings)]
        texts = [self.text(row) for row in rows]
        return (texts, rows) if return_ids else texts

    def text(self, ids: Sequence[int]) -> str:
        """The words of token ids that the LLM wrote, without BOS and end."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    @torch.inference_mode()
    @exact_float32()
    def write(
        self,
        embedding: torch.Tensor,
        prompts: Sequence[str],
        settings: DecodingSettings | dict[str, Any] | None = None,
        slots: int | None = None,
        keep: int = 1,
    ) -> list[Written]:
        """As `generate`: the ids with their log-probabilities, and inside them those of the `keep` best beams.

        slots: prompts answered at once. Calls from several threads share them.
        """
        chosen = self.config.decoding.updated(settings)
        return self.writer.write(self.prompt_vectors(embedding, prompts), chosen, slots=slots, keep=keep)

    def prompt_vectors(self, embedding: torch.Tensor, prompts: Sequence[str]) -> list[torch.Tensor]:
        """What the LLM reads, [T, H] a prompt: its words and, in the gap, the sound's vectors. embedding: [B, D]."""
        batch = self.tokens.for_generation(prompts, self.device)
        words = self._embed(batch.ids, batch.sound, self.prefix(embedding))  # [B, T, H]
        return [row[:count] for row, count in zip(words, batch.lengths, strict=True)]

    def validate_request(self, task: str, question: str | None = None, tag: str | None = None) -> None:
        """SettingsError for an unknown task, QA without a question, or a text that holds the sound's place."""
        validate_request(task, question, tuple(self.config.tasks), tag)

    def prompt(self, task: str, question: str | None = None, tag: str | None = None) -> str:
        """The whole prompt for a request. A question replaces the task's instruction, a tag the task's tag."""
        self.validate_request(task, question, tag)
        known = self.config.tasks[task]
        asked = question.strip() if question and question.strip() else known.instruction
        return format_prompt(asked, known.tag if tag is None else tag, self.config.prompt_template)

    def stack_windows(self, windows: Sequence[np.ndarray]) -> torch.Tensor:
        """Windows [T] at the encoder's rate, int16 or float32 in [-1, 1] → [W, window samples] for `embed_windows`.

        One shorter than the encoder's is padded by its own rule. Safe in a thread, while the model is at other work.
        """
        encoder = clips.model_encoder(self)
        return stack_windows(windows, encoder.pad, pinned=self.device.type == "cuda")

    def embed_windows(self, windows: Sequence[np.ndarray] | torch.Tensor) -> np.ndarray:
        """Unit embeddings float32 [W, D] of windows [T] as `stack_windows` takes or makes them, in the order given.

        Raises SettingsError where the model has no encoder.
        """
        encoder = clips.model_encoder(self)
        if not len(windows):
            return np.zeros((0, encoder.dim), np.float32)
        stacked = windows if isinstance(windows, torch.Tensor) else self.stack_windows(windows)  # [W, T]
        return encoder.embed_audio(stacked).cpu().numpy()

    @exact_float32()
    def answer_embeddings(
        self,
        embedding: Any,
        requests: Sequence[Request],
        decoding: DecodingSettings | dict[str, Any] | None = None,
        santa: SantaSettings | dict[str, Any] | None = None,
        explain: bool = False,
        bridge: Bridge | None = None,
        slots: int | None = None,
        keep: int = 1,
    ) -> list[Reply]:
        """A reply to each embedding [B, D] and its request; a function of its own row alone.

        The embeddings are a CLAP encoder's, before Santa. decoding and santa: over the model's own settings, a dict
        replacing only what it names; Santa is skipped where the model has no memory or `mix` is 0. bridge: another way
        across the gap between audio and text than Santa. explain=True lists the memory entries used. slots: answers
        written at once (default: as many as suit the device). keep: beams that a reply tells of.
        Raises SettingsError for a request that cannot be answered, or that the LLM has no room for.
        """
        audio = torch.as_tensor(embedding, dtype=torch.float32, device=self.device)  # [B, D]; the bridge normalises
        if len(audio) != len(requests):
            raise ValueError(f"{len(audio)} embeddings for {len(requests)} requests")
        if not requests:
            return []
        bridge = bridge or Bridge(BridgeSettings(), self.memory)
        retrieves = bridge.settings.kind == "retrieval"
        entries: list[Any] = [None] * len(audio)
        moved = bridge.move(audio, self.config.santa.updated(santa), explain=explain or retrieves)
        if explain or retrieves:
            moved, entries = moved
        prompts = []
        for each, near in zip(requests, entries, strict=True):
            question = each.question
            if retrieves:
                asked = question if question and question.strip() else self.config.tasks[each.task].instruction
                question = prompt_with_captions(asked, [entry["caption"] for entry in near])
            prompts.append(self.prompt(each.task, question, each.tag))
        self._check_room(prompts, self.config.decoding.updated(decoding))
        told = ((each, *each.others) for each in self.write(moved, prompts, decoding, slots=slots, keep=keep))
        style = self.config.answer_style
        said = [
            tuple(Beam(clean_answer(self.text(w.ids), style), len(w.ids), w.logprob_sum) for w in row) for row in told
        ]
        alike = F.cosine_similarity(audio, moved, dim=-1).tolist()  # [B]
        found = zip(said, entries if explain else [None] * len(said), alike, strict=True)
        return [Reply(beams[0].text, beams[0].tokens, near, beams, cosine) for beams, near, cosine in found]

    def _check_room(self, prompts: Sequence[str], decoding: DecodingSettings) -> None:
        """SettingsError where prompt and longest answer are more tokens than the LLM was made for."""
        longest = max(len(self.tokens.prompt(prompt)[0]) for prompt in set(prompts))
        if self.positions and longest + decoding.max_new_tokens > self.positions:
            why = f"its prompt has {longest} tokens and the answer up to {decoding.max_new_tokens} (max_new_tokens)"
            remedy = "ask something shorter, or lower max_new_tokens"
            raise SettingsError("question", f"{why}, but the LLM was made for {self.positions}", remedy)


def load_encoder_part(uri: Uri | None, device: torch.device, dtype: str = "float32") -> tuple[Any, Part | None]:
    """The encoder and which it is; (None, None) without one."""
    if uri is None:
        return None, None
    encoder = load_encoder(uri_text(uri), device=str(device), dtype=dtype)
    return encoder, Part(uri=recorded_uri(uri_text(uri)), fingerprint=encoder.fingerprint)


def load_memory_part(uri: Uri | None, encoder: Part | None) -> tuple[Any, Part | None]:
    """The Santa memory and which it is; (None, None) without one, SettingsError for one of another encoder."""
    if uri is None:
        return None, None
    uri = uri_text(uri)
    memory = SantaMemory.load(uri)
    if encoder is not None:
        refuse_other_memory(uri, memory.encoder_fingerprint, encoder.fingerprint)
    return memory, Part(uri=recorded_uri(uri), fingerprint=memory.fingerprint)


def load_model(
    uri: Uri,
    device: str = "auto",
    dtype: str = "auto",
    *,
    encoder_dtype: str = "float32",
    mapper_dtype: str = "float32",
    trust_remote_code: bool = False,
    encoder: bool = True,
    memory: bool = True,
    merge_adapter: bool = True,
    allow_parts: Sequence[str] = (),
) -> MatsModel:
    """Load a model directory and everything it names; "builtin" is the embedded model.

    uri: a local directory, or the URL of one, which is downloaded once. device: "auto" is the first GPU where there is
    one. dtype: of the LLM; "auto" is bfloat16 on CUDA and float32 on CPU; "int8" and "int4" keep its weights in so few
    bits (the extra `lowbit`; int4 on a GPU alone). encoder_dtype, mapper_dtype: float32, bfloat16 or float16; they are
    a hundredth of the work, so the default is exact. A spectrogram is made in at least float32 whatever they are.
    trust_remote_code: let an LLM that brings Python files of its own run them. encoder=False or memory=False leaves
    that part out (the model then answers embeddings only; answers without Santa). merge_adapter: add LoRA into the
    LLM's weights, in float32 and rounded once; False for a model that is to be trained. allow_parts: places (folders,
    URLs) outside the model directory where its `mats.json` may say that a part is; those you gave when you made it need
    not be named. Raises SettingsError for anything missing, broken or of another model, and where a GPU is too small.
    """
    uri = uri_text(uri)
    config = read_config(folder := resolve(uri), uri, allow_parts)
    place, mapper_number = pick_device(device), pick_dtype(mapper_dtype, device, "mapper_dtype")
    number = pick_dtype("auto" if dtype in PACKED else dtype, device)
    where = {name: part_uri(folder, getattr(config, name)) for name in PARTS}
    types = {"llm_dtype": dtype if dtype in PACKED else dtype_name(number), "mapper_dtype": mapper_dtype}
    check_card(uri, allow_parts, str(place), card_memory(place), encoder=encoder, encoder_dtype=encoder_dtype, **types)
    begin = torch.device("cpu") if dtype in PACKED else place  # packed, it may fit where whole it would not
    llm, tokenizer, llm_part = load_llm(str(where["llm"]), begin, number, trust_remote_code)
    _same("llm", where["llm"], config.llm, llm_part)
    hidden = int(llm.get_input_embeddings().embedding_dim)
    if hidden != config.hidden_size:
        why = f"{where['llm']} is {hidden} wide, and this model needs an LLM {config.hidden_size} wide"
        raise SettingsError("llm", why, "give the LLM this model was made with")
    # shapes alone, until they are known to be those of the file
    mapper = outline(lambda: build_mapper(config.mapper, config.embedding_dim, hidden))
    load_weights(mapper, read_tensors(folder / "mapper.safetensors", "model"), "mapper.safetensors")
    if config.adapter is not None:
        state = read_tensors(folder / "adapter" / "adapter_model.safetensors", "model")
        check_rank(state, config.adapter.rank)
        llm = add_adapter(llm, config.adapter)
        load_adapter(llm, state)
        if merge_adapter:
            merge_lora(llm, local_directory(str(where["llm"]), "llm", code=trust_remote_code))
    if dtype in PACKED:
        pack_weights(llm, dtype, place)
    clap, encoder_part = load_encoder_part(where["encoder"] if encoder else None, place, encoder_dtype)
    _same("encoder", where["encoder"], config.encoder, encoder_part)
    bank, memory_part = load_memory_part(where["memory"] if memory else None, config.encoder)
    _same("memory", where["memory"], config.memory, memory_part)
    llm.requires_grad_(False)
    model = MatsModel(
        config, mapper.to(place, mapper_number).eval(), llm.to(place).eval(), tokenizer, encoder=clap, memory=bank,
        parts={name: path for name, path in where.items() if path}, fingerprint=model_fingerprint(folder, config),
    )  # fmt: skip
    model.packed = dtype if dtype in PACKED else None
    model.calibration, _ = read_calibration(folder, model.fingerprint)
    return model


def _same(name: str, where: str | None, recorded: Part | None, found: Part | None) -> None:
    """SettingsError where a part is another one than `mats.json` records."""
    if recorded is None or found is None or recorded.fingerprint in ("", found.fingerprint):
        return
    why = f"{where} is {found.fingerprint[:12]}, and this model was made with {recorded.fingerprint[:12]}"
    raise SettingsError(name, why, f"give the {name} this model was made with")
