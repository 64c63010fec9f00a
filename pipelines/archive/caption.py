"""`mats caption`: audio, or audio embeddings → answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mats_core import storage
from mats_core.confidence.calibration import NONE
from mats_core.encoders.facts import refuse_other_encoder
from mats_core.errors import SettingsError, checked
from mats_core.memory.bridges import KINDS as BRIDGES
from mats_core.model.config import DecodingSettings, SantaSettings
from mats_core.model.facts import ModelFacts, read_model_facts
from mats_core.model.prompts import validate_request
from mats_core.storage.fingerprint import hash_settings
from pipelines.archive.by_file import fetch_files_stage, hear_stages, whole_files
from pipelines.archive.decode_stage import decode_stage, fetch_stage
from pipelines.archive.headers import Rowing
from pipelines.archive.model_spec import ModelSpec, model_spec
from pipelines.archive.run import Job, RunResult, check_not_empty, run_rows
from pipelines.archive.stages import answer_stage
from pipelines.cluster.progress import Progress
from pipelines.cluster.stages import Stage
from pipelines.data import parquet
from pipelines.data.embeddings import list_parts, read_facts
from pipelines.data.inputs import Entry, Input, open_input
from pipelines.data.schemas import REQUEST_COLUMNS, output_columns
from pipelines.settings.archive import DECODING_FIELDS, CaptionSettings, number_types, scored, silence
from pipelines.settings.calling import by_name

ANSWERS = "answers"


@by_name(CaptionSettings)
def run_caption(settings: CaptionSettings, progress: Callable[[Progress], None] | None = None) -> RunResult:
    """Answer every row of `settings.input` into `settings.output`/answers.

    Raises SettingsError before any model is loaded when something asked for cannot work.
    """
    if settings.dry_run:
        raise SettingsError("dry_run", "run_caption writes answers", "call run_dry, which writes nothing")
    return run_rows(settings, *caption_job(settings), progress)


def caption_job(settings: CaptionSettings) -> tuple[Job, Input]:
    """The job of these settings, and what INPUT names; raises SettingsError for what cannot work."""
    facts = read_model_facts(settings.model, settings.allow_parts, settings.trust_remote_code)
    decoding, santa = chosen_decoding(settings, facts)
    tasks = tuple(facts.config.tasks)

    def check(entry: Entry) -> None:
        task, question, tag = (entry.request.get(name) or getattr(settings, name) for name in REQUEST_COLUMNS)
        validate_request(task, question, tasks, tag)
        check_confidence(settings, facts, task)

    inputs = check_not_empty(
        open_input(settings.input, settings.schemes, settings.columns, settings.all_files, settings.per == "file"),
        settings.input,
    )
    if settings.per == "file" and inputs.kind in ("manifest", "embeddings"):
        inputs.entries = whole_files(inputs.entries, facts.chunk_s)
    embeddings = settings.input if inputs.kind == "embeddings" else None
    if embeddings is not None:
        made_with = read_facts(embeddings, "audio", "input").encoder_fingerprint
        remedy = 'embed the audio again with "mats embed-audio"'
        refuse_other_encoder("input", storage.public_uri(embeddings), made_with, facts.encoder_fingerprint, remedy)
    if inputs.kind != "list":
        validate_request(settings.task, settings.question, tasks, settings.tag)
    bridge = chosen_bridge(settings, facts, embeddings)
    beams = decoding["beams"]
    if settings.rerank > beams:
        raise SettingsError("rerank", f"there are {beams} beams, not {settings.rerank}", "choose more --beams as well")
    calibration = checked_calibration(settings, facts, decoding, santa, bridge)
    if inputs.kind != "list":
        check_confidence(settings, facts, settings.task)
    spec = model_spec(settings, facts, decoding=decoding, santa=santa, bridge=bridge)
    job = Job(
        name="caption",
        folder=ANSWERS,
        identity=_identity(settings, facts, embeddings, decoding, santa, bridge) | scored(settings, calibration),
        chunk_s=facts.chunk_s,
        model_bytes=facts.size,
        defaults=settings.model_dump(include=set(REQUEST_COLUMNS)),
        stages=_stages(settings, spec, facts, embeddings),
        check=check,
        told={"generation": facts.generation, "calibration": calibration} | unused(settings, facts, calibration),
        rows=Rowing(settings.per, facts.window_s, facts.sample_rate),
    )
    return job, inputs


def _stages(settings: CaptionSettings, spec: ModelSpec, facts: ModelFacts, embeddings: str | None) -> list[Stage]:
    if embeddings is None and settings.per == "file":
        return hear_stages(settings, spec, facts.sample_rate, facts.chunk_s)
    if embeddings is None:
        return [decode_stage(settings, facts.sample_rate), answer_stage(spec)]
    fetch = fetch_files_stage(embeddings) if settings.per == "file" else fetch_stage(embeddings, settings.per)
    return [fetch, answer_stage(spec, "windows")]


def chosen_decoding(settings: CaptionSettings, facts: ModelFacts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Decoding and Santa settings: the model's, with what the user overrides. Raises SettingsError."""
    given = {name: getattr(settings, name) for name in DECODING_FIELDS}
    changes = {name: value for name, value in given.items() if value is not None}
    decoding = facts.config.decoding.updated(
        checked(DecodingSettings, changes, "decoding").model_dump(include=set(changes))
    )
    if facts.positions and decoding.max_new_tokens >= facts.positions:
        problem = f"{decoding.max_new_tokens} tokens do not fit the LLM, which reads and writes {facts.positions}"
        raise SettingsError("max_new_tokens", problem, f"choose less than {facts.positions}")
    overrides = {name: getattr(settings, f"santa_{name}", None) for name in SantaSettings.model_fields}
    changes = {name: value for name, value in overrides.items() if value is not None}
    santa = checked(SantaSettings, {**facts.config.santa.model_dump(), **changes}, "santa")
    return decoding.model_dump(), santa.model_dump()


OTHERWISE = "the model was calibrated with other settings of decoding, Santa, bridge or --rerank"


def unused(settings: CaptionSettings, facts: ModelFacts, calibration: str) -> dict[str, str]:
    """Why the calibration that a model has is not used; nothing where it is, where there is none, or no score."""
    if calibration or not settings.score or facts.uncalibrated == NONE:
        return {}
    return {"calibration_unused": facts.uncalibrated or OTHERWISE}


def checked_calibration(
    settings: CaptionSettings,
    facts: ModelFacts,
    decoding: dict[str, Any],
    santa: dict[str, Any],
    bridge: dict[str, Any],
) -> str:
    """Which calibration gives answers their confidence, "" where they get none.

    Raises SettingsError where --min-confidence needs one, and there is none for what is asked.
    """
    usual = (facts.config.decoding.model_dump(), facts.config.santa.model_dump(), {}) == (decoding, santa, bridge)
    found = facts.calibration if usual and settings.score else None
    if found is not None and found.rerank == settings.rerank:
        return found.fingerprint
    if settings.min_confidence:
        if not settings.score:
            raise SettingsError("min_confidence", "--no-score leaves every confidence out", "leave out one of the two")
        if facts.calibration is None:
            problem = f"answers have no confidence: of the model, {facts.uncalibrated}"
            raise SettingsError("min_confidence", problem, "calibrate it with `mats calibrate`")
        raise SettingsError("min_confidence", OTHERWISE, "leave those as they were, or --min-confidence out")
    return ""


def check_confidence(settings: CaptionSettings, facts: ModelFacts, task: str) -> None:
    """SettingsError where --min-confidence is to decide on answers of a task whose confidence nobody knows."""
    known = facts.calibration
    if settings.min_confidence and known is not None and not known.knows(task):
        problem = f"answers of {task} have no confidence: the model was calibrated for {', '.join(sorted(known.tasks))}"
        remedy = f"judge answers of {task} as well and calibrate anew with `mats calibrate`, or leave it out"
        raise SettingsError("min_confidence", problem, remedy)


def chosen_bridge(settings: CaptionSettings, facts: ModelFacts, embeddings: str | None) -> dict[str, Any]:
    """Settings of a bridge other than Santa, {} for Santa. Raises SettingsError.

    embeddings: where the audio's embeddings are stored; mean-shift takes their mean.
    """
    if settings.bridge not in BRIDGES:
        raise SettingsError("bridge", f'"{settings.bridge}" is no bridge', f"choose {', '.join(BRIDGES)}")
    if settings.bridge == "santa":
        return {}
    values: dict[str, Any] = {"kind": settings.bridge}
    if settings.bridge != "none" and facts.config.memory is None:
        problem = f"{settings.bridge} needs a memory of texts, and this model has none"
        raise SettingsError("bridge", problem, "choose santa or none")
    if settings.bridge == "projection":
        values["scale"] = settings.projection_scale
    if settings.bridge == "retrieval":
        values["captions"] = settings.retrieved
    if settings.bridge == "mean-shift":
        if embeddings is None:
            problem = "mean-shift needs the mean of the audio embeddings, and INPUT is audio"
            raise SettingsError("bridge", problem, "give the OUTPUT of `mats embed-audio` as INPUT")
        values["audio_mean"] = audio_mean(embeddings)
    return values


def audio_mean(embeddings: str) -> list[float]:
    """Mean of the unit embeddings of all sounds of an embed-audio OUTPUT, [D]; raises SettingsError without any."""
    import numpy as np

    from mats_core.audio.windows import pool_windows

    total, count = np.zeros(0), 0
    for info in list_parts(embeddings):
        for batch in parquet.batches(info.uri, 1024, ["windows"]):
            for windows in filter(None, batch["windows"].to_pylist()):
                if not any(window["weight"] for window in windows):
                    continue  # silence
                vectors = np.array([window["embedding"] for window in windows], np.float32)
                pooled = pool_windows(vectors, np.array([window["weight"] for window in windows], np.float32))
                total = total + pooled if count else pooled.astype(np.float64)
                count += 1
    if not count:
        problem = f"{storage.public_uri(embeddings)} holds no embedding of a sound"
        raise SettingsError("input", problem, "embed an archive that has sounds with `mats embed-audio`")
    mean: list[float] = (total / count).astype(np.float32).tolist()
    return mean


def _identity(
    settings: CaptionSettings,
    facts: ModelFacts,
    embeddings: str | None,
    decoding: dict[str, Any],
    santa: dict[str, Any],
    bridge: dict[str, Any],
) -> dict[str, Any]:
    """What must stay the same in one OUTPUT: the model and every setting that changes answers or columns."""
    names = ("task", "question", "tag", "segments", "explain", "with_embedding", "max_seconds")
    identity = {
        "job": "caption",
        "model": facts.fingerprint,
        "source": "audio" if embeddings is None else "embeddings",
        **settings.model_dump(include=set(names)),
        **{each.setting: True for each in output_columns("caption", settings) if each.setting},
        "decoding": decoding,
        "santa": santa,
        **number_types(settings),
        **silence(settings),
    }
    if settings.per != "minute":
        identity["per"] = settings.per
    if bridge:  # only then, so that outputs begun before there were others stay as they are
        mean = {"audio_mean": hash_settings({"mean": bridge["audio_mean"]})} if "audio_mean" in bridge else {}
        identity["bridge"] = {**bridge, **mean}
    return identity
