"""Kill -9 or freeze at random moments, then look whether every row is there once, and right.

    python -m tests.e2e.chaos --kills 20        # from the root of the checkout; --help lists the options

A Ray cluster of a head and worker nodes runs on this machine. A driver answers an archive on it; at moments drawn from
the seed the driver, an actor, or a worker node is killed, or a driver is frozen until another one has taken its OUTPUT
over, and then goes on. A driver that died is started again, a node is replaced. A run that ends before all kills are
spent is checked, and the next one begins.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

from pipelines.data.generations import newest, told

VICTIMS = ("driver", "actor", "node", "frozen")
ROUND_S = 900.0
"""Longest a run may take without a kill: beyond that it hangs, which is a failure."""
NODE = {"num_cpus": 4, "object_store_memory": 200_000_000}


class ChaosFailed(RuntimeError):
    """A run did not survive; the message says what is wrong with it."""


@dataclass
class Tally:
    """What was done to the runs."""

    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    rounds: int = 0
    lost_rows: int = 0
    times: list[float] = field(default_factory=list)


class Chaos:
    """A cluster, an archive, and the driver that is killed on it."""

    def __init__(self, folder: Path, files: int, model: str, row_s: float, nodes: int) -> None:
        self.folder, self.files, self.model, self.row_s = folder, files, model, row_s
        self.archive = folder / "archive"
        # Ray only counts GPUs: with a stand-in the nodes have one each, and the run is planned as on GPUs
        self._node: dict[str, Any] = {**NODE, "num_gpus": 1} if model == "stand-in" else NODE
        self._write_archive()
        self._cluster = self._start_cluster(nodes)

    def _write_archive(self) -> None:
        """Short tones, and two files that are none."""
        import soundfile

        draw = np.random.default_rng(0)
        self.archive.mkdir(parents=True)
        for index in range(self.files):
            moments = np.arange(int(draw.uniform(0.2, 0.6) * 8000)) / 8000
            sound = 0.3 * np.sin(2 * np.pi * draw.uniform(100, 3000) * moments)
            soundfile.write(self.archive / f"{index:05d}.wav", sound, 8000)
        for name in ("broken.wav", "text.wav"):
            (self.archive / name).write_text("not a sound")

    def _start_cluster(self, nodes: int) -> Any:
        from ray.cluster_utils import Cluster

        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        # a dead node is noticed in seconds, not in half a minute
        quick = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_timeout_ms": 2000}
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                **self._node,
                "include_dashboard": False,
                "_system_config": quick,
            },
        )
        for _ in range(nodes):
            cluster.add_node(wait=False, **self._node)
        cluster.wait_for_nodes(timeout=150)
        return cluster

    def close(self) -> None:
        """Stop the cluster."""
        with suppress(Exception):
            self._cluster.shutdown()

    def start(self, out: Path, address: bool = True) -> subprocess.Popen[str]:
        """A driver in a process group of its own."""
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        where = self._cluster.address if address else None
        given: dict[str, Any] = {"input": str(self.archive), "output": str(out), "commit_rows": 16, "address": where}
        if self.model == "stand-in":
            argument = json.dumps(
                {"settings": {**given, "actors": 2, "batch_size": 8}, "waits": {"row_s": self.row_s}, "apart": True}
            )
            command = [sys.executable, "-m", "tests.e2e.stand_in", argument]
        else:
            command = [sys.executable, "-m", "jobs", "caption", str(self.archive), str(out), "--model", self.model]
            command += ["--commit-rows", "16", "--actors", "2", "--deterministic"]
            command += ["--address", where] if where else []
        log = open(self.folder / "driver.log", "a")  # noqa: SIM115  # the process writes on after this returns
        return subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path},
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )

    def kill(self, victim: str, driver: subprocess.Popen[str], draw: np.random.Generator) -> bool:
        """Kill one, with -9; False when there is none of its kind just now."""
        if victim == "driver":
            with suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
            return True
        if victim == "actor":
            actors = _ray_workers("MapWorker")
            if not actors:
                return False
            with suppress(ProcessLookupError):
                os.kill(int(draw.choice(actors)), signal.SIGKILL)
            return True
        workers = sorted(self._cluster.worker_nodes, key=lambda node: node.node_id)
        self._cluster.remove_node(workers[int(draw.integers(len(workers)))], allow_graceful=False)
        self._replace_node()
        return True

    def _replace_node(self) -> None:
        """A new node; another try where Ray gives up after its 30 s, as it does on a machine with much else to do."""
        for last in (False, False, True):
            try:
                self._cluster.add_node(wait=False, **self._node)
                return
            except Exception as error:
                if last or "timed out during startup" not in str(error):
                    raise

    def freeze(self, driver: subprocess.Popen[str], out: Path) -> subprocess.Popen[str]:
        """Freeze the driver until another one has taken OUTPUT over; that one, when the first has ended by itself."""
        before = newest(str(out))
        os.killpg(driver.pid, signal.SIGSTOP)
        ended = (told(str(out), "_run.json") or {}).get("status") == "complete"  # nothing left but to exit
        other = self.start(out)
        _until(other, lambda: newest(str(out)) != before)
        os.killpg(driver.pid, signal.SIGCONT)
        _wait(driver, ROUND_S)
        if not (driver.returncode == 0 if ended else driver.returncode == 1 and "LeaseLost" in self.log()):
            raise ChaosFailed(f"a driver that had lost its lease ended with {driver.returncode}: {self.log()}")
        return other

    def undisturbed(self) -> list[dict[str, Any]]:
        """Rows of a run that nobody disturbs."""
        out = self.folder / "undisturbed"
        driver = self.start(out)
        _wait(driver, ROUND_S)
        if driver.returncode != 0:
            raise ChaosFailed(f"the undisturbed run ended with {driver.returncode}: {self.log()}")
        return read_rows(out)

    def log(self) -> str:
        """The end of what the drivers said."""
        return (self.folder / "driver.log").read_text()[-15000:]


def torment(chaos: Chaos, kills: int, seed: int, say: Any = None) -> Tally:
    """Kill as often as asked and check every run; raises ChaosFailed."""
    draw, tally = np.random.default_rng(seed), Tally()
    expected = chaos.undisturbed()
    order = [VICTIMS[i % len(VICTIMS)] for i in range(kills)]
    draw.shuffle(order)
    waits = draw.uniform(0.0, 3.0, kills)  # seconds after rows of the driver have become durable
    spent = 0
    while spent < kills:
        tally.rounds += 1
        out = chaos.folder / f"round-{tally.rounds}"
        driver: subprocess.Popen[str] | None = None
        since, last = time.monotonic(), ""
        while True:
            if driver is None:
                driver, since = chaos.start(out), time.monotonic()
                tally.starts += 1
                before = count_parts(out)
            if spent < kills:
                _until(driver, lambda: count_parts(out) > before)  # noqa: B023  # called at once
                _until(driver, lambda: False, float(waits[spent]))
            else:
                _wait(driver, ROUND_S)
            if time.monotonic() - since > ROUND_S:
                os.killpg(driver.pid, signal.SIGKILL)
                raise ChaosFailed(f"a run hangs: {count_parts(out)} parts after {ROUND_S:.0f} s; {chaos.log()}")
            if driver.poll() is not None:
                if (
                    driver.returncode != 0 and last == "node"
                ):  # it lived on that node: Ray lets any node take a driver in
                    driver, last = None, ""
                    continue
                if driver.returncode != 0:
                    raise ChaosFailed(f"a driver ended with {driver.returncode}: {chaos.log()}")
                break
            if order[spent] == "frozen":
                driver, since = chaos.freeze(driver, out), time.monotonic()
                tally.starts += 1
            if order[spent] == "frozen" or chaos.kill(order[spent], driver, draw):
                if say is not None:
                    say(f"kill {spent + 1} of {kills}: {order[spent]}, {count_parts(out)} parts are in place")
                last = order[spent]
                tally.kills[last] += 1
                spent += 1
                before = count_parts(out)
            if driver.poll() is not None:
                driver = None
        check(out, expected)
        tally.times.append(time.monotonic() - since)
        shutil.rmtree(out)
    return tally


def check(out: Path, expected: list[dict[str, Any]]) -> None:
    """Every row once, all columns but run_id as expected, no file that should not be there. Raises ChaosFailed."""
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        known = path.suffix == ".parquet" and path.parent.name in ("answers", "work_list")
        known |= name == "_run.json" or path.parent.name == "generations"
        if path.is_file() and not known:
            raise ChaosFailed(f"{name} was left behind")
    found = read_rows(out)
    ids = [row["row_id"] for row in found]
    if ids != list(range(len(expected))):
        twice = [number for number, times in Counter(ids).items() if times > 1]
        raise ChaosFailed(f"{len(expected)} rows expected, {len(ids)} found; twice: {twice[:10]}")
    for row, other in zip(found, expected, strict=True):
        names = [name for name in other if name != "run_id" and row.get(name) != other[name]]
        if names or row.keys() != other.keys():
            raise ChaosFailed(f"row {row['row_id']} differs from the undisturbed run in {', '.join(names)}")


def read_rows(out: Path) -> list[dict[str, Any]]:
    """All rows of an OUTPUT by row_id."""
    return sorted(pq.read_table(out / "answers").to_pylist(), key=lambda row: int(row["row_id"]))


def count_parts(out: Path) -> int:
    """Part files in place."""
    return len(list((out / "answers").glob("*.parquet"))) if (out / "answers").is_dir() else 0


def _until(driver: subprocess.Popen[str], ready: Any, seconds: float = ROUND_S) -> None:
    """Until `ready()`, the driver's end, or that long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and driver.poll() is None and not ready():
        time.sleep(0.02)


def _wait(driver: subprocess.Popen[str], seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        driver.wait(seconds)


def _ray_workers(name: str) -> list[int]:
    """Processes below this one that Ray calls by an actor class of that name."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if name in " ".join(process.cmdline()):
                found.append(process.pid)
    return sorted(found)


def main() -> int:
    """Kill as the command line says and print the tally; exit code 0 when every run survived."""
    parser = argparse.ArgumentParser(description="Kill driver, actors and nodes; every row must come out once.")
    parser.add_argument("--kills", type=int, default=20, help="how often something is killed with -9")
    parser.add_argument("--seed", type=int, default=0, help="decides what is killed, and when")
    parser.add_argument("--files", type=int, default=300, help="sounds in the archive of a run")
    parser.add_argument(
        "--model", default="stand-in", help='stand-in (waits, hashes the sound), a directory, or "builtin"'
    )
    parser.add_argument("--nodes", type=int, default=2, help="worker nodes beside the head")
    parser.add_argument("--folder", help="where to work (default: a temporary folder, removed)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    if given.model != "stand-in":
        global VICTIMS
        VICTIMS = VICTIMS[:3]  # what makes two drivers of one machine strangers is the stand-in's
    if given.kills < 1 or given.files < 20 or given.nodes < 1:
        parser.error("--kills and --nodes are at least 1, --files at least 20")
    return _run(given.kills, given.seed, given.files, given.model, given.nodes, given.folder, given.json)


def _run(kills: int, seed: int, files: int, model: str, nodes: int, folder: str | None, as_json: bool) -> int:
    place = Path(folder or tempfile.mkdtemp(prefix="mats-chaos-"))
    started = time.monotonic()
    chaos = None
    try:
        chaos = Chaos(place, files, model, 0.05, nodes)
        tally = torment(chaos, kills, seed, lambda line: print(line, file=sys.stderr, flush=True))
    except ChaosFailed as failure:
        print(f"mats: {failure}", file=sys.stderr)
        return 1
    finally:
        if chaos is not None:
            chaos.close()
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    figures = {
        "kills": dict(tally.kills),
        "drivers_started": tally.starts,
        "runs_checked": tally.rounds,
        "rows_a_run": files + 2,
        "seconds": round(time.monotonic() - started, 1),
        "model": model,
        "seed": seed,
    }
    if as_json:
        print(json.dumps(figures))
    else:
        killed = ", ".join(f"{name} {count}" for name, count in sorted(tally.kills.items()))
        print(
            f"kills   {sum(tally.kills.values())}: {killed}\nruns    {tally.rounds}, each of {files + 2} rows, "
            f"{tally.starts} drivers\nresult  every row once, equal to the undisturbed run; nothing left behind\n"
            f"time    {figures['seconds']:.0f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
