"""Which client is made for a URI: wrong rules are a wrong setting, and a missing package is named."""

from __future__ import annotations

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
