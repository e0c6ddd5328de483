"""What the compared programs talk to on loopback: an intake of OpenLineage events, and an Agent that never answers."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from typing import TYPE_CHECKING, Self

from tests.live.processes import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator


class LineageSink:
    """Takes OpenLineage events by HTTP and counts them; a context manager."""

    def __init__(self) -> None:
        """Binds a port."""
        self.events = 0
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                sink.events += 1
                self.send_response(http.HTTPStatus.CREATED)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Says nothing."""

        self._server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Starts to answer."""
        threading.Thread(target=self._server.serve_forever, name="lineage", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Closes the port."""
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def silent_agent() -> Iterator[tuple[str, str]]:
    """Yields the URLs of an Agent, for traces and for DogStatsD, whose connections open and are never answered."""
    with socket.socket() as traces, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as metrics:
        for intake in (traces, metrics):
            intake.bind((LOOPBACK, 0))
        # The system opens the connections; nobody ever takes one.
        traces.listen(1024)
        yield f"http://{LOOPBACK}:{traces.getsockname()[1]}", f"udp://{LOOPBACK}:{metrics.getsockname()[1]}"
