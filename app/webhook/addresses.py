"""Which addresses events may go to: no service may use us to reach what only our network reaches."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from app.domain.service import Endpoint
from app.webhook.answers import NotTaken

PRIVATE: Final = "private address"
NOT_ENCRYPTED: Final = "not encrypted"

NAT64: Final = IPv6Network("64:ff9b::/96")
"""Of an address outside, its last 32 bits are the IPv4 address (RFC 6052)."""

PORTS: Final = {"https": 443, "http": 80}


class Receiver(NamedTuple):
    """Where a connection goes, and what is allowed there. Connections to equal receivers may replace each
    other."""

    secure: bool
    host: str
    port: int
    private: bool

    @classmethod
    def of(cls, endpoint: Endpoint) -> Self:
        """Raises ValueError for a URL that SERVICES_FILE may not have."""
        parts = urlsplit(endpoint.url)
        port = PORTS.get(parts.scheme)
        if not parts.hostname or port is None:
            raise ValueError("no URL for events")
        return cls(parts.scheme == "https", parts.hostname, parts.port or port, endpoint.private)

    def check(self, address: str) -> None:
        """Raises NotTaken where nothing may be sent to this address."""
        if is_loopback(address):
            return
        if not self.secure:
            raise NotTaken(NOT_ENCRYPTED)
        if not (self.private or is_public(address)):
            raise NotTaken(PRIVATE)


def is_loopback(address: str) -> bool:
    return _plain(address).is_loopback


def is_public(address: str) -> bool:
    """Whether the whole Internet can reach it, also where it is only the way to another one."""
    found = _plain(address)
    if isinstance(found, IPv6Address):
        inside = IPv4Address(int(found) & 0xFFFF_FFFF) if found in NAT64 else found.sixtofour
        if inside is not None:
            return is_public(str(inside))
        if found.is_site_local:  # deprecated, and for Python public
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_link_local)


def _plain(address: str) -> IPv4Address | IPv6Address:
    """Of an IPv4 address that is written as IPv6, that."""
    found = ip_address(address)
    return (isinstance(found, IPv6Address) and found.ipv4_mapped) or found
