"""Names: every one survives as text, secrets stay out of what is shown, and places compare."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mats_core import storage
from mats_core.storage.uris import redacted
from tests.mats_core.storage.names import ODD_NAMES


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_local_name_becomes_text_and_comes_back(tmp_path: Path, name: bytes):
    path = os.fsencode(tmp_path) + b"/" + name
    uri = storage.uri_from_path(path)
    uri.encode("utf-8")  # it can be written down
    assert storage.local_path(uri) == path
    with open(path, "wb") as file:
        file.write(b"sound")
    assert storage.read_bytes(uri) == b"sound"


def test_only_names_that_are_not_utf8_are_encoded():
    assert storage.uri_from_path("/a/b c.wav") == "/a/b c.wav"
    assert storage.uri_from_path(b"/a/\xff%.wav") == "file:///a/%FF%25.wav"
    assert storage.uri_from_path("relative.wav") == f"{os.getcwd()}/relative.wav"


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://user:secret@host/a/b.wav?X-Amz-Signature=secret#frag", "https://host/a/b.wav"),
        ("s3://bucket/a?b.wav", "s3://bucket/a?b.wav"),
        ("s3://bucket/a.wav?X-Amz-Credential=secret", "s3://bucket/a.wav"),
        ("s3://key:secret@bucket/a@b.wav", "s3://bucket/a@b.wav"),
        ("az://container/a.wav?sig=secret", "az://container/a.wav"),
        ("/local/a?b#c.wav", "/local/a?b#c.wav"),
        (
            "abfss://container@account.dfs.core.windows.net/a.wav?sig=secret",
            "abfss://container@account.dfs.core.windows.net/a.wav",
        ),
        ("wasbs://user:secret@account/a.wav", "wasbs://account/a.wav"),
        ("ftp://user:secret@host/a.wav", "ftp://host/a.wav"),
        ("s3://key:sec/ret@bucket/a@b.wav", "s3://bucket/a@b.wav"),
        ("sftp://host:22/a@b.wav", "sftp://host:22/a@b.wav"),
        ("http://[bad/a.wav?X-Amz-Signature=secret", "http://[bad/a.wav"),  # no URL, and still no reason to fail
        ("http://user:secret@a\u2100b/a.wav", "http://a\u2100b/a.wav"),
    ],
)
def test_a_public_uri_holds_no_secret(uri, public):
    assert storage.public_uri(uri) == public
    assert "secret" not in redacted(f"cannot open {uri}")


def test_joining_stays_below_the_base(code_of):
    assert storage.join("s3://bucket/a/", "b", "c d.wav") == "s3://bucket/a/b/c d.wav"
    assert storage.join("/", "a") == "/a"
    assert storage.join("file:///a%FF", "b c") == "file:///a%FF/b%20c"
    for part in ("../x", "a/../../x", "/etc/passwd", "s3://other/x"):
        assert code_of(storage.join, "/base", part) == "refused"


def test_whether_a_place_is_another_or_lies_in_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    here = str(tmp_path / "a")
    assert storage.same_place(here, f"{tmp_path}/link/") and storage.same_place("s3://x/a/", "s3://x/a")
    assert not storage.same_place(here, f"{here}b") and not storage.same_place("s3://x/a", here)
    assert all(storage.lies_in(place, here) for place in (here, f"{tmp_path}/link/b/c.wav", f"{here}/b/../b"))
    assert not any(storage.lies_in(place, here) for place in (f"{here}b", str(tmp_path), f"{here}/../x", "s3://a"))
    assert storage.lies_in("s3://x/a/b", "s3://x/a/") and not storage.lies_in("s3://x/ab", "s3://x/a")


def test_a_path_object_is_as_good_as_its_text(tmp_path: Path):
    place = tmp_path / "a b" / "c.txt"
    storage.write_bytes(place, b"text")
    assert storage.create_bytes(place, b"other") is False
    assert storage.creates_if_absent(place)
    assert storage.read_bytes(place) == storage.read_bytes(str(place)) == b"text"
    assert storage.exists(place) and storage.is_dir(place.parent) and storage.stat(place).size == 4
    with storage.open_binary(place) as file, open(tmp_path / "copy", "w+b") as copy:
        assert file.read() == b"text"
        assert storage.copy_into(copy, place) == 4
    assert [info.uri for info in storage.list_files(place.parent)] == [str(place)]
    assert storage.join(place.parent, Path("d/e")) == f"{place.parent}/d/e"
    assert storage.lies_in(place, tmp_path) and storage.same_place(place, str(place))
    assert storage.arrow(place)[1] == str(place)
    assert storage.abort_uploads(place) == 0
    storage.make_dirs(tmp_path / "made")
    storage.remove_tree(place.parent)
    assert not storage.exists(place)


@pytest.mark.parametrize("url", ["s3://bucket/a/b.wav", "gs://bucket/a", "https://host/a.wav", "file:///a/b.wav"])
def test_a_url_that_went_through_pathlib_is_itself_again(url: str):
    assert storage.public_uri(Path(url)) == url
    assert storage.scheme(Path(url)) == storage.scheme(url)
    assert storage.local_path(Path(url)) == storage.local_path(url)
