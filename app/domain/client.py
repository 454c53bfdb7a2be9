"""Who counts as one client, where requests or connections are counted by IP address."""

from ipaddress import IPv6Address, IPv6Network


def client_of(ip: str) -> str:
    """An IPv4 address as it is, also one that comes as IPv6 (`::ffff:192.0.2.1`); of an IPv6 address its /64,
    because a subscriber owns at least that many addresses (RFC 6177). Some proxies add a port, which does not
    count. What is no IP address is a client of its own."""
    if ip.startswith("["):
        ip = ip[1:].partition("]")[0]
    elif ip.count(":") == 1:
        ip = ip.partition(":")[0]
    if ":" not in ip:
        return ip
    try:
        address = IPv6Address(ip)
    except ValueError:
        return ip
    return str(address.ipv4_mapped or IPv6Network((int(address), 64), strict=False))
