"""What goes wrong on the way to Redis or in it, told by class and code word, never by text.

An error's text can quote what was sent.
"""

import socket
import ssl
from typing import Final

import redis
from redis.exceptions import AuthenticationError, ResponseError
from redis.sentinel import MasterNotFoundError

TIMEOUT: Final = "timeout"
REFUSED: Final = "refused"
UNKNOWN_HOST: Final = "unknown-host"
CLOSED: Final = "closed"
CERTIFICATE: Final = "certificate"
TLS: Final = "tls"
NO_MASTER: Final = "no-master"
NO_NODE: Final = "no-node"
NO_DATABASE: Final = "no-database"
TOO_FEW_REPLICAS: Final = "too-few-replicas"
UNKNOWN: Final = "unknown"
"""Codes of what Redis itself has no word for. Its own are in capitals: READONLY, OOM, MISCONF, NOPERM …"""

LASTING: Final = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", CERTIFICATE, TLS, NO_DATABASE})
"""An operator has to mend these; waiting does not help."""


class TooFewReplicas(redis.ConnectionError):
    """It was done, and fewer replicas than asked for have it."""


class NoNode(redis.ConnectionError):
    """No node of the cluster tells which node has the slot."""


class NoSuchDatabase(redis.ConnectionError):
    """The server has no database of this number."""


class Broken(Exception):
    """No answer came, because of `error`. `sent`: whether the command may have run all the same."""

    def __init__(self, error: BaseException, *, sent: bool) -> None:
        super().__init__()
        self.error = error
        self.sent = sent


FORBIDDEN_TO_A_SCRIPT: Final = ("ACL failure in script", "The user executing the script can't")
"""What Valkey and Redis say, behind a mere ERR, where a script calls what its user may not."""

OURS: Final[dict[type[BaseException], str]] = {
    TooFewReplicas: TOO_FEW_REPLICAS,
    NoSuchDatabase: NO_DATABASE,
    NoNode: NO_NODE,
}

OTHERS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (MasterNotFoundError, NO_MASTER),
    (ssl.SSLCertVerificationError, CERTIFICATE),
    (ssl.SSLError, TLS),
    (redis.TimeoutError, TIMEOUT),
    (TimeoutError, TIMEOUT),
    (ConnectionRefusedError, REFUSED),
    (FileNotFoundError, REFUSED),
    (socket.gaierror, UNKNOWN_HOST),
    (redis.ConnectionError, CLOSED),
    (OSError, CLOSED),
)
"""From the special to the general."""


def code(error: BaseException) -> str:
    """Redis's code word for a refusal, or one of the words above."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    if type(error) in OURS:
        return OURS[type(error)]
    for found in chain:
        if isinstance(found, ResponseError | AuthenticationError | redis.BusyLoadingError):
            if str(found).startswith(FORBIDDEN_TO_A_SCRIPT):
                return "NOPERM"
            word = getattr(found, "status_code", None) or _word(str(found))
            return "WRONGPASS" if word == "ERR" and isinstance(found, AuthenticationError) else word
    return next((word for kind, word in OTHERS if any(isinstance(found, kind) for found in chain)), UNKNOWN)


def detail(error: BaseException) -> str:
    """What is wrong with a certificate, in OpenSSL's words."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return "" if cause is None else getattr(cause, "verify_message", None) or cause.reason or ""


def _word(text: str) -> str:
    """The code word in a refusal that redis-py has no class for, such as MISCONF."""
    word = text.split(" ", 1)[0]
    return word if word.isalpha() and word.isupper() else UNKNOWN
