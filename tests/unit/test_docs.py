"""The documentation says what the code does: settings, problems, commands, metrics, files, links."""

import math
import re
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest

from app import create_app
from app.cli import COMMANDS
from app.config import Settings, variable_of
from app.domain.number import NumberGenerator
from app.domain.registration import rfc3339
from app.errors import PROBLEMS
from app.repositories.scripts import WRONG_IN_A_ROW
from app.telemetry.metrics import KINDS
from app.webhook.signing import signed
from tests.support.events import NEXT_SECRET, SECRET, event

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
READMES = [ROOT / "README.md", ROOT / "README.es.md"]

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([^|]*) \|", re.MULTILINE)
VARIABLE_READ = re.compile(r'os\.environ\.get\("([A-Z_]+)"')
COMMAND = re.compile(r"flask (?:--app wsgi )?([a-z]+)(?: ([a-z]+))?")
CONSOLE_COMMENT = re.compile(r" +# .*$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
SUBJECT = re.compile(r"^- (\w+)", re.MULTILINE)
STAYS = re.compile(r"[\d-]+|`[^`]+`")
METRIC = re.compile(r"\bcedula_[a-z_]+\b")
TEST = re.compile(r"`(test_[a-z0-9_]+)`")
FILE = re.compile(r"`((?:app|dev|docs|deploy|tests|benchmarks|\.ci)/[\w./-]*)`")
OWN_VARIABLE = "CEDULA_"
"""Variables by which the project's own processes talk to each other; nobody sets them."""

MAX_PICTURE_BYTES = 150_000

WITHOUT_A_VALUE = {
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "INDEX_KEY",
    "MAIL_USERNAME",
    "MAIL_PASSWORD",
    "MAIL_DEFAULT_SENDER",
    "MAIL_CA_FILE",
    "BOUNCE_ADDRESS",
    "MAIL_TEMPLATES",
    "SERVICES_FILE",
    "SERVICE_NAME",
    "SERVICE_SUPPORT",
    "SERVICE_COLOR",
    "SERVICE_LOGO",
    "CLIENT_LIMIT",
    "API_KEYS",
}
"""Settings whose default is none, empty, or another setting's value."""


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return CODE_BLOCK.sub("", text(page))


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them in a URL."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose(page)))
    return {word.strip().replace(" ", "-") for word in words}


def relative_links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for link in LINK.findall(prose(page)):
            if "://" not in link and not link.startswith("mailto:"):
                yield page, unquote(link)


def rows(chapter: str) -> dict[str, str]:
    """The settings in one chapter of docs/settings.md, with their defaults."""
    chapters = re.split(r"^#+ ", text(ROOT / "docs/settings.md"), flags=re.MULTILINE)
    found = next(part for part in chapters if part.startswith(chapter))
    return dict(ROW.findall(found))


def reference(chapter: str) -> list[list[str]]:
    """The rows of one table in docs/reference.md, as cells without code letters."""
    page = text(ROOT / "docs/reference.md")
    (found,) = re.findall(rf"^## {chapter}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^\| (`.*) \|$", found, re.MULTILINE)
    return [[cell.strip().replace("`", "") for cell in line.split("|")] for line in lines]


def test_every_relative_link_leads_somewhere() -> None:
    """A link names a file of the project and, after #, one of its headings."""
    broken = []
    for page, link in relative_links():
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    """A page that nothing links to is not read."""
    linked = {(page.parent / link.partition("#")[0]).resolve() for page, link in relative_links()}
    assert {page.name for page in PAGES if page not in linked} <= {"README.md", "CHANGELOG.md"}


def test_every_test_that_a_page_names_exists() -> None:
    """What a page says is shown can be looked up, and run."""
    sources = "".join(text(path) for path in (ROOT / "tests").rglob("test_*.py"))
    named = {name for page in PAGES for name in TEST.findall(text(page))}
    assert {name for name in named if f"def {name}(" not in sources} == set()
    assert len(named) > 50


def test_the_example_of_a_receiver_takes_each_event_once_and_believes_nobody_else() -> None:
    """docs/events.md, as it stands there."""
    (example,) = re.findall(r"^```python\n(.*?)^```", text(ROOT / "docs/events.md"), re.MULTILINE | re.DOTALL)
    new = {event().event_id: True}
    taken: list[tuple[str, ...]] = []
    known: dict[str, Any] = {
        "is_new": lambda name: new.pop(name, False),
        "take": lambda *event: taken.append(event),
    }
    exec(example.replace("whsec_...", SECRET), known)
    message = signed(event(), (NEXT_SECRET, SECRET), time.time())
    old = signed(event(1), (SECRET,), time.time() - 600)
    stranger = signed(event(2), (NEXT_SECRET,), time.time())
    nonsense = message._replace(headers={**message.headers, "webhook-signature": "v1,no base64"})
    binary = signed(event(3), (SECRET,), time.time())._replace(body=b"\xff")
    come = (message, message, old, stranger, nonsense, binary)
    statuses = [known["receive"](each.body, each.headers) for each in come]
    assert statuses == [204, 204, 400, 400, 400, 400]
    assert taken == [("registration.sent", "u" * 26, rfc3339(event().created_ms))]


def test_every_setting_is_documented_and_every_documented_setting_exists() -> None:
    """One table has them all."""
    read = {variable_of(each.name) for each in fields(Settings)}
    assert read == set(rows("Settings"))


def test_every_variable_of_gunicorn_s_configuration_is_documented() -> None:
    """Those that an operator may set; what it reads of the service's settings stands with those."""
    variables = VARIABLE_READ.findall(text(ROOT / "gunicorn.conf.py"))
    read = {name.removesuffix("_FILE") for name in variables} - set(rows("Settings"))
    assert {name for name in read if not name.startswith(OWN_VARIABLE)} == set(rows("gunicorn"))


@pytest.mark.parametrize(("name", "default"), rows("Settings").items())
def test_a_documented_default_is_the_default(
    name: str, default: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To set it changes nothing. Words in place of a value stand for unset."""
    value = re.fullmatch(r"`([^`<]+)`", default.strip())
    if name in WITHOUT_A_VALUE:
        assert value is None or value[1] in rows("Settings")
        return
    assert value is not None
    unset = Settings.from_environment()
    monkeypatch.setenv(name, value[1])
    assert Settings.from_environment() == unset


def rows_of_tables(page: str) -> list[list[str]]:
    """The rows without what is translated: numbers and words in code letters stay."""
    rows = [
        [cell.strip() for cell in line.split("|")] for line in re.findall(r"^\|(.*)\|$", page, re.MULTILINE)
    ]
    return [[cell if STAYS.fullmatch(cell) else "" for cell in row] for row in rows]


def words_in_code_letters(page: str) -> list[str]:
    return sorted(" ".join(word.split()) for word in CODE.findall(CODE_BLOCK.sub("", page)))


SAME_IN_BOTH: dict[str, Callable[[str], Sized]] = {
    "headings": lambda page: [
        heading.split()[0] for heading in re.findall(r"^#.*", CODE_BLOCK.sub("", page), re.MULTILINE)
    ],
    "rows of tables": rows_of_tables,
    "code blocks": lambda page: CODE_BLOCK.findall(CONSOLE_COMMENT.sub("", page)),
    "links": lambda page: [link for link in LINK.findall(page) if link not in ("README.md", "README.es.md")],
    "words in code letters": words_in_code_letters,
}
"""What stays when a README is translated. Comments in code blocks are translated."""


@pytest.mark.parametrize("kept", SAME_IN_BOTH.values(), ids=SAME_IN_BOTH)
def test_both_readmes_say_the_same(kept: Callable[[str], Sized]) -> None:
    """A change to one is a change to the other."""
    english, spanish = (kept(text(readme)) for readme in READMES)
    assert spanish == english
    assert len(english) > 5


def test_every_row_of_the_comparison_is_shown_row_by_row() -> None:
    """docs/compare.md has a chapter for each, with what shows it for each of those that are compared."""
    (table,) = re.findall(r"^\| \| Cedula \|.*\n(?:\|.*\n)+", text(READMES[0]), re.MULTILINE)
    rows = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    _, *chapters = re.split(r"^## ", text(ROOT / "docs/compare.md"), flags=re.MULTILINE)
    assert [chapter.partition("\n")[0] for chapter in chapters] == rows
    assert [
        chapter for chapter in chapters if "- Cedula" not in chapter or "- otpgateway" not in chapter
    ] == []


@pytest.mark.parametrize("readme", READMES, ids=lambda page: page.name)
def test_every_picture_is_there_and_small(readme: Path) -> None:
    """`make screenshots` writes them."""
    pictures = re.findall(r'(?:src|srcset)="([^"]+)"', text(readme))
    assert len(pictures) == 2
    assert [name for name in pictures if (ROOT / name).stat().st_size > MAX_PICTURE_BYTES] == []


def test_commands_of_the_project_s_own_python_are_printed_so_that_they_run() -> None:
    """`flask` is in the virtual environment, which a reader need not have activated."""
    for page in PAGES:
        for block in CODE_BLOCK.findall(text(page)):
            assert re.findall(r"(?<![\w/.-])(?:flask|pip|gunicorn|python) .*", block) == []


@pytest.mark.parametrize("readme", READMES, ids=lambda page: page.name)
@pytest.mark.parametrize("slug", PROBLEMS)
def test_every_problem_is_in_the_readme_with_its_status(slug: str, readme: Path) -> None:
    """A caller finds every answer in one table."""
    assert re.search(rf"^\| .*\b{PROBLEMS[slug].status}\b.*`{slug}`", text(readme), re.MULTILINE)


def test_every_command_that_is_named_exists() -> None:
    """What a reader copies works."""
    known = {command.name: command for command in COMMANDS}
    for page in PAGES:
        for name, subcommand in COMMAND.findall(text(page)):
            assert name in known, f"{page.name}: flask {name}"
            group = known[name]
            if isinstance(group, click.Group):
                assert not subcommand or subcommand in group.commands, (
                    f"{page.name}: flask {name} {subcommand}"
                )


def test_every_command_is_in_the_reference() -> None:
    """And none that is gone. Its order is the alphabet's, in which somebody looks."""
    known = [
        f"{command.name} {name}".strip()
        for command in COMMANDS
        for name in (command.commands if isinstance(command, click.Group) else [""])
    ]
    assert [command for command, _ in reference("Commands")] == sorted(known)


def test_every_endpoint_is_in_the_reference() -> None:
    """And none that is gone."""
    rules = create_app(Settings(redis_url="redis://127.0.0.1:1/0")).url_map.iter_rules()
    known = {
        f"{method} {re.sub('<.*:user_id>', '<id>', rule.rule)}"
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {endpoint for endpoint, _, _ in reference("Endpoints")} == known


def test_every_metric_is_in_the_reference_with_its_labels() -> None:
    """By the name under which it is scraped; a histogram by its sum."""
    counted = {name + ("_sum" if kind.buckets else "_total"): kind.labels for name, kind in KINDS.items()}
    source = text(ROOT / "app/telemetry/metrics.py") + text(ROOT / "app/telemetry/board.py")
    gauges = {name for name in re.findall(r'"(cedula_[a-z_]+)"', source) if name not in KINDS}
    told = {name: tuple(labels.split(", ")) if labels else () for name, labels, _ in reference("Metrics")}
    assert set(told) == set(counted) | gauges
    assert {name: labels for name, labels in told.items() if name in counted} == counted


def test_every_metric_that_is_named_exists() -> None:
    """By the name under which it is scraped, without what Prometheus puts behind it."""
    source = text(ROOT / "app/telemetry/metrics.py") + text(ROOT / "app/telemetry/board.py")
    for page in PAGES:
        for metric in METRIC.findall(text(page)):
            name = re.sub(r"_(total|bucket|count|sum)$", "", metric)
            assert f'"{name}"' in source, f"{page.name}: {metric}"


def test_every_file_that_is_named_exists() -> None:
    """A path in code letters is a file or a folder of the project."""
    named = {(page.name, path) for page in PAGES for path in FILE.findall(text(page))}
    assert {(page, path) for page, path in named if not (ROOT / path).exists()} == set()


SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
GUESSES_A_DAY = 480


def reckoned(text: str) -> float:
    """`9·10⁵` and `1.1·10⁻⁴` as numbers."""
    factor, power = text.strip().split("·10")
    return float(f"{factor}e{power.translate(SUPERSCRIPTS)}")


def test_the_guessing_is_reckoned_with_the_numbers_that_are_drawn() -> None:
    """For each NUMBER_DIGITS: possibilities, and the chances that the limits leave."""
    rows = re.findall(r"^\| (\d\d) \|(.*)\|$", text(ROOT / "docs/security.md"), re.MULTILINE)
    assert [int(digits) for digits, _ in rows] == list(range(10, 19))
    limit = Settings().verify_limit
    assert limit.amount * 86_400 // limit.window_s == GUESSES_A_DAY
    for digits, cells in rows:
        possible = NumberGenerator(int(digits)).possibilities
        a_year = -math.expm1(365 * GUESSES_A_DAY * math.log1p(-1 / possible))
        shown = [reckoned(cell) for cell in cells.split("|")]
        right = [
            possible,
            WRONG_IN_A_ROW / possible,
            GUESSES_A_DAY / possible,
            a_year,
            possible / GUESSES_A_DAY,
        ]
        assert shown == [pytest.approx(value, rel=0.05) for value in right], digits
