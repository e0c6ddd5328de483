"""
A Datadog on a loopback port: keeps what it is sent, judges every request and answer by the published description, adds
and rewrites what the real one adds and rewrites, and fails when it is told to.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.datadog import description
from tests.datadog.stores import STORES, Answer, AnswerError, Organization

# Faults, each before or after the request took effect.
RESET_BEFORE, RESET_AFTER = "reset before", "reset after"
FAILING_BEFORE, FAILING_AFTER = "500 before", "500 after"
LIMITED = "429"
FAULTS = (RESET_BEFORE, RESET_AFTER, FAILING_BEFORE, FAILING_AFTER, LIMITED)


class Datadog:
    """
    The server.

    Attributes:
        organization: what is kept.
        wrong: what the description had against a request or an answer of ours.
        requests: method and path of each.
        faults: by number of the request, from 1.
        limits: headers of an answer 429.
        refused: texts: a body that has one is answered 400.
        forbidden: beginnings of paths that are answered 403 to all but GET.
    """

    def __init__(self) -> None:
        self.organization = Organization()
        self.keys = {"DD-API-KEY": "a" * 32, "DD-APPLICATION-KEY": "b" * 40}
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.faults: dict[int, str] = {}
        self.limits = {"X-RateLimit-Reset": "7", "X-RateLimit-Limit": "10", "X-RateLimit-Period": "10"}
        self.refused: list[str] = []
        self.forbidden: list[str] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        server = type("Server", (ThreadingHTTPServer,), {"daemon_threads": True})
        self._server = server(("127.0.0.1", 0), type("Handler", (_Handler,), {"datadog": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environ(self) -> dict[str, str]:
        """Return the variables of who may use it."""
        return {"DD_API_KEY": self.keys["DD-API-KEY"], "DD_APP_KEY": self.keys["DD-APPLICATION-KEY"]}

    def answer(self, method: str, target: str, headers, body: bytes) -> tuple[str, Answer]:
        """Return what fails, "" for nothing, and the answer."""
        parts = urlsplit(target)
        with self._lock:
            self.requests.append(f"{method} {unquote(target)}")
            fault = self.faults.pop(len(self.requests), "")
            if fault == LIMITED:
                return "", Answer(429, {"errors": ["Rate limit of 10 requests in 10 seconds reached."]}, self.limits)
            if fault in (RESET_BEFORE, FAILING_BEFORE):
                return fault, Answer(500, {"errors": ["Internal error"]})
            given = json.loads(body) if body else None
            answer = self._judged(method, parts.path, dict(parse_qsl(parts.query)), headers, given)
            return fault, Answer(500, {"errors": ["Internal error"]}) if fault == FAILING_AFTER else answer

    def _judged(self, method: str, path: str, query: dict[str, str], headers, body) -> Answer:
        for name, key in self.keys.items():
            if headers.get(name) != key:
                return Answer(401, {"errors": ["Unauthorized"]})
        of = description.operation(method, path)
        if of is None:
            self.wrong.append(f"{method} {path} is not described")
            return Answer(404, {"errors": ["Not found"]})
        if method != "GET" and path.startswith(tuple(self.forbidden)) and self.forbidden:
            return Answer(403, {"errors": ["Forbidden"]})
        if wrong := description.wrong_request(of, query, body):
            self.wrong += [f"{method} {path}: {one}" for one in wrong]
            return Answer(400, {"errors": wrong})
        if body and any(text in json.dumps(body) for text in self.refused):
            return Answer(400, {"errors": ["The value provided for parameter 'query' is invalid"]})
        try:
            answer = STORES[of.path](self.organization, method, query, body, *of.values.values())
        except AnswerError as error:
            answer = error.answer
        self.wrong += [f"answer to {method} {path}: {one}" for one in description.wrong_answer(of, *answer[:2])]
        return answer


class _Handler(BaseHTTPRequestHandler):
    datadog: Datadog
    protocol_version = "HTTP/1.1"
    # One packet an answer: the second of two would wait for the first to be acknowledged.
    wbufsize = -1

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault, answer = self.datadog.answer(self.command, self.path, self.headers, body)
        if fault in (RESET_BEFORE, RESET_AFTER):
            # Closed with a reset and not with an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        text = b"" if answer.body is None else gzip.compress(json.dumps(answer.body).encode(), 1)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if text:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815  (http.server's names)

    def log_message(self, *_) -> None:
        """Say nothing."""
