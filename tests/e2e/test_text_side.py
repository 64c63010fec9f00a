"""`mats embed-text` and `mats build-memory`: corpora → embeddings → memory → neighbours in the answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from mats_core.memory.santa import SantaMemory
from pipelines.cluster.progress import Progress
from pipelines.data.corpus import caption_id
from pipelines.data.generations import newest
from pipelines.output.folder import Output
from pipelines.settings.text import BuildMemorySettings, EmbedTextSettings
from pipelines.text.build_memory import run_build_memory
from pipelines.text.embed_text import run_embed_text
from tests.e2e.conftest import read_answers, write_tones
from tests.tiny import WORDS
from tests.training_world import records, write_embeddings

CAPTIONS = [f"{a} {b} with {c}" for a in ("a", "two", "three", "loud") for b in WORDS[38:50] for c in WORDS[40:48]]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every caption three times over three files, in other spellings; two bad lines."""
    folder = tmp_path_factory.mktemp("corpora")
    listed = [{"caption": text, "output": "x", "source": "list" if n % 2 else "odd"} for n, text in enumerate(CAPTIONS)]
    (folder / "a.json").write_text(json.dumps(listed))
    (folder / "b.json").write_text(json.dumps({"annotation": [{"caption": f" {c} "} for c in CAPTIONS]}))
    lines = [json.dumps({"caption": c.replace(" ", "  "), "task": "cla_label", "output": "y"}) for c in CAPTIONS]
    (folder / "c.jsonl").write_text("\n".join([*lines[:5], "{", *lines[5:], '{"caption": ""}']))
    return folder


@pytest.fixture(scope="module")
def encoder_dir(tiny_model_dir: str) -> str:
    return str(Path(tiny_model_dir) / "encoder")


def settings(corpora: Path, out: Path, encoder: str, **changes: Any) -> EmbedTextSettings:
    values = {"encoder": encoder, "bucket_records": 200, "device": "cpu", "actors": 1, **changes}
    return EmbedTextSettings(corpora=[str(corpora)], output=str(out), **values)


@pytest.fixture(scope="module")
def embedded(corpora: Path, encoder_dir: str, shared_ray: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpora, embedded by one actor."""
    out = tmp_path_factory.mktemp("embedded")
    result = run_embed_text(settings(corpora, out, encoder_dir))
    assert (result.status, result.run["records"], result.run["bad"]) == ("complete", 3 * len(CAPTIONS) + 2, 2)
    return out


def parts(out: Path) -> dict[str, bytes]:
    """The bytes of every part, by the bucket in its name."""
    return {path.name[:10]: path.read_bytes() for path in sorted((out / "embeddings").iterdir())}


def test_every_caption_is_there_once(embedded: Path, encoder_dir: str) -> None:
    from mats_core.encoders.clap import HfClapEncoder

    table = pq.read_table(embedded / "embeddings")
    rows = {row["caption"]: row for row in table.to_pylist()}
    assert len(table) == len(rows) == len(CAPTIONS)
    for number, text in enumerate(CAPTIONS):
        row = rows[text]
        assert (row["caption_id"], row["count"]) == (caption_id(text), 3)
        assert row["sources"] == sorted(["list" if number % 2 else "odd", "b", "c"])
    encoder = HfClapEncoder(encoder_dir, device="cpu")
    expected = encoder.embed_text(CAPTIONS).numpy()
    found = np.array([rows[text]["embedding"] for text in CAPTIONS], np.float32)
    np.testing.assert_allclose(found, expected, atol=5e-4)  # float16 near 1: half a thousandth
    sidecar = json.loads((embedded / "_embeddings.json").read_text())
    assert (sidecar["rows"], sidecar["dim"], sidecar["status"]) == (len(CAPTIONS), 32, "complete")
    assert sidecar["encoder_fingerprint"] == encoder.fingerprint
    report = json.loads((embedded / "_corpora.json").read_text())
    assert [each["bad"] for each in report["files"]] == [0, 0, 2]
    assert [each["line"] for each in report["files"][2]["lines"]] == [6, len(CAPTIONS) + 2]


def test_workers_and_a_restart_change_nothing(embedded: Path, corpora: Path, encoder_dir: str, tmp_path: Path) -> None:
    """Two actors, interrupted after the first bucket, then one: the same bytes, and what was done is kept."""

    def interrupt(progress: Progress) -> None:
        if progress.stage == "run":
            raise KeyboardInterrupt

    first = run_embed_text(settings(corpora, tmp_path, encoder_dir, actors=2), interrupt)
    assert first.status == "interrupted"
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "embeddings").glob("*.parquet")}
    assert len(kept) > 0
    assert not (tmp_path / "_embeddings.json").exists()
    for part in (tmp_path / "embeddings").glob("part-00000-*"):
        part.unlink()  # as if a kill had come before it
    (tmp_path / "embeddings" / "part-00000.parquet.0123ab12.partial").write_bytes(b"half")
    second = run_embed_text(settings(corpora, tmp_path, encoder_dir, actors=1))
    assert (second.status, second.run["captions"]) == ("complete", len(CAPTIONS))
    assert parts(tmp_path) == parts(embedded)
    assert all(p.stat().st_mtime_ns == was for p, was in kept.items() if not p.name.startswith("part-00000-"))
    assert run_embed_text(settings(corpora, tmp_path, encoder_dir)).status == "complete_before"


def test_what_says_that_it_is_whole_is_written_first(
    embedded: Path, corpora: Path, encoder_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two, an OUTPUT said "done already" while all who read it found it unfinished."""
    out = Path(shutil.copytree(embedded, tmp_path / "out"))
    (out / "_embeddings.json").unlink()
    shutil.rmtree(out / "_state")  # as an older version leaves it
    (out / "_state").mkdir()
    identity = newest(str(embedded)).identity  # type: ignore[union-attr]
    (out / "_state" / "identity.json").write_text(json.dumps(identity))
    written: list[tuple[str, bool]] = []

    def write_run(output: Output, run: dict[str, Any]) -> None:
        written.append((run["status"], (out / "_embeddings.json").exists()))

    monkeypatch.setattr(Output, "write_run", write_run)
    result = run_embed_text(settings(corpora, out, encoder_dir))
    assert (result.status, result.run["captions_new"]) == ("complete", 0)
    assert written == [("running", False), ("complete", True)]
    assert parts(out) == parts(embedded)
    assert (out / "_embeddings.json").read_bytes() == (embedded / "_embeddings.json").read_bytes()


def test_a_full_disk_ends_in_one_clear_line_and_keeps_what_is_done(
    corpora: Path, encoder_dir: str, tmp_path: Path, shared_ray: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.cluster.session import RunFailed
    from pipelines.text import embed_text
    from pipelines.text.caption_buckets import EmbedBucket

    class OnAFullDisk(EmbedBucket):
        """After its first part no other can be put in place."""

        def __init__(self, *given: Any) -> None:
            import errno
            import os

            os_replace, done = os.replace, []

            def replace(source: Any, target: Any) -> None:
                if str(target).find("part-") >= 0:
                    done.append(target)
                    if len(done) > 1:
                        raise OSError(errno.ENOSPC, "No space left on device")
                os_replace(source, target)

            os.replace = replace  # type: ignore[assignment]
            super().__init__(*given)

    monkeypatch.setattr(embed_text, "EmbedBucket", OnAFullDisk)
    with pytest.raises(RunFailed, match="No space left on device") as failed:
        run_embed_text(settings(corpora, tmp_path, encoder_dir))
    assert "\n" not in str(failed.value)
    assert json.loads((tmp_path / "_run.json").read_text())["status"] == "failed"
    assert [path.suffix for path in (tmp_path / "embeddings").iterdir()] == [".parquet"]


def test_too_many_bad_records_are_refused_before_any_model(
    corpora: Path, encoder_dir: str, tmp_path: Path, shared_ray: str
) -> None:
    with pytest.raises(SettingsError, match=r"max_error_rate.*c.jsonl, first in line 6"):
        run_embed_text(settings(corpora, tmp_path, encoder_dir, max_error_rate=0.0001))
    assert json.loads((tmp_path / "_corpora.json").read_text())["files"][2]["bad"] == 2
    assert newest(str(tmp_path)).identity is None  # type: ignore[union-attr]  # the corpus may be put right


def test_an_output_of_other_corpora_is_refused(embedded: Path, encoder_dir: str, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("caption\na dog\n")
    with pytest.raises(SettingsError, match="corpora was 3 files"):
        run_embed_text(settings(tmp_path / "one.csv", embedded, encoder_dir))


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_the_memory_holds_every_caption_with_its_vector(embedded: Path, tmp_path: Path, storage: str) -> None:
    made = run_build_memory(
        BuildMemorySettings(embeddings=str(embedded), output=str(tmp_path), storage=storage, clusters=12, shard_rows=50)
    )
    table = pq.read_table(embedded / "embeddings").to_pydict()
    assert (made.memory["count"], made.memory["clusters"], made.memory["dim"]) == (len(CAPTIONS), 12, 32)
    memory = SantaMemory.load(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "_state",
        "captions.parquet",
        "index.faiss",
        "memory.json",
    ]
    assert [path.name for path in (tmp_path / "_state").iterdir()] == ["generations"]
    assert pq.read_table(tmp_path / "captions.parquet")["caption"].to_pylist() == table["caption"]
    wanted = np.array(table["embedding"], np.float32)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = memory.vectors(np.arange(len(wanted)))
    np.testing.assert_allclose(found, wanted, atol={"float32": 1e-6, "float16": 5e-4, "int8": 4e-3}[storage])
    direct = SantaMemory.build(wanted, storage=storage, centroids=memory._centroids)  # type: ignore[arg-type]
    if storage != "int8":
        ours, theirs = (each.search(wanted[::7], 9, 2) for each in (memory, direct))
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_sources_cap_and_seed_choose_rows(embedded: Path, tmp_path: Path) -> None:
    def captions(**chosen: Any) -> list[str]:
        run_build_memory(BuildMemorySettings(embeddings=str(embedded), output=str(tmp_path), clusters=4, **chosen))
        table = pq.read_table(tmp_path / "captions.parquet")
        if "sources" in chosen:
            assert set(table["source"].to_pylist()) == set(chosen["sources"])
        return table["caption"].to_pylist()

    odd = captions(sources=["odd"])
    assert sorted(odd) == sorted(CAPTIONS[::2])
    some = captions(sources=["odd"], cap=30)
    assert len(some) == 30 and set(some) < set(odd)
    assert captions(sources=["odd"], cap=30) == some
    assert captions(sources=["odd"], cap=30, seed=1) != some
    assert len(captions(cap=10**6)) == len(CAPTIONS)
    with pytest.raises(SettingsError, match="sources"):
        captions(sources=["nothing"])
    with pytest.raises(SettingsError, match="of 3 captions; choose 1 to 3"):
        captions(cap=3)
    assert len(captions(cap=4)) == 4  # the refused builds left nothing behind


def test_explain_writes_the_neighbours_into_the_answers(tmp_path: Path, tiny_model_dir: str, shared_ray: str) -> None:
    from pipelines.archive.caption import run_caption
    from pipelines.settings.archive import CaptionSettings

    write_tones(tmp_path / "tones", 2, 2.0)
    run_caption(
        CaptionSettings(
            input=str(tmp_path / "tones"),
            output=str(tmp_path / "out"),
            model=tiny_model_dir,
            actors=1,
            explain=True,
            with_embedding=True,
            santa_neighbors=5,
        )
    )
    memory = SantaMemory.load(str(Path(tiny_model_dir) / "memory"))
    settings = json.loads((Path(tiny_model_dir) / "mats.json").read_text())["santa"]
    for answer in read_answers(tmp_path / "out"):
        _, (near,) = memory.transfer(
            np.array([answer["embedding"]], np.float32),
            neighbors=5,
            probe=settings["probe"],
            noise="keyed",
            noise_variance=settings["noise_variance"],
            seed=settings["seed"],
            scale=settings["scale"],
            explain=True,
        )
        assert [each["row"] for each in answer["neighbors"]] == [each["row"] for each in near]
        assert [each["caption"] for each in answer["neighbors"]] == [each["caption"] for each in near]
        weights = [each["weight"] for each in answer["neighbors"]]
        assert sum(weights) == pytest.approx(1.0, abs=1e-5)
        assert weights == pytest.approx([each["weight"] for each in near], abs=1e-5)


def _table(folder: Path, **sidecar: Any) -> Path:
    """56 captions, as `mats embed-text` leaves them."""
    write_embeddings(folder, [record["caption"] for record in records()], "e" * 64)
    told = {"encoder_fingerprint": "e" * 64, "dim": 32, "rows": 56, "status": "complete", **sidecar}
    (folder / "_embeddings.json").write_text(json.dumps({name: v for name, v in told.items() if v is not None}))
    return folder


def _refused(table: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    def started(*_: Any) -> Any:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("pipelines.cluster.session.ray_session", started)
    with pytest.raises(SettingsError) as refused:
        run_build_memory(BuildMemorySettings(embeddings=str(table), output=str(output), clusters=4))
    return str(refused.value)


@pytest.mark.parametrize(
    ("sidecar", "said"),
    [
        ({"rows": 57}, "is to have 57 rows and has 56; embed again"),
        ({"dim": None}, "_embeddings.json has no dim"),
        ({"encoder_fingerprint": None}, "_embeddings.json has no encoder_fingerprint"),
    ],
)
def test_a_table_that_is_not_as_its_sidecar_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sidecar: dict[str, Any], said: str
) -> None:
    assert said in _refused(_table(tmp_path / "emb", **sidecar), tmp_path / "memory", monkeypatch)
    assert not (tmp_path / "memory").exists()


@pytest.mark.parametrize("name", ["captions.parquet", "index.faiss", "memory.json"])
def test_files_that_are_of_no_memory_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"fingerprint": "of something else"}')
    said = _refused(_table(tmp_path / "emb"), tmp_path / "mine", monkeypatch)
    assert said.startswith(f"output: {name} in ") and "is of no memory" in said
    assert (tmp_path / "mine" / name).read_text() == '{"fingerprint": "of something else"}'
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [name]
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "memory.json").write_text('{"fingerprint": "a", "encoder_fingerprint": "b"}')
    with pytest.raises(AssertionError, match="Ray was started"):  # one of ours is replaced
        run_build_memory(BuildMemorySettings(embeddings=str(tmp_path / "emb"), output=str(memory), clusters=4))
