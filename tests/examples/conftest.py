"""The sign-up pages of examples/, each at a service of its own of one Cedula, and people who use them."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import html5lib
import pytest
import requests

from tests.api.conftest import Api
from tests.support.bounces import BOUNCE_ADDRESS, INDEX
from tests.support.npm import node_modules
from tests.support.receivers import secrets_of
from tests.support.servers import INHERITED, ROOT, Gunicorn, Valkey, free_port, gunicorn, stopping
from tests.support.smtp import ScriptedSmtp
from tests.support.stores import own_valkey
from tests.support.tenants import key_of, services_file
from tests.support.waiting import wait_until

LANGUAGES = ("python", "typescript")
"""Each example is the service of its name."""


class Reply(NamedTuple):
    """An answer of Cedula."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


Ask = Callable[[], Reply]
"""Hands a request on to Cedula."""


class Way:
    """Leads from the sites to Cedula. `script`: what the next requests are answered; None: nothing, and the
    connection ends."""

    def __init__(self, cedula: Gunicorn) -> None:
        self.script: list[Callable[[Ask], Reply | None]] = []
        self._cedula = cedula
        way = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                reply = way.reply(lambda: way.hand_on(self.path, body, dict(self.headers)))
                if reply is None:
                    return
                content = json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Nothing: the tests' output is their own."""

        self._server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reply(self, ask: Ask) -> Reply | None:
        return self.script.pop(0)(ask) if self.script else ask()

    def hand_on(self, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        answer = requests.post(self._cedula.url + path, body, headers=headers, timeout=30)
        kept = {name: answer.headers[name] for name in ("Retry-After",) if name in answer.headers}
        return Reply(answer.status_code, answer.json(), kept)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Site:
    """A sign-up page that runs. `api`: Cedula, as the site calls it; `way`: what lies in between."""

    url: str
    api: Api
    smtp: ScriptedSmtp
    way: Way


class Person:
    """Somebody who signs up in a browser of their own, without JavaScript."""

    def __init__(self, site: Site, email: str, name: str = "Ada") -> None:
        self.site, self.email, self.name = site, email, name
        self._browser = requests.Session()
        self._browser.headers["Accept-Language"] = "es-MX,es;q=0.8"
        self.url = self._page = ""

    def opens(self, path: str) -> None:
        self._shown(self._browser.get(self.site.url + path, timeout=30))

    def sends(self, action: str, **fields: str) -> None:
        """Fills in a form of the page and sends it."""
        self._shown(self._browser.post(self.site.url + action, self.form(action) | fields, timeout=60))

    def form(self, action: str) -> dict[str, str]:
        """The fields of a form as the page fills them in."""
        (form,) = (each for each in self.tree.iter("form") if each.get("action") == action)
        return {field.get("name"): field.get("value") or "" for field in form.iter("input")}

    def registers(self) -> None:
        self.opens("/")
        self.sends("/", name=self.name, email=self.email)

    def verifies(self, number: str) -> None:
        self.sends("/number", number=number)

    def _shown(self, response: requests.Response) -> None:
        self.url, self._page = response.url.removeprefix(self.site.url), response.text

    @property
    def tree(self) -> Any:
        return html5lib.parse(self._page, namespaceHTMLElements=False)

    @property
    def text(self) -> str:
        """What the page says."""
        return " ".join("".join(self.tree.find("body").itertext()).split())

    @property
    def alert(self) -> str:
        """What is wrong."""
        return "".join(each.text for each in self.tree.iter("p") if each.get("role") == "alert")

    def number(self, mails: int = 1) -> str:
        """That of the newest mail, of so many."""
        return self.site.smtp.wait_for(self.email, mails)[-1].number


# its index key is not that of other services
valkey_server = own_valkey("package")


@pytest.fixture(scope="package")
def smtp() -> Iterator[ScriptedSmtp]:
    server = ScriptedSmtp()
    yield server
    server.close()


@pytest.fixture(scope="package")
def ports() -> dict[str, int]:
    """Where each site listens."""
    return {language: free_port() for language in LANGUAGES}


@pytest.fixture(scope="package")
def cedula(
    valkey_server: Valkey, smtp: ScriptedSmtp, ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gunicorn]:
    """It tells each site what becomes of its registrations."""
    tables: dict[str, dict[str, Any]] = {
        language: {
            "events_url": f"http://127.0.0.1:{port}/hooks/cedula",
            "events_secrets": secrets_of(language),
        }
        for language, port in ports.items()
    }
    settings = {
        "REDIS_URL": valkey_server.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(smtp.port),
        "INDEX_KEY": INDEX,
        "BOUNCE_ADDRESS": BOUNCE_ADDRESS,
        "SERVICES_FILE": str(services_file(tmp_path_factory.mktemp("services"), **tables)),
    }
    with gunicorn(tmp_path_factory.mktemp("cedula"), settings) as server:
        yield server


@pytest.fixture(scope="package")
def way(cedula: Gunicorn) -> Iterator[Way]:
    with stopping(Way(cedula)) as between:
        yield between


@contextmanager
def running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """A site that answers; its URL."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    url = f"http://127.0.0.1:{environment['PORT']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=inherited | environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: _answers(url) or process.poll() is not None, 30, "the site answers")
        assert process.poll() is None, (folder / "log").read_text()
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).ok
    except requests.ConnectionError:
        return False


def program(language: str, folder: Path) -> list[str]:
    """The command that runs an example, of which there is a copy in the folder."""
    shutil.copytree(
        ROOT / "examples" / language,
        folder,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("node_modules", "*.js"),
    )
    if language == "python":
        return [sys.executable, "signup.py"]
    (folder / "node_modules").symlink_to(node_modules(ROOT / "examples/typescript"))
    built = subprocess.run(["npm", "run", "--silent", "build"], cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout
    return ["node", "signup.js"]


@pytest.fixture(scope="package", params=[LANGUAGES[0], pytest.param(LANGUAGES[1], marks=pytest.mark.system)])
def site(
    request: pytest.FixtureRequest,
    cedula: Gunicorn,
    way: Way,
    smtp: ScriptedSmtp,
    ports: dict[str, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Each example in turn."""
    language = request.param
    folder = tmp_path_factory.mktemp(language)
    settings = {
        "PORT": str(ports[language]),
        "CEDULA_URL": way.url,
        "CEDULA_KEY": key_of(language),
        "CEDULA_EVENTS_SECRET": secrets_of(language)[0],
    }
    with running(program(language, folder), folder, settings) as url:
        yield Site(url, Api(cedula, key=key_of(language)), smtp, way)
