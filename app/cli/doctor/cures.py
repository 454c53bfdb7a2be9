"""What to do about each fault, by its code: on the way to Redis or in it (`app.storage.faults`), to the mail
server (`app.mail.connection.connection_fault`), to receivers of events (`app.webhook.answers`)."""

from typing import Final

from app.cli.doctor.server import NO_DISK
from app.storage import faults

UNREACHABLE: Final = {
    "NOAUTH": (
        "Redis asks for a password, and REDIS_URL has none.",
        "Write it as redis://user:password@host:port/0, with special characters percent-encoded.",
    ),
    "WRONGPASS": (
        "Redis refuses the user name or the password.",
        "Compare those in REDIS_URL with `ACL LIST` of Redis; percent-encode special characters.",
    ),
    "LOADING": (
        "Redis is still loading its data.",
        "Wait until it has; `INFO persistence` shows how far it is.",
    ),
    "DENIED": (
        "Redis is in protected mode: it takes no connection from another host without a password.",
        "Give Redis a password (ACL SETUSER, or requirepass) and put it into REDIS_URL.",
    ),
    faults.NO_DATABASE: (
        "There is no such database: the number at the end of REDIS_URL is too high.",
        "Use database 0 (redis://host:port/0), or raise `databases` in redis.conf; 16 is its default.",
    ),
    faults.CERTIFICATE: (
        "The certificate of Redis is not trusted.",
        "Add ?ssl_ca_certs=/path/of/ca.pem to REDIS_URL, and use the host name that the certificate has.",
    ),
    faults.TLS: (
        "REDIS_URL says rediss://, and that port does not speak TLS.",
        "Use the TLS port of Redis, or redis:// in a network that you trust. A firewall looks the same.",
    ),
    faults.NO_MASTER: (
        "No sentinel names a master for the service in REDIS_URL.",
        "Compare hosts and service name with `SENTINEL MASTERS`.",
    ),
    faults.NO_NODE: (
        "REDIS_URL says redis+cluster://, and no cluster answers there.",
        "Use redis:// for a single server; else check that the nodes can be reached and `CLUSTER INFO`.",
    ),
    faults.TIMEOUT: (
        "Redis did not answer in time.",
        "Check host, port and firewall in between; REDIS_TIMEOUT is how long we wait.",
    ),
    faults.REFUSED: (
        "Nothing listens at the host and port in REDIS_URL.",
        "Start Redis, or correct host and port.",
    ),
    faults.UNKNOWN_HOST: (
        "The host name in REDIS_URL is unknown.",
        "Correct it, or check the DNS of this machine.",
    ),
    faults.CLOSED: (
        "Redis closes the connection at once.",
        "If the port speaks TLS, write rediss://; if not, look for maxclients in the log of Redis.",
    ),
}
"""By the code of the fault: what is wrong, and the cure."""

REFUSED: Final = {
    "READONLY": (
        "Writes are refused: this is a replica.",
        "Point REDIS_URL at the primary, or at the sentinels: redis+sentinel://host:port/service.",
    ),
    "OOM": (
        "Writes are refused: memory is full up to maxmemory.",
        "Raise maxmemory, or set NUMBER_TTL so that registrations end. Never let it evict.",
    ),
    "MISCONF": (
        "Writes are refused, because Redis cannot write to its disk: the disk is full, or not writable.",
        NO_DISK,
    ),
    "NOREPLICAS": (
        "Writes are refused: fewer replicas are connected than min-replicas-to-write asks for.",
        "Bring the replicas back, or lower min-replicas-to-write.",
    ),
}

NOT_CONNECTED: Final = {
    "connect without TLS": (
        "The TLS handshake with the mail server fails.",
        "MAIL_USE_SSL is for port 465; on 587 and 25 it is MAIL_USE_TLS.",
    ),
    "connect to unknown host": (
        "The name in MAIL_SERVER is unknown.",
        "Correct it, or check the DNS of this machine.",
    ),
    "connect refused": (
        "Nothing listens at MAIL_SERVER and MAIL_PORT.",
        "Correct them, or start the mail server; 587 and 465 are the usual ports.",
    ),
    "connect broken": (
        "The mail server closes the connection, or does not speak SMTP as it should.",
        "Check MAIL_SERVER and MAIL_PORT (465 needs MAIL_USE_SSL=true), then the server's log.",
    ),
    "connect timeout": (
        "The mail server cannot be reached in time.",
        "Check port and firewall: many providers block 25, so use 587. If `nc` connects, the server hangs.",
    ),
    "greeting timeout": (
        "The mail server takes the connection, and does not greet us in time.",
        "465 needs MAIL_USE_SSL=true. Else the server hangs or is full, or waits for the DNS: see its log.",
    ),
    "login not offered": (
        "The server offers no way to log in that we know (CRAM-MD5, PLAIN, LOGIN).",
        "Use another port or server; else ask its operator for one of these.",
    ),
}
"""Of the mail server: likewise."""

NOT_DELIVERED: Final = {
    "unknown host": (
        "The name in `events_url` is unknown.",
        "Correct it, or check the DNS of this machine.",
    ),
    "private address": (
        "The name in `events_url` leads to a private address.",
        "If the receiver is inside our network, set `events_private = true`; else have its DNS mended.",
    ),
    "not encrypted": (
        "`events_url` says http://, and its name does not lead to this machine.",
        "Write https://.",
    ),
    "refused": (
        "Nothing listens at the host and port in `events_url`.",
        "Start the receiver, or correct host and port.",
    ),
    "unreachable": (
        "There is no way to the address in `events_url`.",
        "Check the network and the routes of this machine; it may have no IPv6.",
    ),
    "timeout": (
        "The receiver does not answer in time.",
        "Check port and firewall; from here, the way out must be open without a proxy.",
    ),
    "TLS failed": (
        "The TLS handshake with the receiver fails.",
        "Check the port in `events_url`: it must speak TLS 1.2 or newer.",
    ),
    "certificate expired": (
        "The certificate of the receiver has expired.",
        "Have it renewed there.",
    ),
    "certificate for another name": (
        "The certificate of the receiver is for another name.",
        "Write a name that it has into `events_url`.",
    ),
    "certificate refused": (
        "The certificate of the receiver is not trusted.",
        "It must show its whole chain; SSL_CERT_FILE can name a file with authorities to trust.",
    ),
}
"""Of the receivers of events: likewise."""
