"""Packing corpora and embeddings: every record finds its vector, what cannot be used is named, nothing leaks."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from mats_core.model.model import MatsModel
from mats_core.storage import StorageError
from mats_core.storage.fingerprint import fingerprint_directory
from pipelines.settings.train import TrainSettings
from pipelines.train.batches import wording
from pipelines.train.check import check_settings
from pipelines.train.mixture import StoredSet, held_out_notes, open_store
from pipelines.train.pack import ensure_store
from pipelines.train.run import fits_a_gpu
from tests.conftest import writable_copy
from tests.training_world import DIM, embedding, make_world, records, settings, write_embeddings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def packed(chosen: TrainSettings, folder: Path) -> list[StoredSet]:
    return open_store(ensure_store(chosen, folder))


def test_every_record_has_the_vector_of_its_caption(world: Path, tmp_path: Path) -> None:
    one, two = packed(settings(world, tmp_path / "out"), tmp_path)
    assert (len(one.train) + len(one.validation), len(two.train) + len(two.validation)) == (60, 52)
    every = records()
    for number in (0, 1, 59):
        record = one.record(number)
        wanted = every[number]
        assert (record.output, record.instruction, record.tag) == (wanted["output"], wanted["instruction"], "[ a ]")
        assert np.abs(record.vector - embedding(wanted["caption"])).max() < 1e-3
    assert two.record(0).tag == ""


def test_a_record_of_several_captions_is_of_a_long_sound(world: Path, tmp_path: Path) -> None:
    fingerprint = json.loads((world / "emb" / "_embeddings.json").read_text())["encoder_fingerprint"]
    windows = ["a rain with dog", "a dog with bell"]
    write_embeddings(tmp_path / "emb", ["\n".join(windows), windows[0]], fingerprint)
    rows = [{"caption": windows, "output": "rain, dog, bell"}, {"caption": windows[0], "output": "rain, dog"}]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = [{"name": "some", "corpus": str(tmp_path / "some.jsonl")}]
    chosen = settings(world, tmp_path / "out", data=data, embeddings=str(tmp_path / "emb"), validation=0)
    (some,) = packed(chosen, tmp_path)
    assert [some.record(number).long for number in (0, 1)] == [True, False]
    assert some.facts["problems"] == {}
    sizes: dict[str, Any] = {"embedding_dim": DIM, "mapper": chosen.mapper, "adapter": None, "device": "cpu"}
    for tag, said in (("", ""), ("[long]", "[long] ")):
        word = wording(MatsModel.new(str(world / "llm"), long_tag=tag, **sizes))
        asked = [word(replace(some.record(number), instruction="What is it?"), 0) for number in (0, 1)]
        assert [f"</Speech> {own}What is it?" in prompt for own, prompt in zip((said, ""), asked, strict=True)] == [
            True, True
        ]  # fmt: skip
        assert word(replace(some.record(0), tag="[x]"), 0).count(f"{said}[x] ") == 1


def test_no_caption_is_both_trained_on_and_held_out(world: Path, tmp_path: Path) -> None:
    data = [
        {"name": "one", "corpus": str(world / "one.jsonl")},
        {"name": "all", "corpus": [str(world / "one.jsonl"), str(world / "two.json")], "validation": 4},
    ]
    sets = packed(settings(world, tmp_path / "out", data=data), tmp_path)

    def vectors(each: StoredSet, rows: Any) -> set[bytes]:
        return {each.record(int(row)).vector.tobytes() for row in rows}

    held = vectors(sets[0], sets[0].validation) | vectors(sets[1], sets[1].validation)
    trained = vectors(sets[0], sets[0].train) | vectors(sets[1], sets[1].train)
    assert len(sets[0].validation) == 8
    assert len(sets[1].validation) >= 4
    assert not held & trained


def test_a_validation_corpus_of_its_own(world: Path, tmp_path: Path) -> None:
    data = [{"name": "one", "corpus": str(world / "one.jsonl"), "validation_corpus": str(world / "two.json")}]
    (one,) = packed(settings(world, tmp_path / "out", data=data), tmp_path)
    assert (len(one.train), len(one.validation)) == (60, 52)
    assert one.record(int(one.validation[0])).output == records()[60]["output"]


def test_packed_once_and_anew_when_a_file_changes(world: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(map(json.dumps, records()[:20])))
    chosen = settings(world, tmp_path / "out", data=[{"name": "one", "corpus": str(corpus)}])
    place = ensure_store(chosen, tmp_path / "store")
    assert ensure_store(chosen, tmp_path / "store") == place
    corpus.write_text("\n".join(map(json.dumps, records()[:30])))
    assert ensure_store(chosen, tmp_path / "store") != place


def test_unusable_records_are_counted_and_too_many_are_an_error(world: Path, tmp_path: Path) -> None:
    bad = ['{"caption": ', '{"caption": "a rain with dog"}', json.dumps({**records()[0], "task": "sing"})]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join([*map(json.dumps, records()), *bad]))
    data = [{"name": "mine", "corpus": str(corpus)}]
    (mine,) = packed(settings(world, tmp_path / "out", data=data, max_error_rate=0.05), tmp_path)
    assert mine.facts["problems"] == {"broken_line": 1, "missing_output": 1, "unknown_task": 1}
    with pytest.raises(SettingsError, match=r"data.mine: 3 of 115 records cannot .*l line 113: broken_line"):
        packed(settings(world, tmp_path / "out", data=data, max_error_rate=0.01), tmp_path)


def test_captions_without_embeddings_are_named(world: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"caption": "a new sound", "output": "new", "task": "caption"}))
    with pytest.raises(SettingsError, match=r"no_embedding 1; first: .*'a new sound'.*mats embed-text"):
        packed(settings(world, tmp_path / "out", data=[{"name": "new", "corpus": str(corpus)}]), tmp_path)


def test_every_file_is_reported_with_its_lines(world: Path, tmp_path: Path) -> None:
    good, corpus = records(), tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.jsonl").write_text("\n".join(map(json.dumps, good[:40])))
    nothing_said = {**good[41], "output": ""}
    new = {**good[42], "caption": "a new sound"}
    (corpus / "b.jsonl").write_text("\n".join(map(json.dumps, [good[40], nothing_said, good[43], new])))
    data = [{"name": "mine", "corpus": str(corpus)}]
    chosen = settings(world, tmp_path / "out", data=data, max_error_rate=0.2)
    for _ in range(2):  # packed, and found packed
        ensure_store(chosen, tmp_path / "store", str(tmp_path / "report.json"))
        first, second = json.loads((tmp_path / "report.json").read_text())["files"]
        assert (first["set"], first["records"], first["bad"]) == ("mine", 40, 0)
        assert (second["file"], second["records"], second["bad"]) == (str(corpus / "b.jsonl"), 4, 2)
        assert [(each["line"], each["code"]) for each in second["lines"]] == [
            (2, "missing_output"),
            (4, "no_embedding"),
        ]
    chosen = chosen.model_copy(update={"max_error_rate": 0.0})
    with pytest.raises(SettingsError, match=r"2 of 44 records"):
        ensure_store(chosen, tmp_path / "store", str(tmp_path / "refused.json"))
    assert (tmp_path / "refused.json").is_file()


def test_a_set_of_labels_keeps_its_classes(world: Path, tmp_path: Path) -> None:
    labels = [{**record, "output": f"{n}"} for n in range(50) for record in records()[:8:2]]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, labels)))
    data = [
        {"name": "labels", "corpus": str(tmp_path / "labels.jsonl")},
        {"name": "one", "corpus": str(world / "one.jsonl")},
    ]
    first, second = packed(settings(world, tmp_path / "out", data=data, validation=20), tmp_path)
    assert (len(first.train), len(first.validation), len(second.validation)) == (180, 20, 12)
    assert (first.facts["held_by"], first.facts["met"], second.facts["held_by"]) == ("record", 20, "caption")
    assert {first.record(int(row)).vector.tobytes() for row in first.train} == {
        first.record(row).vector.tobytes() for row in range(200)
    }
    (note,) = held_out_notes([first.facts, second.facts])
    assert note.startswith("data set labels has too few captions to hold any out: it is measured on 20 records whose")


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    chosen = settings(world, tmp_path / "out")
    with pytest.raises(StorageError, match="No space left on device"):
        ensure_store(chosen, tmp_path / "store")
    assert [path.suffix for path in (tmp_path / "store").iterdir()] == [".lock"]
    monkeypatch.undo()
    assert len(packed(chosen, tmp_path / "store")) == 2


def test_vectors_are_written_as_they_come(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a file, not a mapping: where the disk is full, a mapping ends the process with SIGBUS."""
    monkeypatch.setattr(np.lib.format, "open_memmap", None)
    place = ensure_store(settings(world, tmp_path / "out"), tmp_path)
    assert np.load(place / "vectors-0.npy").shape == (56, DIM)
    assert sorted(path.name for path in place.iterdir()) == [
        "one.arrow", "one.train.npy", "one.validation.npy", "store.json", "two.arrow", "two.train.npy",
        "two.validation.npy", "vectors-0.npy",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["store.json", "one.arrow", "one.train.npy", "vectors-0.npy"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_packed_data_that_is_damaged_is_packed_again(world: Path, tmp_path: Path, name: str, damage: str) -> None:
    chosen = settings(world, tmp_path / "out")
    place = ensure_store(chosen, tmp_path)
    whole = {path.name: path.read_bytes() for path in place.iterdir()}
    middle = len(whole[name]) // 2
    damaged = {"cut": whole[name][:middle], "flipped": bytearray(whole[name])}.get(damage)
    if damaged is None:
        (place / name).unlink()
    else:
        if damage == "flipped":
            damaged[middle] ^= 1
        (place / name).write_bytes(damaged)
    assert ensure_store(chosen, tmp_path) == place
    assert {path.name: path.read_bytes() for path in place.iterdir()} == whole


def test_data_packed_before_there_were_checksums_is_taken_as_it_is(world: Path, tmp_path: Path) -> None:
    chosen = settings(world, tmp_path / "out")
    place = ensure_store(chosen, tmp_path)
    told = json.loads((place / "store.json").read_text())
    del told["checksum"], told["fingerprints"]
    (place / "store.json").write_text(json.dumps(told))
    ensure_store(chosen, tmp_path)
    assert json.loads((place / "store.json").read_text()) == told


def test_the_llms_weights_are_found_inside_a_model(world: Path, tmp_path: Path, tiny_model_dir: str) -> None:
    """`builtin` and a model with its LLM inside name it by "llm", relative to their own directory."""
    (tmp_path / "emb" / "embeddings").mkdir(parents=True)
    pq.write_table(pa.table({"caption_id": ["x"]}), tmp_path / "emb" / "embeddings" / "part-0.parquet")
    for model, dim in (("builtin", 128), (tiny_model_dir, 32)):
        (tmp_path / "emb" / "_embeddings.json").write_text(json.dumps({"encoder_fingerprint": "", "dim": dim}))
        chosen = settings(world, tmp_path / "out", model=model, embeddings=str(tmp_path / "emb"))
        checked = check_settings(chosen)
        assert list(Path(checked.llm).glob("*.safetensors"))
        assert fits_a_gpu(checked.llm)
        assert set(checked.fingerprints) == {"encoder_fingerprint", "llm_fingerprint", "model_fingerprint"}


def test_clips_bring_their_records_with_them(world: Path, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    write_heard(heard, json.loads((world / "emb" / "_embeddings.json").read_text())["encoder_fingerprint"])
    chosen = settings(world, tmp_path / "out", data=[{"name": "clips", "audio": str(heard)}], max_error_rate=0.5)
    check_settings(chosen)
    (clips,) = packed(chosen, tmp_path)
    assert clips.facts["problems"] == {"no_sound": 1, "missing_output": 1}
    record = clips.record(0)
    assert (record.task, record.instruction, record.output) == ("QA", "What is it ?", "rain")
    assert not record.long  # a window and a third
    wanted = 0.75 * np.eye(DIM)[0] + 0.25 * np.eye(DIM)[1]
    assert record.vector == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-6)
    lines = clips.facts["files"][0]["lines"]
    assert [(each["line"], each["code"]) for each in lines] == [(2, "no_sound"), (3, "missing_output")]
    data = [
        {"name": "a", "audio": str(heard)},
        {"name": "b", "audio": str(heard)},
        {"name": "c", "corpus": str(world / "one.jsonl")},
    ]
    sets = packed(settings(world, tmp_path / "out", data=data, max_error_rate=0.5), tmp_path / "three")
    assert len({each.facts["vectors"] for each in sets}) == 3  # none is written over another's
    assert np.abs(sets[2].record(0).vector - embedding(records()[0]["caption"])).max() < 1e-3


def write_heard(folder: Path, fingerprint: str) -> None:
    """Audio embeddings of three clips: one of two windows, one that failed, one without an output."""
    unit = np.eye(DIM, dtype=np.float32)
    windows = [
        {"start_s": 0.0, "weight": 3.0, "embedding": unit[0]},
        {"start_s": 5.0, "weight": 1.0, "embedding": unit[1]},
    ]
    rows = [
        {"output": "rain", "task": "QA", "question": "What is it ?", "error_code": None, "windows": windows},
        {"output": "dog", "task": None, "question": None, "error_code": "not_audio", "windows": None},
        {"output": None, "task": None, "question": None, "error_code": None, "windows": windows},
        {"output": "bell", "task": "caption", "question": None, "error_code": None, "windows": windows},
    ]  # fmt: skip
    (folder / "embeddings").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "embeddings" / "part-0.parquet")
    sidecar = {"encoder_fingerprint": fingerprint, "dim": DIM, "window_seconds": 5.0, "status": "complete"}
    (folder / "_embeddings.json").write_text(json.dumps(sidecar))


def wrong(world: Path, tmp_path: Path) -> dict[str, tuple[dict[str, Any], str]]:
    other = write_embeddings(tmp_path / "other", [r["caption"] for r in records()], "0123456789abcdef")
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "memory.json").write_text(json.dumps({"encoder_fingerprint": "fedcba", "fingerprint": "x"}))
    one = str(world / "one.jsonl")
    return {
        "another encoder": (
            {"embeddings": str(other)},
            r"embeddings: .*made with encoder 0123456789ab.*mats embed-text",
        ),
        "two encoders": (
            {"data": [{"name": "a", "corpus": one}, {"name": "b", "corpus": one, "embeddings": str(other)}]},
            r"embeddings: .*/other was made with encoder 0123456789ab, not with .*; train on embeddings of one encoder",
        ),
        "a missing set": (
            {"data": [{"name": "gone", "corpus": str(world / "gone.jsonl")}]},
            r"^data\.gone\.corpus: .*gone\.jsonl cannot be read",
        ),
        "no embeddings": (
            {"embeddings": str(world / "none")},
            r"^data\.one\.embeddings: .*give the OUTPUT of .mats embed-text",
        ),
        "embeddings of audio": ({"data": [{"name": "a", "audio": str(world / "emb")}]}, r"mats embed-audio"),
        "memory of another encoder": (
            {"memory": str(memory)},
            r"memory: .*made with encoder fedcba.*mats build-memory",
        ),
        "a missing LLM": (
            {"llm": str(world / "gone")},
            r"llm: .*gone. is not a directory that exists; give the path of one",
        ),
        "a column that is not ours": (
            {"data": [{"name": "a", "corpus": one, "columns": {"text": "caption"}}]},
            r"^data\.a\.columns: .text. is no field of ours; write our field = their name",
        ),
        "a logger that is not installed": (
            {"loggers": ["mlflow"]},
            r"loggers: package mlflow is not installed; pip install mlflow",
        ),
    }


def test_another_table_in_the_embeddings_folder_is_none_of_its_parts(world: Path, tmp_path: Path) -> None:
    table = Path(shutil.copytree(world / "emb", tmp_path / "emb"))
    before = ensure_store(settings(world, tmp_path / "out", embeddings=str(table)), tmp_path / "store")
    write_embeddings(table / "alt", ["a rain with dog", "a new sound of rain with bell"], "of another encoder")
    (table / "memory").mkdir()
    pq.write_table(pa.table({"caption": ["a dog"]}), table / "memory" / "captions.parquet")
    assert np.load(before / "vectors-0.npy").shape == (56, DIM)
    assert ensure_store(settings(world, tmp_path / "out", embeddings=str(table)), tmp_path / "store") == before
    assert np.load(ensure_store(settings(world, "o", embeddings=str(table)), tmp_path) / "vectors-0.npy").shape[0] == 56


@pytest.mark.parametrize(
    ("sidecar", "said"),
    [
        ({"dim": DIM, "rows": 57}, "embeddings: .* is to have 57 rows and has 56; embed again"),
        (
            {"rows": 56},
            r"^data\.one\.embeddings: .*_embeddings\.json has no dim; give the OUTPUT",
        ),
        ({"dim": "many"}, r"^data\.one\.embeddings: .* has no dim; "),
        (["dim"], r"^data\.one\.embeddings: .*holds no embeddings that can be read"),
    ],
)
def test_a_table_that_is_not_as_its_sidecar_says_is_refused(
    world: Path, tmp_path: Path, sidecar: Any, said: str
) -> None:
    table = Path(shutil.copytree(world / "emb", tmp_path / "emb"))
    if isinstance(sidecar, dict):
        sidecar = {**sidecar, "encoder_fingerprint": fingerprint_directory(world / "encoder")}
    (table / "_embeddings.json").write_text(json.dumps(sidecar))
    with pytest.raises(SettingsError, match=said):
        check_settings(settings(world, tmp_path / "out", embeddings=str(table)))


def test_a_broken_part_is_refused(world: Path, tmp_path: Path) -> None:
    """Its end is looked at before anything else; what is broken inside is found when it is packed."""
    table = Path(shutil.copytree(world / "emb", tmp_path / "emb"))
    part, chosen = table / "embeddings" / "part-1.parquet", settings(world, tmp_path / "out", embeddings=str(table))
    whole = part.read_bytes()
    part.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    check_settings(chosen)
    with pytest.raises(SettingsError, match=r"^embeddings: .*part-1\.parquet cannot be read"):
        ensure_store(chosen, tmp_path / "store")
    part.write_bytes(whole[:-20])
    with pytest.raises(SettingsError, match=r"^embeddings: .*part-1\.parquet cannot be read"):
        check_settings(chosen)


def test_broken_weights_of_the_model_to_go_on_from_are_found_first(
    world: Path, tmp_path: Path, tiny_model_dir: str
) -> None:
    model = writable_copy(Path(tiny_model_dir), tmp_path / "model")
    (model / "mapper.safetensors").write_bytes((model / "mapper.safetensors").read_bytes()[:-8])
    with pytest.raises(SettingsError, match=r"^model: .*mapper\.safetensors is not a whole safetensors file"):
        check_settings(settings(world, tmp_path / "out", model=str(model)))


def test_wrong_data_is_found_before_anything_is_loaded(world: Path, tmp_path: Path) -> None:
    for changes, said in wrong(world, tmp_path).values():
        with pytest.raises(SettingsError, match=said):
            check_settings(settings(world, tmp_path / "out", **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": []}, "data"),
        ({"data": [{"name": "a"}]}, "data set a names both a corpus and audio, or neither"),
        ({"data": [{"name": "a", "corpus": "x"}] * 2}, "a is there twice"),
        ({"data": [{"name": "a", "corpus": "x", "ratio": 0}]}, "ratio above 0"),
        ({"model": "m", "llm": "l"}, "llm and model are both given, or neither; name llm .* or model"),
        ({"adapter": None}, "no adapter to train; say training.train: mapper"),
        ({"workers": [2, 1]}, r"workers: .*give at least 1, or \[fewest, most\]"),
        ({"wordings": "odd"}, "wordings: .*is no set of wordings; choose"),
        ({"training": {"steps": 0}}, "training.steps"),
        ({"long_tag": "[<SpeechHere>]"}, "long_tag: .*stands for the sound; leave it out"),
        ({"tasks": {"QA": {"tag": "<SpeechHere>"}}}, r"tasks.*tag: .*stands for the sound; leave it out"),
        ({"training": {"betas": [0.9, 1.0]}}, r"training\.betas"),
        ({"training": {"betas": [-0.1, 0.9]}}, r"training\.betas"),
        ({"training": {"learning_rate": float("nan")}}, "learning_rate"),
        ({"colour": "red"}, "^colour: there is no such setting; choose one of output, data"),
    ],
)
def test_settings_that_do_not_fit_together(world: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(world, tmp_path / "out", **changes)
