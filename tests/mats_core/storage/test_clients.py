"""Which client is made for a URI: wrong rules are a wrong setting, and a missing package is named."""

from __future__ import annotations

import json
import pickle
import re

import pytest

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage import StorageError


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('["TOPSECRET"]', "its text is no JSON mapping; write JSON such as"),
        ('{"s3://a/": {"secret": "TOPSECRET"}', "its text is no JSON mapping"),
        ('{"s3://a/": {"key": "AKIA", "secret": "TOPSECRET"}}', "s3://a/ has a wrong key"),
        ('{"s3://a/": {"endpoint": ["TOPSECRET"]}}', "s3://a/ has a wrong endpoint"),
        ('{"/data": {"anonymous": true}}', "/data is not the beginning of a URL; use prefixes that begin with s3://"),
        ('{"s3://key:TOPSECRET@a/": "TOPSECRET"}', "s3://a/ has no settings"),
    ],
)
def test_wrong_rules_are_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, text: str, problem: str) -> None:
    monkeypatch.setenv("MATS_STORAGE", text)
    with pytest.raises(SettingsError, match="MATS_STORAGE: " + re.escape(problem)) as caught:
        storage.exists("s3://a/b")
    assert "TOPSECRET" not in str(caught.value)


@pytest.mark.parametrize("kind", ["gs", "az"])
def test_a_store_whose_package_is_missing_names_it(kind: str) -> None:
    package = {"gs": "gcsfs", "az": "adlfs"}[kind]
    with pytest.raises(ImportError):
        __import__(package)
    with pytest.raises(StorageError, match=package) as caught:
        storage.stat(f"{kind}://bucket/a.wav")
    assert caught.value.code == "refused"


@pytest.mark.parametrize(
    ("style", "url"),
    [
        (None, "http://store.lab:9000/sounds/a%20b"),
        ("path", "http://store.lab:9000/sounds/a%20b"),
        ("virtual", "http://sounds.store.lab:9000/a%20b"),
    ],
)
def test_a_bucket_is_named_where_its_store_wants_it(
    monkeypatch: pytest.MonkeyPatch, style: str | None, url: str
) -> None:
    """In the path for stores of one's own; before the host where a rule says so."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    rule = {"endpoint": "http://store.lab:9000", "region": "eu-1", "addressing": style}
    monkeypatch.setenv("MATS_STORAGE", json.dumps({"s3://sounds": rule}))
    fs, name = storage.filesystem("s3://sounds/a b")
    assert fs.url(name).partition("?")[0] == url
    same = pickle.loads(pickle.dumps(fs))  # as Ray sends it to its workers
    assert type(same) is type(fs) and same.url(name).partition("?")[0] == url
