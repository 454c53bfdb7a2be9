"""`flask --app wsgi mail preview`: a sample mail in files, without Redis and without a mail server."""

import email
import email.policy
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT

NOWHERE = {
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "REDIS_TIMEOUT": "0.2",
    "MAIL_SERVER": "127.0.0.1",
    "MAIL_PORT": "1",
    "MAIL_DEFAULT_SENDER": "Acme <no-reply@acme.example>",
    "FLASK_SKIP_DOTENV": "1",
}


def preview(*options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command as it is typed."""
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "mail", "preview", *options],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **NOWHERE, **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_mail_is_written_as_html_text_and_message(tmp_path: Path) -> None:
    """And the command says how each is opened."""
    folder = tmp_path / "made" / "for it"
    done = preview("--locale", "es-MX", "--into", str(folder))
    assert done.returncode == 0, done.stderr
    page, text, message = (folder / f"number.{kind}" for kind in ("html", "txt", "eml"))
    assert page.as_uri() in done.stdout
    assert f"cat {text}" in done.stdout.replace("'", "")
    assert str(message) in done.stdout
    assert '<html lang="es"' in page.read_text()
    assert "482 109 3753" in text.read_text()
    mail = email.message_from_bytes(message.read_bytes(), policy=email.policy.default)
    assert mail["Subject"] in done.stdout
    assert mail["Subject"].startswith("Confirme su correo electrónico para Acme")
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert "482 109 3753" in "".join(str(part.get_content()) for part in mail.iter_parts())


def test_without_a_locale_it_is_the_language_of_the_service(tmp_path: Path) -> None:
    """As for a registration that names none."""
    done = preview("--into", str(tmp_path), DEFAULT_LOCALE="es")
    assert "language\tes" in done.stdout, done.stderr
    assert '<html lang="es"' in (tmp_path / "number.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--service", "shop"], "No service has the id shop."),
        (["--locale", "nl"], "default has no language that serves nl, only ar, de, en, es, fr, it, pt."),
        (["--locale", "no tag"], "A locale is a language tag"),
    ],
)
def test_what_does_not_exist_is_told_and_nothing_is_written(
    tmp_path: Path, options: list[str], words: str
) -> None:
    """No mail in another language, and no traceback."""
    done = preview(*options, "--into", str(tmp_path / "new"))
    assert done.returncode == 2
    assert f"Error: {words}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """By its name and why, without a traceback."""
    (tmp_path / "file").touch()
    done = preview("--into", str(tmp_path / "file" / "folder"))
    assert (done.returncode, done.stderr) == (1, f"Error: {tmp_path}/file/folder: Not a directory\n")


def test_a_template_of_the_operator_is_shown(tmp_path: Path) -> None:
    """That is what the command is for."""
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "en.toml").write_text('title = "Hello from us"')
    done = preview("--into", str(tmp_path), MAIL_TEMPLATES=str(templates))
    assert done.returncode == 0, done.stderr
    assert "Hello from us" in (tmp_path / "number.txt").read_text()
