"""Settings of what runs over an archive: scan, embed-audio and caption, and what one file may cost."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from mats_core.audio.levels import SILENCE_DBFS
from mats_core.memory.bridges import KINDS as BRIDGES
from mats_core.model.prompts import TASKS, task_name
from pipelines.settings.base import (
    Address,
    AllowParts,
    ChosenLlmDtype,
    Count,
    Device,
    EncoderDtype,
    ErrorCode,
    MapperDtype,
    Overwrite,
    Settings,
    Several,
)

Bytes = Annotated[int | None, Field(gt=0, le=1 << 50)]
Seconds = Annotated[float | None, Field(gt=0, le=1e7)]
Hertz = Annotated[int | None, Field(gt=0, le=10**9)]


INPUT_NAMES = ("all_files", "columns", "schemes")
"""Settings of what is taken of INPUT: of these a decoder knows nothing."""
INPUT_GROUP: dict[str, tuple[str, ...]] = {"What of INPUT": INPUT_NAMES}
RUN_GROUPS: dict[str, tuple[str, ...]] = {
    "Silence": ("silence_dbfs", "answer_silence"),
    "Machine": ("device", "actors", "decoders", "batch_size", "address", "llm_dtype", "mapper_dtype", "encoder_dtype",
                "deterministic"),
    "Resume": ("retry_errors", "overwrite", "prune", "max_error_rate", "commit_rows", "commit_seconds"),
}  # fmt: skip
LIMITS_GROUP: dict[str, tuple[str, ...]] = {
    "Limits of a file": (
        "max_file_bytes", "max_seconds", "decode_memory_bytes", "decode_deadline", "store_deadline",
        "max_sample_rate", "min_sample_rate", "max_channels",
    )
}  # fmt: skip
MODEL_GROUP: dict[str, tuple[str, ...]] = {"Model": ("model", "allow_parts", "trust_remote_code")}


def _task(given: str) -> str:
    if (name := task_name(given)) not in TASKS:
        raise ValueError(f'"{given}" is not a task; choose {", ".join(TASKS)}')
    return name


class LimitSettings(Settings):
    """Which files may be read, and what one may cost; the defaults are those of mats_core.audio.decode.DecodeLimits."""

    max_file_bytes: Bytes = Field(None, description="Refuse larger files (code too_large; default: 8 GiB).")
    max_seconds: Seconds = Field(None, description="Most seconds decoded at once (default: 1800).")
    decode_memory_bytes: Bytes = Field(None, description="Bytes a decoder may use above its start (default: 1 GiB).")
    decode_deadline: Seconds = Field(
        None, description="Seconds one file may take to decode (code timeout; default: 20)."
    )
    store_deadline: Seconds = Field(
        None, description="Further seconds a file may take to come from its store (default: 100)."
    )
    max_sample_rate: Hertz = Field(None, description="Highest sample rate a file may declare, in Hz (default: 768000).")
    min_sample_rate: Hertz = Field(None, description="Lowest sample rate a file may declare, in Hz (default: 1000).")
    max_channels: int | None = Field(
        None, gt=0, le=10**6, description="Most channels a file may declare (default: 64)."
    )
    schemes: Annotated[list[str] | None, Several] = Field(
        None,
        description="Kinds of storage that the rows of a list or manifest may name (file, s3, https, …; code refused "
        "for others). Default: any for a list on a local disk, its own kind for one in a bucket or on the web.",
    )
    all_files: bool = Field(
        False,
        description="Look into every file of a folder, whatever its name ends in; what is no sound gets not_audio.",
    )
    columns: Annotated[list[str] | None, Several] = Field(
        None, description="Columns of a list's own that are carried along (default: all; only `uri`: none)."
    )


class ScanSettings(LimitSettings):
    """Archive → manifest."""

    GROUPS = INPUT_GROUP | {"Run": ("overwrite", "decoders", "model", "allow_parts")} | LIMITS_GROUP
    input: str = Field(
        description="File, folder, glob, fsspec URL (hf://datasets/… too), a list (.parquet, .csv, .jsonl), Parquet "
        "with the sounds in it, or a manifest of NeMo or lhotse."
    )
    output: str = Field(description="Folder of the manifest; scanned again, only what is new is added.")
    model: str = Field("builtin", description="Model whose window decides the chunk length.")
    allow_parts: AllowParts = Field(default_factory=list)
    decoders: Count = Field(None, description="Processes that read headers (default: chosen).")
    overwrite: Overwrite = False


class RunSettings(LimitSettings):
    """What caption and embed-audio have in common."""

    PATHS = ("input", "output")
    MODELS = ("model", "allow_parts")
    input: str = Field(
        description="File, folder, glob, fsspec URL (hf://datasets/… too), a list (.parquet, .csv, .jsonl with a `uri` "
        "column), Parquet with the sounds in it, or a manifest (of `mats scan`, NeMo or lhotse); for `caption` also a "
        "folder of audio embeddings."
    )
    output: str = Field(description="Folder that receives the result; run again to continue.")
    model: str = Field("builtin", description='Model directory (path or URL), or "builtin".')
    batch_size: Count = Field(None, description="Rows the model takes at once (default: chosen).")
    actors: Count = Field(None, description="Model processes (default: one a GPU, else by cores and memory).")
    decoders: Count = Field(None, description="Decoding processes (default: chosen).")
    device: Device = Field("auto", description="auto, cpu, cuda.")
    trust_remote_code: bool = Field(False, description="Run Python files that come with the LLM.")
    encoder_dtype: EncoderDtype = "float32"
    allow_parts: AllowParts = Field(default_factory=list)
    address: Address = None
    overwrite: Overwrite = False
    commit_rows: Count = Field(None, description="Rows in one part file (default: about two minutes of work).")
    commit_seconds: float | None = Field(
        None, gt=0, description="Write a part at least this often (default: 120, but never before --commit-rows)."
    )
    retry_errors: Annotated[list[ErrorCode] | None, Several] = Field(
        None, description="Do rows anew that ended with one of these codes before: io_error, timeout, …"
    )
    prune: bool = Field(
        False,
        description="Leave the rows of files that are gone from INPUT out of exports, reports, comparisons, "
        "compactions and tables in Python, until these come back.",
    )
    max_error_rate: float = Field(1.0, ge=0, le=1, description="Exit with code 3 when a larger share of rows failed.")
    silence_dbfs: float = Field(
        SILENCE_DBFS, ge=-120, le=0, description="A window below this level (RMS, dB of full scale) is silent, and "
        "takes no part in its row; -120: none is.",
    )  # fmt: skip
    deterministic: bool = Field(
        False, description="One row at a time in the model, so that kernels see the same shapes in any batch."
    )


def silence(settings: RunSettings) -> dict[str, dict[str, Any]]:
    """What an OUTPUT's identity holds of silence: what is not the default."""
    usual = {"silence_dbfs": SILENCE_DBFS, "answer_silence": False}
    chosen = {name: getattr(settings, name, value) for name, value in usual.items()}
    return {"silence": chosen} if chosen != usual else {}


def scored(settings: RunSettings, calibration: str) -> dict[str, Any]:
    """What an OUTPUT's identity holds of scores: what is not the default. calibration: which one decides on `text`."""
    usual = {"score": True, "rerank": 0, "min_confidence": 0.0}
    chosen = {name: getattr(settings, name, value) for name, value in usual.items()}
    found = {name: value for name, value in chosen.items() if value != usual[name]}
    return found | ({"calibration": calibration} if chosen["min_confidence"] else {})


def number_types(settings: RunSettings) -> dict[str, dict[str, str]]:
    """What an OUTPUT's identity holds of number types: those that are not the default, which answers follow."""
    chosen = {name: getattr(settings, name, usual) for name, usual in NUMBER_TYPES.items()}
    chosen = {name: value for name, value in chosen.items() if value != NUMBER_TYPES[name]}
    return {"number_types": chosen} if chosen else {}


class EmbedSettings(RunSettings):
    """Audio → audio embeddings."""

    GROUPS = MODEL_GROUP | INPUT_GROUP | RUN_GROUPS | LIMITS_GROUP


class CaptionSettings(RunSettings):
    """Audio or audio embeddings → answers."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "What to answer": (
            "task", "question", "model", "per", "segments", "dry_run", "tag", "explain", "with_embedding",
            "allow_parts", "trust_remote_code",
        ),
        "Trust": ("score", "min_confidence", "rerank"),
        **INPUT_GROUP,
        "Decoding": (
            "beams", "max_new_tokens", "min_length", "no_repeat_ngram", "repetition_penalty", "length_penalty",
        ),
        "Santa": (
            "santa_mix", "santa_neighbors", "santa_scale", "santa_noise_variance", "bridge", "projection_scale",
            "retrieved",
        ),
        **RUN_GROUPS,
        **LIMITS_GROUP,
    }  # fmt: skip
    llm_dtype: ChosenLlmDtype = "auto"
    mapper_dtype: MapperDtype = "float32"
    task: Annotated[str, AfterValidator(_task)] = Field(
        "caption", description=f"One of {', '.join(TASKS)}; a list may set it a row."
    )
    question: str | None = Field(None, description="The question of task QA; a list may set it a row.")
    tag: str | None = Field(None, description="Tag put into the prompt (default: the model's for the task).")
    per: Literal["minute", "file", "window"] = Field(
        "minute", description="An answer a minute, one a file (from all of it, each window by its seconds), or one a "
        "window of the encoder.",
    )  # fmt: skip
    dry_run: bool = Field(
        False, description="Write nothing: print files, hours, chunks, and the time a measured sample promises."
    )
    answer_silence: bool = Field(
        False, description="Have the model answer rows in which all is silent too, in place of `Silence.`."
    )
    score: bool = Field(
        True,
        description="Tell how sure every answer is: logprob, clap_score and, with a calibration, confidence.",
    )
    min_confidence: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Leave `text` null, and the answer in `text_unsure`, where its confidence is lower.",
    )
    rerank: int = Field(
        0, ge=0, le=64, description="Take the best of so many beams by log-probability and CLAP's score together (0: "
        "beam search's best).",
    )  # fmt: skip
    segments: bool = Field(False, description="Answer every window too, with its times.")
    explain: bool = Field(False, description="Add Santa's neighbours to every row.")
    with_embedding: bool = Field(False, description="Add the clip's embedding (before Santa) to every row.")
    beams: Count = Field(None, description="Beams (default: the model's).")
    max_new_tokens: Count = Field(None, description="Longest answer (default: the model's).")
    min_length: int | None = Field(None, ge=0, description="Shortest answer (default: the model's).")
    no_repeat_ngram: int | None = Field(None, ge=0, description="No n-gram twice (default: the model's).")
    repetition_penalty: float | None = Field(
        None, gt=0, description="Above 1 discourages repeats (default: the model's)."
    )
    length_penalty: float | None = Field(None, description="Beam search's (default: the model's).")
    santa_mix: float | None = Field(
        None, ge=0, le=1, description="Share of memory text; 0 is no Santa (default: the model's)."
    )
    santa_neighbors: Count = Field(None, description="Memory entries Santa mixes (default: the model's).")
    santa_scale: float | None = Field(
        None, ge=0, description="Santa's factor before the softmax (default: the model's)."
    )
    santa_noise_variance: float | None = Field(
        None, ge=0, description="Variance of the noise on Santa's memory entries (default: the model's)."
    )
    bridge: str = Field(
        "santa", description=f"Way from audio to text embeddings: {', '.join(BRIDGES)}; mean-shift needs embeddings."
    )
    projection_scale: float = Field(100.0, ge=0, description="Bridge projection: factor before the softmax.")
    retrieved: int = Field(4, gt=0, description="Bridge retrieval: captions placed in the prompt.")


NUMBER_TYPES = {"llm_dtype": "auto", "mapper_dtype": "float32", "encoder_dtype": "float32"}
"""Number types of a model's parts → what they are where nothing is said."""
DECODING_FIELDS = ("beams", "max_new_tokens", "min_length", "no_repeat_ngram", "repetition_penalty", "length_penalty")
