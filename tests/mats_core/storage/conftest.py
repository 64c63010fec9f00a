"""What several tests of storage start from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mats_core import storage
from mats_core.storage import StorageError
from tests.store_servers import FaultyProxy


@pytest.fixture
def memory():
    name = "memory://tests"
    yield name
    storage.remove_tree(name)


@pytest.fixture(scope="module")
def proxy(store: Any) -> Iterator[FaultyProxy]:
    """A proxy before the store, which is asked with the store's keys."""
    proxy = FaultyProxy(store)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.keys.items():
            patch.setenv(name, value)
        yield proxy
    proxy.close()


@pytest.fixture
def s3(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    """Every s3:// goes to the proxy, which does nothing wrong."""
    monkeypatch.setenv("MATS_STORAGE", json.dumps({"s3://": {"endpoint": proxy.endpoint}}))
    return proxy


@pytest.fixture
def code_of():
    """The code of the StorageError that an action on some arguments raises."""

    def caught(action, *arguments) -> str:
        with pytest.raises(StorageError) as error:
            list(action(*arguments) or ())
        return error.value.code

    return caught
