"""The document says what the API does, to people and to programs; the pages load nothing from elsewhere."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import redis

from app import create_app
from app.config import Settings
from app.errors import PROBLEMS
from tests.api.conftest import API_KEYS, SHOP, Api
from tests.support.servers import ROOT, MailServer, Valkey, gunicorn

Document = dict[str, Any]
PUBLIC = {"/healthz", "/readyz"}


@pytest.fixture
def document(keyed: Api) -> Document:
    found: Document = keyed.call("GET", "/openapi.json").json()
    return found


def operations(document: Document) -> list[tuple[str, str, Document]]:
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    ]


def test_the_document_is_openapi_3_1_and_knows_every_resource(document: Document) -> None:
    """Paths, methods and the answers of each, as the API promises them."""
    assert document["openapi"] == "3.1.0"
    found = {
        f"{method} {path}": " ".join(operation["responses"])
        for path, method, operation in operations(document)
    }
    assert found == {
        "post /api/users": "201 202 400 401 409 413 415 422 429 500 503",
        "post /api/users/verify": "200 400 401 403 413 415 422 429 500 503",
        "get /api/users/{user_id}": "200 401 404 429 500 503",
        "delete /api/users/{user_id}": "204 401 404 429 500 503",
        "post /api/bounces": "204 400 401 413 415 422 429 500 503",
        "post /api/users/{user_id}/resend": "200 202 401 404 422 429 500 503",
        "get /api/users/{user_id}/mail": "200 401 404 429 500 503",
        "get /healthz": "200 500",
        "get /readyz": "200 500 503",
        "get /metrics": "200 401 500",
    }


def test_every_error_is_a_documented_problem_with_an_example(document: Document) -> None:
    """Each example is the problem that its name says, under the status that it has."""
    seen = set()
    for _, _, operation in operations(document):
        for status, response in operation["responses"].items():
            assert {"X-Request-ID", "Cache-Control"} <= set(response["headers"])
            if int(status) < 400:
                continue
            content = response["content"]["application/problem+json"]
            assert set(response["content"]) == {"application/problem+json"}
            for slug, example in content.get("examples", {}).items():
                assert example["value"]["status"] == PROBLEMS[slug].status == int(status)
                assert example["value"]["type"] == f"/problems/{slug}"
                seen.add(slug)
    assert seen == set(PROBLEMS) - {"method-not-allowed"}


def test_every_schema_is_used_and_every_problem_has_a_name_for_programs(document: Document) -> None:
    """Generators of clients make a class of each schema, and a constant of each name."""
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert set(document["components"]["schemas"]) == used
    kinds = document["components"]["schemas"]["ProblemAnswer"]["properties"]["type"]
    names = dict(zip(kinds["x-enum-varnames"], kinds["enum"], strict=True))
    assert names["MISTYPED_NUMBER"] == "/problems/mistyped-number"


def test_headers_are_documented_where_they_are_sent(document: Document) -> None:
    """Location, Preference-Applied, Retry-After and WWW-Authenticate; the parameters of a registration."""
    register = document["paths"]["/api/users"]["post"]
    answers = register["responses"]
    assert "Location" in answers["201"]["headers"]
    assert {"Location", "Preference-Applied"} <= set(answers["202"]["headers"])
    assert "WWW-Authenticate" in answers["401"]["headers"]
    for status in ("409", "429", "503"):
        assert "Retry-After" in answers[status]["headers"]
    assert {parameter["name"] for parameter in register["parameters"]} == {
        "Idempotency-Key",
        "Prefer",
        "X-Request-ID",
    }


def test_a_reader_learns_early_that_the_token_is_no_credential(document: Document) -> None:
    """In the introduction, and where the field is described."""
    field = document["components"]["schemas"]["RegistrationRequest"]["properties"]["token"]
    for said in (document["info"]["description"], field["description"]):
        assert "your own data" in said.lower()
        assert "no credential" in " ".join(said.split())


def test_the_api_needs_a_key_and_the_probes_do_not(document: Document) -> None:
    """Bearer, as a security scheme."""
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["security"] == [{"bearer": []}]
    for path, _, operation in operations(document):
        assert operation.get("security") == ([] if path in PUBLIC else None)


def test_an_open_service_says_that_it_is_open(api: Api) -> None:
    """A key may be sent and need not."""
    assert api.call("GET", "/openapi.json").json()["security"] == [{"bearer": []}, {}]


def test_answers_may_grow_and_requests_hold_what_is_known(document: Document) -> None:
    """A client that is made of the document takes a member that comes later."""
    closed = {
        name: schema.get("additionalProperties") is False
        for name, schema in document["components"]["schemas"].items()
        if name.endswith(("Request", "Answer", "Problem"))
    }
    assert len(closed) == 10
    assert closed == {name: name.endswith("Request") for name in closed}


def test_every_reference_leads_somewhere(document: Document) -> None:
    """Inside the document, and only there."""
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        found: Any = document
        assert reference.startswith("#/")
        for part in reference[2:].split("/"):
            found = found[part]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("keys", "examples"),
    [
        (True, 3),
        pytest.param(True, 50, marks=pytest.mark.slow),
        pytest.param(False, 50, marks=pytest.mark.slow),
    ],
    ids=["with keys", "with keys, long", "open, long"],
)
def test_schemathesis_finds_nothing(
    tmp_path: Path,
    valkey_server: Valkey,
    mail_server: MailServer,
    store: redis.Redis,
    keys: bool,
    examples: int,
) -> None:
    """All checks in all phases, so many examples an operation. It may register and guess without end."""
    environment = {
        "REDIS_URL": valkey_server.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": str(mail_server.port),
        "ADDRESS_LIMIT": "",
        "MAILBOX_LIMIT": "",
        "VERIFY_LIMIT": "",
        "API_KEYS": API_KEYS if keys else "",
    }
    with gunicorn(tmp_path, environment) as server:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "schemathesis.toml")]
        command += ["run", f"{server.url}/openapi.json", "--checks", "all", "--no-color"]
        command += [
            "--phases",
            "examples,coverage,fuzzing,stateful",
            "--max-examples",
            str(examples),
            "--seed",
            "1",
        ]
        command += ["--generation-database", "none"]
        command += ["--header", f"Authorization: Bearer {SHOP}"] if keys else []
        hooks = {"SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
        found = subprocess.run(command, cwd=tmp_path, env=os.environ | hooks, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr
        assert "unforeseen" not in server.log


@pytest.mark.parametrize("slug", PROBLEMS)
def test_every_problem_has_a_page_for_people(api: Api, slug: str) -> None:
    """What the `type` of a problem leads to."""
    answer = api.call("GET", f"/problems/{slug}")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert PROBLEMS[slug].title in answer.text
    assert str(PROBLEMS[slug].status) in answer.text
    assert "`" not in answer.text


def test_home_is_the_documentation(api: Api) -> None:
    """Who opens the service in a browser finds out what it is."""
    answer = api.call("GET", "/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/docs")


def test_the_documentation_can_be_switched_off() -> None:
    """Then neither it nor its files are there. The document for programs is, and so are the pages of problems
    with all that they load, and without a link to what is away."""
    client = create_app(Settings(redis_url="redis://127.0.0.1:1/0", docs=False)).test_client()
    for path in ("/", "/docs", "/docs/docs.js", "/docs/swagger-ui-bundle.js"):
        answer = client.get(path)
        assert (answer.status_code, json.loads(answer.data)["type"]) == (404, "/problems/not-found"), path
    assert client.get("/openapi.json").status_code == 200
    page = Page()
    page.feed(client.get("/problems/not-found").text)
    assert len(page.loads) == 2
    for load in page.loads:
        with client.get(load) as file:
            assert file.status_code == 200, load


class Page(HTMLParser):
    """Collects what a page loads, and scripts and styles that stand in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loads += [str(found[name]) for name in ("src", "href") if found.get(name)]
        self.inline += [name for name in found if name.startswith("on") or name == "style"]
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.mark.parametrize("path", ["/docs", "/problems/not-found"])
def test_a_page_loads_only_what_is_here(api: Api, path: str) -> None:
    """Every file comes from this service, and no script or style stands in the page."""
    page = Page()
    page.feed(api.call("GET", path).text)
    assert page.inline == []
    assert page.loads
    for load in page.loads:
        assert load.startswith("/")
        answer = api.call("GET", load)
        assert answer.status_code == 200
        again = api.call("GET", load, headers={"If-None-Match": answer.headers.get("ETag", "")})
        assert again.status_code == (304 if "ETag" in answer.headers else 200)
