"""The forms of REDIS_URL."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote

SENTINEL: Final = "redis+sentinel"
CLUSTER: Final = "redis+cluster"
UNIX: Final = "unix"
TLS: Final = "rediss"
SCHEMES: Final = ("redis", TLS, UNIX, SENTINEL, CLUSTER)

PORTS: Final = {SENTINEL: 26379}
PORT: Final = 6379


def _flag(text: str) -> bool:
    return {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}[text.lower()]


def _need(text: str) -> str:
    return {"none": "none", "optional": "optional", "required": "required"}[text.lower()]


def _client_name(text: str) -> str:
    """Redis takes no other, and would say so at every connection."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a client's name is printable ASCII without spaces")
    return text


OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "username": str,
    "password": str,
    "db": int,
    "client_name": _client_name,
    "max_connections": int,
    "socket_timeout": float,
    "socket_connect_timeout": float,
    "socket_keepalive": _flag,
    "ssl": _flag,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_cert_reqs": _need,
    "ssl_check_hostname": _flag,
}
"""redis-py's options that may follow after `?`. The others would change what answers look like, read from
replicas or repeat writes."""


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A REDIS_URL, taken apart. `options` are redis-py's, with user and password among them."""

    scheme: str
    hosts: list[tuple[str, int]] = field(default_factory=list)
    service: str = ""
    path: str = ""
    db: int = 0
    tls: bool = False
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, url: str) -> Self:
        """Takes a REDIS_URL apart. Raises ValueError, whose text shows nothing of the URL."""
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in SCHEMES:
            raise ValueError(f"it must start with {', '.join(f'{known}://' for known in SCHEMES)}")
        place, _, query = rest.partition("?")
        netloc, _, path = place.partition("/")
        login, _, hosts = netloc.rpartition("@")
        options = {**_login(login), **_options(query)}
        tls = options.pop("ssl", False) or scheme == TLS
        _check_tls(options, tls=tls)
        made = cls(
            scheme=scheme,
            hosts=[] if scheme == UNIX else _hosts(hosts, PORTS.get(scheme, PORT)),
            service=unquote(path) if scheme == SENTINEL else "",
            path=f"/{unquote(path)}" if scheme == UNIX else "",
            db=_database(options.pop("db", None), "" if scheme in (SENTINEL, UNIX) else path),
            tls=tls,
            options=options,
        )
        made._check(hosts)
        return made

    def _check(self, hosts: str) -> None:
        """What fits no form."""
        if self.scheme == SENTINEL and (not self.service or "/" in self.service):
            raise ValueError("the name of the sentinels' service must follow the hosts: /service")
        if self.scheme == UNIX and (hosts or self.path == "/" or self.tls):
            raise ValueError("the absolute path of a socket must follow, as in unix:///run/redis.sock")
        if self.scheme == UNIX and "socket_keepalive" in self.options:
            raise ValueError("a socket of this machine has no socket_keepalive")
        if self.scheme == CLUSTER and self.db:
            raise ValueError("a cluster has no database but 0")
        if self.scheme in ("redis", TLS) and len(self.hosts) > 1:
            raise ValueError(f"several hosts are for {SENTINEL}:// and {CLUSTER}://")


def _login(text: str) -> dict[str, str]:
    user, _, password = text.partition(":")
    given = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in given.items() if value}


def _options(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise ValueError(f"of redis-py's options it may have {', '.join(OPTIONS)}")
        try:
            found[name] = OPTIONS[name](value)
        except (KeyError, ValueError):
            raise ValueError(f"the value of {name} cannot be read") from None
    return found


def _hosts(text: str, port: int) -> list[tuple[str, int]]:
    return [_host(part, port) for part in text.split(",")] if text else [("localhost", port)]


def _host(text: str, port: int) -> tuple[str, int]:
    """`host`, `host:port`, `[::1]` or `[::1]:port`."""
    name, separator, after = text.rpartition(":")
    if not separator or after.endswith("]"):
        name, after = text, str(port)
    host = name.removeprefix("[").removesuffix("]")
    if not host or ("[" in name) != ("]" in name) or (":" in host) != ("[" in name):
        raise ValueError("a host cannot be read")
    if not after.isascii() or not after.isdigit() or not 0 < int(after) < 65_536:
        raise ValueError("a port is no number from 1 to 65535")
    return unquote(host), int(after)


def _database(option: int | None, path: str) -> int:
    text = path.strip("/")
    if (text and not (text.isascii() and text.isdigit())) or (option or 0) < 0:
        raise ValueError("a database is a number")
    return option if option is not None else int(text or 0)


def _check_tls(options: Mapping[str, Any], *, tls: bool) -> None:
    """Certificates that cannot be read would look like a Redis that is away, and for ever."""
    if not tls:
        if any(name.startswith("ssl_") for name in options):
            raise ValueError(f"ssl_ options need {TLS}://, or ssl=true")
        return
    try:
        context = ssl.create_default_context(
            cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path")
        )
        if "ssl_certfile" in options:
            context.load_cert_chain(
                options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password")
            )
    except OSError:  # ssl.SSLError is one
        raise ValueError("a file of certificates or keys cannot be read") from None
