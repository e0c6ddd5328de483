"""The faults of a faulty backend, as who sends to it sees them."""

from __future__ import annotations

import contextlib
import http.client
import socket
from urllib.parse import urlsplit

import pytest

from tests.live.dogstatsd import DogStatsDListener
from tests.live.faulty import Fault, FaultyDatagrams, FaultyServer
from tests.live.processes import wait_until


def send(url: str, body: bytes = b"", timeout: float = 5) -> tuple[int, dict[str, str], bytes]:
    """Returns status, headers and body of the answer."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)) as connection:
        connection.request("POST", "/somewhere?now=1", body, {"X-Sent-By": "me"})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


@pytest.mark.parametrize("prompt", [False, True])
def test_what_is_sent_is_passed_on(prompt):
    seen = []

    class Upstream(FaultyServer):
        def _forward(self, handler, body):
            seen.append((handler.path, handler.headers["X-Sent-By"], body))
            return 202, {"X-Answered-By": "it"}, b"taken"

    with Upstream() as upstream, FaultyServer(upstream.url, prompt=prompt) as server:
        status, headers, answer = send(server.url, b"words")
        wait_until(lambda: seen, "it is passed on", 5)
    assert seen == [("/somewhere?now=1", "me", b"words")]
    assert (status, answer) == ((200, b"{}") if prompt else (202, b"taken"))
    assert headers.get("X-Answered-By") == (None if prompt else "it")


@pytest.mark.parametrize(("fault", "error"), [(Fault.REFUSED, ConnectionRefusedError), (Fault.RESET, ConnectionError)])
def test_a_backend_that_is_gone_is_an_error_of_the_connection(fault, error):
    with FaultyServer(fault=fault) as server, pytest.raises(error):
        send(server.url)


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.SLOW])
def test_a_backend_that_does_not_answer_in_time_takes_the_connection(fault):
    with FaultyServer(fault=fault) as server, pytest.raises(TimeoutError):
        send(server.url, timeout=0.2)


def test_a_busy_backend_says_when_to_come_again():
    with FaultyServer(fault=Fault.BUSY) as server:
        status, headers, _ = send(server.url)
    assert (status, headers["Retry-After"]) == (429, "1")


def test_a_fault_comes_and_goes_at_one_address():
    with FaultyServer() as server:
        for fault, status in ((Fault.NONE, 200), (Fault.ERROR, 500), (Fault.REFUSED, 0), (Fault.NONE, 200)):
            server.fault = fault
            with contextlib.suppress(ConnectionRefusedError) if not status else contextlib.nullcontext():
                assert send(server.url)[0] == status


def test_datagrams_are_passed_on_or_refused():
    with DogStatsDListener() as listener, FaultyDatagrams(listener.url) as relay:
        parts = urlsplit(relay.url)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect((parts.hostname, parts.port))
            sender.send(b"first:1|c")
            relay.fault = Fault.REFUSED
            # The system says so with the next call.
            sender.send(b"second:1|c")
            with pytest.raises(ConnectionRefusedError):
                sender.send(b"second:1|c")
            relay.fault = Fault.NONE
            sender.send(b"third:1|c")
            wait_until(lambda: listener.metrics("third"), "it is passed on", 5)
        assert [metric.name for metric in listener.metrics()] == ["first", "third"]
