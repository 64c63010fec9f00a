"""What several tests of storage start from."""

from __future__ import annotations

import pytest

from mats_core import storage
from mats_core.storage import StorageError


@pytest.fixture
def memory():
    name = "memory://tests"
    yield name
    storage.remove_tree(name)


@pytest.fixture
def code_of():
    """The code of the StorageError that an action on some arguments raises."""

    def caught(action, *arguments) -> str:
        with pytest.raises(StorageError) as error:
            list(action(*arguments) or ())
        return error.value.code

    return caught
