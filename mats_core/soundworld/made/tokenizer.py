"""The tokenizers of the embedded world: byte-level BPE, so that any text can be asked, trained on its own texts."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedTokenizerFast

BOS, PAD, EOS, UNK = "<s>", "<pad>", "</s>", "<unk>"


def train_bpe(texts: Iterable[str], vocabulary: int = 1024) -> str:
    """Train byte-level BPE on texts; returns the tokenizer as JSON (special ids 0 to 3: BOS, PAD, EOS, UNK)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, PAD, EOS, UNK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def as_transformers(bpe: str, ends: bool, length: int) -> PreTrainedTokenizerFast:
    """A ``transformers`` tokenizer of trained BPE: BOS before every text and, with ``ends``, EOS behind it."""
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_str(bpe)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}" if ends else f"{BOS} $A", special_tokens=[(BOS, 0), (EOS, 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, pad_token=PAD, eos_token=EOS, unk_token=UNK, model_max_length=length
    )
