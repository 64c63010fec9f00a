"""One adaptation as the driver sees it, with stand-ins for the jobs that start Ray."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pipelines.adapt.run as adapting
from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.memory.santa import SantaMemory
from mats_core.model.model import load_model
from pipelines.adapt.run import default_learning_rate, run_adapt
from pipelines.data import parquet
from pipelines.data.corpus import caption_id
from pipelines.settings.adapt import AdaptSettings
from pipelines.settings.base import build
from pipelines.text.embed_text import EmbedTextResult
from pipelines.train.run import TrainResult
from tests.tiny import DIM, make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    (tmp_path / "s.txt").write_text("A theremin wails.\nA kazoo buzzes.\nA theremin wails.\n")
    return tmp_path / "s.txt"


class Jobs:
    """Stand-ins for embed-text and train; `stop` names the one that is interrupted, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop: str = "") -> None:
        self.called: list[str] = []
        self.trained: list[Any] = []
        self.stop = stop
        monkeypatch.setattr(adapting, "run_embed_text", self.embed)
        monkeypatch.setattr(adapting, "run_train", self.train)

    def embed(self, settings: Any, tell: Any) -> EmbedTextResult:
        self.called.append("embed")
        if self.stop == "embed":
            self.stop = ""
            return EmbedTextResult("interrupted", settings.output, {})
        files = sorted(Path(settings.corpora[0]).glob("*.jsonl"))
        captions = sorted({json.loads(line)["caption"] for file in files for line in file.read_text().splitlines()})
        flat = np.random.default_rng(0).standard_normal(len(captions) * DIM).astype(np.float16)
        columns = {
            "caption_id": pa.array([caption_id(each) for each in captions]), "caption": pa.array(captions),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat), DIM),
        }  # fmt: skip
        parquet.write(f"{settings.output}/embeddings/part-0.parquet", pa.table(columns))
        return EmbedTextResult("complete", settings.output, {})

    def train(self, settings: Any, tell: Any) -> TrainResult:
        self.called.append("train")
        self.trained.append(settings)
        if self.stop == "train":
            self.stop = ""
            return TrainResult("interrupted", settings.output, "", 3, {})
        made = Path(settings.output) / "model"
        shutil.copytree(settings.model, made)
        shutil.rmtree(made / "memory")
        shutil.copytree(settings.memory, made / "memory")
        note = json.loads((made / "memory" / "memory.json").read_text())
        told = json.loads((made / "mats.json").read_text())
        told["memory"] = {"uri": "memory", "fingerprint": note["fingerprint"]}
        (made / "mats.json").write_text(json.dumps(told))
        return TrainResult("complete", settings.output, str(made), 4, {"step": 4, "validation": {}})


def settings(model: Path | str, text: Path, out: Path, **changes: Any) -> AdaptSettings:
    given = {"model": model, "text": text, "out": out, "steps": 4, "replay_captions": 20, "device": "cpu"}
    return build(AdaptSettings, {**given, **changes})


def test_a_model_directory_comes_out(
    model: Path, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, out = Jobs(monkeypatch), tmp_path / "m2"
    told: list[Any] = []
    result = run_adapt(settings(model, sentences, out), told.append)
    assert [(each.stage, each.done, each.total) for each in told[:2]] == [("replay", 0, 20), ("replay", 20, 20)]
    assert (result.status, result.run["sentences"]) == ("complete", 3)
    assert 10 <= result.run["replayed"] <= 20  # random weights may have nothing to say
    (training,) = jobs.trained
    assert [(each.name, each.ratio) for each in training.data] == [("sentences", 0.5), ("replay", 0.5)]
    assert training.validate_every > training.training.steps  # at the end of so short a run, and not at every step
    assert training.include == ["encoder", "llm", "memory"] and training.training.train == "mapper+adapter"
    adapted = load_model(out, device="cpu")  # whole: nothing of it lies in the work folder, which is gone
    assert not (out / "_state" / "work").exists()
    assert adapted.memory.count == SantaMemory.load(model / "memory").count + 2
    assert adapted.memory.captions(np.array([adapted.memory.count - 1])) in (["A theremin wails."], ["A kazoo buzzes."])
    again = run_adapt(settings(model, sentences, out))
    assert again.status == "complete_before" and jobs.called == ["embed", "train"]


def test_the_model_may_go_to_a_store(
    model: Path, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps are kept in the cache of this machine; in the store mats.json comes last, and no work is left."""
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    jobs, out = Jobs(monkeypatch, "train"), "memory://an-adapted-model"
    given = settings(model, sentences, tmp_path / "unused").model_copy(update={"out": out})
    assert run_adapt(given).status == "interrupted"
    assert not storage.exists(f"{out}/mats.json")
    written: list[str] = []
    put = storage.write_from
    monkeypatch.setattr(storage, "write_from", lambda uri, file: (written.append(uri), put(uri, file)))
    assert run_adapt(given).status == "complete" and jobs.called == ["embed", "train", "embed", "train"]
    assert written[-1] == f"{out}/mats.json" and f"{out}/memory/index.faiss" in written
    assert load_model(out, device="cpu").memory.count == SantaMemory.load(model / "memory").count + 2
    assert not list((tmp_path / "cache" / "adapt").iterdir())


@pytest.mark.parametrize("stop", ["embed", "train"])
def test_an_interrupted_run_goes_on_where_it_was(
    model: Path, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    jobs, out = Jobs(monkeypatch, stop), tmp_path / "m2"
    assert run_adapt(settings(model, sentences, out)).status == "interrupted"
    assert json.loads((out / "_run.json").read_text())["status"] == "interrupted"
    monkeypatch.setattr(adapting, "answer_memory", lambda *_: pytest.fail("answered anew"))
    assert run_adapt(settings(model, sentences, out)).status == "complete"
    assert jobs.called.count(stop) == 2


def test_other_sentences_are_refused_in_the_same_place(
    model: Path, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Jobs(monkeypatch, "train")
    run_adapt(settings(model, sentences, tmp_path / "m2"))
    with pytest.raises(SettingsError, match="steps was 4, is 5"):
        run_adapt(settings(model, sentences, tmp_path / "m2", steps=5))
    sentences.write_text("Something else altogether.\n")
    with pytest.raises(SettingsError, match="files was"):
        run_adapt(settings(model, sentences, tmp_path / "m2"))
    Jobs(monkeypatch)
    assert run_adapt(settings(model, sentences, tmp_path / "m2", overwrite=True)).run["sentences"] == 1


def test_without_replay_nothing_is_answered(
    model: Path, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(monkeypatch)
    monkeypatch.setattr(adapting, "answer_memory", lambda *_: pytest.fail("answered"))
    run_adapt(settings(model, sentences, tmp_path / "m2", replay=0))
    assert [each.name for each in jobs.trained[0].data] == ["sentences"]


def test_own_training_text_is_replayed_where_it_is_given(
    model: Path, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"caption": "a dog", "instruction": "", "output": "dog", "task": "cla_label"}
    (tmp_path / "own.jsonl").write_text(json.dumps(row) + "\n")
    jobs = Jobs(monkeypatch, "train")
    run_adapt(settings(model, sentences, tmp_path / "m2", replay_text=tmp_path / "own.jsonl"))
    replayed = Path(jobs.trained[0].data[1].corpus).read_text()
    assert json.loads(replayed)["output"] == "dog"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text": "gone.txt"}, "text: gone.txt cannot be read"),
        ({"task": "cooking"}, 'task: "cooking" is not a task'),
        ({"replay": 1}, "replay: "),
        ({"model": "gone"}, "model: there is no directory gone"),
        ({"out": "MODEL"}, "out: it holds the model that is adapted"),
        ({"out": "OTHER"}, "out: .* holds a model that `mats adapt` has not made"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(
    model: Path, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    jobs = Jobs(monkeypatch)
    shutil.copytree(model, tmp_path / "other")
    places = {"MODEL": model, "OTHER": tmp_path / "other"}
    given = {"model": model, "text": sentences, "out": tmp_path / "m2"} | changes
    with pytest.raises(SettingsError, match=said):
        run_adapt(settings(**{name: places.get(value, value) for name, value in given.items()}))  # type: ignore[arg-type]
    assert not jobs.called and not (tmp_path / "m2").exists()


def test_a_model_without_memory_says_what_to_replay(model: Path, sentences: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    told = json.loads((bare / "mats.json").read_text())
    (bare / "mats.json").write_text(json.dumps({**told, "memory": None}))
    with pytest.raises(SettingsError, match=r"no memory, .*--replay-text"):
        run_adapt(settings(bare, sentences, tmp_path / "m2"))
    (bare / "mats.json").write_text(json.dumps({**told, "encoder": None}))
    with pytest.raises(SettingsError, match="no encoder"):
        run_adapt(settings(bare, sentences, tmp_path / "m2"))


def test_too_many_unusable_sentences_are_refused_and_can_be_mended(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Jobs(monkeypatch)
    text = tmp_path / "s.txt"
    text.write_bytes(b"A dog.\n\xff\n")
    with pytest.raises(SettingsError, match="1 of 2 records cannot be used"):
        run_adapt(settings(model, text, tmp_path / "m2"))
    text.write_bytes(b"\n")
    with pytest.raises(SettingsError, match="no sentence"):
        run_adapt(settings(model, text, tmp_path / "m2"))
    text.write_bytes(b"A dog.\n")
    assert run_adapt(settings(model, text, tmp_path / "m2")).status == "complete"


def test_the_learning_rate_joins_the_two_that_are_known() -> None:
    assert default_learning_rate(128) == pytest.approx(1e-3)
    assert default_learning_rate(4096) == pytest.approx(7.5e-6)
    assert default_learning_rate(128) > default_learning_rate(768) > default_learning_rate(4096)
