"""A gunicorn worker for slow and hostile clients: gevent, with a deadline on each wait and bounds on memory.

It subclasses gunicorn's gevent worker and overrides its public methods `init_process`, `notify`, `handle` and
`handle_error`; gunicorn's parser reads the requests. Five parts:

Worker          names the bounds, starts without harm to others, serves connections, and closes silent ones
                when places or memory run out
BoundedRequest  gunicorn's request, with a bound on its headers
Connection      a client's socket, with a deadline on each step
Answer          writes an answer, and decides whether the connection goes on after it
Listener        accepts connections

This is no module of `app`: gunicorn's master imports it, and what the master has imported is neither patched
by gevent nor read again at a reload. So it imports `app` only inside a worker.

Why not another worker: docs/decisions/0014-own-worker-class.md. Tests: tests/faults/test_http_clients.py and
tests/e2e/test_odd_requests.py.
"""

import contextlib
import itertools
import json
import os
import resource
import secrets
import signal
import socket
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
from gevent import monkey
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import Request, errors
from gunicorn.http.unreader import SocketUnreader
from gunicorn.http.wsgi import base_environ, proxy_environ
from gunicorn.workers.ggevent import GeventWorker

FILES_OF_OUR_OWN = 256
"""File descriptors kept for Redis and logs. Clients get neither these nor those of MAIL_CONNECTIONS."""

READ_AT_MOST = 64 * 1024
"""Bytes of one read: a chunk of a body may announce gigabytes."""

HEAD_AT_MOST = 32 * 1024
"""Bytes of a request's headers, and of its trailers. While it is in hand both are in memory, and are not
counted; gunicorn lets 800 KB of each through."""

SEND_BUFFER_BYTES = 64 * 1024
"""Of each connection. The kernel would let it grow to megabytes for a client that does not read."""

NO_BODY = frozenset({204, 304})
HOP_BY_HOP = frozenset(util.hop_headers)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER: closing drops what the client has not read."""

CANNOT_START = 3
"""The status of a worker after which gunicorn ends; so does any error while a worker starts."""

TRY_AGAIN_S = 1.0
"""Between a worker that could not start and the next one: a lasting fault must not use up the processor."""

STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (TimeoutError, 408),
    (errors.LimitRequestLine, 414),
    (errors.LimitRequestHeaders, 431),
    (errors.ExpectationFailed, 417),
    (errors.UnsupportedTransferCoding, 501),
    (errors.ForbiddenProxyRequest, 403),
    (errors.ConfigurationProblem, 500),
    (errors.ParseException, 400),
    (OSError, 400),  # gunicorn's errors about chunks, TLS errors
)


def started() -> Path | None:
    """A file in the folder that the workers share. It is there once a worker of the present start or reload
    of gunicorn has begun to serve. To see that takes no file descriptor, of which none may be left."""
    folder, reload = os.environ.get("CEDULA_METRICS_FOLDER"), os.environ.get("CEDULA_RELOAD")
    return Path(folder, f"started-{reload}") if folder else None


def _others_serve() -> bool:
    mark = started()
    return mark is not None and mark.exists()


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's gevent worker with deadlines and bounds. Tests shorten them in subclasses. Two more are
    gunicorn's: `keepalive`, how long a connection may be idle, and `worker_connections`."""

    alive: bool
    worker_connections: int

    request_s = 10.0
    """From the first byte of a request to the last of its body."""
    answer_s = 10.0
    """From the first byte of an answer to the last."""
    drain_s = 1.0
    """For the rest of a body."""
    held_at_most = 32 * 1024 * 1024
    """Bytes in memory that wait for clients: requests that are not complete, answers that are not taken.
    Above it, of the connections that hold some, the one whose client has been silent longest is closed. A
    request in hand does not count: its body has been read and parsed."""
    skip_at_most = 64 * 1024
    """Bytes that the application has left of a body, which are read to come to the next request. A body of
    which more may be left ends the connection."""
    drain_at_most = 16 * 1024 * 1024
    """Bytes of a refused body that are read before the connection ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = partial(Listener, self)
        self.waiting: dict[Connection, int] = {}
        """Connections that wait for their client, the longest silent first, with the bytes that each holds in
        memory; `held` is their sum."""
        self.held = self.open = 0
        self.clients: Counter[str] = Counter()
        self._date, self._date_s = "", 0

    def init_process(self) -> None:
        """Starts to serve. Where workers of the same start or reload serve already, what keeps this one from
        it may pass, such as a file that is being written. So it ends with a status after which gunicorn goes
        on and starts another one."""
        self._heed_signals()
        self._remember_constants()
        try:
            super().init_process()
        except (Exception, SystemExit) as error:
            status = error.code if isinstance(error, SystemExit) else CANNOT_START
            if self.booted or status != CANNOT_START or not _others_serve():
                raise
            unforeseen = isinstance(error, Exception)  # else wsgi.py has told what is wrong
            self.log.error("A worker cannot start; another one tries it again.", exc_info=unforeseen)
            monkey.get_original("time", "sleep")(TRY_AGAIN_S)  # gevent's needs what may be missing
            sys.exit(1)

    def _heed_signals(self) -> None:
        """From the first moment: gunicorn does it after gevent has patched everything, and loses what comes
        before."""
        signal.signal(signal.SIGTERM, self.handle_exit)
        signal.signal(signal.SIGINT, self.handle_quit)
        signal.signal(signal.SIGQUIT, self.handle_quit)

    def _remember_constants(self) -> None:
        """What is the same for all requests. `options`: gunicorn's settings and what its parser derives from
        them; gunicorn itself looks up each at each use."""
        names = (*self.cfg.settings, "is_ssl", "forwarded_allow_networks", "proxy_allow_networks")
        self.options = options = SimpleNamespace(**{name: getattr(self.cfg, name) for name in names})
        self.idle_s = options.keepalive or self.request_s
        self._writes_access_log = bool(options.accesslog or options.logconfig or options.logconfig_dict)
        self._environ = base_environ(self.cfg) | {
            "wsgi.multithread": True,
            "cedula.drains": True,  # DRAINED_BY_WORKER in app/http/bodies.py
        }
        self._script_name = os.environ.get("SCRIPT_NAME", "")
        for listener in self.sockets:  # its connections inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def notify(self) -> None:
        """Once a second: this worker serves."""
        super().notify()
        if mark := started():
            with contextlib.suppress(OSError):  # the folder was removed, or memory is full
                mark.touch()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # A listener that is closed has no name, and its last connections are yet to be served.
        self._names = {listener: listener.getsockname() for listener in self.sockets}
        from app.config import Settings  # not before: see this module's head
        from app.domain.client import client_of
        from app.errors import PROBLEMS

        settings = Settings.from_environment()
        # Behind a proxy all connections come from one address.
        self._client_connections = 0 if settings.trusted_proxies else settings.client_connections
        self._client_of, self._problems = client_of, PROBLEMS
        self._take_files(FILES_OF_OUR_OWN + settings.mail_connections)

    def _take_files(self, our_own: int) -> None:
        """Raises the limit of file descriptors. Where that is still too low, there are fewer connections."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = self.worker_connections + our_own
        if soft != resource.RLIM_INFINITY and soft < needed:
            soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            self.worker_connections = max(16, min(self.worker_connections, soft - our_own))

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serves one connection, to its end. Over TLS gunicorn does it, without our deadlines."""
        if self.options.is_ssl:
            super().handle(listener, client, addr)
            return
        connection = Connection(self, client)
        # A Unix socket's client is a proxy: it has no address, and no bound.
        name = self._client_of(addr[0]) if self._client_connections and isinstance(addr, tuple) else ""
        self.open += 1
        self.clients[name] += 1
        try:
            if name and self.clients[name] > self._client_connections:
                self._turn_away(connection)
            else:
                if self.waiting and self.open > self.worker_connections * 9 // 10:
                    next(iter(self.waiting)).hang_up()  # its client has been silent longest
                self._converse(connection, self._names[listener], addr)
        except OSError:
            pass  # the client has gone, or is out of time
        finally:
            self.open -= 1
            self.clients[name] -= 1
            if not self.clients[name]:
                del self.clients[name]
            util.close(client)

    def _turn_away(self, connection: "Connection") -> None:
        connection.begin(self.drain_s)
        connection.recv(READ_AT_MOST)  # a client loses an answer that comes before it has sent its request
        connection.sendall(self.problem(429))
        connection.part()

    def _converse(self, connection: "Connection", server: Any, addr: Any) -> None:
        """Serves one request after the other, until the connection must end."""
        proxy_protocol_info: dict[str, Any] = {}
        for number in itertools.count(1):
            connection.wait_for_request()
            req = None
            try:
                req = BoundedRequest(self.options, connection.unreader, addr, number)
                if connection.idle:  # pipelined: nothing was read for it, so let others take their turn
                    gevent.sleep(0)
                    connection.begin(self.request_s)
                proxy_protocol_info = req.proxy_protocol_info = req.proxy_protocol_info or proxy_protocol_info
                close = self._serve(connection, req, server, addr) or not self._skip_body(connection, req)
            except (StopIteration, errors.NoMoreData, ConnectionError):
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends this connection and no other
                if isinstance(error, OSError) and (connection.idle or req is not None):
                    return  # nothing was asked, or the answer was not taken
                connection.begin(self.drain_s)
                self.handle_error(req, connection, addr, error)
                close = True
            if close:
                connection.part()
                return

    def _serve(self, connection: "Connection", req: Any, server: Any, addr: Any) -> bool:
        """Answers one request; returns whether the connection must end."""
        self.options.pre_request(self, req)
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        started = time.monotonic()
        environ = self._environ_of(req, server, addr)
        if "HTTP_EXPECT" in environ:  # a client that already sends its body is not told to go on
            connection.expects_continue = req.version >= (1, 1) and not connection.has_buffered()
        answer = Answer(self, connection, req)
        pieces: Iterable[bytes] = self.wsgi(environ, answer.start_response)
        try:
            for piece in pieces:
                answer.write(piece)
            answer.finish()
        except Exception:
            if answer.head_sent:
                connection.hang_up()  # the client would read a second head as a part of this answer
            raise
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
            if self._writes_access_log:
                self.log.access(answer, req, environ, timedelta(seconds=time.monotonic() - started))
            self.options.post_request(self, req, environ, answer)
        return answer.close

    def _environ_of(self, req: Any, server: Any, addr: Any) -> dict[str, Any]:
        """PEP 3333, with the same keys as under gunicorn's other workers."""
        tcp = isinstance(addr, tuple)
        environ: dict[str, Any] = {
            **self._environ,
            "wsgi.input": req.body,
            "wsgi.url_scheme": req.scheme,
            "REQUEST_METHOD": req.method,
            "QUERY_STRING": req.query,
            "RAW_URI": req.uri,
            "SERVER_PROTOCOL": "HTTP/1.1" if req.version == (1, 1) else "HTTP/1.0",
            "REMOTE_ADDR": addr[0] if tcp else "",
            "REMOTE_PORT": str(addr[1]) if tcp else "",
            "SERVER_NAME": server[0] if tcp else "localhost",
            "SERVER_PORT": str(server[1]) if tcp else "80",
        }
        script_name = self._script_name
        for name, value in req.headers:
            if name == "CONTENT-TYPE":
                environ["CONTENT_TYPE"] = value
            elif name == "CONTENT-LENGTH":
                environ["CONTENT_LENGTH"] = value
            else:
                if name == "SCRIPT_NAME":
                    script_name = value
                key = "HTTP_" + name.replace("-", "_")
                environ[key] = f"{environ[key]},{value}" if key in environ else value
        if not req.path.startswith(script_name):
            raise errors.ConfigurationProblem("the path does not begin with SCRIPT_NAME")
        environ["SCRIPT_NAME"] = script_name
        environ["PATH_INFO"] = util.unquote_to_wsgi_str(req.path[len(script_name) :])
        if req.proxy_protocol_info:
            environ.update(proxy_environ(req))
        return environ

    def _skip_body(self, connection: "Connection", req: Any) -> bool:
        """Reads what the application has left of the body, to come to the next request. False where that is
        too long, or broken."""
        connection.begin(self.drain_s)
        return not req.body.failed and len(req.body.read(self.skip_at_most + 1)) <= self.skip_at_most

    def may_be_long(self, req: Any) -> bool:
        """Whether the body is longer than `skip_at_most`, or is chunked, which does not say its length."""
        for name, value in req.headers:
            if name == "TRANSFER-ENCODING" or (name == "CONTENT-LENGTH" and int(value) > self.skip_at_most):
                return True
        return False

    def waits(self, connection: "Connection", in_memory: int) -> None:
        """A connection waits for its client. Where too much is held, the longest silent one that holds some
        ends."""
        self.waiting[connection] = in_memory
        self.held += in_memory
        if in_memory and self.held > self.held_at_most:
            next(other for other, some in self.waiting.items() if some).hang_up()

    def waits_no_more(self, connection: "Connection") -> None:
        self.held -= self.waiting.pop(connection, 0)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Answers what did not reach the application, as a problem of the API. Nothing of the request is
        logged: what is no HTTP may hold an address or a key."""
        status = next((status for kind, status in STATUSES if isinstance(exc, kind)), 500)
        if status == 500:
            where = "".join(traceback.format_tb(exc.__traceback__))
            self.log.error("Error outside the application: %s\n%s", type(exc).__name__, where)
        else:
            self.log.warning("Invalid request: %s", type(exc).__name__)
        client.sendall(self.problem(status))

    def problem(self, status: int) -> bytes:
        """An answer with a problem (RFC 9457), after which the connection ends."""
        slug = {429: "too-many-requests", 500: "internal-error"}.get(status, "bad-request")
        title, phrase = self._problems[slug].title, HTTPStatus(status).phrase
        body = json.dumps({"type": f"/problems/{slug}", "title": title, "status": status, "detail": phrase})
        head = [
            f"HTTP/1.1 {status} {phrase}",
            self.date(),
            "Connection: close",
            "Content-Type: application/problem+json",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            f"X-Request-ID: {secrets.token_hex(16)}",
        ]
        return "\r\n".join([*head, "", body]).encode("latin-1")

    def date(self) -> str:
        """The Date header of this second."""
        now_s = int(time.time())
        if now_s != self._date_s:
            self._date, self._date_s = f"Date: {util.http_date(now_s)}", now_s
        return self._date


class BoundedRequest(Request):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's request, with a bound on its headers, and on its trailers."""

    def parse_headers(self, data: bytes, from_trailer: bool = False) -> Any:
        if len(data) > HEAD_AT_MOST:
            raise errors.LimitRequestHeaders("the headers are too long")
        return super().parse_headers(data, from_trailer=from_trailer)


class Connection:
    """A client's socket, as gunicorn's parser reads it. Reading and writing end at the deadline of the
    present step."""

    def __init__(self, worker: Worker, client: socket.socket) -> None:
        self._worker, self._socket = worker, client
        self.unreader = SocketUnreader(self)
        """gunicorn's buffer: what was read and not yet parsed."""
        self.exhausted = False
        """Nothing more comes: the client has ended its side, or the worker has hung up."""
        self.wait_for_request()

    def begin(self, step_s: float) -> None:
        """A step begins that may take so many seconds in all."""
        self.idle = False
        self.deadline = time.monotonic() + step_s

    def wait_for_request(self) -> None:
        """Before the first request and between two of them the client may be idle."""
        self.begin(self._worker.idle_s)
        self.idle = True
        self.expects_continue = False
        """The client waits for 100 Continue before it sends its body. Where it still does when the answer
        goes out, the body may come or not."""
        self.received = 0
        """Bytes of the present request."""

    def has_buffered(self) -> bool:
        """Whether bytes were read that are not yet parsed."""
        buffered: bytes = self.unreader.take_buffered()
        self.unreader.unread(buffered)
        return bool(buffered)

    def recv(self, size: int) -> bytes:
        """Raises TimeoutError at the deadline. Returns b"" once the connection is exhausted."""
        if self.exhausted:
            return b""
        if self.expects_continue:  # only now is the body wanted (RFC 9110 §10.1.1)
            self.expects_continue = False
            self.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._await_client(self.received)
        try:
            data = self._socket.recv(min(size, READ_AT_MOST))
        finally:
            self._worker.waits_no_more(self)
        if self.idle:
            self.begin(self._worker.request_s)
        if not data:
            self.exhausted = True
        self.received += len(data)
        return data

    def sendall(self, data: bytes) -> None:
        """Raises TimeoutError at the deadline; what the client has not taken is then lost."""
        self._await_client(len(data))
        try:
            self._socket.sendall(data)
        except TimeoutError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            raise
        finally:
            self._worker.waits_no_more(self)

    def hang_up(self) -> None:
        """Ends the connection from another greenlet: its own finds it closed."""
        self.exhausted = True
        self._worker.waits_no_more(self)
        self.unreader.take_buffered()  # frees it: on a busy worker its greenlet may end a second later
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client has gone

    def part(self) -> None:
        """Ends our side and drains the client's for a moment: if unread data were left when the connection
        closes, the client would lose the answer (RFC 9112 §9.6)."""
        left = self._worker.drain_at_most
        self.begin(self._worker.drain_s)
        self.expects_continue = False
        try:
            self._socket.shutdown(socket.SHUT_WR)
            while left > 0 and (data := self.recv(READ_AT_MOST)):
                left -= len(data)
                self.received = 0  # thrown away
        except OSError:
            pass  # out of time, or the client has gone

    def _await_client(self, in_memory: int) -> None:
        """Before each wait for the client, which holds so many bytes in memory. Raises TimeoutError at the
        deadline."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        self._worker.waits(self, in_memory)


class Answer:
    """Writes what the application answers: the head goes out with the first piece of the body. gunicorn's
    access log reads its attributes. `close`: the connection ends after it."""

    def __init__(self, worker: Worker, connection: Connection, req: Any) -> None:
        self._worker, self._connection, self._req = worker, connection, req
        self.close, self.chunked, self.head_sent, self.sent = True, False, False, 0
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.response_length: int | None = None
        self._sends_body = True

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """PEP 3333."""
        if self.head_sent and exc_info:
            raise exc_info[1].with_traceback(exc_info[2])
        if self.status and not exc_info:
            raise AssertionError("start_response was called twice")
        self.status, self.headers = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        head = b"" if self.head_sent else self._head()
        if not self._sends_body:
            data = b""
        elif self.response_length is not None:
            data = data[: self.response_length - self.sent]
        self.sent += len(data)
        if self.chunked and data:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        if head or data:
            self._connection.sendall(head + data)

    def finish(self) -> None:
        """After the last piece."""
        self.write(b"")
        if self.chunked:
            self._connection.sendall(b"0\r\n\r\n")
        if self._sends_body and self.response_length not in (None, self.sent):
            self.close = True  # the client still waits for the rest

    def _head(self) -> bytes:
        code = int(self.status[:3])
        lines = ["HTTP/1.1 " + self.status, self._worker.date()]
        for name, value in self.headers:
            lower = name.lower()
            if lower in HOP_BY_HOP:
                continue
            if lower == "content-length":
                if code in NO_BODY:
                    continue
                self.response_length = int(value)
            lines.append(f"{name}: {value}")
        self._sends_body = code not in NO_BODY and self._req.method != "HEAD"
        if self.response_length is None and self._sends_body and self._req.version >= (1, 1):
            self.chunked = True
            lines.append("Transfer-Encoding: chunked")
        self.close = self._must_close(code)
        lines.append("Connection: close\r\n\r\n" if self.close else "Connection: keep-alive\r\n\r\n")
        head = "\r\n".join(lines)
        if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
            raise ValueError("a header holds a line break")
        octets = head.encode("latin-1")
        self.head_sent = True
        self._connection.begin(self._worker.answer_s)
        return octets

    def _must_close(self, code: int) -> bool:
        """Whether the connection ends after this answer, as far as is known when its head goes out. Later
        only an answer that is too short (`finish`) or a body that is too long (`Worker._skip_body`) can end
        it."""
        worker, connection, req = self._worker, self._connection, self._req
        return (
            # worker or client wants no other request
            not worker.alive
            or not worker.options.keepalive
            or req.should_close()
            # nothing else tells where this answer ends (HTTP/1.0)
            or (self._sends_body and self.response_length is None and not self.chunked)
            # unknown where the next request begins: the body may come or not, or broke off
            or connection.expects_continue
            or connection.exhausted
            or req.body.failed
            # the next request may be far away: a refused body is not read for long
            or (code >= 400 and worker.may_be_long(req))
        )


class Listener(StreamServer):  # type: ignore[misc]  # gevent has no types
    """Accepts connections. Before it closes it accepts those that the kernel has made and that wait for it:
    with SO_REUSEPORT they wait for this worker alone, and would be reset."""

    def __init__(self, worker: Worker, listener: Any, **options: Any) -> None:
        for name in ("application", "log", "handler_class", "environ"):
            options.pop(name)  # for servers that do more than accept
        super().__init__(listener, handle=partial(worker.handle, listener), **options)
        self._worker, self._listener = worker, listener
        if worker.options.workers > 1:
            self.max_accept = 1

    def close(self) -> None:
        if not self._worker.options.is_ssl:
            self._listener.setblocking(False)
            with contextlib.suppress(OSError):  # none waits any more, or no file descriptor is left
                while self.pool.free_count():
                    self.pool.spawn(self._worker.handle, self._listener, *self._listener.accept())
        super().close()
