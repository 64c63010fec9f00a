"""Killed with -9 on a cluster of three nodes; the traps of Ray's own checkpointing; counters for Prometheus."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.benchmarks.scale import Waits
from pipelines.cluster import session
from pipelines.cluster.progress import Progress
from pipelines.settings.archive import RunSettings
from tests.e2e.chaos import Chaos, ChaosFailed, check, torment
from tests.e2e.conftest import read_answers, write_tones
from tests.e2e.stand_in import run_stand_in


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    """A head, two nodes and an archive of 150 files."""
    found = Chaos(tmp_path_factory.mktemp("chaos"), 150, "stand-in", 0.05, 2)
    yield found
    found.close()


def test_three_kills(chaos: Chaos) -> None:
    """A driver, an actor and a node; `torment` raises unless every row comes once, equal, and nothing is left."""
    tally = torment(chaos, 3, seed=1)
    assert dict(tally.kills) == {"driver": 1, "actor": 1, "node": 1}


@pytest.mark.long  # some two hours: two hundred kills, fifty of them frozen drivers, and a cluster that gets over each
def test_two_hundred_kills(chaos: Chaos) -> None:
    assert sum(torment(chaos, 200, seed=0).kills.values()) == 200


def test_the_check_finds_what_is_wrong(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"row_id": i, "text": f"t{i}", "run_id": "x"} for i in range(3)]
    (tmp_path / "answers").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "answers" / "a.parquet")
    check(tmp_path, [{**row, "run_id": "y"} for row in rows])
    with pytest.raises(ChaosFailed, match=r"row 2 differs .* text"):
        check(tmp_path, [*rows[:2], {**rows[2], "text": "other"}])
    with pytest.raises(ChaosFailed, match="4 rows expected, 3 found"):
        check(tmp_path, [*rows, {"row_id": 3, "text": "", "run_id": ""}])
    (tmp_path / "answers" / "a.parquet.partial").touch()
    with pytest.raises(ChaosFailed, match="partial was left behind"):
        check(tmp_path, rows)
    (tmp_path / "answers" / "a.parquet.partial").unlink()
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "answers" / "b.parquet")
    with pytest.raises(ChaosFailed, match=r"twice: \[0\]"):
        check(tmp_path, rows)


def test_two_cpus_are_enough_parts_come_early_and_nothing_loads_when_done(
    shared_ray: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traps met: nothing durable until the end; a resumed run that waits for a CPU; a model loaded for nothing."""
    import ray

    write_tones(tmp_path / "in", 40, 1.0)
    out = tmp_path / "out"
    given = {"input": str(tmp_path / "in"), "output": str(out), "actors": 1, "decoders": 1}
    total = int(ray.cluster_resources()["CPU"])
    holder = ray.remote(num_cpus=total - 2)(_Nothing).remote()  # leaves two CPUs of the session's Ray
    ray.get(holder.ping.remote())
    seen: list[int] = []

    def interrupted(progress: Progress) -> None:
        seen.append(len(list(out.glob("answers/*.parquet"))))
        if seen[-1] >= 2 and progress.stage == "run":
            raise KeyboardInterrupt

    try:
        first = run_stand_in(RunSettings(**given, commit_rows=4), Waits(0.05), progress=interrupted)
        assert first.status == "interrupted" and 8 <= first.new_rows < 40  # durable long before the end
        second = run_stand_in(RunSettings(**given, commit_rows=7), Waits(0.0))  # resumed on two CPUs
        assert (second.status, second.new_rows) == ("complete", 40 - first.new_rows)
    finally:
        ray.kill(holder)
    assert [row["row_id"] for row in read_answers(out)] == list(range(40))

    def never(*_: object) -> None:
        raise AssertionError("Ray was asked for although nothing is left to do")

    monkeypatch.setattr(session, "ray_session", never)
    assert run_stand_in(RunSettings(**given), Waits(0.0)).status == "complete_before"


class _Nothing:
    def ping(self) -> int:
        return 0


def test_counters_are_served_on_the_metrics_port(shared_ray: str, tmp_path: Path) -> None:
    import ray

    write_tones(tmp_path / "in", 20, 1.0)
    (tmp_path / "in" / "text.wav").write_text("no sound")
    settings = RunSettings(input=str(tmp_path / "in"), output=str(tmp_path / "out"), actors=1)
    run_stand_in(settings, Waits(0.0), name="counted")
    deadline = time.monotonic() + 90  # Ray hands metrics on every ten seconds
    while time.monotonic() < deadline:
        grown = _scrape(ray, "counted")
        if grown.get("clips_total", 0) >= 21:
            break
        time.sleep(1)
    run = json.loads((tmp_path / "out" / "_run.json").read_text())
    assert grown["clips_total"] == 21
    assert grown["errors_total not_audio"] == 1
    assert grown["audio_seconds_total"] == pytest.approx(run["audio_hours"] * 3600, rel=0.01)
    assert grown["tokens_total"] == run["tokens"] == 210
    assert grown["stage_seconds_total decode"] == pytest.approx(run["stage_s"]["decode_s"], abs=0.01)
    assert grown["batch_asked_total"] / grown["batch_places_total"] == pytest.approx(run["batch_fill"], abs=1e-3)
    assert (run["errors"], run["error_rate"], run["status"]) == ({"not_audio": 1}, round(1 / 21, 6), "complete")


def _scrape(ray: object, job: str) -> dict[str, float]:
    """The counters of runs called `job` on every node, by name, with the error code or the stage after it."""
    found: dict[str, float] = {}
    for node in ray.nodes():  # type: ignore[attr-defined]
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        try:
            text = urllib.request.urlopen(url, timeout=5).read().decode()
        except OSError:
            continue  # the agent of a node may start after its raylet
        for name, labels, value in re.findall(r"^ray_mats_(\w+)\{(.*?)\} (\S+)$", text, re.MULTILINE):
            if f'job="{job}"' not in labels:
                continue
            label = re.search(r'(?:code|stage)="(\w+)"', labels)
            key = f"{name} {label[1]}" if label else name
            found[key] = found.get(key, 0.0) + float(value)
    return found


def test_errors_are_tried_again_when_that_is_asked_for(shared_ray: str, tmp_path: Path) -> None:
    """A file of the same size and date that can be read now, as after a store's bad hour."""
    write_tones(tmp_path / "in", 3, 1.0)
    path = tmp_path / "in" / "0001.wav"
    sound, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(b"x" * len(sound))
    os.utime(path, ns=times)
    given = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out"), "actors": 1}
    assert run_stand_in(RunSettings(**given), Waits(0.0)).errors == {"not_audio": 1}
    path.write_bytes(sound)
    os.utime(path, ns=times)
    assert run_stand_in(RunSettings(**given), Waits(0.0)).status == "complete_before"
    again = run_stand_in(RunSettings(**given, retry_errors=["not_audio", "timeout"]), Waits(0.0))
    assert (again.status, again.new_rows, again.errors) == ("complete", 1, {})
    assert [row["error_code"] for row in read_answers(tmp_path / "out")] == [None] * 3
    assert run_stand_in(RunSettings(**given, retry_errors=["timeout"]), Waits(0.0)).status == "complete_before"
