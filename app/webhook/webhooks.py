"""Posts events to receivers."""

import ssl
import time
from functools import cached_property
from http.client import HTTPException

from app.domain.registration import Event
from app.domain.service import Endpoint
from app.sockets.names import Names
from app.webhook.addresses import Receiver
from app.webhook.answers import Gone, NotTaken, fault, judge
from app.webhook.connections import Kept, opened
from app.webhook.exchange import Stream, post
from app.webhook.signing import Message, signed

__all__ = ["Gone", "NotTaken", "Webhooks"]

NO_ANSWER = (OSError, HTTPException, ValueError)
"""http.client raises ValueError for some malformed headers."""


class Webhooks:
    """Posts events, over connections that are kept for a while. For many threads; a forked process makes its
    own."""

    def __init__(
        self,
        timeout_s: float = 10.0,
        *,
        tls: ssl.SSLContext | None = None,
        names: Names | None = None,
    ) -> None:
        """`timeout_s`: for a whole attempt, from the look-up of the name to the end of the answer.
        `tls`: which authorities to trust; by default the system's, read when an event is first posted."""
        self._timeout_s = timeout_s
        self._given = tls
        self._names = names or Names()
        self._kept = Kept()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The authorities take a megabyte, which a process that posts no events does without."""
        return self._given or ssl.create_default_context()

    def post(self, endpoint: Endpoint, event: Event) -> None:
        """Returns when the receiver has taken the event: a status of 2xx, whatever follows it.

        Raises Gone (410), or NotTaken for everything else, within the time-out: also for redirects, which are
        not followed.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            status = self._status(endpoint, signed(event, endpoint.secrets, time.time()), deadline)
        except NO_ANSWER as error:
            raise fault(error) from None  # its text may hold the receiver's words, or its name
        judge(status)

    def probe(self, endpoint: Endpoint) -> None:
        """Connects as for an event, and posts nothing. Raises NotTaken."""
        try:
            opened(Receiver.of(endpoint), self._names, self._tls, time.monotonic() + self._timeout_s).end()
        except NO_ANSWER as error:
            raise fault(error) from None

    def close_idle(self) -> None:
        """Closes connections that have rested for some seconds, as each attempt does, too."""
        self._kept.close_idle()

    def close(self) -> None:
        """Closes the connections that rest, and keeps none any more."""
        self._kept.close()

    def _status(self, endpoint: Endpoint, message: Message, deadline: float) -> int:
        """The status of the answer.

        A kept connection that breaks may have been closed before our request came: then it is sent once more,
        over a new one. Its id tells the receiver that it is the same.
        """
        receiver = Receiver.of(endpoint)
        kept = self._kept.take(receiver)
        if kept is not None:
            try:
                return self._exchange(receiver, kept, endpoint.url, message, deadline)
            except NO_ANSWER:
                pass  # after a time-out, nothing is left for the new one
        new = opened(receiver, self._names, self._tls, deadline)
        return self._exchange(receiver, new, endpoint.url, message, deadline)

    def _exchange(
        self, receiver: Receiver, stream: Stream, url: str, message: Message, deadline: float
    ) -> int:
        reusable = False
        try:
            stream.begin(deadline - time.monotonic())
            status, reusable = post(stream, url, message)
        finally:
            if reusable:
                self._kept.give(receiver, stream)
            else:
                stream.end()
        return status
