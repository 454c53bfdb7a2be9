"""One `make run` and one browser for the tests of a module."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import axe_source, chromium_running
from tests.support.dev_run import Run, running

expect.set_options(timeout=15_000)


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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with chromium_running() as browser:
        yield browser


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core."""
    return axe_source()
