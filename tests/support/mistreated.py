"""A Valkey that the tests of one module mistreat: refuse writes, fill up, freeze.

    from tests.support.mistreated import valkey_server

puts it, in that module, in the place of the one that all other tests share.
"""

from collections.abc import Iterator

import pytest

from tests.support.servers import Valkey, stopping


@pytest.fixture(scope="module")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One of this module's own."""
    with stopping(Valkey(tmp_path_factory.mktemp("valkey"), save="")) as server:
        yield server
