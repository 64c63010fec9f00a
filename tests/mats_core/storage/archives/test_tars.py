"""Members of tar archives: read in place, by range, whatever else the archive holds."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections import Counter
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


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, target
    tar.addfile(info, io.BytesIO(data))


def codes(found: list[FileInfo]) -> dict[str, str]:
    """Name in the archive → error code, "" for what can be read."""
    return {each.path.partition("/")[2]: each.error.code if each.error else "" for each in found}


def test_links_stand_at_the_place_of_what_they_name(tmp_path: Path) -> None:
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "early.wav", kind=soft, target="./data/blob")
        add(tar, "./data/blob", SOUND)
        add(tar, "hard.wav", kind=hard, target="./data/blob")
        add(tar, "data/soft.wav", kind=soft, target="../hard.wav")
        add(tar, "b.wav", SOUND * 2)
        add(tar, "gone.wav", kind=hard, target="nothing.wav")
        add(tar, "round.wav", kind=soft, target="round.wav")
        add(tar, "up.wav", kind=soft, target="../../etc/passwd")
        add(tar, "root.wav", kind=soft, target="/etc/passwd")
    found = listed(next(storage.list_files(str(tmp_path / "a.tar"))))
    good = {"b.wav": "", "early.wav": "", "hard.wav": "", "data/soft.wav": ""}
    bad = {"gone.wav": "not_found", "round.wav": "not_found", "up.wav": "refused", "root.wav": "refused"}
    assert codes(found) == good | bad
    read = [storage.read_bytes(each.uri) for each in found if each.error is None]
    assert read == [SOUND * 2, SOUND, SOUND, SOUND]


def test_what_is_named_like_a_sound_and_is_no_file_is_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "pipe.wav", kind=tarfile.FIFOTYPE)
        add(tar, "device.wav", kind=tarfile.CHRTYPE)
        add(tar, "folder.wav", kind=tarfile.DIRTYPE)
        add(tar, "inner.tar", b"x" * 600)
        add(tar, "inner.TAR.GZ", b"x")
        add(tar, "a.txt", b"x")
        add(tar, "README", b"x")
    skipped: Counter[str] = Counter()
    found = list(storage.list_members(next(storage.list_files(str(tmp_path / "a.tar"))), WAV, skipped))
    assert codes(found) == dict.fromkeys(("pipe.wav", "device.wav", "inner.tar", "inner.TAR.GZ"), "refused")
    assert skipped == {".txt": 1, "": 1}


def test_the_same_name_twice_is_two_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "a.wav", SOUND)
        add(tar, "a.wav", SOUND * 2)
    found = listed(next(storage.list_files(str(tmp_path / "a.tar"))))
    assert [len(storage.read_bytes(each.uri)) for each in found] == [len(SOUND), 2 * len(SOUND)]
    assert len({each.version for each in found}) == 2


@pytest.mark.parametrize("zeros", [0, 512, 3 << 20])
def test_joined_archives_are_read_one_after_the_other(tmp_path: Path, zeros: int) -> None:
    parts = [shard(tmp_path / f"{name}.tar", {f"{name}.wav": SOUND * times}) for name, times in (("a", 1), ("b", 2))]
    joined = tmp_path / "joined.tar"
    data = [storage.read_bytes(part.uri) for part in parts]
    joined.write_bytes(data[0] + bytes(zeros) + data[1] + bytes(zeros) + data[0])
    found = listed(next(storage.list_files(str(joined))))
    assert [each.path for each in found] == ["joined.tar/a.wav", "joined.tar/b.wav", "joined.tar/a.wav"]
    assert [storage.read_bytes(each.uri) for each in found] == [SOUND, SOUND * 2, SOUND]
    joined.write_bytes(data[0] + b"behind the end" * 100)
    names, error = found_before(next(storage.list_files(str(joined))))
    assert (names, error.code) == (["joined.tar/a.wav"], "decode_failed")
    assert "behind its 1 members" in error.message


@pytest.mark.parametrize("kind", ["w:gz", "w:bz2", "w:xz"])
def test_a_packed_archive_is_told_even_where_its_name_hides_it(tmp_path: Path, kind: str) -> None:
    with tarfile.open(tmp_path / "a.tar", kind) as tar:  # type: ignore[call-overload]
        add(tar, "a.wav", SOUND)
    names, error = found_before(next(storage.list_files(str(tmp_path / "a.tar"))))
    assert (names, error.code) == ([], "refused")
    assert "unpack it" in error.message


def test_sizes_beyond_reason_and_below_zero_end_the_archive(tmp_path: Path) -> None:
    for size in (1 << 70, -1536):
        info = tarfile.TarInfo("b.wav")
        info.size = size
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            add(tar, "a.wav", SOUND)
        data = (tmp_path / "a.tar").read_bytes()
        end = 512 + -(-len(SOUND) // 512) * 512
        (tmp_path / "a.tar").write_bytes(data[:end] + info.tobuf(tarfile.GNU_FORMAT) + SOUND)
        names, error = found_before(next(storage.list_files(str(tmp_path / "a.tar"))))
        assert names[0] == "a.tar/a.wav"
        assert len(names) <= 2
        assert error.code == "decode_failed"


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize(
    "options", ["--format=v7", "--format=ustar", "--format=gnu", "--format=posix", "-S --format=gnu"]
    + [f"-S --format=posix --sparse-version={version}" for version in ("0.0", "0.1", "1.0")],
)  # fmt: skip
def test_what_gnu_tar_writes_is_read_as_it_reads_it(tmp_path: Path, options: str) -> None:
    (tmp_path / "a.wav").write_bytes(SOUND)
    os.link(tmp_path / "a.wav", tmp_path / "b.wav")
    (tmp_path / "c.wav").symlink_to("a.wav")
    with open(tmp_path / "d.wav", "wb") as file:  # a hole between two blocks
        file.write(SOUND)
        file.seek(1 << 20)
        file.write(SOUND)
    names = ["a.wav", "b.wav", "c.wav", "d.wav"]
    subprocess.run(["tar", *options.split(), "-cf", "x.tar", *names], cwd=tmp_path, check=True)
    sparse = "-S" in options
    found = {each.path: each for each in listed(next(storage.list_files(str(tmp_path / "x.tar"))))}
    assert sorted(found) == [f"x.tar/{name}" for name in names]
    for name in names:
        member = found[f"x.tar/{name}"]
        if name == "d.wav" and sparse:
            assert member.error is not None
            assert "sparse" in member.error.message
        else:
            assert storage.read_bytes(member.uri) == (tmp_path / name).read_bytes()


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
