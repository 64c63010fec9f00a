"""What is wrong with a training run's settings, found before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mats_core import storage
from mats_core.encoders.facts import read_encoder_facts, refuse_other_encoder
from mats_core.errors import SettingsError, first_line
from mats_core.model.config import ModelConfig, Part
from mats_core.model.directory import check_model_dir, encoder_uri, model_fingerprint, part_uri, recorded_uri, resolve
from mats_core.model.facts import check_weights
from mats_core.model.places import remember_places
from mats_core.storage.descriptions import read_object
from mats_core.storage.fetch import local_directory, strip_scheme
from mats_core.storage.fingerprint import fingerprint_directory, unsealed
from pipelines.data.corpus import check_columns, corpus_files
from pipelines.data.embeddings import EmbeddingsFacts, check_spread, part_rows
from pipelines.data.generations import newest
from pipelines.output.record import maker, of_older_version
from pipelines.settings.train import MODEL, TrainSettings
from pipelines.train.loggers import check_loggers
from pipelines.train.mixture import table_of, tables


@dataclass
class Checked:
    """What is known before Ray starts. `llm` is where its weights are; `fingerprints` tell apart what is trained on;
    `named` are the places of the model's parts."""

    facts: EmbeddingsFacts
    llm: str
    encoder: Part | None
    memory: Part | None
    fingerprints: dict[str, str]
    named: tuple[str, ...] = ()


def check_output(settings: TrainSettings) -> None:
    """SettingsError where writing OUTPUT/model would remove something the run reads, or a model of no earlier run."""
    model = storage.join(settings.output, MODEL)
    for name, uri in _inputs(settings):
        if storage.same_place(uri, settings.output) or storage.lies_in(uri, model):
            problem = f"{storage.public_uri(uri)} lies in OUTPUT/{MODEL}, which the run writes anew"
            raise SettingsError(name, problem, "choose another OUTPUT")
    try:
        begun = maker(newest(settings.output) or of_older_version(settings.output, overwrite=True)) is not None
        foreign = not begun and storage.exists(model)
    except storage.StorageError:
        return  # an OUTPUT that cannot be written is refused later
    if foreign:
        problem = f"{storage.public_uri(settings.output)} holds a {MODEL} that no run has made there"
        raise SettingsError("output", problem, f"choose another OUTPUT, or move the {MODEL} away")


def _inputs(settings: TrainSettings) -> Iterator[tuple[str, str]]:
    """(setting, URI) of all that a run reads."""
    for name in ("model", "llm", "encoder", "memory"):
        if getattr(settings, name) is not None:
            yield name, strip_scheme(getattr(settings, name)).removeprefix("msclap:")
    for each in settings.data:
        yield f"data.{each.name}.{'audio' if each.audio else 'embeddings'}", table_of(each, settings)
        for name in ("corpus", "validation_corpus"):
            corpus = getattr(each, name)
            for uri in [corpus] if isinstance(corpus, str) else corpus or []:
                yield f"data.{each.name}.{name}", uri


def with_encoder(settings: TrainSettings) -> TrainSettings:
    """The settings with the encoder that their embeddings tell, where a new model is given none. It does not count as
    given. Raises SettingsError where they tell none, or it cannot be found any more."""
    if settings.model is not None or settings.encoder is not None:
        return settings
    found = list(tables(settings).values())
    facts = next((each for each in found if each.encoder), found[0])
    shown = storage.public_uri(facts.uri)
    remedy = "name the CLAP that made the embeddings (encoder: …): the model will hear with it"
    if not facts.encoder:
        raise SettingsError("encoder", f"none is named, and {shown} does not tell by which it was made", remedy)
    try:
        known = read_encoder_facts(encoder_uri(facts.encoder, allow_parts=settings.allow_parts)).fingerprint
    except (SettingsError, storage.StorageError) as error:
        problem = f"none is named, and {facts.encoder}, by which {shown} was made, cannot be read ({first_line(error)})"
        raise SettingsError("encoder", problem, remedy) from None
    if facts.encoder_fingerprint not in ("", known):
        problem = f"none is named, and {facts.encoder}, by which {shown} was made, is another one by now"
        raise SettingsError("encoder", problem, remedy)
    filled = settings.model_copy(update={"encoder": facts.encoder})
    filled.model_fields_set.discard("encoder")
    return filled


def check_settings(settings: TrainSettings) -> Checked:
    """Everything that can be found wrong without loading anything; SettingsError names the setting."""
    check_loggers(list(settings.loggers))
    for each in settings.data:
        check_columns(each.columns, f"data.{each.name}.columns")
        for name, corpus in (("corpus", each.corpus), ("validation_corpus", each.validation_corpus)):
            if corpus is not None:
                corpus_files(corpus, f"data.{each.name}.{name}")
    found = tables(settings)
    for table in found.values():
        part_rows(table.uri, table.rows)
        check_spread(table, "embeddings")
    facts = next(iter(found.values()))
    fingerprints = {"encoder_fingerprint": facts.encoder_fingerprint}
    if settings.model is not None:
        config: ModelConfig = check_model_dir(settings.model, settings.allow_parts)
        check_weights(resolve(settings.model), config)
        encoder: Part | None = config.encoder
        if config.adapter is None and settings.training.train == "mapper+adapter":
            raise SettingsError("training.train", "this model has no adapter to train", "choose mapper")
        if config.embedding_dim != facts.dim:
            problem = f"these have {facts.dim} dimensions, and the model takes {config.embedding_dim}"
            raise SettingsError("embeddings", problem, 'embed the corpora with the model\'s encoder: "mats embed-text"')
        known = encoder.fingerprint if encoder else ""
        llm = str(part_uri(resolve(settings.model), config.llm))
        fingerprints["model_fingerprint"] = model_fingerprint(resolve(settings.model), config)
    else:
        llm = llm_uri(str(settings.llm), settings.allow_parts)
        encoder_facts = read_encoder_facts(encoder_uri(str(settings.encoder), allow_parts=settings.allow_parts))
        known = encoder_facts.fingerprint
        encoder = Part(uri=recorded_uri(encoder_facts.uri), fingerprint=facts.encoder_fingerprint)
    shown, remedy = storage.public_uri(facts.uri), 'embed the corpora again with "mats embed-text"'
    refuse_other_encoder("embeddings", shown, facts.encoder_fingerprint, known, remedy, unknown_passes=True)
    fingerprints["llm_fingerprint"] = fingerprint_directory(local_directory(llm, "llm"))
    memory = _memory_part(settings.memory, facts)
    named = [llm, *(part.uri for part in (encoder, memory) if part is not None)]
    told = None if settings.model is not None or "encoder" in settings.model_fields_set else encoder
    # whoever trains a model with parts has named them, but for the encoder that a table of embeddings tells
    remember_places(uri for uri in named if told is None or uri != told.uri)
    return Checked(facts, llm, encoder, memory, fingerprints, tuple(named))


def doubts(settings: TrainSettings) -> Iterator[str]:
    """What can hardly be meant, though nothing forbids it."""
    steps, warmup = settings.training.steps, settings.training.warmup_steps
    if warmup >= steps:
        yield f"training.warmup_steps is {warmup:,} and the run has {steps:,} steps: it never learns at its full rate"
    if settings.checkpoint_every >= steps > 1:
        yield f"checkpoint_every is {settings.checkpoint_every:,}: no checkpoint before the end, after {steps:,} steps"


def llm_uri(uri: str, allow_parts: Sequence[str] = ()) -> str:
    """`uri` itself, or the LLM's own where it names a model directory or "builtin"."""
    if uri != "builtin" and not os.path.isfile(os.path.join(strip_scheme(uri), "mats.json")):
        return uri
    return str(part_uri(resolve(uri), check_model_dir(uri, allow_parts).llm))


def _memory_part(uri: str | None, facts: EmbeddingsFacts) -> Part | None:
    if uri is None:
        return None
    folder = local_directory(uri, "memory")
    note = read_object(folder / "memory.json", "memory", f"the memory.json of {storage.public_uri(uri)}")
    try:
        unsealed(note)
    except ValueError as error:
        problem = f"the memory.json of {storage.public_uri(uri)} cannot be read ({first_line(error)})"
        raise SettingsError("memory", problem, 'name a directory that "mats build-memory" has made') from None
    made_with, remedy = note.get("encoder_fingerprint", ""), 'rebuild it with "mats build-memory"'
    refuse_other_encoder("memory", uri, made_with, facts.encoder_fingerprint, remedy, unknown_passes=True)
    return Part(uri=recorded_uri(uri), fingerprint=note.get("fingerprint", ""))
