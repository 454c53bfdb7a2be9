"""What can go wrong, in the project's own words, and the one table that turns it into RFC 9457 problems.

Services and repositories raise the exceptions; only the route layer knows that they become HTTP answers.
No exception carries a number, token, address or key.
"""

from collections.abc import Mapping
from dataclasses import dataclass


class CedulaError(Exception):
    """Base of every error that this project raises on purpose."""


class SettingsError(CedulaError):
    """The environment cannot be used as it is; the message lists every error and shows no value."""


class InvalidAddress(CedulaError):
    """The text is no e-mail address that mail can be sent to; the message says why."""


class MalformedJson(CedulaError):
    """The body is not JSON (RFC 8259), or an object in it repeats a name."""


class UnsupportedMediaType(CedulaError):
    """The body is not declared as UTF-8 `application/json` without a content coding."""


class StorageUnavailable(CedulaError):
    """Redis did not answer, or refused the write. What was asked for is whole or not there at all."""


class WrongIndexKey(StorageUnavailable):
    """The data in Redis was written with another index key, or sealed where this process is not."""


class NumberSpaceExhausted(CedulaError):
    """No free number was found for the address within the bound; what it had stays whole."""


class AddressRefused(CedulaError):
    """The mail server refused this address for good; nothing stays registered for it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One RFC 9457 problem type: `type` is `/problems/<slug>`; `explanation` is for a person."""

    slug: str
    status: int
    title: str
    explanation: str


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
        Problem("not-found", 404, "There is nothing here", "No such resource exists, or it no longer does."),
        Problem(
            "method-not-allowed",
            405,
            "The method is not allowed here",
            "The resource exists but does not know this method; the Allow header names those it knows.",
        ),
        Problem(
            "body-too-large", 413, "The body is too large", "A body may hold at most 64 KiB (65,536 bytes)."
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
            "The mail server refused this address for good",
            "The mail server says that this mailbox does not exist or never accepts mail. "
            "Nothing stays registered for it; ask the person for another address.",
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
            "storage-unavailable",
            503,
            "The store does not answer",
            "Redis does not answer or refuses writes. The registration is whole or not there at all; "
            "register again after the seconds in Retry-After.",
        ),
    )
}

SLUGS: Mapping[type[CedulaError], str] = {
    MalformedJson: "malformed-json",
    UnsupportedMediaType: "unsupported-media-type",
    AddressRefused: "undeliverable-address",
    NumberSpaceExhausted: "number-space-exhausted",
    StorageUnavailable: "storage-unavailable",
    WrongIndexKey: "storage-unavailable",
}
"""Which problem each domain error becomes."""
