"""The stages without Ray: nothing depends on the batch, and a row that fails fails alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

import mats_core
from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.archive.decode_stage import DecodeStage, decode_stage
from pipelines.archive.headers import Scanner
from pipelines.archive.model_spec import ModelSpec
from pipelines.archive.stages import AnswerStage, EmbedStage, answer_stage, embed_stage
from pipelines.archive.work_list import WorkList, shard_table
from pipelines.cluster.stages import StageContext
from pipelines.data.inputs import open_input
from pipelines.settings.archive import LimitSettings, RunSettings

RATE, WINDOW_S = 16_000, 5.0
SECONDS = (0.4, 1.0, 5.0, 6.5, 9.9, 12.0, 3.3, 7.7, 2.2, 65.0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of many lengths and rates."""
    folder = tmp_path_factory.mktemp("archive")
    draw = np.random.default_rng(5)
    for index, seconds in enumerate(SECONDS):
        rate = (16_000, 8_000, 44_100)[index % 3]
        time = np.arange(round(seconds * rate)) / rate
        sound = 0.3 * np.sin(2 * np.pi * draw.uniform(100, 3000) * time) + 0.05 * draw.standard_normal(len(time))
        soundfile.write(folder / f"{index:02d}.wav", sound, rate)
    (folder / "text.wav").write_text("not a sound")
    return folder


@pytest.fixture(scope="module")
def decoded(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """All rows of the archive as the decode stage hands them on: 12, the 65 s file being two."""
    folder = str(tmp_path_factory.mktemp("state") / "work")
    work = WorkList(folder, pa.schema([]))
    with Scanner(60.0, LimitSettings()) as scanner:
        work.extend(open_input(str(archive)), scanner, {"task": "caption"})
    stage = DecodeStage(StageContext(folder), RATE, LimitSettings())
    mask = np.zeros(work.total, bool)
    mask[0] = True  # finished before
    (table,) = stage(shard_table(0, work.total, mask))
    assert table["row_id"].to_pylist() == list(range(1, 12))
    mask[:] = True
    mask[0] = False
    (first,) = stage(shard_table(0, work.total, mask))
    return pa.concat_tables([first, table])


@pytest.fixture(scope="module")
def answerer(tiny_model_dir: str) -> AnswerStage:
    spec = ModelSpec(tiny_model_dir, window_s=WINDOW_S, segments=True, with_embedding=True, explain=True)
    return AnswerStage(StageContext(), spec)


def run(stage: Any, table: pa.Table, batch: int) -> dict[int, dict[str, Any]]:
    """Rows by id, the stage having seen `batch` at a time."""
    stage.slots = batch
    found = [row for at in range(0, len(table), batch) for row in stage(table.slice(at, batch)).to_pylist()]
    return {row["row_id"]: row for row in found}


def same(one: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]]) -> None:
    assert one.keys() == other.keys()
    for row_id, row in one.items():
        for name in ("text", "error_code", "decoded_s"):
            assert row[name] == other[row_id][name], (row_id, name)
        assert [s["text"] for s in row["segments"] or []] == [s["text"] for s in other[row_id]["segments"] or []]
        if row["embedding"] is not None:
            np.testing.assert_allclose(row["embedding"], other[row_id]["embedding"], atol=1e-5)


@pytest.mark.processes
def test_answers_do_not_depend_on_batch_or_order(answerer: AnswerStage, decoded: pa.Table) -> None:
    alone = run(answerer, decoded, 1)
    assert len({row["text"] for row in alone.values()}) > 3  # the tiny model does tell sounds apart
    same(alone, run(answerer, decoded, 7))
    same(alone, run(answerer, decoded, 32))
    order = np.random.default_rng(1).permutation(len(decoded))
    same(alone, run(answerer, decoded.take(order), 5))


@pytest.mark.processes
def test_stored_embeddings_give_the_answers_of_the_audio(
    answerer: AnswerStage, decoded: pa.Table, tiny_model_dir: str
) -> None:
    embedded = EmbedStage(StageContext(), ModelSpec(tiny_model_dir, window_s=WINDOW_S))(decoded)
    assert "pcm" not in embedded.schema.names
    weights = [sum(w["weight"] for w in row["windows"]) for row in embedded.to_pylist()]
    np.testing.assert_allclose(weights, embedded["decoded_s"].to_pylist(), atol=1e-4)
    same(run(answerer, decoded, 4), run(answerer, embedded, 3))


@pytest.mark.processes
def test_answers_are_those_of_the_model_alone(answerer: AnswerStage, decoded: pa.Table, tiny_model_dir: str) -> None:
    model = mats_core.load_model(tiny_model_dir)
    rows = run(answerer, decoded, 8)
    for uri in {row["uri"] for row in rows.values() if row["error_code"] is None}:
        ours = sorted((r for r in rows.values() if r["uri"] == uri), key=lambda r: r["start_s"])
        theirs = model.answers(uri, task="caption", segments=True)
        assert [row["text"] for row in ours] == [answer.text for answer in theirs]
        for row, answer in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(row["embedding"], answer.embedding, atol=1e-5)
            assert row["segments"] == [vars(segment) for segment in answer.segments or []]


@pytest.mark.processes
def test_segments_cover_the_file_with_its_times(answerer: AnswerStage, decoded: pa.Table) -> None:
    rows = [row for row in run(answerer, decoded, 8).values() if row["uri"].endswith("09.wav")]
    spans = [(s["start_s"], s["end_s"]) for row in sorted(rows, key=lambda r: r["start_s"]) for s in row["segments"]]
    assert spans == [(5.0 * index, 5.0 * index + 5.0) for index in range(13)]
    (short,) = [row for row in run(answerer, decoded, 8).values() if row["uri"].endswith("03.wav")]
    assert [(s["start_s"], s["end_s"]) for s in short["segments"]] == [(0.0, 5.0), (1.5, 6.5)]


@pytest.mark.processes
def test_a_bad_file_is_a_row_with_its_code(answerer: AnswerStage, decoded: pa.Table) -> None:
    (row,) = [row for row in run(answerer, decoded, 8).values() if row["uri"].endswith("text.wav")]
    assert row["error_code"] == "not_audio"
    assert (row["text"], row["segments"], row["embedding"], row["decoded_s"]) == (None, None, None, 0.0)


@pytest.mark.processes
def test_neighbours_of_santa_come_along_when_asked(answerer: AnswerStage, decoded: pa.Table) -> None:
    row = run(answerer, decoded.slice(0, 1), 1)[0]
    assert len(row["neighbors"]) > 1
    assert sum(each["weight"] for each in row["neighbors"]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.processes
def test_stages_read_write_and_drop_what_they_declare(
    answerer: AnswerStage, archive: Path, tmp_path: Path, tiny_model_dir: str
) -> None:
    work = WorkList(str(tmp_path), pa.schema([]))
    with Scanner(60.0, LimitSettings()) as scanner:
        work.extend(open_input(str(archive / "01.wav")), scanner, {"task": "caption"})
    rows = work.read(0, work.total)
    decode = decode_stage(RunSettings(input="in", output="out"), RATE)
    embedder = EmbedStage(StageContext(), ModelSpec(tiny_model_dir, window_s=WINDOW_S))
    for stages, actor in (
        ([decode, answer_stage(answerer.spec)], answerer),
        ([decode, embed_stage(embedder.spec)], embedder),
    ):
        table, columns = rows, set(rows.schema.names)
        for stage, made in zip(stages, (decode.make(StageContext(str(tmp_path))).load, actor), strict=True):
            columns = (columns | set(stage.writes)) - set(stage.drops)
            enough = table.select([name for name in table.schema.names if name in stage.reads])
            assert len(made(enough)) == len(rows)  # it reads nothing else
            table = made(table)
            assert {name for name in table.schema.names if not name.startswith("_")} == columns


@pytest.mark.processes
def test_a_chunk_past_the_real_end_is_no_error(tmp_path: Path, answerer: AnswerStage) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE) + 0.1, RATE)
    rows = pa.Table.from_pylist(
        [
            {"row_id": 0, "uri": str(tmp_path / "a.wav"), "start_s": 60.0, "duration_s": 9.0, "last": True},
            {"row_id": 1, "uri": str(tmp_path / "a.wav"), "start_s": 0.0, "duration_s": 60.0, "last": False},
        ]
    )
    for name in ("error_code", "error_message", "question", "tag"):
        rows = rows.append_column(name, pa.nulls(2, pa.string()))
    rows = rows.append_column("task", pa.array(["caption"] * 2))
    found = storage.stat(str(tmp_path / "a.wav"))
    rows = rows.append_column("size_bytes", pa.array([found.size] * 2))
    rows = rows.append_column("version", pa.array([found.version] * 2))
    stage = DecodeStage(StageContext(str(tmp_path / "unused")), RATE, LimitSettings())
    past, inside = answerer(stage.load(rows)).to_pylist()
    assert (past["error_code"], past["decoded_s"], past["text"], past["segments"]) == (None, 0.0, None, None)
    assert (past["complete"], past["error_message"]) == (
        False,
        "the header promises sound at 60 s, but the file ends at 1.0 s",
    )
    assert (inside["complete"], inside["lost_s"]) == (True, 0.0)
    assert inside["decoded_s"] == 1.0
    assert inside["text"]


@pytest.mark.processes
def test_a_row_the_model_fails_on_is_flagged_alone(
    answerer: AnswerStage, decoded: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = run(answerer, decoded, 32)
    answer, embed = answerer.model.answer_embeddings, answerer.model.stack_windows

    def failing_answer(vectors: Any, requests: Any, **given: Any) -> Any:
        if any(np.allclose(vector, good[3]["embedding"], atol=1e-5) for vector in vectors.numpy()):
            raise RuntimeError("out of luck\nwith details")
        return answer(vectors, requests, **given)

    def failing_embed(sounds: Any) -> Any:
        if any(len(sound) == round(0.4 * RATE) for sound in sounds):
            raise MemoryError("too much")
        return embed(sounds)

    monkeypatch.setattr(answerer.model, "answer_embeddings", failing_answer)
    monkeypatch.setattr(answerer.model, "stack_windows", failing_embed)
    rows = run(answerer, decoded, 32)
    assert {row_id for row_id, row in rows.items() if row["error_code"] == "model_error"} == {0, 3}
    assert rows[3]["error_message"] == "the model failed on this row: RuntimeError: out of luck"
    assert rows[3]["text"] is None
    for row_id in set(rows) - {0, 3}:
        assert rows[row_id]["text"] == good[row_id]["text"]


@pytest.mark.processes
def test_a_model_that_does_not_load_tells_why_when_it_is_asked(decoded: pa.Table, tmp_path: Path) -> None:
    """Not while the actor starts: of that Ray hands on a text, and a wrong setting would end with code 1."""
    broken = AnswerStage(StageContext(), ModelSpec(str(tmp_path / "none"), window_s=WINDOW_S))
    with pytest.raises(SettingsError, match=r"^model: there is no directory .*none; give a model directory"):
        broken(decoded)
