"""The command's settings: our configs, variables, changes on the command line; what the display says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.train import AdaptDisplay, TrainDisplay, finish, read_config, train, validation_text
from mats_core.errors import SettingsError
from mats_core.model.config import AdapterConfig, DecodingSettings, MapperConfig
from mats_core.training.schedule import TrainingSettings
from pipelines.cluster.progress import Progress
from pipelines.settings.base import build
from pipelines.settings.train import TrainSettings
from pipelines.train.run import TrainProgress, TrainResult

PATHS = {
    "MATS_DATA": "/data/records, all",
    "MATS_EMBEDDINGS": "s3://b/emb",
    "MATS_CLAP": "msclap:/w/CLAP_weights_2023.pth",
    "MATS_OUT": "/out",
    "MATS_AUDIO": "s3://b/heard",
}
CLOSED = {
    "crema_d": 70, "vocalsound": 20, "wavcaps": 200, "audiocaps": 40, "clotho": 40, "macs": 50, "audioset_strong": 50,
    "fsd50k": 50, "vggsound": 50, "dcase2017": 20, "esc50": 20, "urbansound8k": 20, "tut2017": 20, "sesa": 20,
    "beijing_opera": 20, "gtzan": 20, "gama_music": 180, "musiccaps": 50, "magnatagatune": 50, "song_describer": 50,
}  # fmt: skip
OPEN = {"clothoaqa": 50, "openaqa": 300, "musicqa": 300}
GAMA = ["openmic", "nsynth", "fma", "mtg_jamendo", "medley_solos"]


def ours(name: str, monkeypatch: pytest.MonkeyPatch) -> TrainSettings:
    for variable, value in PATHS.items():
        monkeypatch.setenv(variable, value)
    return build(TrainSettings, read_config(name))


def test_both_stages_are_the_references_and_need_only_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = ours("mats_stage1", monkeypatch), ours("mats_stage2", monkeypatch)
    assert {each.name: each.ratio for each in one.data} == CLOSED
    assert {each.name: each.ratio for each in two.data} == CLOSED | OPEN
    assert one.data[0].corpus == "/data/records, all/records/crema_d"
    (music,) = [each.corpus for each in one.data if each.name == "gama_music"]
    assert music == [f"/data/records, all/records/{name}" for name in GAMA]
    assert {each.tag for each in two.data if each.name in OPEN} == {"[audio qa]", "[open ended]"}
    assert two.model == "/out/stage1/model"
    reference = TrainingSettings(draw="batch", micro_batch_tokens=4096, batch_size=96)
    assert one.training == two.training == reference
    assert (one.mapper, one.adapter, one.decoding) == (MapperConfig(), AdapterConfig(), DecodingSettings())
    assert one.wordings == "reference"
    monkeypatch.setenv("MATS_BATCH", "48")
    assert ours("mats_stage1", monkeypatch).training == reference.model_copy(update={"batch_size": 48})


def test_the_gpt2_and_audio_models_train_on_the_same_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    two, small = ours("mats_stage2", monkeypatch), ours("mats_gpt2", monkeypatch)
    assert small.data == two.data and small.llm == "openai-community/gpt2"
    paper = TrainingSettings(draw="batch", micro_batch_tokens=4096, batch_size=128, learning_rate=5e-5)
    assert small.training == paper and small.training.steps == 90_000
    audio = ours("mats_audio", monkeypatch)
    told = [(each.name, each.ratio, each.tag) for each in audio.data]
    assert told == [(each.name, each.ratio, each.tag) for each in two.data]
    assert all(each.audio == f"s3://b/heard/{each.name}" and each.corpus is None for each in audio.data)
    assert audio.training == two.training.model_copy(update={"noise_variance": 0.0})
    assert audio.santa is not None and audio.santa.mix == 0


def test_the_embedded_worlds_config_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD", raising=False)
    assert build(TrainSettings, read_config("soundworld")).output == "world/trained"
    monkeypatch.setenv("WORLD", "/elsewhere")
    assert build(TrainSettings, read_config("soundworld")).data[0].corpus == "/elsewhere/text.jsonl"


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MATS_OUT", raising=False)
    with pytest.raises(SettingsError, match=r"\$MATS_OUT"):
        read_config("mats_stage2")


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("data: [", [], "CONFIG: .* cannot be read as YAML"),
        ("output: x\n\tdata: 3", [], r"cannot be read as YAML \(line 2, column 1: "),
        ("just text", [], "setting: value"),
        ("output: 2026-02-30", [], "CONFIG: .* cannot be read as YAML"),
        ("output: x", ["training"], 'set: "training" changes nothing; write name=value'),
        ("output: x", ["output=2026-02-30"], "set: the value .* is not YAML"),
        ("output: x", ["output.more=1"], "set: .* goes into `output`, which holds no settings"),
        ("output: x\ncolour: red", [], "^data: nothing is given"),
        ("output: x\nllm: l\nencoder: e\ndata: [{name: a, corpus: c, embeddings: e}]", ["training.steps=0"], "steps"),
        (
            "output: x\nllm: l\nencoder: e\ndata: [{name: a, corpus: gone, embeddings: e}]",
            [],
            r"^data\.a\.corpus: gone cannot be read",
        ),
    ],
)
def test_wrong_configs(tmp_path: Path, text: str, changes: list[str], said: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        train(str(tmp_path / "run.yaml"), None, changes, None, None, False, False)


def test_a_config_that_is_not_there_names_ours(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="mats_audio, mats_gpt2, mats_stage1, mats_stage2, soundworld"):
        read_config(str(tmp_path / "none.yaml"))


def test_the_display_says_loss_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("jobs.train.time.monotonic", lambda: clock[0])
    point: dict[str, Any] = {"loss": 1.25, "tokens_per_s": 1234.5}
    with TrainDisplay() as display:
        display(TrainProgress("training", 0, 100, workers=2))
        clock[0] += 20
        display(TrainProgress("training", 40, 100, workers=2, point=point))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "training: step 40/100, loss 1.250, 1,234 tokens/s, 30 s left, 2 workers"


def test_answers_to_replay_are_a_line_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with AdaptDisplay() as display:
        for done in range(0, 4001, 64):
            display(Progress("replay", done, 4000))
    assert capsys.readouterr().err == "answering the model's own text: 0/4000 records, 0 errors\n"


def test_a_config_beside_settings_is_refused_and_its_file_named() -> None:
    run = CliRunner().invoke
    assert run(app, ["train", "--settings"]).output.startswith("## Folder for the model")
    done = run(app, ["train", "soundworld", "--settings"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert 'settings: it shows all settings there are, and nothing of "soundworld"; leave out CONFIG; ' in done.stderr
    assert done.stderr.rstrip().endswith("configs/train_soundworld.yaml")
    done = run(app, ["train"])
    assert done.exit_code == 2 and "CONFIG: it is missing; name a YAML file, or one of ours: mats_audio" in done.stderr


def test_warnings_and_unusable_records_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainDisplay() as display:
        display(TrainProgress("packing the data", warning="data set a is measured on what it has met"))
    assert capsys.readouterr().err.splitlines()[0] == "warning: data set a is measured on what it has met"
    run = {"step": 1, "samples": 2, "tokens": 3, "wall_s": 1.0, "seconds": 1.0, "records": 9, "bad": 2}
    run["problems"] = {"broken_line": 2}
    assert finish(TrainResult("complete", "out", "out/model", 1, run), "x") == 0
    assert "2 of 9 records: broken_line 2; lines in _corpora.json" in capsys.readouterr().out


def test_a_validation_reads_as_text() -> None:
    answer = {
        "set": "one",
        "prompt": "USER: <Speech></Speech> [x] What?\nASSISTANT:",
        "answer": " rain",
        "target": "dog",
    }
    record = {"step": 5, "validation": {"one": {"loss": 0.5, "token_accuracy": 0.25}}, "answers": [answer]}
    assert re.sub(r" +", " ", validation_text(record)) == (
        "validation at step 5: loss (token accuracy) one 0.500 (25.0%)\n one: [x] What? said: rain true: dog"
    )


def test_the_embedded_worlds_config_trains_as_the_ablation_does() -> None:
    from mats_core.soundworld.made.ablation import santa_settings
    from mats_core.soundworld.made.text_training import ADAPTER, DECODING, MAPPER, STEPS, training_settings

    settings = build(TrainSettings, read_config("soundworld"))
    assert (settings.mapper, settings.adapter, settings.decoding) == (MAPPER, ADAPTER, DECODING)
    assert settings.santa is not None
    training = settings.training
    assert training == training_settings(training.noise_variance, training.seed, STEPS)
    assert settings.santa == santa_settings(settings.santa.mix, training.noise_variance)


@pytest.mark.processes
def test_wrong_data_ends_the_command_before_anything_is_loaded(tmp_path: Path) -> None:
    """Exit code 2, one line, and neither torch nor Ray imported."""
    text = "output: x\nllm: l\nencoder: e\ndata: [{name: a, corpus: gone.jsonl, embeddings: e}]"
    (tmp_path / "run.yaml").write_text(text)
    code = (
        "import sys\nfrom jobs.cli import app\ntry:\n    app(args=['train', 'run.yaml'])\nexcept SystemExit as end:\n"
        "    print(end.code, [name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "2 []\n"
    assert re.fullmatch(r"mats: data\.a\.corpus: gone\.jsonl cannot be read \(.*\); give .*\n", done.stderr)
