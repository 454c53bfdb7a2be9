"""Every mail in every language, read as strictly as the standards, and by the rules of the mail programs that
have most readers: Gmail and Outlook.

Their rules: https://www.caniemail.com, and https://developers.google.com/gmail/design/css.
"""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

import html5lib
import pytest

from app.domain.registration import Registration
from app.domain.service import Service
from app.mail.colors import DARK_GROUND, LIGHT_GROUND
from tests.support.mails import every_mail, messages, parsed, text_of

MAILS = {name: (service, registration) for name, service, registration in every_mail()}
each = pytest.mark.parametrize(("service", "registration"), MAILS.values(), ids=MAILS)

GMAIL_CLIPS = 102 * 1024
"""Bytes; what is longer is cut off behind "Message clipped"."""

SMALL = 20 * 1024

FORBIDDEN = {"script", "form", "input", "link", "iframe", "object", "video", "svg", "base", "a", "button"}
UNSUPPORTED = re.compile(r"position\s*:|float\s*:|background-image|url\(|margin[^;]*:\s*-|flex|grid|@import")
"""CSS that Outlook's Word or Gmail leaves out, so that a mail that needs it falls apart."""

INLINE = {"td", "p", "h1", "div"}


def page(service: Service, registration: Registration) -> Element:
    """The HTML part, as a parser reads it that forgives nothing."""
    html = text_of(messages(service).mail(registration), "html")
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    found: Element = parser.parse(html)
    return found


def elements(page: Element) -> Iterator[Element]:
    return (element for element in page.iter() if isinstance(element.tag, str))


@each
def test_it_is_one_alternative_of_text_and_html(service: Service, registration: Registration) -> None:
    """Nothing around it: a `multipart/mixed` makes mail programs show a paper clip."""
    message = parsed(messages(service).mail(registration))
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]
    for part in message.iter_parts():
        assert part["Content-Transfer-Encoding"] == "quoted-printable"
        assert part.get_content_charset() == "utf-8"


@each
def test_every_line_is_short_in_ascii_and_ends_in_crlf(service: Service, registration: Registration) -> None:
    """RFC 2045 §6.7: 76 characters; RFC 5322 §2.1.1: better 78 than 998. A dot at the start is doubled."""
    content = messages(service).mail(registration).content
    assert content.isascii()
    assert content.endswith(b"\r\n")
    lines = content.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line or line.endswith((b" ", b"\t")) for line in lines)
    assert not any(re.match(rb"\.(?!\.)", line) for line in lines)
    assert max(len(line.removeprefix(b".")) for line in lines) <= 76


@each
def test_it_is_small(service: Service, registration: Registration) -> None:
    """Far from where Gmail cuts it off."""
    assert len(messages(service).mail(registration).content) < SMALL < GMAIL_CLIPS


@each
def test_no_placeholder_is_left(service: Service, registration: Registration) -> None:
    """Neither a field of a format, nor one of a sentence, nor a mark, nor an expression."""
    shown = messages(service).shown(registration)
    for part in (shown.subject, shown.text, re.sub(r"(?s)<style>.*</style>", "", shown.html)):
        assert re.search("[{}\ue000\ue001]|%\\(", part) is None


@each
def test_the_html_is_what_the_standard_says_and_mail_programs_take(
    service: Service, registration: Registration
) -> None:
    """No script, no form, no link; style sheets in the head alone; nothing that Outlook does not know."""
    found = page(service, registration)
    assert FORBIDDEN.isdisjoint(element.tag for element in elements(found))
    styles = [element for element in elements(found) if element.tag == "style"]
    head = found.find("head")
    assert head is not None
    assert [style in list(head) for style in styles] == [True]
    css = [style.text or "" for style in styles] + [one.get("style", "") for one in elements(found)]
    assert [rule for rule in css if UNSUPPORTED.search(rule)] == []
    assert all(re.match("on", name) is None for element in elements(found) for name in element.attrib)


@each
def test_it_can_be_read_without_its_style_sheet(service: Service, registration: Registration) -> None:
    """Gmail drops the sheet in some of its programs: what holds text has its colours and sizes inline."""
    body = page(service, registration).find("body")
    assert body is not None
    for element in elements(body):
        if element.tag in INLINE and (element.text or "").strip():
            assert "color:" in element.get("style", "") or "display:none" in element.get("style", "")
    (card,) = (element for element in elements(body) if element.get("class") == "card")
    assert "font-family" in card.get("style", "")


@each
def test_tables_are_layout_and_narrow(service: Service, registration: Registration) -> None:
    """A screen reader does not read them as tables; 600 pixels is what reading panes have."""
    found = page(service, registration)
    tables = [element for element in elements(found) if element.tag == "table"]
    assert len(tables) >= 2
    assert all(table.get("role") == "presentation" for table in tables)
    html = text_of(messages(service).mail(registration), "html")
    widths = re.findall(r'max-width:(\d+)px|width="(\d+)"', html)
    assert max(int(wide or fixed) for wide, fixed in widths) <= 600


@each
def test_the_logo_is_a_bounded_picture_with_the_name_in_its_place(
    service: Service, registration: Registration
) -> None:
    """Most mail programs block pictures at first. A height alone keeps the proportions in Outlook."""
    pictures = [element for element in elements(page(service, registration)) if element.tag == "img"]
    assert len(pictures) == bool(service.logo)
    for picture in pictures:
        assert picture.get("src") == service.logo
        assert str(picture.get("src")).startswith("https://")
        assert picture.get("alt") == service.name
        assert picture.get("height") == "40"
        assert "max-width:240px" in picture.get("style", "")


@each
def test_it_says_that_it_has_a_dark_side_and_no_telephone_number(
    service: Service, registration: Registration
) -> None:
    """Apple's programs would make a link of the number, and invert what does not say that it can be dark."""
    metas = {
        element.get("name"): element.get("content", "")
        for element in elements(page(service, registration))
        if element.tag == "meta"
    }
    assert metas["color-scheme"] == metas["supported-color-schemes"] == "light dark"
    assert "telephone=no" in metas["format-detection"]
    html = text_of(messages(service).mail(registration), "html")
    assert f"background:{LIGHT_GROUND}" in html
    assert f"background: {DARK_GROUND}" in html


@each
def test_the_number_is_one_piece_from_left_to_right(service: Service, registration: Registration) -> None:
    """One element, one text: one tap selects it."""
    (number,) = (
        element
        for element in elements(page(service, registration))
        if "482" in "".join(element.itertext()) and len(element) == 0
    )
    assert number.text == "482 109 3753"
    assert number.get("dir") == "ltr"
    assert "user-select:all" in number.get("style", "")


@each
def test_the_text_part_can_be_read_aloud(service: Service, registration: Registration) -> None:
    """Short lines, one blank line between paragraphs, no markup, and the number on a line of its own."""
    text = messages(service).shown(registration).text
    lines = text.split("\n")
    assert max(map(len, lines)) <= 78
    assert not re.search(r"[<>&]|\n\n\n|\A\n", text)
    (number,) = (line for line in lines if "482" in line)
    right_to_left = registration.locale == "ar"
    assert number == ("    \u200e482 109 3753\u200e" if right_to_left else "    482 109 3753")
    assert lines[lines.index(number) - 1] == lines[lines.index(number) + 1] == ""
    assert lines[lines.index(number) - 2].endswith(":")


@each
def test_it_is_written_in_the_direction_of_its_language(service: Service, registration: Registration) -> None:
    """Also where a program drops `<html>` and `<body>`, as Gmail does."""
    direction = "rtl" if registration.locale == "ar" else "ltr"
    found = page(service, registration)
    assert (found.get("dir"), found.get("lang")) == (direction, registration.locale)
    (article,) = (element for element in elements(found) if element.get("role") == "article")
    assert (article.get("dir"), article.get("lang")) == (direction, registration.locale)
