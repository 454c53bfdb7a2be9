"""Tables of odd requests: some wrong, some right all the same."""

import json
from typing import Any

TOKEN = "token-that-nobody-may-see"

JSON = {"Content-Type": "application/json"}

MAX_BODY = 65_536

TEN_MEGABYTES = b" " * 10_000_000

LONGEST_ADDRESS = f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 57}.com"


def registration(**fields: Any) -> bytes:
    """A request that is right but for the given fields; None takes a field away."""
    body = {"email": "ada@example.com", "token": TOKEN} | fields
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "only spaces": b"   ",
    "cut off": registration()[:-1],
    "something after it": registration() + b"{}",
    "no quotes": b"{email: ada@example.com}",
    "single quotes": b"{'email': 'ada@example.com', 'token': 't'}",
    "a comma too many": b'{"email": "ada@example.com", "token": "t",}',
    "a comment": b'{"email": "ada@example.com", /* me */ "token": "t"}',
    "a raw line break in a string": b'{"email": "ada@example.com", "token": "a\nb"}',
    "a raw NUL in a string": b'{"email": "ada@example.com", "token": "a\x00b"}',
    "a wrong escape": b'{"email": "ada@example.com", "token": "\\x41"}',
    "half a surrogate escape": b'{"email": "ada@example.com", "token": "\\ud8"}',
    "a form": b"email=ada%40example.com&token=t",
    "XML": b"<user><email>ada@example.com</email></user>",
    "a repeated name": b'{"email": "ada@example.com", "email": "bob@example.com", "token": "t"}',
    "a repeated name behind an escape": b'{"email": "a@example.com", "\\u0065mail": "b@example.com"}',
    "a repeated name in an inner object": b'{"email": {"a": 1, "a": 2}, "token": "t"}',
    "a byte order mark": b"\xef\xbb\xbf" + registration(),
    "UTF-16": registration().decode().encode("utf-16"),
    "UTF-16 without a mark": registration().decode().encode("utf-16-le"),
    "UTF-32": registration().decode().encode("utf-32"),
    "Latin-1": '{"email": "ada@example.com", "token": "ñ"}'.encode("latin-1"),
    "an overlong encoding": b'{"email": "ada@example.com", "token": "\xc0\xaf"}',
    "an encoded surrogate": b'{"email": "ada@example.com", "token": "\xed\xa0\x80"}',
    "NaN": b'{"email": "ada@example.com", "token": NaN}',
    "Infinity": b'{"email": "ada@example.com", "token": -Infinity}',
    "a number of 5,000 digits": b'{"email": "ada@example.com", "token": ' + b"9" * 5000 + b"}",
    "30,000 open brackets": b"[" * 30_000,
    "30,000 brackets in a field": b'{"email": ' + b"[" * 30_000 + b"]" * 30_000 + b', "token": "t"}',
    "30,000 open braces": b'{"a":' * 13_000,
}


INVALID: dict[str, tuple[bytes, str]] = {
    "null": (b"null", "_schema"),
    "true": (b"true", "_schema"),
    "a number": (b"42", "_schema"),
    "a string": (b'"ada@example.com"', "_schema"),
    "an array": (b"[" + registration() + b"]", "_schema"),
    "an empty object": (b"{}", "email"),
    "no email": (registration(email=None), "email"),
    "no token": (registration(token=None), "token"),
    "email null": (b'{"email": null, "token": "t"}', "email"),
    "token null": (b'{"email": "ada@example.com", "token": null}', "token"),
    "locale null": (b'{"email": "ada@example.com", "token": "t", "locale": null}', "locale"),
    "email a number": (registration(email=7), "email"),
    "email a float out of range": (b'{"email": 1e400, "token": "t"}', "email"),
    "email true": (registration(email=True), "email"),
    "email an array": (registration(email=["ada@example.com"]), "email"),
    "email an object": (registration(email={"address": "ada@example.com"}), "email"),
    "token a number": (registration(token=12), "token"),
    "token a huge number": (registration(token=10**4000), "token"),
    "token false": (registration(token=False), "token"),
    "token an array": (registration(token=["t"]), "token"),
    "token an object": (registration(token={}), "token"),
    "locale a number": (registration(locale=1), "locale"),
    "locale an array": (registration(locale=["en"]), "locale"),
    "a locale that is no tag": (registration(locale="f"), "locale"),
    "a locale with a space": (registration(locale="en US"), "locale"),
    "a locale of many parts": (registration(locale="en-" + "-".join(["abcdefgh"] * 4)), "locale"),
    "an empty locale": (registration(locale=""), "locale"),
    "an unknown field": (registration(number="482109375326"), "number"),
    "a field with an odd name": (registration(__proto__={}), "__proto__"),
    "names in upper case": (b'{"Email": "ada@example.com", "Token": "t"}', "Email"),
    "an empty token": (registration(token=""), "token"),
    "a token of 4,097 characters": (registration(token="t" * 4097), "token"),
    "NUL in the token": (registration(token="a\0b"), "token"),
    "a lone surrogate in the token": (registration(token="a\ud800"), "token"),
    "a lone low surrogate in the token": (registration(token="\udc00b"), "token"),
    "surrogates the wrong way round": (registration(token="\udc00\ud800"), "token"),
    "NUL in the address": (registration(email="ada\0@example.com"), "email"),
    "a lone surrogate in the address": (registration(email="ada\ud800@example.com"), "email"),
    "an empty address": (registration(email=""), "email"),
    "no address": (registration(email="ada"), "email"),
    "two ats": (registration(email="a@b@c.example.com"), "email"),
    "a header in the address": (registration(email="ada@example.com\r\nBcc: eve@example.com"), "email"),
    "a header in the local part": (registration(email="ada\r\nBcc: eve@example.com"), "email"),
    "an SMTP command in the address": (registration(email="ada@example.com>\r\nDATA\r\n"), "email"),
    "a Unicode line separator in the address": (registration(email="ada\u2028@example.com"), "email"),
    "a bracket in the address": (registration(email="ada>@example.com"), "email"),
    "a display name": (registration(email="Ada <ada@example.com>"), "email"),
    "a quoted local part": (registration(email='"ada lovelace"@example.com'), "email"),
    "an IP address": (registration(email="ada@[127.0.0.1]"), "email"),
    "an IPv6 address": (registration(email="ada@[IPv6:::1]"), "email"),
    "a bare IP address": (registration(email="ada@127.0.0.1"), "email"),
    "a space in front": (registration(email=" ada@example.com"), "email"),
    "a space behind": (registration(email="ada@example.com "), "email"),
    "a line break behind": (registration(email="ada@example.com\n"), "email"),
    "a dot at the end of the domain": (registration(email="ada@example.com."), "email"),
    "a dot at the end of the local part": (registration(email="ada.@example.com"), "email"),
    "a domain without a dot": (registration(email="ada@localhost"), "email"),
    "a non-ASCII local part": (registration(email="ñandú@example.com"), "email"),
    "a right-to-left override": (registration(email="ada@\u202eexample.com"), "email"),
    "an emoji domain": (registration(email="ada@💌.example.com"), "email"),
    "two addresses": (registration(email="ada@example.com,eve@example.com"), "email"),
    "255 characters": (registration(email="a" + LONGEST_ADDRESS), "email"),
    "an address of 60,000 characters": (registration(email="a" * 60_000 + "@example.com"), "email"),
    "60,000 dots": (registration(email="a@" + "." * 60_000), "email"),
}


UNSUPPORTED: dict[str, dict[str, Any]] = {
    "no content type": {},
    "an empty content type": {"Content-Type": ""},
    "text/plain": {"Content-Type": "text/plain"},
    "text/json": {"Content-Type": "text/json"},
    "a form": {"Content-Type": "application/x-www-form-urlencoded"},
    "a form with files": {"Content-Type": "multipart/form-data; boundary=x"},
    "problem+json": {"Content-Type": "application/problem+json"},
    "JSON lines": {"Content-Type": "application/jsonl"},
    "nonsense": {"Content-Type": "\xff/;;=".encode("latin-1")},
    "two content types": {"Content-Type": "application/json, text/plain"},
    "charset latin-1": {"Content-Type": "application/json; charset=latin-1"},
    "charset utf-16": {"Content-Type": "application/json; charset=utf-16"},
    "a charset that is none": {"Content-Type": "application/json; charset=klingon"},
    "Content-Encoding gzip": {**JSON, "Content-Encoding": "gzip"},
    "Content-Encoding br": {**JSON, "Content-Encoding": "br"},
    "Content-Encoding identity, gzip": {**JSON, "Content-Encoding": "identity, gzip"},
}


TOO_LARGE: dict[str, bytes] = {
    "one byte too many": registration() + b" " * (MAX_BODY + 1 - len(registration())),
    "10 MB": TEN_MEGABYTES,
    "100,000 brackets": b"[" * 100_000,
}


ROUTES: dict[str, tuple[str, str, int, str]] = {
    "GET": ("GET", "/api/users", 405, "POST"),
    "PUT": ("PUT", "/api/users", 405, "POST"),
    "PATCH": ("PATCH", "/api/users", 405, "POST"),
    "DELETE": ("DELETE", "/api/users", 405, "POST"),
    "TRACE": ("TRACE", "/api/users", 405, "POST"),
    "a method that nobody knows": ("BREW", "/api/users", 405, "POST"),
    "POST to a user": ("POST", "/api/users/" + "a" * 26, 405, "GET"),
    "POST to the health check": ("POST", "/healthz", 405, "GET"),
    "nothing there": ("POST", "/api/user", 404, ""),
    "a slash at the end": ("POST", "/api/users/", 404, ""),
    "a user id that is too short": ("GET", "/api/users/" + "a" * 25, 404, ""),
    "a user id in upper case": ("GET", "/api/users/" + "A" * 26, 404, ""),
    "a number instead of a user id": ("GET", "/api/users/482109375326", 404, ""),
    "an address instead of a user id": ("GET", "/api/users/ada@example.com", 404, ""),
    "a way up": ("GET", "/api/users/../../etc/passwd", 404, ""),
    "an encoded way up": ("GET", "/api/users/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404, ""),
    "NUL in the path": ("GET", "/api/users/%00", 404, ""),
    "half an encoding in the path": ("GET", "/api/users/%f", 404, ""),
    "no UTF-8 in the path": ("GET", "/api/users/%ff%fe", 404, ""),
    "a long path": ("GET", "/" + "a" * 3000, 404, ""),
}


BROKEN_HTTP: dict[str, bytes] = {
    "no HTTP": b"hello\r\n\r\n",
    "an unknown version": b"POST /api/users HTTP/9.9\r\nHost: x\r\n\r\n",
    "a length that is none": b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
    "a negative length": b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a chunk without a size": b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk of negative size": b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n0\r\n\r\n",
    "a chunk that is longer than it says": b"POST /api/users HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "chunked and a length": b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown transfer coding": b"POST /api/users HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: rot13\r\n\r\nuryyb",
    "a line of 10,000 characters": b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header of 10,000 characters": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 10_000 + b"\r\n\r\n",
    "1,000 headers": b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: a\r\n" * 1000 + b"\r\n",
    "headers of 40 KB": b"GET /healthz HTTP/1.1\r\n" + (b"A: " + b"a" * 8000 + b"\r\n") * 5 + b"\r\n",
    "trailers of 80 KB": b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + (b"A: " + b"a" * 8000 + b"\r\n") * 10 + b"\r\n",
    "a body that ends early": b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 500\r\n\r\n{",
}


REQUEST_IDS: dict[str, tuple[Any, bool]] = {
    "a UUID": ("0b2bd9c6-9a6f-4f2e-8f3f-0d8f1f0f7c11", True),
    "one character": ("x", True),
    "64 characters": ("x" * 64, True),
    "65 characters": ("x" * 65, False),
    "empty": ("", False),
    "a space": ("a b", False),
    "an angle bracket": ("<script>", False),
    "a quote": ('"', False),
    "a line break in an escape": ("a%0d%0ab", False),
    "not ASCII": ("ñ".encode(), False),
    "an address": ("ada@example.com", False),
}


ACCEPTED: dict[str, tuple[str, str]] = {
    "IDN": ("idn@bücher.example.com", "idn@xn--bcher-kva.example.com"),
    "IDN with sharp s": ("idn@faß.de", "idn@xn--fa-hia.de"),
    "IDN in Greek with a final sigma": ("idn@σας.com", "idn@xn--mxa8ab.com"),
    "IDN in upper case": ("Idn@MÜLLER.de", "Idn@xn--mller-kva.de"),
    "IDN in Arabic": ("idn@مثال.com", "idn@xn--mgbh0fb.com"),
    "IDN already in ASCII": ("ascii@xn--bcher-kva.de", "ascii@xn--bcher-kva.de"),
    "a plus tag": ("ada+shop+2@example.com", "ada+shop+2@example.com"),
    "an apostrophe": ("miles.o'brien@example.ie", "miles.o'brien@example.ie"),
    "every odd sign": ("!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~@example.com"),
    "the longest": (LONGEST_ADDRESS, LONGEST_ADDRESS),
    "upper case": ("ADA.Lovelace@EXAMPLE.COM", "ADA.Lovelace@example.com"),
    "one character": ("a@b.co", "a@b.co"),
    "digits": ("12345678@example.com", "12345678@example.com"),
    "a placeholder of the mail": ("xxNUMBERxxxxxx@example.com", "xxNUMBERxxxxxx@example.com"),
}


TOKENS: dict[str, str] = {
    "4,096 characters": "t" * 4096,
    "4,096 emoji": "💌" * 4096,
    "one space": " ",
    "line breaks": "a\r\nb\n\tc",
    "quotes and backslashes": "\"'\\ \\u0000 {{ number }} ${x} %s",
    "right to left": "\u202e\u05e9\u05dc",
    "a combining letter": "e\u0301",
    "a DEL and a C1 control": "\x7f\x85",
    "the last code point": "\U0010ffff",
}


DECLARED: dict[str, dict[str, str]] = {
    "charset UTF-8": {"Content-Type": "application/json; charset=UTF-8"},
    "a quoted charset": {"Content-Type": 'application/json;charset="utf-8"'},
    "upper case": {"Content-Type": "Application/JSON"},
    "another parameter": {"Content-Type": "application/json; profile=x"},
    "identity": {**JSON, "Content-Encoding": "identity"},
    "an Accept for something else": {**JSON, "Accept": "image/png"},
}
