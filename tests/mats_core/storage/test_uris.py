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
