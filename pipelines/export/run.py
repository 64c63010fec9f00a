"""`mats export`: a run as other programs read it."""

from __future__ import annotations

import gzip
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.cluster.progress import Progress
from pipelines.export import manifests, tables
from pipelines.export.datasets import write_files
from pipelines.export.places import Names, common_root
from pipelines.export.rows import Row, Said, by_file, columns_of, read_rows
from pipelines.export.subtitles import WRITERS, cues_of
from pipelines.output.corrections import read_corrections
from pipelines.settings.calling import by_name
from pipelines.settings.export import ExportSettings


@dataclass
class ExportResult:
    """What was written: rows, sounds, or files of subtitles, and what was left out by why."""

    output: str
    rows: int
    left_out: dict[str, int] = field(default_factory=dict)
    wall_s: float = 0.0


@by_name(ExportSettings)
def run_export(settings: ExportSettings, progress: Callable[[Progress], None] | None = None) -> ExportResult:
    """Write the rows of `settings.run` to its output. Raises SettingsError."""
    began = time.monotonic()
    said = {} if settings.uncorrected else read_corrections(settings.run)
    columns = columns_of(settings.run, said)
    needs_text = settings.to not in ("csv", "xlsx", "jsonl", "webdataset", "hf")
    if needs_text and settings.text not in columns:
        problem = f'{storage.public_uri(settings.run)} has no column "{settings.text}"'
        raise SettingsError("text", problem, f"name one of {', '.join(columns)}")
    if storage.lies_in(settings.place(), settings.run):
        problem = f"{storage.public_uri(settings.place())} lies in the run, which is only read"
        raise SettingsError("output", problem, "choose another place")
    tell = _telling(progress)
    left_out: Counter[str] = Counter()
    if settings.to in ("webdataset", "hf"):
        identity = {name: getattr(settings, name) for name in ("to", "per", "where", "items")}
        identity["run"] = storage.public_uri(settings.run)
        if said:
            identity["corrections"] = sorted([each.row_id, each.version] for each in said.values())
        rows = read_rows(settings.run, settings.where, settings.per, said=said)
        count, left_out = write_files(settings.place(), rows, identity, settings.overwrite, tell)
    elif settings.to in WRITERS:
        count = _texts(settings, said, tell, left_out)
    else:
        count = _one_file(settings, columns, said, tell, left_out)
    return ExportResult(settings.place(), count, dict(left_out), round(time.monotonic() - began, 2))


def _telling(progress: Callable[[Progress], None] | None) -> Callable[[int], None]:
    def tell(count: int) -> None:
        if progress is not None:
            progress(Progress("run", count))

    return tell


def _one_file(
    settings: ExportSettings, columns: list[str], said: Said, tell: Callable[[int], None], left_out: Counter[str]
) -> int:
    output = settings.place()
    if storage.is_dir(output):
        raise SettingsError(
            "output", f"{storage.public_uri(output)} is a folder", f"name the {settings.to} file to write"
        )
    if storage.exists(output) and not settings.overwrite:
        raise SettingsError("output", f"{storage.public_uri(output)} is there", "replace it with --overwrite")
    rows = _counted(read_rows(settings.run, settings.where, settings.per, said=said), tell)
    with storage.whole_file(output) as file:
        if settings.to == "csv":
            return tables.write_csv(file, rows, columns)
        if settings.to == "xlsx":
            return tables.write_xlsx(file, rows, columns)
        if settings.to == "jsonl":
            return tables.write_jsonl(file, rows, columns)
        if settings.to == "json":
            return tables.write_records(file, rows, settings.text)
        if settings.to == "nemo":
            lines = manifests.nemo(rows, settings.text, left_out)
        else:
            files = by_file(_counted(read_rows(settings.run, settings.where, marked=True, said=said), tell))
            lines = manifests.lhotse(files, settings.text, settings.per, left_out)
        count = 0
        packed = output.endswith(".gz")
        out = gzip.GzipFile(fileobj=file, mode="wb", mtime=0) if packed else file
        for line in lines:
            count += 1
            out.write(tables.json_line(line))
        if packed:
            out.close()
        return count


def _texts(settings: ExportSettings, said: Said, tell: Callable[[int], None], left_out: Counter[str]) -> int:
    """A file of subtitles or labels for each sound file, below OUTPUT as they lie in the archive; none, and counted,
    for one of which nothing is told."""
    ending, write = WRITERS[settings.to]
    names = Names(common_root(row["uri"] for row in read_rows(settings.run, settings.where, said=said)))
    count = 0
    for chunks in by_file(read_rows(settings.run, settings.where, said=said)):
        if cues := cues_of(chunks, settings.text):
            path = names.path(chunks[0]["uri"], ending)
            storage.write_bytes(
                storage.join(settings.place(), *path.split("/")), write(cues).encode("utf-8", "replace")
            )
            count += 1
            tell(count)
        else:
            left_out[chunks[0].get("error_code") or "no text"] += 1
    return count


def _counted(rows: Iterator[Row], tell: Callable[[int], None]) -> Iterator[Row]:
    for count, row in enumerate(rows, 1):
        yield row
        if count % 1000 == 0:
            tell(count)
