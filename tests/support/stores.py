"""Stores that tests share.

valkey_server = own_valkey("module")  # why no other test may see it
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from tests.support.servers import Valkey, stopping


def own_valkey(scope: Literal["module", "package", "session"]) -> Callable[..., Any]:
    """The fixture `valkey_server`: a server that lives as long as its scope, and keeps nothing on disk."""

    @pytest.fixture(scope=scope, name="valkey_server")
    def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
        with stopping(Valkey(tmp_path_factory.mktemp("valkey"), save="")) as server:
            yield server

    return found
