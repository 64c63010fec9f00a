"""Stages as data: a list that cannot work is refused, and a plan fills in what a stage leaves open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.archive.caption import caption_job
from pipelines.archive.decode_stage import decode_stage, fetch_stage
from pipelines.archive.model_spec import ModelSpec
from pipelines.archive.run import run_rows
from pipelines.archive.stages import HANDED_ON, answer_stage, embed_stage
from pipelines.archive.work_list import work_schema
from pipelines.cluster.plan import Plan
from pipelines.cluster.stages import Stage, check_stages
from pipelines.data.inputs import Input
from pipelines.data.schemas import OUTPUT_COLUMNS
from pipelines.settings.archive import CaptionSettings, RunSettings
from tests.e2e.conftest import write_tones

COLUMNS = work_schema(Input("files", iter(())).own_schema).names
SPEC = ModelSpec("builtin")
DECODE = decode_stage(RunSettings(input="in", output="out"), 16_000)


def test_the_stages_of_the_jobs_fit() -> None:
    check_stages([DECODE, answer_stage(SPEC)], COLUMNS)
    check_stages([DECODE, embed_stage(SPEC)], COLUMNS)
    check_stages([fetch_stage("embeddings"), answer_stage(SPEC, "windows")], COLUMNS)


LACKS = "stage answer reads clipped, complete, decoded_s, lost_s, pcm, peak_dbfs, rms_dbfs"


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (
            [answer_stage(SPEC)],
            f"{LACKS}, which the work list does not",
        ),
        ([DECODE, answer_stage(SPEC, "windows")], "stage answer reads windows, which the work list or decode does not"),
        ([fetch_stage("e"), embed_stage(SPEC)], "stage embed reads pcm, which"),
        (
            [answer_stage(SPEC), DECODE],
            LACKS,
        ),  # the wrong way round
        ([DECODE, embed_stage(SPEC), answer_stage(SPEC)], "stage answer reads pcm"),  # which embed has dropped
    ],
)
def test_a_stage_that_reads_what_nothing_before_it_writes_is_refused(stages: list[Stage], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_stages(stages, COLUMNS)


def test_a_wrong_list_of_stages_is_refused_before_anything_starts(tmp_path: Path, tiny_model_dir: str) -> None:
    write_tones(tmp_path / "in", 1, 1.0)
    settings = CaptionSettings(input=str(tmp_path / "in"), output=str(tmp_path / "out"), model=tiny_model_dir)
    job, source = caption_job(settings)
    with pytest.raises(ValueError, match=LACKS):
        run_rows(settings, replace(job, stages=job.stages[1:]), source)
    assert not (tmp_path / "out").exists()


def test_a_column_that_is_asked_for_is_declared_by_the_stage() -> None:
    ours = [each for each in OUTPUT_COLUMNS if "caption" in each.jobs and each.name not in HANDED_ON]
    always = {each.name for each in ours if not each.setting}
    optional = {each.setting: each.name for each in ours if each.setting}
    assert optional == {"with_embedding": "embedding", "explain": "neighbors"}
    assert always <= set(answer_stage(SPEC).writes) and not set(optional.values()) & set(answer_stage(SPEC).writes)
    for option, name in optional.items():
        assert name in answer_stage(replace(SPEC, **{option: True})).writes


def test_settings_reach_the_model_stage_by_their_names(tmp_path: Path, tiny_model_dir: str) -> None:
    write_tones(tmp_path / "in", 1, 1.0)
    given = {"model": tiny_model_dir, "device": "cpu", "segments": True, "explain": True, "deterministic": True}
    settings = CaptionSettings(input=str(tmp_path / "in"), output=str(tmp_path / "out"), bridge="none", **given)
    job, _ = caption_job(settings)
    (spec,) = job.stages[-1].arguments
    assert {name: getattr(spec, name) for name in given} == given
    assert (spec.with_embedding, spec.trust_remote_code, spec.bridge) == (False, False, {"kind": "none"})
    assert (job.identity["explain"], job.identity["with_embedding"]) == (True, False)


def test_the_plan_gives_a_stage_its_actors_and_its_share_of_a_gpu() -> None:
    plan = Plan(
        actors=4, threads=0, gpus_per_actor=0.5, batch_size=64, decode_actors=2, decoder_workers=3, shard_rows=32
    )
    decode, answer = DECODE.planned(plan), answer_stage(SPEC).planned(plan)
    assert (decode.actors, decode.cpus, decode.gpus, decode.batch) == (2, 0.5, 0.0, None)
    assert (answer.actors, answer.cpus, answer.gpus, answer.batch) == (4, 1.0, 0.5, 64)
    on_cpu = answer_stage(SPEC).planned(replace(plan, gpus_per_actor=0.0))
    assert (on_cpu.gpus, on_cpu.batch) == (0.0, None)  # tables as they come: the stage cuts batches itself
