"""An OUTPUT folder from opening to closing.

    writable? ─ holder gone? ─ of this job? (--overwrite: emptied?) ─ next generation ─ what does not count is removed
    ─ the run ─ given back

What refuses the folder does so before anything in it is changed, and only what runs wrote there is ever removed.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data import parquet
from pipelines.data.generations import COUNTED, Generation, newest
from pipelines.output import record
from pipelines.output.lease import Lease, LeaseLost

DATA_SETS = ("answers", "embeddings", "manifest", "records")
OUR_NAMES = (
    *("_run.json", "_embeddings.json", "_manifest.json", "_index.json"),
    *DATA_SETS,
    *("_state/index", "_state/work_list"),
)
"""What scan, embed-audio, caption and compact write, in the order in which it goes: first what says that the rest is
whole."""
IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this environment variable for the entry point of a job: JSON, with the job's `runtime_env`."""
REMOVERS = 16
_OURS = re.compile(r"(part|rows|step)-.*\.(parquet|ckpt|faiss|arrow)(\.damaged)?")
_PARTIALS = {
    "": re.compile(r"(_\w+\.json\.|\..+\.|\.model-)[0-9a-f]{8}\.partial"),
    "_state": re.compile(r".+\.partial|memory-.+|(shards|reports|next)(-.+)?"),
    "data set": re.compile(r"(\..+|.+\.parquet)\.[0-9a-f]{8}\.partial|\.?growing-\d+(-[0-9a-f]{12})?\.partial"),
}


class Output:
    """An OUTPUT folder as the run that holds it sees it.

    `begun`: no run had begun it before this one.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self.uri, self.run_id, self.begun = uri, run_id, False
        self.lease = Lease(uri, run_id)

    def join(self, *names: str) -> str:
        """URI of what lies in the folder."""
        return storage.join(self.uri, *names)

    def check(self) -> None:
        """Raise LeaseLost unless this run still holds OUTPUT; StorageError when that cannot be known."""
        self.lease.check()

    def put(self, name: str, write: Callable[[str], None]) -> None:
        """Have `write` put a file in place, given its URI. name: relative to OUTPUT, with this run's id in it.

        Raises LeaseLost; then it is as if the file had not been written.
        """
        self.check()
        with self.losing():
            write(self.join(*name.split("/")))
        self.lease.check(name)

    def put_table(self, name: str, table: pa.Table) -> None:
        """Put a Parquet file in place, as `put`."""
        self.put(name, lambda uri: parquet.write(uri, table))

    def drop(self, files: Mapping[str, str]) -> None:
        """Let files (name: URI) count no more, and remove them. Raises LeaseLost, with all as it was."""
        if files:
            self.lease.advance(files=self.lease.generation.files - set(files))
            _remove(files.values())

    def read_run(self) -> dict[str, Any] | None:
        """`_run.json` of the last run, or None."""
        return self.lease.generation.told.get("_run.json")

    def write_run(self, run: dict[str, Any]) -> None:
        """`tell` of `_run.json`."""
        self.tell("_run.json", run)

    def tell(self, name: str, values: dict[str, Any]) -> None:
        """Say `values` in the file `name`, JSON; raises LeaseLost.

        Ours believe the generation that says so. The file is a copy for others: where a run that has lost OUTPUT wrote
        it nevertheless, it puts it back.
        """
        told = self.lease.generation.told
        plain = json.loads(json.dumps(values, default=str))
        if told.get(name) != plain:
            self.lease.advance(told={**told, name: plain})
        self._copy(name, plain)

    def _copy(self, name: str, values: dict[str, Any]) -> None:
        with self.losing():
            storage.write_bytes(self.join(name), record.shown(values))
        try:
            self.check()
        except LeaseLost:
            copy_told(self.uri)
            raise

    @contextmanager
    def recorded(
        self,
        run: dict[str, Any],
        started: float,
        describe: Callable[[], dict[str, Any]] = dict,
        undo: bool = True,
    ) -> Iterator[None]:
        """Keep `_run.json` about what is done within: `running` at first, and how it ended at last, however that was.

        run: the job and what it was asked; it grows into the whole record. Its `status` becomes complete, unless
        another is set within; an interrupt ends there, as `interrupted`, and what else is raised goes on, as `failed`.
        started: seconds since the epoch. describe: what came of it, asked at the end. undo: whether a SettingsError
        undoes the beginning (`forget`).
        """
        run.update(status="running", run_id=self.run_id, started=record.utc(started), versions=record.versions())
        self.write_run(run)
        try:
            yield
            if run["status"] == "running":
                run["status"] = "complete"
        except KeyboardInterrupt:
            run["status"] = "interrupted"
        except BaseException as error:
            run.update(status="failed", message=str(error))
            if undo and isinstance(error, SettingsError):
                self.forget()
            raise
        finally:
            run.update(describe())
            ended = time.time()
            run.update(ended=record.utc(ended), wall_s=round(ended - started, 3))
            self.write_run(run)

    @contextmanager
    def losing(self) -> Iterator[None]:
        """LeaseLost for what fails because another run cleared away what this one was about to put in place."""
        try:
            yield
        except (OSError, storage.StorageError):
            self.check()
            raise

    def forget(self) -> None:
        """Undo the beginning, if this run made it, so that settings that turned out wrong can be put right."""
        if self.begun:
            self.lease.advance(run_id=f"{self.run_id}-undone", identity=None, files=frozenset(), told={})
            _remove(uri for name, uri in _list_counted(self.uri).items() if self.run_id in name)


@contextmanager
def open_output(
    uri: str,
    identity: dict[str, Any] | None = None,
    *,
    results: str = "",
    overwrite: bool = False,
    written: Sequence[str] = OUR_NAMES,
    waiting: Callable[[str], None] | None = None,
    barren: Callable[[], bool] = lambda: False,
) -> Iterator[Output]:
    """Hold OUTPUT for one run.

    identity: the job (`job`) and the settings that must stay the same in one OUTPUT; None for a folder that keeps no
    such record. results: name of the folder where results go. written: what runs of this job write, in the order in
    which --overwrite removes it. waiting: told who holds the lease, while a holder that went silent is watched.
    barren: asked, once OUTPUT is held, whether nothing came of the run of this job that began it; then its settings
    bind nobody.
    Raises SettingsError for a folder that cannot be written, that another run is writing into (LeaseHeld), or that
    belongs to another job or to other settings.
    """
    prepare_output(uri)
    output = Output(uri, uuid.uuid4().hex[:12])
    before = output.lease.wait(waiting)
    there = _list_counted(uri)
    partials = find_partials(uri, [name for name in written if not name.startswith("_")])
    asked = before or record.of_older_version(uri, overwrite)
    # note: a file that no run has written is taken over, so that it is refused by name
    asked = replace(asked, files=frozenset(name for name in there if asked.counts(name) or not _is_ours(name)))
    emptied: list[str] = []
    if overwrite and identity is not None:
        emptied = check_emptying(uri, asked, identity["job"], written)
        asked, output.begun = Generation(0, "", identity), True
    elif identity is not None:
        if (asked.identity or {}).get("job") == identity.get("job") and asked.identity != identity and barren():
            asked = Generation(0, "", files=asked.files)
        output.begun = record.check_identity(uri, asked.identity, identity, results)
        asked = replace(asked, identity=identity)
    output.lease.begin(before, asked)
    try:
        with output.losing():
            # note: all that is removed here was seen before this generation was made, so that one who is frozen now
            # removes nothing of those after it
            _remove(each for name, each in there.items() if name not in asked.files and _is_ours(name, emptied))
            _remove(partials)
            output.check()
            _remove(_place(uri, name) for name in emptied if name not in COUNTED)
            for name in emptied:
                _remove_empty_folders(_place(uri, name))
            storage.remove_tree(output.join("_state", "identity.json"))  # an older version's
            copy_told(uri)
            yield output
    finally:
        output.lease.release()


def _is_ours(name: str, emptied: Collection[str] = ()) -> bool:
    """Whether a run wrote the file, by its name, or it lies in a folder that was checked to hold nothing else."""
    return any(name.startswith(f"{each}/") for each in emptied) or bool(_OURS.fullmatch(name.rpartition("/")[2]))


def prepare_output(uri: str) -> None:
    """Make sure OUTPUT can be written. Raises SettingsError."""
    if not uri.strip():
        raise SettingsError("output", "no folder is named", "name one (. is the folder you are in)")
    shown = storage.public_uri(uri)
    if in_job_folder(uri):
        problem = f"{shown} would lie in the copy of your folder that Ray made for this job, and removes after it"
        raise SettingsError("output", problem, "give a URL, or a path from / on on storage that all nodes share")
    try:
        if storage.exists(uri) and not storage.is_dir(uri):
            raise SettingsError("output", f"{shown} is a file", "choose a folder")
        try:
            _write_trial(uri)
        except storage.StorageError as error:
            if error.code != "not_found":
                raise
            _write_trial(uri)  # a run that began meanwhile took the first for one that a killed run left
    except (OSError, storage.StorageError) as error:
        problem = f"{shown} cannot be written ({error})"
        raise SettingsError("output", problem, "choose a folder that can, or change its permissions") from None


def in_job_folder(uri: str) -> bool:
    """Whether a place lies in the folder that travelled to the cluster with the Ray job that this process is the driver
    of. Ray runs the driver in its copy of that folder, and removes the copy when it wants the room."""
    path = storage.local_path(uri)
    if path is None or IN_A_JOB not in os.environ:
        return False
    try:
        travelled = json.loads(os.environ[IN_A_JOB])["runtime_env"]["working_dir"]
    except (ValueError, LookupError, TypeError):
        return False  # nothing travelled: the driver runs in a folder of its node
    copy = os.path.realpath(os.getcwd())
    return bool(travelled) and os.path.commonpath([copy, os.path.realpath(os.fsdecode(path))]) == copy


def _write_trial(uri: str) -> None:
    trial = storage.join(uri, "_state", f"trial-{uuid.uuid4().hex[:8]}")
    storage.write_bytes(trial, b"")
    storage.remove_tree(trial)


def check_emptying(output: str, before: Generation, job: str, names: Sequence[str] = OUR_NAMES) -> list[str]:
    """Which of `names` are there, to be removed. Raises SettingsError for what `job` has not made."""
    there = [name for name in names if storage.exists(_place(output, name))]
    shown = storage.public_uri(output)
    maker = record.maker(before)
    seen = [name for name in there if not name.startswith("_state/")]
    elsewhere = "choose another OUTPUT, or leave out --overwrite"
    if maker is None and seen:
        raise SettingsError("overwrite", f"no run has made the `{seen[0]}` in {shown}", f"move it away, or {elsewhere}")
    if maker not in (None, job):
        raise SettingsError("overwrite", f"{shown} is an OUTPUT of `mats {maker}`, not of `mats {job}`", elsewhere)
    for name in set(DATA_SETS) & set(there):
        for info in storage.list_files(_place(output, name)):
            if not info.path.endswith((".parquet", ".partial")):
                problem = f"{shown} holds {name}/{info.path}, which is no result"
                raise SettingsError("overwrite", problem, "move this file away: it would be removed with the results")
    return there


def copy_told(output: str) -> None:
    """Put what the newest generation tells into the files that others read (`_run.json`), where they say otherwise."""
    generation = newest(output)
    for name, values in (generation.told if generation else {}).items():
        uri, data = storage.join(output, name), record.shown(values)
        if not storage.exists(uri) or storage.read_bytes(uri) != data:
            storage.write_bytes(uri, data)


def find_partials(output: str, names: Iterable[str] = DATA_SETS) -> list[str]:
    """URIs of what a killed writer had not put in place yet: in OUTPUT itself, its `_state` and `names`. No link is
    followed."""
    path = storage.local_path(output)
    if path is None:
        state = storage.join(output, "_state")
        listed = storage.list_files(state) if storage.is_dir(state) else ()
        return [info.uri for info in listed if _PARTIALS["_state"].fullmatch(info.path.split("/")[0])]
    found: list[str] = []
    for place in ("", "_state", *names):
        ours = _PARTIALS.get(place, _PARTIALS["data set"])
        for folder, folders, files in os.walk(os.path.join(path, place.encode())):
            left = [name for name in folders + files if ours.fullmatch(os.fsdecode(name))]
            found += (storage.uri_from_path(os.path.join(folder, name)) for name in left)
            folders[:] = set(folders) - set(left) if place else []
    return found


def _list_counted(output: str) -> dict[str, str]:
    """The files in the folders of COUNTED: names relative to OUTPUT → URIs."""
    found: dict[str, str] = {}
    for place in COUNTED:
        folder = _place(output, place)
        for each in storage.list_files(folder) if storage.is_dir(folder) else ():
            if not each.path.endswith(".partial"):  # those are `find_partials`'s
                found[f"{place}/{each.path}"] = each.uri
    return found


def _remove(uris: Iterable[str]) -> None:
    def remove(uri: str) -> None:
        try:
            storage.remove_tree(uri)
        except storage.StorageError as error:
            if error.code != "not_found":  # else: a run that has lost OUTPUT removed it at the same time
                raise

    with ThreadPoolExecutor(REMOVERS) as pool:
        list(pool.map(remove, uris))


def _remove_empty_folders(uri: str) -> None:
    """Remove a local folder with those below it, where there is no file in it."""
    path = storage.local_path(uri)
    for folder, _, _ in os.walk(path, topdown=False) if path is not None else ():
        with suppress(OSError):
            os.rmdir(folder)


def _place(output: str, name: str) -> str:
    return storage.join(output, *name.split("/"))
