"""Members of tar archives: read in place, by range, whatever else the archive holds."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from mats_core import storage
from mats_core.audio.decode import decode
from mats_core.storage import FileInfo, StorageError
from mats_core.storage.uris import member_range, public_uri, split_member
from tests.recordings import encode, melody

SOUND = encode(melody(16000, 0.5), 16000, "wav")
WAV = frozenset({".wav"})


def shard(path: Path, files: dict[str, bytes], **options) -> FileInfo:
    with tarfile.open(path, "w", **options) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return next(storage.list_files(str(path)))


def listed(archive: FileInfo) -> list[FileInfo]:
    return list(storage.list_members(archive, WAV))


def test_members_are_listed_and_read_in_place(tmp_path: Path) -> None:
    archive = shard(tmp_path / "000.tar", {"a.wav": SOUND, "a.json": b"{}", "deep/b.wav": SOUND * 2, "c.WAV": b"x"})
    found = listed(archive)
    assert [each.path for each in found] == ["000.tar/a.wav", "000.tar/deep/b.wav", "000.tar/c.WAV"]
    assert [each.size for each in found] == [len(SOUND), 2 * len(SOUND), 1]
    assert storage.read_bytes(found[1].uri) == SOUND * 2
    again = storage.stat(found[0].uri)
    assert again.size == len(SOUND)
    with storage.open_binary(found[0].uri) as file:
        whole = decode(file, sample_rate=16000)
        part = decode(file, sample_rate=16000, start_s=0.25, duration_s=0.1)
    assert len(whole.samples) == 8000
    assert (whole.samples[4000:5600] == part.samples).all()


@pytest.mark.parametrize("name", ["x!5+6/y.wav", "ü/" + "long" * 60 + ".wav", "new\nline.wav", "100%25 a.wav"])
@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_any_name_comes_back(tmp_path: Path, name: str, kind: int) -> None:
    (found,) = listed(shard(tmp_path / "Köln #1?.tar", {name: SOUND}, format=kind))
    assert found.path == f"Köln #1?.tar/{name}"
    assert storage.read_bytes(found.uri) == SOUND


def test_only_regular_files_are_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (
            ("link.wav", tarfile.SYMTYPE),
            ("hard.wav", tarfile.LNKTYPE),
            ("fifo.wav", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert listed(next(storage.list_files(str(tmp_path / "a.tar")))) == []


def found_before(archive: FileInfo) -> tuple[list[str], StorageError]:
    names = []
    try:
        for each in storage.list_members(archive, WAV):
            names.append(each.path)
    except StorageError as error:
        return names, error
    pytest.fail("the archive was read to its end")


def test_a_cut_or_damaged_archive_gives_what_comes_before(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    archive = shard(path, {"a.wav": SOUND, "b.wav": SOUND, "c.wav": SOUND})
    data = path.read_bytes()
    second = member_range(split_member(listed(archive)[1].uri)[1])[0]
    path.write_bytes(data[: second + 100])
    names, error = found_before(archive)
    assert (names, error.code) == (["a.tar/a.wav", "a.tar/b.wav"], "decode_failed")
    broken = bytearray(data)
    broken[second - 512 : second - 400] = b"\xff" * 112
    path.write_bytes(bytes(broken))
    names, error = found_before(archive)
    assert (names, error.code) == (["a.tar/a.wav"], "decode_failed")
    path.write_bytes(b"no archive at all" * 100)
    assert found_before(archive)[1].code == "not_audio"


def test_a_header_that_claims_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    info = tarfile.TarInfo("bomb")
    info.type, info.size = tarfile.XHDTYPE, 4 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(4096))
    assert found_before(next(storage.list_files(str(tmp_path / "a.tar"))))[1].code == "too_large"


def test_a_member_of_a_signed_archive_keeps_the_secret_out_of_its_public_uri() -> None:
    uri = "tar+https://host/a.tar?X-Amz-Signature=secret!512+99/x?y.wav"
    assert public_uri(uri) == "tar+https://host/a.tar!512+99/x?y.wav"


def test_what_is_no_member_is_refused() -> None:
    for uri in ("tar+s3://bucket/a.tar", "tar+file:///a.tar!x+1/a.wav"):
        with pytest.raises(StorageError) as caught:
            storage.open_binary(uri)
        assert caught.value.code == "refused"
