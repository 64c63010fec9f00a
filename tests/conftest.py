"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.store_servers import MotoStore
from tests.swift_server import SwiftStore, missing

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "MATS_CACHE" not in os.environ:  # what a test downloads, and the parts it names, are not the user's
    _cache = tempfile.TemporaryDirectory(prefix="mats-cache-")
    os.environ["MATS_CACHE"] = _cache.name
# A shell starts what it puts in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ("tests.browser",)
_HERE = Path(__file__).parent
_STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}
_PROBES = {"lscpu", "uname", "ldconfig", "/sbin/ldconfig", "gcc", "cc", "ld"}
"""What libraries ask a machine once, when they are imported; over at once."""
_started: list[str] = []
"""Processes that the current test has started, by what starts them (Ray starts its own through subprocess)."""
_sharing: set[Path] = set()
"""Test files that use the shared Ray."""
_shared: set[str] = set()
"""Its address, while it runs."""


def _note_start(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _STARTS and str(arguments[0] if arguments else "") not in _PROBES:
        _started.append(f"{event} {arguments[:2]}"[:200])


sys.addaudithook(_note_start)
_start_process = BaseProcess.start


def _start_and_note(process: BaseProcess) -> None:
    _started.append(f"multiprocessing {process.name}")  # spawn and forkserver raise no event of their own
    _start_process(process)


BaseProcess.start = _start_and_note  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """What runs commands as a user does starts processes, and long tests may; others say so with the mark. Files that
    share a Ray come first: an idle one costs a fifth of two cores, and is ended after the last of them.

    Marks are given before -m and -k choose, and which files share a Ray is asked of what they leave: one whose tests
    that want it are all left out needs none.
    """
    for item in items:
        if "store" in getattr(item, "fixturenames", ()):
            item.add_marker("store")
        in_e2e = (_HERE / "e2e") in item.path.parents
        if _shares_ray(item) or in_e2e or any(map(item.get_closest_marker, ("e2e", "long"))):
            item.add_marker("processes")
    yield
    _sharing.update(item.path for item in items if _shares_ray(item))
    items.sort(key=lambda item: item.path not in _sharing)


def _shares_ray(item: pytest.Item) -> bool:
    return "shared_ray" in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Count from here, so that what a fixture starts counts too."""
    if item.path not in _sharing:
        _end_shared_ray()
    _started.clear()
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """`make check` leaves out what is marked `processes`: a test that starts one has to say so."""
    yield
    if _started and not item.get_closest_marker("processes"):
        pytest.fail(f"starts a process and is not marked `processes`: {_started[0]}", pytrace=False)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A complete model directory with random weights (see tiny.py)."""
    from tests.tiny import make_tiny_model

    return str(make_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def shared_ray() -> str:
    """A Ray that in-process runs find and use, and commands can join, and its address: starting one costs ten seconds,
    so one serves module after module.

    It takes everybody, as that of a run does not (tests/e2e/test_closed.py).
    """
    import ray

    if not _shared:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        sizes = {"num_cpus": 2 * max(4, os.cpu_count() or 1) + 4, "object_store_memory": 500_000_000}
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="CRITICAL", **sizes)
        _shared.add(ray.get_runtime_context().gcs_address)
    (address,) = _shared
    return address


def _end_shared_ray() -> None:
    if _shared:
        import ray

        if ray.is_initialized():  # a test may have ended it
            ray.shutdown()
        _shared.clear()


def pytest_sessionfinish() -> None:
    """Nothing is left running."""
    _end_shared_ray()


@pytest.fixture(
    scope="module", params=["moto", pytest.param("swift", marks=[pytest.mark.swift, pytest.mark.processes])]
)
def store(request: pytest.FixtureRequest) -> Iterator[MotoStore | SwiftStore]:
    """An empty store that speaks S3: moto, and in `make test-stores` OpenStack Swift where it is installed."""
    if request.param == "swift" and missing():
        pytest.skip(str(missing()))
    found = SwiftStore() if request.param == "swift" else MotoStore()
    yield found
    found.close()


SHARED_REFERENCE = _HERE.parents[1] / "shared" / "reference"
COPIED_REFERENCE = _HERE.parent / "jobs" / "benchmarks" / "reference"


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The recorded runs of the authors' code: $MATS_REFERENCE, else `../shared/reference`, else the copy of it here."""
    given = os.environ.get("MATS_REFERENCE")
    for folder in (Path(given) if given else None, SHARED_REFERENCE, COPIED_REFERENCE):
        if folder is not None and (folder / "generate.json").is_file():
            return folder
    pytest.fail("the recorded runs are missing: jobs/benchmarks/reference, or set MATS_REFERENCE")


def writable_copy(source: Path, target: Path) -> Path:
    """A copy to change: recorded files may be read-only, and `shutil` copies that too."""
    for file in source.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    return target
