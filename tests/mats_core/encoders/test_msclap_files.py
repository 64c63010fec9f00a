"""Where Microsoft CLAP's weights and tokenizer lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from mats_core.encoders.msclap_files import WEIGHTS, check_files, is_msclap, split_uri, tokenizer_folder
from mats_core.errors import SettingsError
from tests.official_clap import write_tokenizer


def test_an_encoder_is_microsofts_by_its_name_or_its_file(tmp_path: Path) -> None:
    assert is_msclap("msclap:/anywhere")
    assert not is_msclap(str(tmp_path)) and not is_msclap("hf:laion/clap-htsat-unfused")
    (tmp_path / WEIGHTS).touch()
    assert is_msclap(str(tmp_path))


def test_a_tokenizers_directory_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[tuple[str, bool]] = []

    def snapshot_download(name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append((name, local_files_only))
        if local_files_only:
            raise FileNotFoundError(name)
        return str(write_tokenizer(tmp_path / "hub"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    (tmp_path / "weights.pth").touch()
    check_files("msclap:weights.pth?tokenizer=gpt2")  # a hub name, to be looked up when it is needed
    check_files("msclap:weights.pth?tokenizer=hf:openai-community/gpt2")
    with pytest.raises(SettingsError, match=r"encoder\.tokenizer"):
        check_files("msclap:weights.pth?tokenizer=elsewhere")
    assert tokenizer_folder("gpt2", tmp_path) == tmp_path / "hub"
    assert asked == [("gpt2", True), ("openai-community/gpt2", True), ("openai-community/gpt2", False)]
    write_tokenizer(tmp_path / "gpt2")
    for name in ("gpt2", "./gpt2", "hf:gpt2", None):
        assert tokenizer_folder(name, tmp_path).resolve() == tmp_path / "gpt2"
    assert len(asked) == 3


def test_uris() -> None:
    assert split_uri("msclap:/a/b.pth?tokenizer=/t") == ("/a/b.pth", "/t")
    assert split_uri("msclap:s3://b/c.pth") == ("s3://b/c.pth", None)
    for wrong in ("msclap:", "msclap:x?tokenizer="):
        with pytest.raises(SettingsError):
            split_uri(wrong)
