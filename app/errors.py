"""What can go wrong: the exceptions of this project, and the RFC 9457 problems that they become.

Services and repositories raise the exceptions; only the route layer knows that they become HTTP answers.
No exception carries a number, token, address or key.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self


class CedulaError(Exception):
    """Base of every error that this project raises on purpose.

    `retry_after_s`: seconds after which the same may succeed, where that is known. `slug`: the problem that
    it becomes; `members`: what that says beyond the usual.
    """

    slug = "internal-error"
    members: Mapping[str, str | int] = MappingProxyType({})

    def __init_subclass__(cls, slug: str = "") -> None:
        cls.slug = slug or cls.slug

    def __init__(self, message: str = "", retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SettingsError(CedulaError):
    """The environment cannot be used as it is; the message lists every error and shows no value."""

    @classmethod
    def listing(cls, wrong: Iterable[object]) -> Self:
        """Each on its line."""
        return cls("\n".join(["These settings are wrong:", *(f"  {each}" for each in wrong)]))


class InvalidAddress(CedulaError):
    """The text is no e-mail address that mail can be sent to; the message says why."""


class MalformedJson(CedulaError, slug="malformed-json"):
    """The body is not JSON (RFC 8259), or an object in it repeats a name."""


class UnsupportedMediaType(CedulaError, slug="unsupported-media-type"):
    """The body is not declared as UTF-8 `application/json` without a content coding."""


KEY_FAULTS = ("WRONGTYPE", "ERR")
"""What Redis says of a key of the wrong type, and of a script that trips over what is in its keys."""

AWAY = ("CLUSTERDOWN", "MASTERDOWN", "LOADING")
"""What Redis says where nobody can answer for a key now."""


class StorageUnavailable(CedulaError, slug="storage-unavailable"):
    """Redis did not answer, or refused the write. What was asked for is whole or not there at all.

    `code`: Redis's word for it (READONLY, OOM, MISCONF …), or one of `app.storage.faults`.
    """

    def __init__(self, message: str = "", retry_after_s: int | None = None, *, code: str = "") -> None:
        super().__init__(message, retry_after_s)
        self.code = code

    @property
    def of_one_key(self) -> bool:
        """Redis answers, and cannot use this key or what is in it. Other keys are well."""
        return self.code in KEY_FAULTS

    @property
    def is_away(self) -> bool:
        """No server answers that has the key; other masters of a cluster may. Redis' own words, in capitals,
        are answers, all but a few."""
        return self.code.islower() or self.code in AWAY


class RecordUnreadable(StorageUnavailable):
    """Redis answers, but this process cannot read the record; nothing was changed. The message is for callers
    and operators: it says why, and nothing about the record."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.members = {"detail": message}


class SealBroken(RecordUnreadable):
    """The seal opens with none of our keys, or not for this user."""

    def __init__(self) -> None:
        super().__init__(
            "The record was sealed with a key that this process lacks: SECRET_KEY_FALLBACKS needs the former "
            "SECRET_KEY."
        )


class NewerRecord(RecordUnreadable):
    """The layout version of the record is higher than ours."""

    def __init__(self) -> None:
        super().__init__("The record was written by a newer version of Cedula, and only that can read it.")


class WrongIndexKey(StorageUnavailable):
    """The data in Redis was written with another index key, or sealed where this process is not."""


class NumberSpaceExhausted(CedulaError, slug="number-space-exhausted"):
    """No free number was found for the address within the bound; what it had stays whole."""


class AddressRefused(CedulaError, slug="undeliverable-address"):
    """The mail server refused this address for good, and nothing of this request stays registered; or a
    report holds it back, and what is registered stays as it is."""


class Unauthorized(CedulaError, slug="unauthorized"):
    """API keys are set, and none of them was given."""


class TooManyRequests(CedulaError, slug="too-many-requests"):
    """A client has used up CLIENT_LIMIT."""


class TooManyRegistrations(CedulaError, slug="too-many-registrations"):
    """An address has used up ADDRESS_LIMIT, or its mailbox MAILBOX_LIMIT."""


class TooManyAttempts(CedulaError, slug="too-many-attempts"):
    """An address, known or unknown, has used up VERIFY_LIMIT."""


class RequestInProgress(CedulaError, slug="request-in-progress"):
    """A request with the same Idempotency-Key for the same address is still being answered."""


class IdempotencyKeyReused(CedulaError, slug="idempotency-key-reused"):
    """The Idempotency-Key was used for this address with another token or locale."""


class MistypedNumber(CedulaError, slug="mistyped-number"):
    """No identification number: a wrong length or check digit. Costs no try."""


class VerificationFailed(CedulaError, slug="verification-failed"):
    """A wrong number, an unknown address, an expired or used number; the caller is not told which.

    `tries_left`: further wrong numbers that VERIFY_LIMIT allows; None without a limit."""

    def __init__(self, tries_left: int | None = None) -> None:
        super().__init__("The number does not confirm this address")
        if tries_left is not None:
            self.members = {"tries_left": tries_left}


class ServiceUnknown(CedulaError):
    """The service that asked for a mail is no longer in the directory; its mails wait."""


class UserNotFound(CedulaError, slug="not-found"):
    """No registration of the caller's service has this id."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One RFC 9457 problem type. `explanation`: for a person."""

    slug: str
    status: int
    title: str
    explanation: str

    @property
    def type(self) -> str:
        return f"/problems/{self.slug}"

    @property
    def members(self) -> dict[str, Any]:
        """The usual members of an answer that is this problem."""
        return {"type": self.type, "title": self.title, "status": self.status, "detail": self.explanation}


RETRY_AFTER_S = 5
"""What a 503 suggests: a Redis restart or failover takes a few seconds."""

PROBLEMS: Mapping[str, Problem] = {
    problem.slug: problem
    for problem in (
        Problem(
            "malformed-json",
            400,
            "The body is not valid JSON",
            "The body must be one JSON text in UTF-8, and no object in it may repeat a name.",
        ),
        Problem("bad-request", 400, "The request cannot be understood", "The request is not valid HTTP."),
        Problem(
            "unauthorized",
            401,
            "An API key is needed",
            "Send `Authorization: Bearer <key>` with a key that the operator has given you.",
        ),
        Problem(
            "verification-failed",
            403,
            "The number does not confirm this address",
            "The number is wrong, expired, used or replaced, or the address is not registered. "
            "The answer is the same for all of these on purpose; where there is a limit, `tries_left` says "
            "how many more wrong numbers are allowed for now. Registering again brings a new number.",
        ),
        Problem("not-found", 404, "There is nothing here", "No such resource exists, or it no longer does."),
        Problem(
            "method-not-allowed",
            405,
            "The method is not allowed here",
            "The resource exists but does not know this method; the Allow header names those it knows.",
        ),
        Problem(
            "request-in-progress",
            409,
            "The same request is still being answered",
            "A request with this Idempotency-Key for this address was stored less than five seconds ago and "
            "is not answered yet. Ask again in a moment; nothing is registered twice.",
        ),
        Problem(
            "body-too-large", 413, "The body is too large", "A body may hold at most 64 KiB, a message 1 MiB."
        ),
        Problem(
            "unsupported-media-type",
            415,
            "The body is not application/json",
            "Send the body as `Content-Type: application/json`, in UTF-8 and without a Content-Encoding.",
        ),
        Problem(
            "invalid-request",
            422,
            "The request does not hold what it should",
            "A field is missing, unknown, of the wrong type or too long; `errors` names each field and why.",
        ),
        Problem(
            "undeliverable-address",
            422,
            "Mail does not reach this address",
            "The mail server says that this mailbox does not exist or never accepts mail, and nothing stays "
            "registered for it. Or a mail came back from it, or was called unwanted, not long ago, and what "
            "is registered stays as it is. Ask the person for another address.",
        ),
        Problem(
            "idempotency-key-reused",
            422,
            "The Idempotency-Key belongs to another request",
            "This Idempotency-Key was used for this address with another token or locale. Use a new key for "
            "every new request.",
        ),
        Problem(
            "mistyped-number",
            422,
            "The number is mistyped",
            "An identification number has a fixed length and a check digit, and this one does not fit: let "
            "the person look again. It cost no try.",
        ),
        Problem(
            "too-many-registrations",
            429,
            "Too many mails to this address",
            "The address, or the mailbox that it belongs to, was registered or mailed again as often as is "
            "allowed for now; wait for the seconds in Retry-After.",
        ),
        Problem(
            "too-many-attempts",
            429,
            "Too many wrong numbers for this address",
            "Wrong numbers were handed in for this address as often as is allowed for now, whether it is "
            "registered or not. A new registration does not shorten the wait in Retry-After.",
        ),
        Problem(
            "too-many-requests",
            429,
            "Too many requests from this client",
            "You have sent as many requests as are allowed for now; wait for the seconds in Retry-After.",
        ),
        Problem(
            "internal-error",
            500,
            "Something went wrong on our side",
            "An error that we did not foresee. The log holds it under the request id of this answer.",
        ),
        Problem(
            "number-space-exhausted",
            503,
            "No free identification number was found",
            "Almost every number that this address could get is taken. What the address had before is "
            "untouched. The operator has to set NUMBER_DIGITS higher.",
        ),
        Problem(
            "not-ready",
            503,
            "A part of the service is not at work",
            "A thread that must always run has died or hangs; `threads` names it. It is started again by "
            "itself, and a worker that stays in this state should be replaced.",
        ),
        Problem(
            "storage-unavailable",
            503,
            "The store does not answer",
            "Redis does not answer or refuses writes, or the record can be read by another process only. The "
            "registration is whole or not there at all; register again after the seconds in Retry-After.",
        ),
    )
}
