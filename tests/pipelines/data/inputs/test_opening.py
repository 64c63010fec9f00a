"""What INPUT means: folders, lists, their columns."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage import errors
from pipelines.archive.decode_stage import FetchStage
from pipelines.cluster.stages import StageContext
from pipelines.data import parquet
from pipelines.data.inputs import open_input
from pipelines.data.schemas import WINDOWS_TYPE


def test_a_folder_gives_its_audio_files_by_name_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.wav", "a/c d.flac", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    source = open_input(str(tmp_path))
    assert source.kind == "files"
    assert [entry.path for entry in source.entries] == ["a/c d.flac", "b.wav"]
    assert source.skipped == {".txt": 1}
    every = open_input(str(tmp_path), all_files=True)
    assert [entry.path for entry in every.entries] == ["a/c d.flac", "b.wav", "notes.txt"] and every.skipped == {}


@pytest.mark.parametrize("ending", ["gsm", "mogg", "aa3", "dsf", "amb", "GSM"])
def test_rare_kinds_that_decoders_know_are_looked_at(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"a.{ending}").write_bytes(b"x")
    assert [entry.path for entry in open_input(str(tmp_path)).entries] == [f"a.{ending}"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_list_has_requests_and_own_columns_and_paths_beside_it(tmp_path: Path, ending: str) -> None:
    (tmp_path / "one.wav").write_bytes(b"12345")
    rows = [
        {"uri": "one.wav", "task": "QA", "question": "what?", "station": 7},
        {"uri": "gone.wav", "task": None, "question": None, "station": 8},
    ]
    path = tmp_path / f"list.{ending}"
    if ending == "csv":
        path.write_text("uri,task,question,station\none.wav,QA,what?,7\ngone.wav,,,8\n")
    elif ending == "jsonl":
        path.write_text(
            '{"uri": "one.wav", "task": "QA", "question": "what?", "station": 7}\n{"uri": "gone.wav", "station": 8}\n'
        )
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    source = open_input(str(path))
    first, second = list(source.entries)
    assert source.own_schema.names == ["station"]
    assert first.uri == str(tmp_path / "one.wav")
    station = "7" if ending == "csv" else 7  # CSV has no types
    assert (first.request["task"], first.request["question"], first.own) == ("QA", "what?", {"station": station})
    assert first.size == 5
    assert second.request["task"] is None
    assert second.error is not None
    assert second.error[0] == "not_found"


@pytest.mark.parametrize("column", ["text", "duration_s", "row_id", "windows", "_hidden"])
def test_a_column_of_ours_is_refused_by_name(tmp_path: Path, column: str) -> None:
    (tmp_path / "list.csv").write_text(f"uri,{column}\na.wav,1\n")
    with pytest.raises(SettingsError, match=f"`{column}`"):
        open_input(str(tmp_path / "list.csv"))


def test_a_list_without_uri_or_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\na.wav\n")
    with pytest.raises(SettingsError, match="column `uri`"):
        open_input(str(tmp_path / "list.csv"))
    (tmp_path / "list.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(SettingsError, match=r"list\.parquet cannot be read .no whole Parquet file"):
        open_input(str(tmp_path / "list.parquet"))


def test_a_query_string_never_becomes_part_of_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "FIRST_PAUSE_S", 0.0)
    (tmp_path / "list.csv").write_text("uri\nhttps://127.0.0.1:9/a.wav?X-Amz-Signature=secret\n")
    entry = next(open_input(str(tmp_path / "list.csv")).entries)
    assert "secret" not in entry.path
    assert "secret" not in str(entry.error)


def entries(path: Path | str, schemes: list[str] | None = None) -> list[tuple[str, str | None]]:
    """(path, error code) of every entry."""
    return [(entry.path, entry.error and entry.error[0]) for entry in open_input(str(path), schemes).entries]


@pytest.mark.parametrize(
    "uri",
    [
        "../secret.wav",
        "a/../../secret.wav",
        "/data/../etc/passwd",
        "file:///data/..%2f..%2fetc/passwd",
        "http://127.0.0.1:9/a/%2e%2e/b.wav",
        "zip://a.wav::/etc/a.zip",
        "local:///etc/passwd",
        "FILE:///data/x/../../etc/passwd",
        "nosuchkind://a/b.wav",
        "tar+s3://bucket/none",
        "tar+file:///data/../etc/a.tar!512+9/a.wav",
        "tar+http://[x!0+1/a",
        "tar+file:///data/a.tar!99999999999999999999+1/a.wav",
        "http://[bad/a.wav",
        "http://a\u2100b.example/a.wav",
        "http://127.0.0.1:99999/a.wav",
        "http:///a.wav",
    ],
)
def test_a_row_that_plays_tricks_is_refused_and_costs_no_other(tmp_path: Path, uri: str) -> None:
    (tmp_path / "one.wav").write_bytes(b"12345")
    path = tmp_path / "list.csv"
    path.write_text(f"uri\none.wav\n{uri}\none.wav\n")
    assert entries(path) == [("one.wav", None), (uri, "refused"), ("one.wav", None)]


def test_a_row_without_uri_costs_no_other_and_a_list_of_nothing_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.wav").write_bytes(b"12345")
    path = tmp_path / "list.csv"
    path.write_text("uri,x\n,1\none.wav,2\n  ,3\none.wav,4\n")
    assert entries(path) == [("", "refused"), ("one.wav", None), ("  ", "refused"), ("one.wav", None)]
    pq.write_table(pa.table({"uri": [None, "one.wav"]}), tmp_path / "list.parquet")
    assert entries(tmp_path / "list.parquet") == [("", "refused"), ("one.wav", None)]
    path.write_text("uri,x\n,1\n  ,3\n")
    with pytest.raises(SettingsError, match="a path or URL in its column `uri`"):
        next(open_input(str(path)).entries)


def test_a_list_names_only_the_kinds_of_storage_it_may(tmp_path: Path) -> None:
    (tmp_path / "one.wav").write_bytes(b"12345")
    path = tmp_path / "list.csv"
    path.write_text(f"uri\none.wav\n{tmp_path}/one.wav\nmemory://none.wav\n")
    codes = {
        None: [None, None, "not_found"],
        "file": [None, None, "refused"],
        "memory": ["refused"] * 2 + ["not_found"],
    }
    for kind, expected in codes.items():
        assert [code for _, code in entries(path, [kind] if kind else None)] == expected
    with pytest.raises(SettingsError, match="schemes"):
        open_input(str(path), ["nosuchkind"])


def test_a_list_that_lies_elsewhere_reaches_no_local_file(tmp_path: Path) -> None:
    (tmp_path / "one.wav").write_bytes(b"12345")
    storage.write_bytes("memory://lists/list.csv", f"uri\n{tmp_path}/one.wav\nfile://{tmp_path}/one.wav\n".encode())
    assert [code for _, code in entries("memory://lists/list.csv")] == ["refused", "refused"]
    assert [code for _, code in entries("memory://lists/list.csv", ["file"])] == [None, None]
    storage.remove_tree("memory://lists")


def test_a_manifest_from_elsewhere_is_checked_as_well() -> None:
    from pipelines.data.schemas import MANIFEST_SCHEMA

    row = dict.fromkeys(MANIFEST_SCHEMA.names)
    rows = [{**row, "uri": uri, "chunk_id": "1"} for uri in ("/etc/passwd", "memory://a.wav?X-Amz-Signature=secret")]
    fs, path = storage.arrow("memory://m/manifest/rows-000000000000.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA), path, filesystem=fs)
    storage.write_bytes("memory://m/_manifest.json", b"{}")
    local, own = open_input("memory://m").entries
    assert local.chunk is not None
    assert own.chunk is not None
    assert (local.chunk["error_code"], own.chunk["error_code"]) == ("refused", None)
    assert own.chunk["uri"] == "memory://a.wav"
    storage.remove_tree("memory://m")


def test_shards_are_folders_of_their_members(tmp_path: Path) -> None:
    for name, members in (("000.tar", ("a.wav", "a.txt", "../up.wav")), ("001.tar", ())):
        with tarfile.open(tmp_path / name, "w") as tar:
            for member in members:
                info = tarfile.TarInfo(member)
                info.size = 5
                tar.addfile(info, io.BytesIO(b"12345"))
    (tmp_path / "002.tar").write_bytes(b"no archive" * 100)
    (tmp_path / "plain.wav").write_bytes(b"x")
    expected = [("000.tar/a.wav", None), ("000.tar/../up.wav", "refused"), ("002.tar", "not_audio")]
    assert entries(tmp_path) == [*expected, ("plain.wav", None)]
    (tmp_path / "list.csv").write_text("uri,station\n000.tar,7\n")
    listed = list(open_input(str(tmp_path / "list.csv")).entries)
    assert [(entry.path, entry.own) for entry in listed] == [(path, {"station": "7"}) for path, _ in expected[:2]]


def test_archives_that_are_not_read_are_told_and_other_files_counted_by_ending(tmp_path: Path) -> None:
    for name in ("a.TAR.GZ", "b.tgz", "c.tar.zst", "d.zip", "e.gz", "f.PDF", "g", "h.tar.wav", "i.pdf"):
        (tmp_path / name).write_bytes(b"x")
    with tarfile.open(tmp_path / "j.tar", "w") as tar:
        for member in ("k.json", "l.rar", "m"):
            tar.addfile(tarfile.TarInfo(member))
    every = [entry.path for entry in open_input(str(tmp_path), all_files=True).entries]
    assert {"e.gz", "f.PDF", "g", "i.pdf", "j.tar/k.json", "j.tar/m"} <= set(every)
    source = open_input(str(tmp_path))
    found = [(entry.path, entry.error and entry.error[0]) for entry in source.entries]
    refused = ["a.TAR.GZ", "b.tgz", "c.tar.zst", "d.zip"]
    assert found == [*((name, "refused") for name in refused), ("h.tar.wav", None), ("j.tar/l.rar", "refused")]
    assert source.skipped == {".gz": 1, ".pdf": 2, "": 2, ".json": 1}
    for name in ("a.TAR.GZ", "d.zip"):  # named, not found in a folder
        (entry,) = open_input(str(tmp_path / name)).entries
        assert entry.error is not None
        assert "unpack it" in entry.error[1]


def test_a_parquet_list_with_pandas_index_or_without_strings_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    for table, words in (
        (pa.table({"uri": ["a.wav"], "__index_level_0__": [7]}), "index=False"),
        (pa.table({"uri": [b"a.wav"]}), "the column `uri` of the list .* is binary; give paths"),
        (pa.table({"uri": [["a.wav"]]}), "the column `uri` of the list .* is list<"),
    ):
        pq.write_table(table, path)
        with pytest.raises(SettingsError, match=words):
            open_input(str(path))
    pq.write_table(pa.table({"uri": pa.array(["a.wav"]).dictionary_encode()}), path)
    assert [entry.path for entry in open_input(str(path)).entries] == ["a.wav"]


@pytest.mark.parametrize("name", ["list.tsv", "list.xlsx", "list.json", "list.txt"])
def test_a_list_of_another_kind_is_not_taken_for_a_sound(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("uri\na.wav\n")
    with pytest.raises(SettingsError, match=r"a list that ends in \.parquet, \.csv, \.jsonl"):
        open_input(str(tmp_path / name))


@pytest.mark.parametrize("nothing", ["", "  "])
def test_an_unset_variable_is_not_the_current_folder(nothing: str) -> None:
    with pytest.raises(SettingsError, match="the folder you are in"):
        open_input(nothing)


def test_rows_of_a_list_keep_their_place_wherever_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "list.csv").write_text("uri\na.wav\n")
    monkeypatch.chdir(tmp_path)
    (entry,) = open_input("list.csv").entries
    assert (entry.path, entry.uri) == ("a.wav", str(tmp_path / "a.wav"))


@pytest.mark.parametrize("in_order", [False, True])
def test_embeddings_that_were_compacted_into_folders_keep_their_column_and_are_found(
    tmp_path: Path, in_order: bool
) -> None:
    (tmp_path / "_embeddings.json").write_text("{}")
    for number, kind in enumerate(("a bird", "dog")):
        uri = str(tmp_path / f"{kind}.wav")
        window = {"start_s": 0.0, "weight": 1.0, "embedding": [float(number)]}
        row = {"row_id": number, "chunk_id": kind, "uri": uri, "start_s": 0.0, "decoded_s": 1.0, "windows": [window]}
        row |= {"size_bytes": 1, "version": "v", "error_code": None}
        part = pa.table({name: [value] for name, value in row.items() if name != "windows"})
        part = part.append_column("windows", pa.array([row["windows"]], WINDOWS_TYPE))
        parquet.write(str(tmp_path / "embeddings" / f"kind={kind}" / "part-0.parquet"), part)
    source = open_input(str(tmp_path), in_order=in_order)
    assert source.own_schema.names == ["kind"]
    found = list(source.entries)
    assert [entry.own for entry in found] == [{"kind": "a bird"}, {"kind": "dog"}]
    stage = FetchStage(StageContext(str(tmp_path / "work")), str(tmp_path))
    parts = [(entry.chunk or {})["part"] for entry in found]
    assert [stage.stored(part, 0)["windows"][0]["embedding"] for part in parts] == [[0.0], [1.0]]
    assert not any(" " in part for part in parts), "whole files name several, with spaces between"


def test_a_list_or_sounds_in_a_folder_named_by_a_column_have_it(tmp_path: Path) -> None:
    (tmp_path / "one.wav").write_bytes(b"12345")
    (tmp_path / "year=2024").mkdir()
    pq.write_table(pa.table({"uri": [str(tmp_path / "one.wav")]}), tmp_path / "year=2024" / "list.parquet")
    (entry,) = open_input(str(tmp_path / "year=2024" / "list.parquet")).entries
    assert entry.own == {"year": "2024"}
    sounds = pa.table({"audio": pa.array([{"bytes": b"12345", "path": "one.wav"}])})
    pq.write_table(sounds, tmp_path / "year=2024" / "list.parquet")
    (entry,) = open_input(str(tmp_path / "year=2024")).entries
    assert entry.own == {"year": "2024"}
