"""What a setting may be. The same checks are for the environment and for SERVICES_FILE.

Each check takes a value and raises marshmallow's ValidationError, whose message says what the value must be
and shows nothing of it. Those of limits return what they have read. May import `domain` and `storage.url`.
"""

import re
from base64 import b64decode
from email.utils import getaddresses
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from marshmallow import ValidationError

from app.domain.locale import is_tag
from app.domain.report import TAG_LENGTH
from app.domain.service import Budget
from app.storage.url import RedisUrl

MIN_SECRET_LENGTH: Final = 32
"""Characters; a shorter secret can be searched."""

TEN_YEARS_S: Final = 10 * 366 * 86_400
"""The longest life of a number."""

MAX_NAME_LENGTH: Final = 60
MAX_URL_LENGTH: Final = 2048

NOT_ASCII_AND_FINE: Final = "\u00a0\u202f\u200c\u200d"
"""No-break spaces, and the marks that join or part letters: French and Persian names, for example, have them,
and `str.isprintable` refuses them."""

SENDER: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9._:\[\]-]+")
"""Without quotes and other characters that have a meaning in a header (RFC 5322): they could make another
address of it, or none. The domain may be any host name, or an IP address in brackets."""

ADDRESS: Final = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
"""What browsers accept as an address (HTML, `input type=email`)."""

MAX_LOCAL_PART: Final = 64
TAG_AND_PLUS: Final = TAG_LENGTH + 1
"""What each mail adds to the local part of BOUNCE_ADDRESS."""

COLOR: Final = re.compile("#[0-9A-Fa-f]{6}")

URL: Final = re.compile(r"[!-~]+")

MAX_EVENTS_URL_LENGTH: Final = 2000
NO_EVENTS_URL: Final = "Must be https://host/path, or https://host:port/path."

AUTHORITY: Final = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
    r"|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
"""Host and port. Underscores, which no domain may have, are usual inside networks of containers."""

MAX_HOST_LENGTH: Final = 253

WEBHOOK_SECRET: Final = re.compile("whsec_([A-Za-z0-9+/]+={0,2})")
WEBHOOK_SECRET_BYTES: Final = range(24, 65)
"""Standard Webhooks: 192 to 512 bits."""

API_KEY: Final = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9A-Fa-f]{64})")


def secret(value: str) -> None:
    if len(value) < MIN_SECRET_LENGTH:
        raise ValidationError(f"Must be at least {MIN_SECRET_LENGTH} characters long.")
    if "," in value:
        raise ValidationError("Must not hold a comma: it could not stand among the fallbacks later.")
    if not _is_unicode(value):
        raise ValidationError("Must be text: random bytes are written in hexadecimal or base64.")


def _is_unicode(value: str) -> bool:
    """Python hands bytes of the environment that are no UTF-8 on as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def limits(value: str) -> tuple[Budget, ...]:
    """One limit, or several that hold together, with `;`, `,` or `|` between them."""
    try:
        return tuple(Budget.parse(each) for each in re.split("[;,|]", value))
    except ValueError as error:
        raise ValidationError(
            'Must be a limit such as "10/hour" or "5/15 minutes", or empty for none.'
        ) from error


def one_limit(value: str) -> Budget:
    first, *more = limits(value)
    if more:
        raise ValidationError("Must be one limit, not several.")
    return first


def not_empty(value: str) -> None:
    if not value.strip():
        raise ValidationError("Must not be empty.")


def redis_url(value: str) -> None:
    try:
        RedisUrl.read(value)
    except ValueError as error:  # its text shows nothing of the value
        raise ValidationError(f"Cannot be read: {error}.") from error


def sender(value: str) -> None:
    found = getaddresses([value])
    address = found[0][1] if len(found) == 1 else ""
    if not SENDER.fullmatch(address) or address not in value or not _is_printable(value):
        raise ValidationError('Must be an address, or a name and an address: "Name <address>".')


def name(value: str) -> None:
    if not (1 <= len(value) <= MAX_NAME_LENGTH and value == value.strip() and _is_printable(value)):
        raise ValidationError(
            f"Must be 1 to {MAX_NAME_LENGTH} printable characters, without line breaks or spaces around them."
        )


def _is_printable(value: str) -> bool:
    return all(char.isprintable() or char in NOT_ASCII_AND_FINE for char in value)


def address(value: str) -> None:
    if len(value) > 254 or not ADDRESS.fullmatch(value):
        raise ValidationError("Must be an e-mail address of ASCII characters, without a name.")


def bounce_address(value: str) -> None:
    """Behind its local part go a plus and a tag, and RFC 5321 §4.5.3.1.1 allows 64 octets."""
    address(value)
    longest = MAX_LOCAL_PART - TAG_AND_PLUS
    if len(value.rpartition("@")[0]) > longest:
        raise ValidationError(f"May have at most {longest} characters before the @: a tag comes behind them.")


def color(value: str) -> None:
    if not COLOR.fullmatch(value):
        raise ValidationError('Must be a color such as "#0b6e4f".')


def logo(value: str) -> None:
    """A URL that can stand between quotes in HTML."""
    if not _is_plain_https(value):
        raise ValidationError("Must be an https:// URL without a login, quotes or spaces.")


def _is_plain_https(value: str) -> bool:
    if not URL.fullmatch(value) or len(value) > MAX_URL_LENGTH or set(value) & set("\"'<>`\\{}"):
        return False
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises for what is no port
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc


def events_url(value: str) -> None:
    """`https://host[:port]/path?query`; plain `http://` to this machine only."""
    if len(value) > MAX_EVENTS_URL_LENGTH:
        raise ValidationError(f"Must have at most {MAX_EVENTS_URL_LENGTH} characters.")
    if not URL.fullmatch(value):
        raise ValidationError("Must be ASCII without spaces: write a name in other letters as xn--….")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # brackets without an address, a port that is none; its text shows them
        raise ValidationError(NO_EVENTS_URL) from None
    if "@" in parts.netloc:
        raise ValidationError("Must hold no login: receivers know us by the signature.")
    if "#" in value:
        raise ValidationError("Must hold no fragment (#…).")
    good = AUTHORITY.fullmatch(parts.netloc) and len(host) <= MAX_HOST_LENGTH and port != 0
    if parts.scheme not in ("https", "http") or not good:
        raise ValidationError(NO_EVENTS_URL)
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValidationError(
            "Must be https://; plain http:// is for this machine only (localhost, 127.0.0.0/8, [::1])."
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def webhook_secret(value: str) -> None:
    """As Standard Webhooks writes a secret that signs."""
    found = WEBHOOK_SECRET.fullmatch(value)
    try:
        length = len(b64decode(found[1], validate=True)) if found else 0
    except ValueError:
        length = 0
    if length not in WEBHOOK_SECRET_BYTES:
        raise ValidationError("Must be whsec_ and 24 to 64 random bytes in base64.")


def language(value: str) -> None:
    """Whether there are mails in it is seen where the templates are read."""
    if not is_tag(value):
        raise ValidationError('Must be a language such as "en" or "pt-BR".')


def file(value: str) -> None:
    if not Path(value).is_file():
        raise ValidationError("Must be the path of a readable file.")
