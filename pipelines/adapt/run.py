"""Sentences and a model → a model that knows their words, step by step:

    sentences ─▶ records ─┐                 ┌─▶ memory, extended ─┐
    memory ─▶ its answers ┴─▶ embed-text ───┴─▶ train ────────────┴─▶ OUT, a model directory

Every step's result is kept in OUT/_state until the model is there: what is done is not done again. The model is trained
on both kinds of records at once, so that it learns the new words and forgets none.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.model.config import ModelConfig
from mats_core.model.directory import PARTS, check_model_dir, model_fingerprint, part_uri, resolve
from mats_core.storage.fingerprint import cache_folder, hash_settings
from pipelines.adapt.records import answer_memory, new_records, read_records, text_files, write_records
from pipelines.cluster.progress import Progress
from pipelines.cluster.session import check_device
from pipelines.data.corpus import FileReport, check_error_rate, corpus_files, read_corpus
from pipelines.data.embeddings import list_parts, read_part
from pipelines.output.folder import Output, open_output
from pipelines.output.record import maker, of_older_version
from pipelines.settings.adapt import AdaptSettings
from pipelines.settings.base import build
from pipelines.settings.calling import by_name
from pipelines.settings.text import EmbedTextSettings
from pipelines.settings.train import MODEL, TrainSettings
from pipelines.text.embed_text import run_embed_text
from pipelines.train.run import TrainProgress, run_train

OF_A_MODEL = ("mats.json", "mapper.safetensors", "adapter", "MODEL_CARD.md", "curves", *PARTS)
"""What OUT receives, besides `_run.json`; mats.json last, without which no directory counts as a model."""
FEWEST_STEPS = 25
"""Between two validations, each of which ends with a checkpoint; a run that is shorter is validated at its end."""
WORK = "work"
OUR_NAMES = ("_run.json", *OF_A_MODEL, f"_state/{WORK}")
NEW, REPLAY = "sentences", "replay"
_MAY_DIFFER = {"model", "out", "text", "replay_text", "allow_parts", "workers", "device", "max_error_rate", "overwrite"}

Tell = Callable[[Progress | TrainProgress], None]


@dataclass
class AdaptResult:
    """status: complete, complete_before, interrupted or failed, and `message` why. run: OUT's `_run.json`."""

    status: str
    model: str
    run: dict[str, Any] = field(repr=False)
    message: str = ""


def default_learning_rate(hidden_size: int) -> float:
    """A quarter of what the two ends were trained with, 4e-3 for an LLM 128 wide and 3e-5 for one 4096 wide, and
    between them the straight line of their logarithms. With the whole of it more is forgotten, and no more learned."""
    slope = np.log(4e-3 / 3e-5) / np.log(4096 / 128)
    return float(3e-5 / 4 * (4096 / hidden_size) ** slope)


@by_name(AdaptSettings)
def run_adapt(settings: AdaptSettings, progress: Tell | None = None) -> AdaptResult:
    """Adapt, or go on adapting, into `settings.out`; raises SettingsError before any work when that cannot be."""
    check_device(settings.device, None)
    config = check_model_dir(settings.model, settings.allow_parts)
    folder = resolve(settings.model)
    _check(settings, config, folder)
    files = text_files(settings.text)
    replay = corpus_files(settings.replay_text, "replay_text") if settings.replay_text else []
    found = {
        "job": "adapt", "model_fingerprint": model_fingerprint(folder, config),
        "files": hash_settings([(each.path, each.size, each.version) for each in [*files, *replay]])[:16],
        **settings.model_dump(mode="json", exclude=_MAY_DIFFER),
    }  # fmt: skip
    with open_output(settings.out, found, overwrite=settings.overwrite, written=OUR_NAMES) as out:
        before = out.read_run()
        if before is not None and before.get("status") == "complete" and storage.exists(out.join("mats.json")):
            return AdaptResult("complete_before", settings.out, before)
        return _Adaptation(settings, config, folder, out, progress or (lambda _: None)).run(files)


def _check(settings: AdaptSettings, config: ModelConfig, folder: Path) -> None:
    """SettingsError for a model that cannot be adapted, and for an OUT that is no place for the new one."""
    if config.encoder is None:
        raise SettingsError("model", "it has no encoder for the sentences to go through", "name one with its CLAP")
    if settings.replay and not settings.replay_text and config.memory is None:
        remedy = "name its training text (--replay-text), or say --replay 0 and let it forget"
        raise SettingsError("replay", "the model has no memory, whose captions would be its own text", remedy)
    if storage.same_place(settings.out, str(folder)) or storage.lies_in(str(folder), settings.out):
        raise SettingsError("out", "it holds the model that is adapted", "choose another folder")
    for name in (*settings.text, *settings.replay_text):
        if storage.same_place(name, settings.out) or storage.lies_in(name, settings.out):
            raise SettingsError("out", f"{storage.public_uri(name)} lies in it", "choose another folder")
    try:
        foreign = storage.exists(storage.join(settings.out, "mats.json")) and maker(_before(settings.out)) != "adapt"
    except storage.StorageError:
        return  # an OUT that cannot be written is refused later
    if foreign:
        problem = f"{storage.public_uri(settings.out)} holds a model that `mats adapt` has not made"
        raise SettingsError("out", problem, "choose another folder")


def _before(output: str) -> Any:
    from pipelines.data.generations import newest

    return newest(output) or of_older_version(output, overwrite=True)


class _Adaptation:
    """One run. `work`: a local folder with what every step has made."""

    def __init__(self, settings: AdaptSettings, config: ModelConfig, folder: Path, out: Output, tell: Tell) -> None:
        self.settings, self.config, self.folder, self.out, self.tell = settings, config, folder, out, tell
        state = storage.local_path(out.join("_state", WORK))
        local = Path(state.decode("utf-8", "surrogateescape")) if state is not None else None
        self.work = local or cache_folder("adapt") / hash_settings([settings.out])[:16]
        self.began = time.time()
        shown = {**settings.model_dump(), "text": [storage.public_uri(uri) for uri in settings.text]}
        self.facts: dict[str, Any] = {
            "job": "adapt", "settings": shown,
        }  # fmt: skip

    def run(self, files: list[storage.FileInfo]) -> AdaptResult:
        """The whole run; OUT's record says how it ended, however that was."""
        with self.out.recorded(self.facts, self.began):
            self.facts["status"], message = self._steps(files)
            self.facts |= {"message": message} if message else {}
        if self.facts["status"] == "complete":
            shutil.rmtree(self.work, ignore_errors=True)
        return AdaptResult(self.facts["status"], self.settings.out, self.facts, self.facts.get("message", ""))

    def _steps(self, files: list[storage.FileInfo]) -> tuple[str, str]:
        texts = self.work / "text"
        texts.mkdir(parents=True, exist_ok=True)
        self._write_new(files, texts)
        if self.settings.replay:
            self._write_replay(texts)
        embedded = run_embed_text(
            build(EmbedTextSettings, {
                "corpora": [str(texts)], "output": str(self.work / "embedded"), "encoder": self.settings.model,
                "allow_parts": self.settings.allow_parts, "device": self.settings.device.partition(":")[0],
            }),
            self.tell,
        )  # fmt: skip
        if embedded.status == "interrupted":
            return "interrupted", ""
        if self.config.memory is not None:
            self._extend_memory(texts)
        self.out.check()
        trained = run_train(self._training(texts), self.tell)
        if trained.status not in ("complete", "complete_before"):
            return trained.status, trained.message
        names = ("step", "samples", "tokens", "seconds", "validation")
        self.facts["training"] = {name: trained.run.get(name) for name in names}
        self._publish(self.work / "trained" / MODEL)
        return "complete", ""

    def _write_new(self, files: list[storage.FileInfo], texts: Path) -> None:
        path, noted = texts / f"{NEW}.jsonl", self.work / "sentences.json"
        if not (path.exists() and noted.exists()):
            reports: list[FileReport] = []
            count = write_records(path, new_records(files, self.settings.columns, self.settings.task, reports))
            check_error_rate(reports, self.settings.max_error_rate)
            if not count:
                raise SettingsError("text", "there is no sentence in it", "give at least one")
            problems = dict(sum((each.problems for each in reports), Counter()))
            storage.write_bytes(str(noted), json.dumps({"sentences": count, "problems": problems}).encode())
        self.facts |= json.loads(noted.read_text())

    def _write_replay(self, texts: Path) -> None:
        path = texts / f"{REPLAY}.jsonl"
        if not path.exists():
            if self.settings.replay_text:
                reports = [FileReport(info.uri) for info in corpus_files(self.settings.replay_text, "replay_text")]
                rows = (row for each in reports for row in read_corpus(each.uri, each))
                write_records(path, rows)
                check_error_rate(reports, self.settings.max_error_rate)
            else:
                from mats_core.model.model import load_model

                allowed = self.settings.allow_parts
                model = load_model(self.settings.model, self.settings.device, encoder=False, allow_parts=allowed)
                folder, count = self.work / "answered", self.settings.replay_captions
                folder.mkdir(exist_ok=True)

                def tell(done: int, of: int) -> None:
                    self.tell(Progress("replay", done, of))

                write_records(path, answer_memory(model, folder, count, self.settings.seed, tell))
        with path.open("rb") as file:
            self.facts["replayed"] = sum(1 for _ in file)

    def _extend_memory(self, texts: Path) -> None:
        """The model's memory, and behind its rows the new captions."""
        from mats_core.memory.extend import extend_memory

        target = self.work / "memory"
        if not (target / "memory.json").exists():
            self.tell(TrainProgress("extending the memory"))
            wanted = dict.fromkeys(row["caption"] for row in read_records(texts / f"{NEW}.jsonl"))
            captions: list[str] = []
            vectors: list[np.ndarray] = []
            for info in list_parts(str(self.work / "embedded")):
                for batch in read_part(info.uri, 8192, ["caption", "embedding"]):
                    table = np.stack(batch["embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
                    chosen = [at for at, text in enumerate(batch["caption"].to_pylist()) if text in wanted]
                    captions += [batch["caption"][at].as_py() for at in chosen]
                    vectors.append(table[chosen])
            source = str(part_uri(self.folder, self.config.memory))
            extend_memory(source, np.concatenate(vectors), captions, NEW).save(str(target))
        note = json.loads((target / "memory.json").read_text())
        self.facts["memory"] = {"captions": note["count"]}

    def _training(self, texts: Path) -> TrainSettings:
        settings, config = self.settings, self.config
        inside = [name for name in PARTS if (part := getattr(config, name)) and (self.folder / part.uri).exists()]
        data: list[dict[str, Any]] = []
        for name, ratio in ((NEW, 1 - settings.replay), (REPLAY, settings.replay)):
            if ratio:
                count = self.facts["sentences" if name == NEW else "replayed"]
                corpus = str(texts / f"{name}.jsonl")
                data.append({"name": name, "corpus": corpus, "ratio": ratio, "validation": min(64, count // 20)})
        values: dict[str, Any] = {
            "output": str(self.work / "trained"), "model": settings.model, "data": data,
            "embeddings": str(self.work / "embedded"), "allow_parts": settings.allow_parts,
            "include": sorted({*inside, *(["memory"] if config.memory else [])}),
            "workers": settings.workers, "device": settings.device.partition(":")[0],
            "checkpoint_every": 50, "validate_every": max(FEWEST_STEPS, settings.steps // 4),
            "training": {
                "steps": settings.steps, "batch_size": settings.batch_size, "seed": settings.seed,
                "learning_rate": settings.learning_rate or default_learning_rate(config.hidden_size),
                "warmup_steps": settings.steps // 10, "noise_variance": config.noise_variance, "clip_norm": 1.0,
                "weight_decay": 0.01, "train": "mapper+adapter" if config.adapter else "mapper",
            },
        }  # fmt: skip
        if config.memory is not None:
            values["memory"] = str(self.work / "memory")
        return build(TrainSettings, values)

    def _publish(self, made: Path) -> None:
        """Put the model into OUT: first all that it is made of, and its mats.json last."""
        files = sorted((each for each in made.rglob("*") if each.is_file()), key=lambda each: each.name == "mats.json")
        self.tell(TrainProgress("writing the model"))
        for file in files:
            self.out.check()
            target = self.out.join(*file.relative_to(made).parts)
            place = storage.local_path(target)
            if place is not None:
                os.makedirs(os.path.dirname(place), exist_ok=True)
                os.replace(file, place)
                continue
            with file.open("rb") as opened:
                storage.write_from(target, opened)
