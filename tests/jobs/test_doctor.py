"""`mats doctor` names what is wrong and what to do about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import doctor
from jobs.doctor import MISSING, NOTE, OK, Finding, known_conflicts, release
from mats_core.encoders.load import load_encoder
from mats_core.model.directory import BUILTIN
from tests.store_servers import FaultyProxy, Habits, MotoStore

AREAS = {"system", "packages", "devices", "ray", "model", "only for some work", "caption metrics (mats evaluate)"}


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.13.0+cpu", (2, 13, 0)), ("26.0.1", (26, 0, 1)), ("0.10.2.post1", (0, 10, 2)), ("main", ())],
)
def test_release(version: str, numbers: tuple[int, ...]) -> None:
    assert release(version) == numbers


def test_the_tested_set_has_no_conflict() -> None:
    tested = {"numpy": "1.26.4", "pyarrow": "25.0.0", "msclap": "1.3.4", "transformers": "4.57.6"}
    newest = {"numpy": "2.4.6", "pyarrow": "26.0.1", "transformers": "5.23.0"}
    assert known_conflicts(tested) == []
    assert known_conflicts(newest) == []
    assert known_conflicts({}) == []


def test_conflicts_are_named_with_a_remedy() -> None:
    (old_numpy,) = known_conflicts({"numpy": "1.26.4", "pyarrow": "26.0.1"})
    assert "pyarrow 26.0.1 needs numpy 2" in old_numpy
    assert 'pip install "pyarrow<26"' in old_numpy
    both = known_conflicts({"msclap": "1.3.4", "numpy": "2.4.6", "transformers": "5.23.0"})
    assert len(both) == 2
    assert all("msclap" in text and "Do: pip" in text for text in both)


def test_absent_and_broken_packages_are_told_apart() -> None:
    versions = {name: "1.0" for name in doctor.CORE if name != "peft"}
    errors = {"peft": "ModuleNotFoundError: No module named 'peft'", "torch": "OSError: libcuda"}
    found = {finding.name: finding for finding in doctor.package_findings(versions, errors.get)}
    assert found["peft"].state == MISSING
    assert "not installed" in found["peft"].detail
    assert found["torch"].state == MISSING
    assert "cannot be imported (OSError: libcuda)" in found["torch"].detail
    assert found["numpy"].state == OK


@pytest.mark.processes  # java, where it is installed
def test_this_environment_is_fit() -> None:
    findings = doctor.examine()
    assert [f for f in findings if f.state == MISSING and f.area == "packages"] == []
    assert {f.area for f in findings} == AREAS


@pytest.mark.parametrize(
    ("state", "code", "words"), [(OK, 0, "can run here."), (NOTE, 0, "can run here."), (MISSING, 1, "cannot")]
)
def test_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str, code: int, words: str
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("packages", "[red]torch[/]", state, "a [bold] detail")])
    assert doctor.doctor() == code
    shown = capsys.readouterr().out
    assert words in shown
    assert "a [bold] detail" in shown


def test_into_a_pipe_lines_are_short_and_paths_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/a/long/" + "folder/" * 20
    monkeypatch.setattr(
        doctor, "examine", lambda: [Finding("model", "x", MISSING, f"{'many words ' * 60}in {path} here")]
    )
    assert doctor.doctor() == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line.replace(path, "").rstrip()) <= 120 for line in lines)
    assert sum(path in line for line in lines) == 1


def test_stores_are_called_as_the_documents_call_them() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "archives.md").read_text()
    named = [word for _, purpose, _ in doctor.OPTIONAL for word in purpose.split() if word.endswith("://")]
    assert len(named) == 3 and all(f"`{each}`" in docs for each in named)


@pytest.mark.parametrize(("habit", "state"), [("", OK), ("refused", NOTE), ("ignored", NOTE)])
def test_a_store_is_tried_and_left_as_it_was(
    store: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], habit: str, state: str
) -> None:
    proxy = FaultyProxy(store, habits=Habits(if_absent=habit))
    for name, value in {**store.keys, "MATS_STORAGE": json.dumps({"s3://": {"endpoint": proxy.endpoint}})}.items():
        monkeypatch.setenv(name, value)
    client, bucket = store.client(), f"tried{habit}"
    client.create_bucket(Bucket=bucket)
    found = {finding.name: finding for finding in doctor.store_findings(f"s3://{bucket}/some/place")}
    states = {name: finding.state for name, finding in found.items()}
    state = state if isinstance(store, MotoStore) else NOTE  # Swift refuses it itself
    assert states.pop("create-if-absent") == state
    assert states == dict.fromkeys(("write", "list", "read a range", "multipart", "delete"), OK)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
    monkeypatch.setattr(doctor, "examine", list)
    assert doctor.doctor(store=f"s3://no{bucket}/place") == 1
    assert f"✗  write            the bucket s3://no{bucket} does not exist" in capsys.readouterr().out
    proxy.close()


def test_a_model_says_what_it_needs(tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone = {finding.name: finding for finding in doctor.model_findings(tiny_model_dir)}
    assert (alone["answers"].state, alone["answers"].detail) == ("ok", "written by beam loop")
    assert " GB (LLM 0.0 in bfloat16, " in alone["GPU memory"].detail and " in int4, " in alone["GPU memory"].detail
    assert "GPU 0" not in alone
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("mats_core.device.card_memory", lambda place: (80 << 30 if place.index else 1000, 80 << 30))
    cards = {finding.name: finding for finding in doctor.model_findings(tiny_model_dir)}
    assert (cards["GPU 0"].state, cards["GPU 0"].detail) == ("note", "too small, even in int4")
    assert cards["GPU 1"].detail.startswith("bfloat16: 192 answers at once, int8: 192")
    (missing,) = doctor.model_findings(str(tmp_path))
    assert missing.state == "missing" and "there is no mats.json" in missing.detail


def test_a_model_says_whether_its_clap_tells_texts_and_sounds_apart(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    told = {finding.name: finding for finding in doctor.model_findings("builtin")}
    assert told["CLAP's texts"].state == told["CLAP's sounds"].state == told["memory"].state == OK
    assert "mean cosine 0.5" in told["CLAP's texts"].detail and "nearer to it" in told["CLAP's sounds"].detail
    assert "16,384 captions, mean cosine 0.1" in told["memory"].detail
    shutil.copytree(BUILTIN, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "encoder" / "model.safetensors")
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    weights["text_projection.linear2.weight"] = weights["text_projection.linear2.weight"][order]
    weights["text_projection.linear2.bias"] = weights["text_projection.linear2.bias"][order]
    save_file(weights, tmp_path / "model" / "encoder" / "model.safetensors", metadata={"format": "pt"})
    other = {finding.name: finding for finding in doctor.model_findings(str(tmp_path / "model"))}
    assert (
        other["CLAP's texts"].state == MISSING
        and "give the encoder this model was made with" in other["CLAP's texts"].detail
    )
    given = json.loads((tmp_path / "model" / "mats.json").read_text())
    given["encoder"]["fingerprint"] = load_encoder(str(tmp_path / "model" / "encoder"), device="cpu").fingerprint
    (tmp_path / "model" / "mats.json").write_text(json.dumps(given))
    memory = tmp_path / "model" / "memory" / "memory.json"
    note = json.loads(memory.read_text())
    memory.write_text(
        json.dumps({name: value for name, value in note.items() if name not in ("checksum", "encoder_fingerprint")})
    )
    halves = {finding.name: finding for finding in doctor.model_findings(str(tmp_path / "model"))}
    assert halves["CLAP's texts"].state == OK  # its axes are in another order: texts are as far apart as before
    assert halves["CLAP's sounds"].state == NOTE and "is it the right CLAP?" in halves["CLAP's sounds"].detail
    weights["text_projection.linear2.bias"] += 100
    save_file(weights, tmp_path / "model" / "encoder" / "model.safetensors", metadata={"format": "pt"})
    given["encoder"]["fingerprint"] = load_encoder(str(tmp_path / "model" / "encoder"), device="cpu").fingerprint
    (tmp_path / "model" / "mats.json").write_text(json.dumps(given))
    collapsed = {finding.name: finding for finding in doctor.model_findings(str(tmp_path / "model"))}
    assert collapsed["CLAP's texts"].state == MISSING and "has collapsed" in collapsed["CLAP's texts"].detail


def test_caption_metrics_that_cannot_run_are_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", "no-java-here")
    findings = {f.name: f for f in doctor.caption_metric_findings()}
    assert "cider_d" in findings["run here"].detail and "meteor" not in findings["run here"].detail
    assert findings["meteor"].state == NOTE and "Java 8 to 13" in findings["meteor"].detail
    assert "Do:" in findings["spice"].detail


def test_what_caption_metrics_need_is_told_with_its_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is to be fetched by its publisher's size, what is here by its own."""
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", "no-java-here")
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "aac-metrics" / "meteor").mkdir(parents=True)
    (tmp_path / "aac-metrics" / "meteor" / "meteor-1.5.jar").write_bytes(bytes(6_000_000))
    told = {finding.name: finding for finding in doctor.benchmark_findings()}
    for name in ("spider", "spice"):
        assert told[name].state == NOTE
        assert "Java 8 to 13 is not installed" in told[name].detail and "about 430 MB to fetch" in told[name].detail
    assert "SPICE and CIDEr-D" in told["spider"].detail and "aac-metrics-download" in told["spider"].detail
    assert f"6 MB here ({tmp_path / 'aac-metrics' / 'meteor'})" in told["meteor"].detail
    assert "echecker_clotho_audiocaps_base.ckpt: about 440 MB to fetch" in told["fense"].detail
    assert told["the others"].detail == "cider_d, rouge_l, bleu_1, bleu_2, bleu_3, bleu_4 need packages alone"
