"""MsClapEncoder against the `msclap` package's own code, on a file in the official format with random weights."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mats_core.clap import load_encoder
from mats_core.errors import SettingsError
from mats_core.msclap import MsClapEncoder, build_model, package_settings, split_uri

pytestmark = pytest.mark.msclap
if importlib.util.find_spec("msclap") is None:
    pytest.skip("needs the msclap package", allow_module_level=True)

SAMPLES = 7 * 44_100
LINES = (
    "a dog barks while rain falls on a tin roof and an engine idles",
    "the siren of an ambulance passes by with children shouting in the distance",
    "birds are singing, then a bell rings three times! what a sound",
)


def write_tokenizer(folder: Path) -> Path:
    """A byte-level BPE with GPT-2's habits: "!" is 0, the end token comes last, no special handling of spaces."""
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer()
    made.train_from_iterator(LINES * 20, vocab_size=400, min_frequency=2, show_progress=False)
    made.add_special_tokens(["<|endoftext|>"])
    folder.mkdir(parents=True)
    made.save_model(str(folder))
    vocabulary = made.get_vocab()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    assert vocabulary["!"] == 0
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """The weights file, the tokenizer's folder, and the package's model as it would load them."""
    folder = tmp_path_factory.mktemp("msclap")
    torch.manual_seed(0)
    package = build_model(package_settings())
    with torch.no_grad():  # as after training: random towers would say nearly the same of everything
        for name, weight in package.named_parameters():
            if "projection.linear" in name or ("caption_encoder.base.h" in name and weight.ndim == 2):
                weight.mul_(3)
    torch.save({"model": package.state_dict()}, folder / "CLAP_weights_2023.pth")
    return folder / "CLAP_weights_2023.pth", write_tokenizer(folder / "tokens"), package


@pytest.fixture(scope="module")
def encoder(files: tuple[Path, Path, Any]) -> MsClapEncoder:
    found = load_encoder(f"msclap:{files[0]}?tokenizer={files[1]}", device="cpu")
    assert isinstance(found, MsClapEncoder)
    return found


def their_text(package: Any, encoder: MsClapEncoder, texts: list[str]) -> torch.Tensor:
    """What `CLAPWrapper.get_text_embeddings` computes: every text padded to 77 with "!"."""
    rows = [
        encoder.tokenizer(text + " <|endoftext|>", add_special_tokens=True, max_length=77, padding="max_length")
        for text in texts
    ]
    inputs = {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return F.normalize(package.caption_encoder(inputs), dim=-1)


def many_texts(encoder: MsClapEncoder) -> list[str]:
    words = " ".join(LINES).replace("!", "").split()
    draw = np.random.default_rng(0)
    texts = ["", " ", "☔", "雨の音がする", "dog 🐕 barks", "naïve café", "a\nb", "RAIN", "a"]
    while len(texts) < 199:
        texts.append(" ".join(draw.choice(words, draw.integers(1, 40))))
    exact = "a"
    while len(encoder.token_ids([exact])[0]) < 77:
        exact += " a"
    texts = [text for text in texts if len(encoder.tokenizer(text + " <|endoftext|>")["input_ids"]) <= 77]
    return [*texts, exact]


def test_texts_equal_the_packages(encoder: MsClapEncoder, files: tuple[Path, Path, Any]) -> None:
    texts = many_texts(encoder)
    lengths = [len(ids) for ids in encoder.token_ids(texts)]
    assert len(texts) == 200
    assert max(lengths) == 77
    ours = encoder.embed_text(texts)
    theirs = torch.cat([their_text(files[2], encoder, texts[at : at + 50]) for at in range(0, 200, 50)])
    assert ours.shape == (200, 1024)
    assert ours.dtype == torch.float32
    assert ((ours * theirs).sum(-1) >= 0.99999).all()
    assert (ours @ ours.T).min() < 0.9  # different texts differ, or the comparison would say nothing


def test_a_long_text_is_cut_and_keeps_its_end(encoder: MsClapEncoder, files: tuple[Path, Path, Any]) -> None:
    (ids,) = encoder.token_ids(["rain falls on a roof " * 40])
    assert len(ids) == 77
    assert ids[-1] == encoder.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, 77, dtype=torch.long)}
    with torch.no_grad():
        expected = F.normalize(files[2].caption_encoder(inputs), dim=-1)
    assert (encoder.embed_text(["rain falls on a roof " * 40]) * expected).sum() >= 0.99999


def test_an_exclamation_mark_does_not_move_the_pooled_position(
    encoder: MsClapEncoder, files: tuple[Path, Path, Any]
) -> None:
    """The package counts ids that are not 0, and "!" is 0: it reads one position before the end token here."""
    (ids,) = encoder.token_ids(["a dog barks! rain falls"])
    assert ids.count(0) == 1
    with torch.no_grad():
        hidden = files[2].caption_encoder.base(input_ids=torch.tensor([ids]))[0][0]
        at_end, before = F.normalize(files[2].caption_encoder.projection(hidden[-2:]), dim=-1).flip(0)
    ours = encoder.embed_text(["a dog barks! rain falls"])[0]
    theirs = their_text(files[2], encoder, ["a dog barks! rain falls"])[0]
    assert ours @ at_end >= 0.99999
    assert theirs @ before >= 0.99999
    assert ours @ theirs < 0.999


def test_waveforms_equal_the_packages(encoder: MsClapEncoder, files: tuple[Path, Path, Any]) -> None:
    draw = np.random.default_rng(1)
    time = np.arange(SAMPLES) / 44_100
    sounds = [np.zeros(SAMPLES), np.clip(5 * np.sin(2765 * time), -1, 1), draw.normal(0, 0.1, SAMPLES)]
    while len(sounds) < 50:
        length = (SAMPLES, SAMPLES - 1, int(draw.integers(1000, SAMPLES)))[len(sounds) % 3]
        tone = 0.4 * np.sin(2 * np.pi * draw.uniform(60, 7000) * time[:length])
        sounds.append(tone * draw.uniform(0.1, 1) + draw.normal(0, 0.01, length))
    sounds = [sound.astype(np.float32) for sound in sounds]
    for at in range(0, 50, 10):
        batch = sounds[at : at + 10]
        # theirs: repeated until long enough, then cut (`CLAPWrapper.load_audio_into_tensor`)
        whole = torch.from_numpy(np.stack([np.tile(s, -(-SAMPLES // len(s)))[:SAMPLES] for s in batch]))
        with torch.no_grad():
            expected = F.normalize(files[2].audio_encoder(whole)[0], dim=-1)
        found = encoder.embed_audio(torch.from_numpy(np.stack([encoder.pad(s) for s in batch])))
        assert ((found * expected).sum(-1) >= 0.99999).all()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(10))


def test_sizes_and_fingerprint(encoder: MsClapEncoder, files: tuple[Path, Path, Any], tmp_path: Path) -> None:
    assert (encoder.sample_rate, encoder.window_seconds, encoder.dim) == (44_100, 7.0, 1024)
    inside = tmp_path / "encoder"
    inside.mkdir()
    (inside / "CLAP_weights_2023.pth").symlink_to(files[0])
    encoder.tokenizer.save_pretrained(inside / "gpt2")  # other files of the same tokenizer, beside the weights
    again = load_encoder(str(inside), device="cpu", dtype="bfloat16")
    assert again.fingerprint == encoder.fingerprint
    texts = ["a dog barks", "rain falls"]
    assert ((again.embed_text(texts) * encoder.embed_text(texts)).sum(-1) > 0.99).all()
    sound = torch.from_numpy(np.random.default_rng(2).normal(0, 0.1, (1, SAMPLES)).astype(np.float32))
    assert (again.embed_audio(sound) * encoder.embed_audio(sound)).sum() > 0.98


def test_neither_torchaudio_nor_the_packages_start_is_imported() -> None:
    code = (
        "import sys; from mats_core.msclap import model_classes; model_classes(); "
        "print([m for m in ('torchaudio', 'msclap') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class _Runs:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path(_Runs.marker),))

    marker = ""


def test_wrong_files_are_named_and_nothing_in_them_runs(files: tuple[Path, Path, Any], tmp_path: Path) -> None:
    def refused(content: Any) -> str:
        file = tmp_path / "CLAP_weights_2023.pth"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        with pytest.raises(SettingsError) as caught:
            load_encoder(f"msclap:{file}?tokenizer={files[1]}", device="cpu")
        return str(caught.value)

    one = torch.zeros(1)
    assert "Microsoft CLAP 2022" in refused({"model": {"caption_encoder.base.embeddings.word_embeddings.weight": one}})
    assert "a LAION CLAP checkpoint" in refused({"epoch": 1, "state_dict": {"module.audio_branch.bn0.weight": one}})
    assert "a captioner" in refused({"model": {"clap.audio_encoder.x": one, "gpt.transformer.wte.weight": one}})
    assert "a MATS checkpoint" in refused({"model": {"audio_mapper.prefix_const": one}})
    assert "a list" in refused([one])
    assert "broken" in refused(files[0].read_bytes()[:200_000])
    assert "broken" in refused(b"not a file of weights")
    said = refused({"model": {"caption_encoder.base.wte.weight": one}})
    assert "missing (logit_scale, audio_encoder" in said and "is [1], expected [50257, 768]" in said
    _Runs.marker = str(tmp_path / "executed")
    assert "nothing in it was run" in refused({"model": {"caption_encoder.base.wte.weight": _Runs()}})
    assert "nothing in it was run" in refused(pickle.dumps(_Runs()))
    assert not Path(_Runs.marker).exists()


def test_a_missing_tokenizer_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "weights.pth").touch()
    with pytest.raises(SettingsError, match=r"encoder\.tokenizer.*\?tokenizer=DIRECTORY.*hub"):
        load_encoder(f"msclap:{tmp_path}/weights.pth", device="cpu")
    (tmp_path / "gpt2").mkdir()
    with pytest.raises(SettingsError, match=r"encoder\.tokenizer"):
        load_encoder(f"msclap:{tmp_path}/weights.pth", device="cpu")
    with pytest.raises(SettingsError, match="a file that exists"):
        load_encoder(f"msclap:{tmp_path}/none.pth", device="cpu")


def test_uris() -> None:
    assert split_uri("msclap:/a/b.pth?tokenizer=/t") == ("/a/b.pth", "/t")
    assert split_uri("msclap:s3://b/c.pth") == ("s3://b/c.pth", None)
    for wrong in ("msclap:", "msclap:x?tokenizer="):
        with pytest.raises(SettingsError):
            split_uri(wrong)
