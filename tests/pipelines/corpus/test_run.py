"""`mats corpus` on a Ray: every record once, the same whatever the number of workers, after an interruption too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.cluster.progress import Progress
from pipelines.corpus.definition import load_corpus_set
from pipelines.corpus.reading import Tally, find_asked, read_clips
from pipelines.corpus.run import CorpusResult, run_corpus
from pipelines.corpus.writing.records import write_records
from pipelines.data.corpus import FileReport, corpus_files, read_corpus
from pipelines.settings.corpus import CorpusSettings
from tests.pipelines.corpus.published import write

SETS = ["esc50", "audiocaps"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fifty clips of ESC-50, forty to train on, and 20 020 of AudioCaps, of which 20 are evaluated: three parts."""
    labels = load_corpus_set("esc50").labels
    esc50 = [f"1-{n}-A-0.wav,{n % 5 + 1},0,{labels[n % 50]},True,{n},A\n" for n in range(1, 51)]
    clips = [f"{n},v{n:010d},30,Water pours {n}\n" for n in range(20020)]
    header = "audiocap_id,youtube_id,start_time,caption\n"
    files: dict[str, str | bytes] = {
        "esc50/meta/esc50.csv": f"filename,fold,target,category,esc10,src_file,take\n{''.join(esc50)}",
        "audiocaps/train.csv": header + "".join(clips),
        "audiocaps/test.csv": header + "".join(clips[:20]),
    }
    return write(tmp_path_factory.mktemp("published"), files)


def run(root: str, out: Path, names: list[str] = SETS, progress: Any = None, **changes: Any) -> CorpusResult:
    return run_corpus(CorpusSettings(names=names, data=root, out=str(out), **changes), progress)


def rows_of(out: Path, name: str) -> list[dict[str, str]]:
    """The records of a set, in the order of the parts."""
    parts = sorted((out / "records" / name).glob("*.parquet"), key=lambda path: path.name)
    return [row for path in parts for row in pq.read_table(path).to_pylist()]


def written_here(root: str, name: str, seed: int = 0) -> list[dict[str, str]]:
    """What one process makes of a set, without Ray."""
    definition = load_corpus_set(name)
    clips = read_clips(definition, root, find_asked(root), Tally())
    return [record for clip in clips for record in write_records(clip, definition, seed)]


@pytest.fixture(scope="module")
def complete(root: str, shared_ray: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sets, by two workers."""
    out = tmp_path_factory.mktemp("corpus")
    result = run(root, out, workers=2)
    assert result.status == "complete" and result.run["records_new"] == 40 * 14 + 20000
    assert result.sets["audiocaps"].left_out == {"audiocaps": 20}
    assert result.unchecked["audiocaps"] == ["dcase2017", "musiccaps", "vggsound"]
    return out


@pytest.mark.parametrize("name", SETS)
def test_every_record_is_there_once(complete: Path, root: str, name: str) -> None:
    assert rows_of(complete, name) == written_here(root, name)
    assert len(list((complete / "records" / name).iterdir())) == {"esc50": 1, "audiocaps": 3}[name]


def test_what_is_written_is_a_corpus(complete: Path) -> None:
    """`mats embed-text` and `mats train` take OUT, and a set of it, as they take any corpus; what was left out is named
    beside it."""
    files = corpus_files(str(complete))
    report = FileReport(files[0].uri)
    assert json.loads((complete / "_left_out" / "audiocaps.json").read_text()) == {
        "audiocaps": [str(n) for n in range(20)]
    }
    assert len(files) == 4 and len(corpus_files(str(complete / "records" / "audiocaps"))) == 3
    assert len(list(read_corpus(files[0].uri, report))) == report.records and report.bad == 0


def test_an_interrupted_run_goes_on(complete: Path, root: str, shared_ray: str, tmp_path: Path) -> None:
    """What was finished stays; another number of workers writes the rest alike; then there is nothing to do."""

    def stop(progress: Progress) -> None:
        if progress.stage == "run":
            raise KeyboardInterrupt

    assert run(root, tmp_path, progress=stop, workers=1).status == "interrupted"
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "records").rglob("*.parquet")}
    assert first
    result = run(root, tmp_path, workers=3)
    assert result.status == "complete" and result.run["records_new"] < 40 * 14 + 20000
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "records").rglob("*.parquet")}
    assert first.items() <= kept.items()
    for name in SETS:
        assert rows_of(tmp_path, name) == rows_of(complete, name)
    assert run(root, tmp_path).status == "complete_before"


def test_json_as_the_authors_have_it(complete: Path, root: str, shared_ray: str, tmp_path: Path) -> None:
    assert run(root, tmp_path, ["audiocaps"], format="json").status == "complete"
    whole = json.loads((tmp_path / "audiocaps.json").read_bytes())
    assert whole == {"annotation": rows_of(complete, "audiocaps")}
    assert not list((tmp_path / "records").rglob("*.parquet"))
    assert run(root, tmp_path, ["audiocaps"], format="json").status == "complete_before"


def test_a_set_is_added_and_other_settings_or_files_are_refused(root: str, shared_ray: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(root, out, ["audiocaps"]).status == "complete"
    with pytest.raises(SettingsError, match="seed was 0, is 1"):
        run(root, out, ["audiocaps"], seed=1)
    other = write(tmp_path / "other", {"audiocaps/train.csv": "audiocap_id,youtube_id,start_time,caption\n1,a,0,b\n"})
    with pytest.raises(SettingsError, match="has audiocaps from other files"):
        run(other, out, ["audiocaps"])
    assert run(other, out, ["audiocaps"], overwrite=True).run["records_new"] == 1
    assert rows_of(out, "audiocaps")[0]["caption"] == "b"


def test_a_file_that_is_wrong_ends_a_run_before_it_writes(shared_ray: str, tmp_path: Path) -> None:
    """And OUT can be begun again, with other settings."""
    table = "audiocap_id,youtube_id,start_time,caption\n1,a,0,b\n1,c,0,d\n"
    root = write(tmp_path, {"audiocaps/train.csv": table})
    with pytest.raises(SettingsError, match="corpus: audiocaps: id: the id 1 comes twice"):
        run(root, tmp_path / "out", ["audiocaps"])
    assert not list((tmp_path / "out").rglob("*.parquet"))
    write(tmp_path, {"audiocaps/train.csv": table.replace("1,c", "2,c")})
    assert run(root, tmp_path / "out", ["audiocaps"], seed=4).status == "complete"


def test_a_dry_run_writes_nothing(root: str, shared_ray: str, tmp_path: Path) -> None:
    result = run_corpus(CorpusSettings(names=SETS, data=root, dry_run=True))
    assert (result.status, result.sets["esc50"].records, result.sets["audiocaps"].used) == ("dry_run", 560, 20000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": []}, "names: no set is named"),
        ({"names": ["esc5O"]}, '"esc5O" is not a data set'),
        ({"data": ""}, "data: it is missing"),
        ({"out": ""}, "out: it is missing"),
        ({"names": ["fma", "gtzan"]}, "fma: no folder fma/"),
        ({"names": ["all"]}, "and [0-9]+ more"),
    ],
)
def test_wrong_settings_are_told_first(root: str, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    values = {"names": ["esc50"], "data": root, "out": str(tmp_path / "out"), **changes}
    with pytest.raises(SettingsError, match=words):
        run_corpus(CorpusSettings(**values))
    assert not (tmp_path / "out").exists()


def test_records_have_these_columns(complete: Path) -> None:
    (part,) = (complete / "records" / "esc50").iterdir()
    names = ["caption", "instruction", "output", "task", "tag", "source", "id", "split"]
    assert pq.read_schema(part) == pa.schema([(name, pa.string()) for name in names])
