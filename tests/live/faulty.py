"""
What stands between a sender and its backend, and can be told to be at fault: by HTTP, and by DogStatsD's datagrams.

The fault is switched while it runs, so that one backend can go away and come back. A real outage is what a sender
sees here: a refused port has nobody who listens, a reset is one, a silent backend takes the connection.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import struct
import threading
from abc import ABC, abstractmethod
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from tests.live.processes import LOOPBACK, free_ports

if TYPE_CHECKING:
    from collections.abc import Callable

SLOW_S = 10.0
RETRY_AFTER_S = 1
_FORWARD_TIMEOUT_S = 60
# Linux sends a reset instead of a tidy end if nothing may linger.
_NO_LINGER = struct.pack("ii", 1, 0)
_RECEIVE = 1 << 16


class Fault(StrEnum):
    """What a backend does wrong."""

    NONE = "healthy"
    REFUSED = "refused"
    SILENT = "silent"
    SLOW = "slow"
    ERROR = "500"
    BUSY = "429"
    RESET = "reset"


class _Faulty(ABC):
    """Listens while its attribute `fault` does not say otherwise; a context manager."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def __enter__(self) -> Self:
        """Starts to answer, or not to."""
        self.fault = self._fault
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Closes the port; who waits for an answer is left without one."""
        self._close()

    @property
    def fault(self) -> Fault:
        """What it does wrong."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._close()
        self._fault = fault
        if fault is not Fault.REFUSED:
            self._listen()

    @abstractmethod
    def _listen(self) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


class FaultyServer(_Faulty):
    """
    An HTTP server on a free port of 127.0.0.1, at fault as its attribute `fault` says; a context manager.

    Without a fault, and late under SLOW, it passes requests on to `upstream`, or answers an empty JSON object if there
    is none. Every request is judged anew: connections are not kept. With `prompt` what is sent is answered before it
    is passed on, as an Agent does: else a sender that waits no longer than two seconds gives up on what a busy test
    agent takes a little later, and sends it again.
    """

    def __init__(self, upstream: str = "", fault: Fault = Fault.NONE, *, prompt: bool = False) -> None:
        """Chooses a port."""
        super().__init__(fault)
        self._prompt = prompt
        self._upstream = urlsplit(upstream)
        self._port = free_ports(1)[0]
        self._server: _Server | None = None
        self.url = f"http://{LOOPBACK}:{self._port}"

    def _listen(self) -> None:
        self._server = _Server(self._port, self.fault, self._forward, prompt=self._prompt)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="faulty", daemon=True).start()

    def _close(self) -> None:
        server, self._server = self._server, None
        if server:
            server.over.set()
            server.shutdown()
            server.server_close()

    def _forward(self, handler: _Handler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if not self._upstream.hostname:
            return HTTPStatus.OK, {"Content-Type": "application/json"}, b"{}"
        with contextlib.closing(
            http.client.HTTPConnection(self._upstream.hostname, self._upstream.port, timeout=_FORWARD_TIMEOUT_S)
        ) as upstream:
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in _OF_CONNECTION}
            upstream.request(handler.command, handler.path, body, headers)
            answer = upstream.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OF_CONNECTION}
            return answer.status, kept, answer.read()


# What concerns one connection and is not passed on, and what is written anew.
_OF_CONNECTION = frozenset(
    {"connection", "content-length", "date", "host", "keep-alive", "server", "transfer-encoding"}
)


class _Server(http.server.ThreadingHTTPServer):
    """Listens with one fault; `over` is set when that ends."""

    request_queue_size = 128
    # A silent one has threads that wait; nobody joins them.
    block_on_close = False

    def __init__(
        self,
        port: int,
        fault: Fault,
        forward: Callable[[_Handler, bytes], tuple[int, dict[str, str], bytes]],
        *,
        prompt: bool,
    ) -> None:
        self.fault = fault
        self.prompt = prompt
        self.forward = forward
        self.over = threading.Event()
        super().__init__((LOOPBACK, port), _Handler)

    def verify_request(self, request: socket.socket, _client_address: object) -> bool:
        if self.fault is not Fault.RESET:
            return True
        request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        request.close()
        return False

    def handle_error(self, *_arguments: object) -> None:
        """Says nothing: senders that give up are what this is for."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def answer(self) -> None:
        """Answers, or not."""
        server = self.server
        if server.fault is Fault.SILENT:
            server.over.wait()
            return
        if server.fault is Fault.SLOW and server.over.wait(SLOW_S):
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if server.fault is Fault.ERROR:
            status, headers, answer = HTTPStatus.INTERNAL_SERVER_ERROR, {}, b"{}"
        elif server.fault is Fault.BUSY:
            status, headers, answer = HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(RETRY_AFTER_S)}, b"{}"
        elif self._sender_is_gone():
            # It will send again.
            return
        elif server.prompt and self.command != "GET":
            self._respond(HTTPStatus.OK, {"Content-Type": "application/json"}, b"{}")
            server.forward(self, body)
            return
        else:
            status, headers, answer = server.forward(self, body)
        self._respond(status, headers, answer)

    def _sender_is_gone(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False

    def _respond(self, status: int, headers: dict[str, str], answer: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def __getattr__(self, name: str) -> Callable[[], None]:
        # `do_GET` and so on: every method is treated alike.
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""


class FaultyDatagrams(_Faulty):
    """
    Passes DogStatsD's datagrams on to `upstream` (`udp://host:port`), or refuses them; a context manager.

    A datagram has no answer: of the faults there is only REFUSED, a port that nobody listens on.
    """

    def __init__(self, upstream: str, fault: Fault = Fault.NONE) -> None:
        """Chooses a port."""
        super().__init__(fault)
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._address = (LOOPBACK, free_ports(1)[0])
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.url = f"udp://{LOOPBACK}:{self._address[1]}"

    def _listen(self) -> None:
        self._over = threading.Event()
        intake = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # What the kernel cannot hold is lost without a trace.
        intake.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        intake.bind(self._address)
        intake.settimeout(0.1)
        self._thread = threading.Thread(target=self._relay, args=(intake, self._over), name="relay", daemon=True)
        self._thread.start()

    def _close(self) -> None:
        thread, self._thread = self._thread, None
        if thread:
            self._over.set()
            thread.join()

    def _relay(self, intake: socket.socket, over: threading.Event) -> None:
        with intake, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outlet:
            outlet.connect(self._upstream)
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    outlet.send(intake.recv(_RECEIVE))
            # What came before the end is passed on: its sender cannot know better.
            intake.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    outlet.send(intake.recv(_RECEIVE))
