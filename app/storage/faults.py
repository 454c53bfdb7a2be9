"""What Redis, or the way to it, says when it fails; told without quoting what was sent."""

import ssl

import redis
from redis.exceptions import (
    AuthenticationError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisClusterException,
)

ERRORS = (redis.RedisError, RedisClusterException)
"""redis-py's errors of a whole cluster are no RedisErrors."""

NOT_THE_MASTER = (ReadOnlyError, MasterDownError)

NOT_SENT = "not_sent"


class TooFewReplicas(redis.ConnectionError):
    """It was done, and fewer replicas than asked for have it."""


def mark_unsent(error: BaseException) -> None:
    """Nothing of the command has left this process: it may be sent elsewhere."""
    vars(error)[NOT_SENT] = True


def was_sent(error: BaseException) -> bool:
    return NOT_SENT not in vars(error)


def error_code(error: BaseException) -> str:
    """The error's class with Redis's own code word (READONLY, OOM …), or with what is wrong about TLS.

    Never the error's text: that of a script can quote its arguments.
    """
    kind = type(error).__name__
    tls = _tls_fault(error)
    if tls is not None:
        return f"{kind}:TLS:{getattr(tls, 'verify_message', None) or tls.reason}"
    word = str(error).split(" ", 1)[0]
    return f"{kind}:{word}" if word.isalpha() and word.isupper() else kind


def lasts(error: BaseException) -> bool:
    """Somebody has to mend it: certificates, passwords, permissions."""
    return isinstance(error, AuthenticationError | NoPermissionError) or _tls_fault(error) is not None


def _tls_fault(error: BaseException) -> ssl.SSLError | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause
