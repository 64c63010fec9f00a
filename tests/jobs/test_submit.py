"""What `mats submit` sends to a cluster, and what it refuses before anything is sent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from jobs import submit
from jobs.submit import entrypoint, environment, exit_code
from mats_core.errors import SettingsError

ROOT = Path(__file__).parents[2]


def test_the_command_is_quoted_for_the_clusters_shell() -> None:
    asked = entrypoint(
        ["caption", "s3://a/**/*.wav", "s3://b/", "--task", "QA", "--question", "Is there a dog's bark?"]
    )
    assert (
        asked
        == """python -m jobs caption 's3://a/**/*.wav' s3://b/ --task QA --question 'Is there a dog'"'"'s bark?'"""
    )
    with pytest.raises(SettingsError, match=r'JOB: "fly" is not a job .*; choose caption'):
        entrypoint(["fly"])


@pytest.mark.parametrize(
    "word",
    [
        "https://host/list.csv?X-Amz-Signature=TOPSECRET",
        "--input=https://host/list.csv?sig=TOPSECRET",
        "ftp://user:TOPSECRET@host/out",
        "s3://key:TOPSECRET@bucket/out",
    ],
)
def test_a_url_with_a_secret_is_not_sent(word: str) -> None:
    """Ray's dashboard and its table of jobs show the command line."""
    with pytest.raises(SettingsError, match="put signed URLs into a list") as caught:
        entrypoint(["caption", word, "s3://out"])
    assert "TOPSECRET" not in str(caught.value)
    if "://" in word and not word.startswith("--"):
        with pytest.raises(SettingsError, match="working_dir"):
            environment(word, [])


def test_what_is_printed_of_a_cluster_has_no_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = SimpleNamespace(submit_job=lambda **_: "raysubmit_1")
    address = "http://user:TOPSECRET@head:8265"
    monkeypatch.setattr(submit, "dashboard_client", lambda _: client)
    assert submit.submit(["scan", "s3://a", "s3://b"], address, None, [], wait=False) == 0
    said = capsys.readouterr()
    assert "ray job stop --address http://head:8265 raysubmit_1" in said.err
    assert "TOPSECRET" not in said.err + said.out


@pytest.mark.parametrize("words", [["--address", "http://head:8265"], ["--address=http://head:8265"]])
def test_the_address_may_stand_behind_the_job(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    client = SimpleNamespace(submit_job=lambda entrypoint, runtime_env: asked.append(entrypoint) or "raysubmit_1")
    monkeypatch.setattr(submit, "dashboard_client", lambda where: asked.append(where) or client)
    assert submit.submit(["scan", *words, "s3://a", "s3://b"], None, None, [], wait=False) == 0
    assert asked == ["http://head:8265", "python -m jobs scan s3://a s3://b"]
    assert submit.dashboard_in(["scan", "--address", "auto", "s3://a"]) == (
        ["scan", "--address", "auto", "s3://a"],
        None,
    )
    assert submit.dashboard_in(["scan", "--address"]) == (["scan", "--address"], None)


def test_only_what_was_named_travels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "stays here")
    found = environment(str(tmp_path), ["AWS_REGION", "MATS_CACHE=/mnt/cache=1"])
    assert found["env_vars"] == {"PYTHONUNBUFFERED": "1", "AWS_REGION": "eu-central-1", "MATS_CACHE": "/mnt/cache=1"}
    assert found["working_dir"] == str(tmp_path)
    assert environment(None, [])["working_dir"] == str(ROOT)
    with pytest.raises(SettingsError, match="NO_SUCH_NAME"):
        environment(None, ["NO_SUCH_NAME"])
    with pytest.raises(SettingsError, match="working_dir"):
        environment(str(tmp_path / "nowhere"), [])


@pytest.mark.parametrize(
    ("status", "code", "ended"), [("SUCCEEDED", 0, 0), ("FAILED", 3, 3), ("FAILED", None, 1), ("STOPPED", None, 130)]
)
def test_the_exit_code_is_the_drivers(status: str, code: int | None, ended: int) -> None:
    info = SimpleNamespace(status=status, message="why", driver_exit_code=code)
    client: Any = SimpleNamespace(get_job_info=lambda _: info)
    assert exit_code(client, "job") == ended


def test_the_log_that_was_shown_is_not_shown_again(capsys: pytest.CaptureFixture[str]) -> None:
    said = "Job entrypoint command failed with exit code 2, last available logs (truncated to 20,000 chars):\nmats: x\n"
    client: Any = SimpleNamespace(
        get_job_info=lambda _: SimpleNamespace(status="FAILED", message=said, driver_exit_code=2)
    )
    assert exit_code(client, "job") == 2
    assert capsys.readouterr().err == "mats: job: failed (Job entrypoint command failed with exit code 2)\n"


def test_a_path_that_only_this_machine_has_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are looked for in the folder that travels; what is not there, the job will not find."""
    monkeypatch.chdir(tmp_path)
    checkout = tmp_path / "checkout"
    for folder in (tmp_path / "snd", tmp_path / "caption", checkout / "docs", tmp_path / "docs"):
        folder.mkdir(parents=True)
    job = ["caption", "snd", "docs", str(tmp_path / "snd"), "--question", "Is there a dog? " * 40, "s3://b/snd", "new"]
    assert submit.left_behind(job, str(checkout)) == ["snd"]
    assert submit.left_behind(job, None) == ["snd", "docs"]


def test_cluster_yaml_is_what_rays_launcher_takes() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    kinds = config["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0}
    assert {"gpu_worker", "cpu_worker"} <= set(kinds)
    assert any("constraints.txt" in command for command in config["setup_commands"])
    lines = (ROOT / "cluster.yaml").read_text().splitlines()
    chosen = [at for at, line in enumerate(lines) if "InstanceType:" in line or line.startswith("head_node_type:")]
    assert len(chosen) == 4
    assert all(lines[at - 1].lstrip().startswith("#") for at in chosen)  # each says why
    with pytest.raises(Exception, match="idle"):
        validate_config(prepare_config({**config, "idle_timeout_minutes": "soon"}))


def test_the_ray_job_runs_a_command_that_exists() -> None:
    """Names, containers and the entry point; the options are those of `mats caption`."""
    import shlex

    from typer.testing import CliRunner

    from jobs.cli import app

    _, job = yaml.safe_load_all((ROOT / "jobs" / "configs" / "kuberay-caption.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    images = {c["image"] for group in groups for c in group["template"]["spec"]["containers"]}
    assert len(images) == 1  # the same Python and packages everywhere
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert any(
        "nvidia.com/gpu" in c["resources"]["limits"] for g in groups for c in g["template"]["spec"]["containers"]
    )
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:4] == ["python", "-m", "jobs", "caption"]
    help_text = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["caption", "--help"]).output
    for word in words:
        if word.startswith("--"):
            assert word in help_text


def test_a_cluster_whose_agents_are_still_starting_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["Request failed with status code 500: No available agent to submit job, please try again later."]

    def answer(**_: Any) -> str:
        if said:
            raise RuntimeError(said.pop())
        return "raysubmit_1"

    monkeypatch.setattr(submit.time, "sleep", lambda _: None)
    client = SimpleNamespace(submit_job=answer)
    assert submit.submit_when_ready(client, "true", {}) == "raysubmit_1"
    said.append("No available agent")
    with pytest.raises(RuntimeError, match="No available agent"):
        submit.submit_when_ready(client, "true", {}, patience_s=0.0)
    said.append("runtime_env is wrong")
    with pytest.raises(RuntimeError, match="wrong"):
        submit.submit_when_ready(client, "true", {})
