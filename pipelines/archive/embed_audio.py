"""`mats embed-audio`: audio → audio embeddings, to be asked by `mats caption` as often as one likes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.model.facts import read_model_facts
from pipelines.archive.decode_stage import decode_stage
from pipelines.archive.model_spec import model_spec
from pipelines.archive.run import Job, RunResult, check_not_empty, run_rows
from pipelines.archive.stages import embed_stage
from pipelines.cluster.progress import Progress
from pipelines.data.embeddings import FOLDER, EmbeddingsFacts, told_of
from pipelines.data.inputs import open_input
from pipelines.settings.archive import EmbedSettings, number_types, silence
from pipelines.settings.calling import by_name


@by_name(EmbedSettings)
def run_embed_audio(settings: EmbedSettings, progress: Callable[[Progress], None] | None = None) -> RunResult:
    """Embed every window of `settings.input` into `settings.output`/embeddings; raises SettingsError."""
    facts = read_model_facts(settings.model, settings.allow_parts, settings.trust_remote_code)
    inputs = check_not_empty(
        open_input(settings.input, settings.schemes, settings.columns, settings.all_files), settings.input
    )
    if inputs.kind == "embeddings":
        problem = f"{storage.public_uri(settings.input)} holds audio embeddings already"
        raise SettingsError("input", problem, "choose audio files or a list of them")
    identity = {
        "job": "embed-audio",
        "encoder": facts.encoder_fingerprint,
        "sample_rate": facts.sample_rate,
        "window_seconds": facts.window_s,
        "max_seconds": settings.max_seconds,
        **number_types(settings),
        **silence(settings),
    }
    stages = [decode_stage(settings, facts.sample_rate), embed_stage(model_spec(settings, facts))]

    def describe(result: RunResult) -> dict[str, Any]:
        facts_of_table = EmbeddingsFacts(
            settings.output,
            encoder_fingerprint=facts.encoder_fingerprint,
            dim=facts.dim,
            sample_rate=facts.sample_rate,
            window_seconds=facts.window_s,
            rows=result.rows,
            status="complete" if result.status == "complete_before" else result.status,
        )
        return told_of(facts_of_table)

    job = Job("embed-audio", FOLDER, identity, facts.chunk_s, facts.size, defaults={}, stages=stages, describe=describe)
    return run_rows(settings, job, inputs, progress)
