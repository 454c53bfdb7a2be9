"""What leaves as an answer."""

from io import BytesIO

import pytest
from werkzeug.test import create_environ

from app.http.application import SECURITY_HEADERS, SecureResponse

ANSWERS = {
    "of a view": SecureResponse("{}", 201, {"Location": "/api/users/a"}, mimetype="application/json"),
    "with no body": SecureResponse(status=204),
    "not modified": SecureResponse("{}", 304, {"ETag": '"a"'}),
    "in pieces": SecureResponse([b"a", b"b"]),
    "of a file": SecureResponse(BytesIO(b"a"), headers={"Content-Length": "1"}, direct_passthrough=True),
    "that leads elsewhere": SecureResponse("x", 302, {"Location": "/ä b"}),
    "with its own policy": SecureResponse("x", headers={"Content-Security-Policy": "default-src 'self'"}),
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_the_headers_are_those_of_werkzeug_and_the_security_headers(
    answer: SecureResponse, method: str
) -> None:
    """Whether Werkzeug was asked to correct them or not."""
    environ = create_environ(method=method)
    corrected = answer.get_wsgi_headers(environ).to_wsgi_list()
    _, _, headers = answer.get_wsgi_response(environ)
    added = headers[len(corrected) :]
    assert headers[: len(corrected)] == corrected
    assert dict(added) == {
        name: SECURITY_HEADERS[name] for name in SECURITY_HEADERS if name not in dict(corrected)
    }
