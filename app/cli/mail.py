"""`flask --app wsgi mail preview`: what a service's mails look like, in any of its languages."""

import re
import shlex
from pathlib import Path

import click

from app.cli.common import Commands
from app.container import services
from app.domain.locale import is_tag, look_up
from app.domain.service import DEFAULT, Service
from app.errors import SettingsError
from app.mail.languages import available
from app.mail.messages import sample

mail = Commands("mail", help="What the mails of a service look like.")


@mail.command()
@click.option("--service", "service_id", default=DEFAULT, show_default=True, help="Its id.")
@click.option(
    "--locale", default="", help="A language tag, such as es-MX; without it the service's language."
)
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("mail-preview"),
    show_default=True,
    help="The folder to write to.",
)
def preview(service_id: str, locale: str, into: Path) -> None:
    """Write a sample mail as number.html, number.txt and number.eml.

    Nothing is registered or sent; neither Redis nor a mail server is needed.
    """
    service = services().directory.get(service_id)
    if service is None:
        raise click.UsageError(f"No service has the id {service_id}.")
    try:
        _require_language(service, locale)
        registration = sample(service, locale)
        shown, sent = services().messages.shown(registration), services().messages.mail(registration)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    into.mkdir(parents=True, exist_ok=True)
    page, text, message = (into / f"number.{kind}" for kind in ("html", "txt", "eml"))
    page.write_text(shown.html, "utf-8")
    text.write_text(shown.text + "\n", "utf-8")
    message.write_bytes(re.sub(rb"(?m)^\.\.", b".", sent.content))  # as it is after its way by SMTP
    click.echo(f"service\t{service.id}\nlanguage\t{shown.locale}\nsubject\t{shown.subject}\n")
    click.echo(f"In a browser:\t{page.resolve().as_uri()}")
    click.echo(f"In this terminal:\tcat {shlex.quote(str(text))}")
    click.echo(f"In a mail program:\t{message}")


def _require_language(service: Service, locale: str) -> None:
    """Raises UsageError where a mail in this language would come in another."""
    languages = available(service)
    if locale and not is_tag(locale):
        raise click.UsageError("A locale is a language tag (BCP 47), such as es or pt-BR.")
    if locale and look_up(locale, languages) is None:
        known = ", ".join(sorted(languages))
        raise click.UsageError(f"{service.id} has no language that serves {locale}, only {known}.")
