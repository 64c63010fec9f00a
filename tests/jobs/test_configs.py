"""What we ship for clusters and schedules, held to what reads it: KubeRay's schemas, a shell, pip, our own commands."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml

from jobs import submit
from pipelines.cluster.progress import COUNTERS, LABELS
from tests.jobs.schemas import pruned

ROOT = Path(__file__).parents[2]
CONFIGS, EXAMPLES = ROOT / "jobs" / "configs", ROOT / "examples"


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [each for each in pruned.documents() if each["kind"] == kind]
    return found


@pytest.mark.parametrize("kind", ["RayJob", "RayCronJob"])
def test_a_manifest_is_what_kuberays_schema_takes(kind: str) -> None:
    schema = json.loads((pruned.HERE / f"{kind}.json").read_text())
    jsonschema.validate(of_kind(kind), schema)
    spec = of_kind(kind)["spec"]
    cluster = spec.get("jobTemplate", spec)["rayClusterSpec"]
    cluster["headGroupSpec"]["template"]["spec"]["serviceAcountName"] = "mats"
    with pytest.raises(jsonschema.ValidationError, match="serviceAcountName"):
        jsonschema.validate({**of_kind(kind), "spec": spec}, schema)


def test_what_manifests_name_is_there_and_the_same_in_both() -> None:
    images, accounts = set(), set()
    for path in sorted(CONFIGS.glob("kuberay-*.yaml")):
        made = list(yaml.safe_load_all(path.read_text()))
        (account,) = [each["metadata"]["name"] for each in made if each["kind"] == "ServiceAccount"]
        (job,) = [each["spec"] for each in made if each["kind"] != "ServiceAccount"]
        cluster = job.get("jobTemplate", job)["rayClusterSpec"]
        assert cluster["authOptions"] == {"mode": "token"}
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            images.add(container["image"])
            accounts |= {account, pod["serviceAccountName"]}
            assert container["envFrom"] == [{"secretRef": {"name": "mats-storage", "optional": True}}]
            on_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
            assert on_gpu == any(each["key"] == "nvidia.com/gpu" for each in pod.get("tolerations", []))
            mounted = {each["name"] for each in container.get("volumeMounts", [])}
            assert mounted == {each["name"] for each in pod.get("volumes", [])}
            assert not on_gpu or mounted
    assert len(images) == len(accounts) == 1
    (image,) = images
    build = re.sub(r"\n#", " ", (ROOT / "Dockerfile").read_text())
    assert f"docker build -t {image} --build-arg TORCH_INDEX=" in build, "GPU workers need the image with CUDA"


def submitted(command: str) -> list[str]:
    """The job of a `mats submit` line, checked as far as no cluster is needed."""
    words = shlex.split(command)
    assert words[:3] == ["mats", "submit", "--address"]
    submit.entrypoint(words[4:])
    return words[4:]


def test_schedulers_run_commands_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    operators: list[dict[str, Any]] = []

    class Dag:
        def __init__(self, name: str, **options: Any) -> None:
            assert options["max_active_runs"] == 1 and options["catchup"] is False

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    modules: dict[str, dict[str, Any]] = {
        "pendulum": {"datetime": lambda *_, **__: None},
        "airflow": {"DAG": Dag},
        "airflow.operators": {},
        "airflow.operators.bash": {"BashOperator": lambda **given: operators.append(given)},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    exec(compile((EXAMPLES / "airflow_caption.py").read_text(), "airflow_caption.py", "exec"), {})
    argo = yaml.safe_load((EXAMPLES / "argo-caption.yaml").read_text())["spec"]
    (template,) = argo["workflowSpec"]["templates"]
    assert argo["workflowSpec"]["entrypoint"] == template["name"]
    container = template["container"]
    commands = [operators[0]["bash_command"], shlex.join(container["command"] + container["args"])]
    assert len({tuple(submitted(command)) for command in commands}) == 1


@pytest.mark.processes
def test_cron_needs_nothing_that_cron_does_not_have(tmp_path: Path) -> None:
    """Absolute paths, a PATH, and one night at a time."""
    lines = [line for line in (CONFIGS / "evaluate.cron").read_text().splitlines() if not line.startswith("#")]
    values = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    assert {"SHELL", "PATH", "MATS_FOLDER"} <= set(values)
    assert all(value.startswith("/") for name, value in values.items() if name not in ("MAILTO", "MATS_MODEL"))
    assert not any("$" in value for value in values.values())  # cron does not look into values
    (line,) = [line for line in lines if re.match(r"[\d*]", line)]
    command = line.split(maxsplit=5)[5].replace("\\%", "%")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "mats").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/ran; sleep 2\n')
    (tools / "mats").chmod(0o755)
    given = {**values, "PATH": f"{tools}:/usr/bin:/bin", "MATS_FOLDER": str(tmp_path / "made" / "here")}
    first = subprocess.Popen([values["SHELL"], "-c", command], env=given)
    while not (tmp_path / "ran").exists():
        assert first.poll() is None
    assert subprocess.run([values["SHELL"], "-c", command], env=given).returncode == 1
    assert first.wait() == 0
    assert len((tmp_path / "ran").read_text().splitlines()) == 1


def test_the_dashboard_asks_for_what_is_counted() -> None:
    board = json.loads((CONFIGS / "grafana.json").read_text())
    known = {f"ray_mats_{name}_total": {"job", "run_id", LABELS.get(name, "job")} for name in COUNTERS}
    shown = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            for name, chosen in re.findall(r"(ray_mats_\w+)\{([^}]*)\}", target["expr"]):
                shown.add(name)
                assert set(re.findall(r"(\w+)=~", chosen)) <= known[name]
            for grouped in re.findall(r"by \(([^)]*)\)", target["expr"]):
                assert set(grouped.split(", ")) <= known[name]
    assert shown == set(known)


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of each of the Dockerfile's instructions."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


@pytest.mark.processes
def test_the_image_gets_all_that_mats_needs(tmp_path: Path) -> None:
    """Its steps without Docker: what it copies past .dockerignore is installed by pip, and `mats` runs from there."""
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#!"]
    taken = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert ignored[0] == "*"
    steps, source = instructions(), tmp_path / "source"
    source.mkdir()
    for word, rest in steps:
        if word == "COPY":
            *names, target = shlex.split(rest)
            for name in names:
                assert any(fnmatch.fnmatch(name, each) for each in taken), f"{name} does not travel"
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, source / target)
    runs = " ".join(rest for word, rest in steps if word == "RUN")
    assert runs.count("-c constraints.txt") == 2 and '".[evaluate]"' in runs, "a nightly evaluation needs its metrics"
    assert "--no-cache-dir" in runs
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet"]
    try:
        subprocess.run([*pip, "--target", str(installed), "."], cwd=source, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        if "No module named pip" in error.stderr or "setuptools" in error.stderr:
            pytest.skip(f"this environment cannot build: {error.stderr.splitlines()[-1]}")
        raise
    ran = subprocess.run(
        [sys.executable, "-c", "import mats_core; print(mats_core.__file__)"],
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.startswith(str(installed))
    for needed in (
        "jobs/configs/kuberay-caption.yaml",
        "mats_core/model/builtin/mats.json",
        "pipelines/pages/templates",
    ):
        assert (installed / needed).exists(), needed
    (user,) = [rest for word, rest in steps if word == "USER"]
    assert user == "1000"


@pytest.mark.processes
def test_the_dockerfile_pleases_its_linter() -> None:
    tool = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([tool, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_metrics_carry_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.cluster.progress import Meter

    made: dict[str, Any] = {}

    def metric(name: str, text: str, tag_keys: tuple[str, ...]) -> Any:
        made[name] = SimpleNamespace(keys=tag_keys, seen=[])
        return SimpleNamespace(inc=lambda value, tags: made[name].seen.append(tags), set=lambda *_: None)

    monkeypatch.setattr("ray.util.metrics.Counter", metric)
    monkeypatch.setattr("ray.util.metrics.Gauge", metric)
    import pyarrow as pa

    meter = Meter()
    meter.publish("caption", "run-1")
    meter.count_new(pa.table({"decoded_s": [1.0, 2.0], "error_code": [None, "timeout"]}))
    assert made["mats_clips_total"].seen == [{"job": "caption", "run_id": "run-1"}]
    assert made["mats_errors_total"].seen == [{"job": "caption", "run_id": "run-1", "code": "timeout"}]
    assert all({"job", "run_id"} <= set(each.keys) for each in made.values())
