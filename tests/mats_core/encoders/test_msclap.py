"""MsClapEncoder against the `msclap` package's own wrapper, on files in the official format with random weights.

By default with narrow towers of the package's classes; `-m long` makes the same comparisons at the official sizes,
which take two minutes of a core.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mats_core.encoders.facts import read_encoder_facts, read_hearing
from mats_core.encoders.load import load_encoder
from mats_core.encoders.msclap import MsClapEncoder, model_classes
from mats_core.errors import SettingsError
from tests.official_clap import (
    SAMPLES,
    OfficialClap,
    many_sounds,
    many_texts,
    narrow_towers,
    write_official,
)

pytestmark = pytest.mark.msclap
if importlib.util.find_spec("msclap") is None:
    pytest.skip("needs the msclap package", allow_module_level=True)


@pytest.fixture(scope="module", params=["narrow", pytest.param("official", marks=pytest.mark.long)])
def clap(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfficialClap]:
    folder = tmp_path_factory.mktemp("msclap")
    if request.param == "official":
        yield write_official(folder)
        return
    with narrow_towers():
        yield write_official(folder)


@pytest.fixture(scope="module")
def encoder(clap: OfficialClap) -> MsClapEncoder:
    found = load_encoder(clap.uri, device="cpu")
    assert isinstance(found, MsClapEncoder)
    return found


def test_texts_equal_the_packages(encoder: MsClapEncoder, clap: OfficialClap) -> None:
    texts = many_texts(encoder)
    lengths = [len(encoder.tokenizer(text + " <|endoftext|>")["input_ids"]) for text in texts]
    assert len(texts) == 200
    assert (min(lengths), max(lengths)) == (2, 77)  # the end token is one of them
    ours = encoder.embed_text(texts, batch_size=20)
    theirs = torch.cat([clap.texts(texts[at : at + 20]) for at in range(0, 200, 20)])
    assert ours.shape == (200, 1024)
    assert ours.dtype == torch.float32
    assert ((ours * theirs).sum(-1) >= 0.99999).all()
    assert (ours @ ours.T).min() < 0.9  # different texts differ, or the comparison would say nothing


def test_a_long_text_is_cut_and_keeps_its_end(encoder: MsClapEncoder, clap: OfficialClap) -> None:
    (ids,) = encoder.token_ids(["rain falls on a roof " * 40])
    assert len(ids) == 77
    assert ids[-1] == encoder.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, 77, dtype=torch.long)}
    with torch.no_grad():
        expected = F.normalize(clap.package.clap.caption_encoder(inputs), dim=-1)
    assert (encoder.embed_text(["rain falls on a roof " * 40]) * expected).sum() >= 0.99999


def test_an_exclamation_mark_does_not_move_the_pooled_position(encoder: MsClapEncoder, clap: OfficialClap) -> None:
    """The package counts ids that are not 0, and "!" is 0: it reads one position before the end token here."""
    (ids,) = encoder.token_ids(["a dog barks! rain falls"])
    assert ids.count(0) == 1
    with torch.no_grad():
        hidden = clap.package.clap.caption_encoder.base(input_ids=torch.tensor([ids]))[0][0]
        at_end, before = F.normalize(clap.package.clap.caption_encoder.projection(hidden[-2:]), dim=-1).flip(0)
    ours = encoder.embed_text(["a dog barks! rain falls"])[0]
    theirs = clap.texts(["a dog barks! rain falls"])[0]
    assert ours @ at_end >= 0.99999
    assert theirs @ before >= 0.99999
    assert ours @ theirs < 0.999


def test_waveforms_equal_the_packages(encoder: MsClapEncoder, clap: OfficialClap) -> None:
    sounds = many_sounds()
    assert len(sounds) == 50
    for at in range(0, 50, 10):
        batch = sounds[at : at + 10]
        found = encoder.embed_audio(torch.from_numpy(np.stack([encoder.pad(sound) for sound in batch])))
        assert ((found * clap.sounds(batch)).sum(-1) >= 0.99999).all()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(10))
    assert (found @ found.T).min() < 0.99  # different sounds differ


def test_whole_numbers_are_heard_as_the_same_sound(encoder: MsClapEncoder) -> None:
    whole = np.random.default_rng(5).integers(-32768, 32768, (1, 100_000)).astype(np.int16)
    sound = torch.from_numpy(whole.astype(np.float32) / 32768.0)
    assert torch.equal(encoder.embed_audio(torch.from_numpy(whole)), encoder.embed_audio(sound))


def test_the_mel_filters_are_those_of_32_kilohertz(clap: OfficialClap) -> None:
    """The package's configuration says 44.1 kHz and 8 kHz at most; its audio tower never hears of it."""
    from librosa.filters import mel

    filters = clap.package.clap.audio_encoder.base.htsat.logmel_extractor.melW.numpy()
    np.testing.assert_array_equal(filters, mel(sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000).T)


def test_sizes_and_fingerprint(encoder: MsClapEncoder, clap: OfficialClap, tmp_path: Path) -> None:
    theirs = clap.package.args
    assert (encoder.sample_rate, encoder.window_seconds, encoder.dim) == (44_100, 7.0, 1024)
    assert (theirs.sampling_rate, theirs.duration, theirs.d_proj, theirs.text_len) == (44_100, 7, 1024, 77)
    inside = tmp_path / "encoder"
    inside.mkdir()
    (inside / "CLAP_weights_2023.pth").symlink_to(clap.weights)
    encoder.tokenizer.save_pretrained(inside / "gpt2")  # other files of the same tokenizer, beside the weights
    again = load_encoder(str(inside), device="cpu", dtype="bfloat16")
    assert again.fingerprint == encoder.fingerprint
    facts = read_encoder_facts(clap.uri)
    assert facts == replace(read_encoder_facts(str(inside)), uri=clap.uri)
    assert (facts.fingerprint, *read_hearing(clap.uri)) == (encoder.fingerprint, 44_100, 7.0)
    assert (facts.dim, facts.size) == (1024, clap.weights.stat().st_size)
    texts = ["a dog barks", "rain falls"]
    assert ((again.embed_text(texts) * encoder.embed_text(texts)).sum(-1) > 0.99).all()
    sound = torch.from_numpy(np.random.default_rng(2).normal(0, 0.1, (1, SAMPLES)).astype(np.float32))
    assert (again.embed_audio(sound) * encoder.embed_audio(sound)).sum() > 0.98


class _NoTorchaudio:
    """First of the import system's finders: an import of torchaudio fails, as beside a CPU build of torch."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "torchaudio":
            raise ImportError(name)


def test_neither_torchaudio_nor_the_packages_start_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("_mats_msclap", "msclap", "torchaudio")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_NoTorchaudio, *sys.meta_path])
    assert model_classes().CLAP.__module__ == "_mats_msclap.models.clap"
    assert "msclap" not in sys.modules
    for name in [name for name in sys.modules if name.startswith("_mats_msclap")]:
        sys.modules.pop(name)  # the ones above come back


class _Runs:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path(_Runs.marker),))

    marker = ""


def test_wrong_files_are_named_and_nothing_in_them_runs(clap: OfficialClap, tmp_path: Path) -> None:
    def refused(content: Any) -> str:
        file = tmp_path / "CLAP_weights_2023.pth"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        with pytest.raises(SettingsError) as caught:
            load_encoder(f"msclap:{file}?tokenizer={clap.tokens}", device="cpu")
        return str(caught.value)

    one = torch.zeros(1)
    assert "Microsoft CLAP 2022" in refused({"model": {"caption_encoder.base.embeddings.word_embeddings.weight": one}})
    assert "a LAION CLAP checkpoint" in refused({"epoch": 1, "state_dict": {"module.audio_branch.bn0.weight": one}})
    assert "a captioner" in refused({"model": {"clap.audio_encoder.x": one, "gpt.transformer.wte.weight": one}})
    assert "a MATS checkpoint" in refused({"model": {"audio_mapper.prefix_const": one}})
    assert "a list" in refused([one])
    assert "broken" in refused(clap.weights.read_bytes()[:200_000])
    assert "broken" in refused(b"not a file of weights")
    whole = {"caption_encoder.base.wte.weight": one}
    assert "the key 3 is of type int" in refused({"model": {**whole, 3: one}})
    assert "x is of type str" in refused({"model": {**whole, "x": "a"}})
    said = refused({"model": {"caption_encoder.base.wte.weight": one}})
    assert (
        "missing (logit_scale; audio_encoder" in said
        and f"is [1], expected [50257, {clap.package.args.transformer_embed_dim}]" in said
    )
    _Runs.marker = str(tmp_path / "executed")
    assert "nothing in it was run" in refused({"model": {"caption_encoder.base.wte.weight": _Runs()}})
    assert "nothing in it was run" in refused(pickle.dumps(_Runs()))
    assert not Path(_Runs.marker).exists()


def test_a_missing_tokenizer_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "weights.pth").touch()
    with pytest.raises(SettingsError, match=r"encoder\.tokenizer: .*from the hub.*\?tokenizer=DIRECTORY"):
        load_encoder(f"msclap:{tmp_path}/weights.pth", device="cpu")
    (tmp_path / "gpt2").mkdir()
    with pytest.raises(SettingsError, match=r"encoder\.tokenizer"):
        load_encoder(f"msclap:{tmp_path}/weights.pth", device="cpu")
    with pytest.raises(SettingsError, match="a file that exists"):
        load_encoder(f"msclap:{tmp_path}/none.pth", device="cpu")
