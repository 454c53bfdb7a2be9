"""Who counts as one client."""

import pytest

from app.domain.client import client_of


@pytest.mark.parametrize(
    ("ip", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::7]:443", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("unknown", "unknown"),
        ("_hidden:a:b", "_hidden:a:b"),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(ip: str, client: str) -> None:
    """As it connects, or as a proxy writes it."""
    assert client_of(ip) == client
