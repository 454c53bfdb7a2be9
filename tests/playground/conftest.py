"""One `make run` for the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.support.dev_run import Run, running


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run that is ready; the tests leave it running."""
    folder = tmp_path_factory.mktemp("playground")
    with running(folder / "instance", folder / "run.log") as started:
        yield started


@pytest.fixture(scope="module")
def url(run: Run) -> str:
    """Where the playground is."""
    return f"http://127.0.0.1:{run.ports['PORT']}"
