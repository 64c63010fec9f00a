"""`mats embed-text` where it refuses, before Ray or a model: whose folder OUTPUT is, and what the corpora are."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.settings.text import EmbedTextSettings
from pipelines.text.embed_text import _told, run_embed_text


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """One caption."""
    (tmp_path / "one.csv").write_text("caption\na dog\n")
    return tmp_path / "one.csv"


def settings(corpus: Path | str, out: Path, tiny_model_dir: str, **changes: object) -> EmbedTextSettings:
    encoder = str(Path(tiny_model_dir) / "encoder")
    return EmbedTextSettings(corpora=[str(corpus)], output=str(out), encoder=encoder, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("overwrite", [False, True])
def test_its_own_embeddings_are_no_corpus(tmp_path: Path, tiny_model_dir: str, overwrite: bool) -> None:
    (tmp_path / "out" / "embeddings").mkdir(parents=True)
    part = tmp_path / "out" / "embeddings" / "part-00000.parquet"
    pq.write_table(pa.table({"caption": ["a dog"]}), part)
    for given in (part.parent, part):
        with pytest.raises(
            SettingsError,
            match="where a corpus lies; choose another folder than the corpora's",
        ):
            run_embed_text(settings(given, tmp_path / "out", tiny_model_dir, overwrite=overwrite))
    assert part.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else_is_left_as_it_is(
    corpus: Path, tmp_path: Path, tiny_model_dir: str, overwrite: bool
) -> None:
    film = tmp_path / "out" / "embeddings" / "movie.mp4.partial"
    film.parent.mkdir(parents=True)
    film.touch()
    with pytest.raises(SettingsError, match="embeddings"):
        run_embed_text(settings(corpus, tmp_path / "out", tiny_model_dir, overwrite=overwrite))
    assert film.exists()


def test_an_unset_variable_is_not_the_current_folder(tmp_path: Path, tiny_model_dir: str) -> None:
    with pytest.raises(SettingsError, match=r"^corpora: nothing is named; .*the folder you are in"):
        run_embed_text(settings("", tmp_path / "out", tiny_model_dir))


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_told_first(corpus: Path, tmp_path: Path, tiny_model_dir: str) -> None:
    with pytest.raises(SettingsError, match="no CUDA device"):
        run_embed_text(settings(corpus, tmp_path / "out", tiny_model_dir, device="cuda"))
    assert not (tmp_path / "out").exists()


def test_a_local_encoder_is_told_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that takes it from the embeddings may be started elsewhere."""
    for name in ("clap", "builtin"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert _told("clap") == str(tmp_path / "clap")
    assert [_told(each) for each in ("builtin", "hf:laion/clap")] == ["builtin", "hf:laion/clap"]
