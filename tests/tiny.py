"""A whole model directory with random weights, small enough to make in a test."""

from __future__ import annotations

import json
from pathlib import Path

import torch

_TEXT = (
    "USER: <Speech> </Speech> ASSISTANT: ASSISTANT : [ ] audio caption sound event Describe the following in a . "
    "Identify sounds clip , only display tags Listen to this music and describe What can you hear ? Is there "
    "how many which first rain dog bell siren bird engine water wind tone with over then while faint loud low "
    "high an of is two three yes no before after ; \n"
)
WORDS = _TEXT.split(" ")
SAMPLE_RATE, WINDOW_SECONDS, DIM = 16_000, 5, 32


def word_tokenizer(special: dict[str, str]) -> object:
    """A word-level tokenizer over WORDS, with an unknown token for everything else."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*special.values(), *WORDS]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|[^\S\n]+"), "removed")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def make_tiny_llm(folder: Path, kind: str = "llama", hidden: int = 64) -> Path:
    """A random causal LLM of the given kind (llama, gpt2, qwen2, qwen3, mistral) with its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = word_tokenizer({"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": len(tokenizer)}
    if kind == "gpt2":
        sizes = {"n_embd": hidden, "n_layer": 2, "n_head": 4, "n_positions": 512}
    else:
        sizes = {
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
        }
        if kind == "qwen3":
            sizes["head_dim"] = hidden // 4
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **sizes, **ids, initializer_range=0.15)
    llm = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        llm.get_output_embeddings().weight[2] *= 3  # the end token varies more, so that answers differ in length
    llm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny_encoder(folder: Path, fused: bool = False) -> Path:
    """A random CLAP: 16 kHz, 5 s windows, 64 mels, a 128 × 128 picture in patches of 8, 32 dimensions."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    tokenizer = word_tokenizer(
        {
            "bos_token": "<s>",
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "cls_token": "<cls>",
            "sep_token": "<sep>",
        }
    )
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
        "projection_dim": DIM,
    }
    audio = {
        "spec_size": 128,
        "num_mel_bins": 64,
        "patch_size": 8,
        "patch_stride": [8, 8],
        "patch_embeds_hidden_size": 16,
        "hidden_size": 32,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "window_size": 4,
        "projection_dim": DIM,
        "enable_fusion": fused,
        "fusion_type": "aff_2d" if fused else None,
    }
    torch.manual_seed(2)
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=DIM)
    model = ClapModel(config).eval()
    tokenizer.save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=SAMPLE_RATE,
        hop_length=320,
        max_length_s=WINDOW_SECONDS,
        fft_window_size=512,
        frequency_min=50,
        frequency_max=7600,
        truncation="fusion" if fused else "rand_trunc",
        padding="repeatpad",
    ).save_pretrained(folder)
    model.save_pretrained(folder)
    _spread(model, folder)
    model.save_pretrained(folder)
    return folder


def _spread(model: torch.nn.Module, folder: Path) -> None:
    """Random towers say nearly the same of everything: take what is common out of both projections."""
    from mats_core.encoders.clap import HfClapEncoder

    encoder = HfClapEncoder(str(folder), device="cpu")
    seconds = torch.arange(SAMPLE_RATE * WINDOW_SECONDS) / SAMPLE_RATE
    tones = torch.stack([0.3 * torch.sin(6.283 * pitch * seconds) for pitch in (110, 300, 700, 1500, 4000)])
    with torch.no_grad():
        mel = encoder.mel(tones)[:, None].expand(-1, 4 if encoder.fused else 1, -1, -1)
        heard = model.audio_model(input_features=mel, is_longer=torch.zeros(len(mel), 1, dtype=torch.bool))
        model.audio_projection.linear2.bias -= model.audio_projection(heard.pooler_output).mean(0)
        ids = torch.tensor([encoder.tokenizer(word)["input_ids"] for word in ("rain", "dog", "bell", "a")])
        read = model.text_model(input_ids=ids, attention_mask=torch.ones_like(ids)).pooler_output
        model.text_projection.linear2.bias -= model.text_projection(read).mean(0)


def make_tiny_model(folder: Path) -> Path:
    """Encoder, LLM, mapper, adapter and memory in one directory; random weights, answers without meaning."""
    from mats_core.memory.santa import SantaMemory
    from mats_core.model.config import AdapterConfig, DecodingSettings, MapperConfig
    from mats_core.model.model import MatsModel

    parts = folder / "parts"
    make_tiny_encoder(parts / "encoder")
    make_tiny_llm(parts / "llm")
    from mats_core.encoders.clap import HfClapEncoder

    encoder = HfClapEncoder(str(parts / "encoder"))
    captions = [f"{a} {b} with {c}" for a in ("a", "two", "three") for b in WORDS[40:50] for c in WORDS[40:46]]
    memory = SantaMemory.build(
        encoder.embed_text(captions), captions, clusters=8, encoder_fingerprint=encoder.fingerprint
    )
    memory.save(str(parts / "memory"))
    model = MatsModel.new(
        str(parts / "llm"),
        encoder=str(parts / "encoder"),
        memory=str(parts / "memory"),
        mapper=MapperConfig(vectors=4, clip_tokens=2, width=32, layers=1, heads=4),
        adapter=AdapterConfig(rank=4, alpha=8),
        decoding=DecodingSettings(max_new_tokens=12),
    )
    with torch.no_grad():  # a fresh adapter does nothing and a fresh mapper says little; these do
        model.mapper.linear.weight.mul_(8)
        for name, weight in model.llm.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2, generator=torch.Generator().manual_seed(3))
    model.save(str(folder / "model"), include=("encoder", "llm", "memory"))
    return folder / "model"


def describe(folder: Path) -> dict[str, object]:
    """What `mats.json` of a model directory says."""
    return json.loads((folder / "mats.json").read_text())


def make_chain_llm(folder: Path, sentence: str) -> Path:
    """An LLM that writes `sentence` (words of WORDS, each once) whatever it is asked: after a word comes the next."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hidden = 128
    llm = AutoModelForCausalLM.from_pretrained(make_tiny_llm(folder, hidden=hidden))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chain = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in sentence.split()]
    following = {**dict.fromkeys(range(len(tokenizer)), chain[0]), **dict(zip(chain, [*chain[1:], 2], strict=True))}
    with torch.no_grad():
        for layer in llm.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        llm.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), hidden))
        head = torch.zeros(len(tokenizer), hidden)  # [V, H]: one column a token that was read
        for token, after in following.items():
            head[after, token] = 1
        llm.lm_head.weight.copy_(head)
    llm.save_pretrained(folder)
    return folder
