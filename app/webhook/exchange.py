"""One request and its answer, over a connection that is open: Python's http.client."""

import http.client
from http.client import HTTPException, HTTPResponse
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from app.webhook.signing import Message
from app.webhook.stream import MAX_ANSWER, Stream

BODY_S: Final = 1.0
"""For the body of an answer, after its head. It says nothing to us, and is read only so that the connection
can be used again."""


class Answer(NamedTuple):
    """`reusable`: the answer has ended, and another request may follow."""

    status: int
    reusable: bool


class Connection(http.client.HTTPConnection):
    """http.client over a stream."""

    def __init__(self, stream: Stream) -> None:
        super().__init__("receiver.invalid")  # the header Host is given with each request
        self._stream = stream

    def connect(self) -> None:
        self.sock = self._stream


def post(stream: Stream, url: str, message: Message) -> Answer:
    """Posts a message, and returns the answer to it. Redirects are not followed.

    Raises TimeoutError, OSError, HTTPException or ValueError where there is no answer with a whole head.
    """
    parts = urlsplit(url)
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    connection = Connection(stream)
    connection.request("POST", target, message.body, {"Host": parts.netloc} | message.headers)
    with connection.getresponse() as response:
        if stream.ended:  # http.client takes it for the end of the head
            raise ConnectionResetError("closed within the head")
        return Answer(response.status, _is_read_to_its_end(response, stream))


def _is_read_to_its_end(response: HTTPResponse, stream: Stream) -> bool:
    stream.hurry(BODY_S)
    try:
        response.read(MAX_ANSWER)
    except (OSError, HTTPException, ValueError):
        return False
    return response.isclosed() and not (stream.let_go or stream.ended)
