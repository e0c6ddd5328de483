"""
Which failures of an OTLP endpoint leave open whether a request has arrived: metrics have no ids, so that what may have
arrived is not sent again, and what has certainly not is.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import struct
import threading
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc

from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery
from batch_observability.export.otlp import OtlpTarget
from batch_observability.export.signals import METRICS, TRACES
from batch_observability.export.target import Choice, ExportError
from tests.export.batches import run_batch
from tests.export.sender import waiting

# Linux sends a reset instead of a tidy end if nothing may linger.
NO_LINGER = struct.pack("ii", 1, 0)
TIMEOUT_S = "0.8"


def reset(connection):
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        connection.close()


@pytest.fixture
def collector():
    """Return a function that starts an HTTP collector which answers by path; returns port and paths of requests."""
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(over.set)

        def start(shared=None, **own):
            answers, requests = own if shared is None else shared, []

            class Handler(http.server.BaseHTTPRequestHandler):
                def do_POST(self):
                    self.rfile.read(int(self.headers["Content-Length"]))
                    signal = self.path.rpartition("/")[2]
                    requests.append(signal)
                    answer = answers.get(signal, answers.get("all"))
                    self.close_connection = True
                    if answer == "reset":
                        reset(self.connection)
                    elif answer == "silent":
                        over.wait(20)
                    elif answer != "close":
                        self.send_response(answer)
                        self.send_header("Content-Length", "0")
                        self.end_headers()

                def log_message(self, *_):
                    """Say nothing."""

                def finish(self):
                    with contextlib.suppress(OSError, ValueError):
                        super().finish()

            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            server.handle_error = lambda *_: None
            server.block_on_close = False
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(server.shutdown)
            return server.server_address[1], requests

        yield start


@pytest.fixture
def endpoint(monkeypatch):
    """Return a function that sets the endpoint, and makes a target for it."""

    def choose(url, **variables):
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TIMEOUT": TIMEOUT_S, **variables}
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return OtlpTarget(environ)

    return choose


def failure(target, signal=METRICS):
    with pytest.raises(ExportError) as caught:
        target.send(run_batch().only(frozenset({signal})))
    assert caught.value.signals == {signal}
    # The exporter says why once in 20 s by itself.
    assert not str(caught.value).endswith("FAILURE")
    return caught.value


# --- HTTP --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500, 502, 503])
def test_whatever_is_answered_is_certain(collector, endpoint, status):
    port, _ = collector(all=status)
    target = endpoint(f"http://127.0.0.1:{port}")
    assert not failure(target).uncertain
    assert not failure(target).uncertain


@pytest.mark.parametrize("answer", ["reset", "close", "silent"])
def test_metrics_without_an_answer_are_uncertain_and_were_sent_once(collector, endpoint, answer):
    port, requests = collector(all=answer)
    assert failure(endpoint(f"http://127.0.0.1:{port}")).uncertain
    assert requests == ["metrics"]


def test_spans_without_an_answer_are_uncertain_too(collector, endpoint):
    port, _ = collector(all="reset")
    assert failure(endpoint(f"http://127.0.0.1:{port}"), TRACES).uncertain


def test_nobody_there_is_certain(refused, endpoint):
    assert not failure(endpoint(f"http://127.0.0.1:{refused}")).uncertain


def test_a_name_that_nobody_knows_is_certain(endpoint, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert not failure(endpoint("http://collector.invalid:4318")).uncertain


def test_an_endpoint_that_speaks_no_tls_or_is_no_address_is_certain(collector, endpoint):
    port, requests = collector(all=200)
    assert not failure(endpoint(f"https://127.0.0.1:{port}")).uncertain
    assert not failure(endpoint("http://")).uncertain
    assert requests == []


def test_a_certain_failure_after_an_uncertain_one_is_certain(collector, endpoint):
    answers = {"all": "reset"}
    port, _ = collector(answers)
    target = endpoint(f"http://127.0.0.1:{port}")
    assert failure(target).uncertain
    answers["all"] = 500
    assert not failure(target).uncertain


def test_what_becomes_of_one_signal_says_nothing_of_another_that_is_sent_beside_it(collector, endpoint, tmp_path):
    port, requests = collector(traces="reset", metrics=500, logs=200)
    endpoint(f"http://127.0.0.1:{port}")
    own = Delivery(Settings(state_dir=str(tmp_path)), Choice(("otlp",), ()), patience_s=0)
    for _ in range(3):
        own.deliver(run_batch())
    assert waiting(tmp_path) == ["otlp.metrics"] * 3 + ["otlp.traces"] * 3
    assert {*requests} == {"traces", "metrics", "logs"}
    assert not list((tmp_path / "spool").glob("*/*dropped*"))


def test_metrics_without_an_answer_are_dropped_and_counted_and_spans_kept(collector, endpoint, tmp_path):
    port, _ = collector(traces="reset", metrics="reset", logs=200)
    endpoint(f"http://127.0.0.1:{port}")
    own = Delivery(Settings(state_dir=str(tmp_path)), Choice(("otlp",), ()), patience_s=0)
    own.deliver(run_batch())
    assert waiting(tmp_path) == ["otlp.metrics", "otlp.traces"]
    (count,) = (tmp_path / "spool" / "otlp").glob("*metrics.jsonl")
    assert "telemetry-dropped" in count.name


# --- gRPC --------------------------------------------------------------------------------------------------------


class Proxy:
    """Passes connections on to a port, until it breaks them all."""

    def __init__(self, upstream):
        self._upstream = upstream
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open = []
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._upstream))
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass_on(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def break_all(self):
        # A thread that waits in recv keeps a connection open unless it is shut down.
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            reset(connection)
        self._open.clear()

    def close(self):
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.break_all()


@pytest.fixture
def grpc_collector():
    """Return a function that starts a gRPC collector which does something with each request; returns port and count."""
    with contextlib.ExitStack() as stack:

        def start(act):
            requests = []

            class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
                def Export(self, request, context):  # noqa: N802  (gRPC's name)
                    requests.append(request)
                    act(context)
                    return metrics_service_pb2.ExportMetricsServiceResponse()

            server = grpc.server(futures.ThreadPoolExecutor(2))
            metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            stack.callback(lambda: server.stop(0).wait())
            return port, requests

        yield start


def by_grpc(endpoint, port):
    return endpoint(f"http://127.0.0.1:{port}", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.UNAVAILABLE, "data refused due to high memory usage"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests"),
        (grpc.StatusCode.INVALID_ARGUMENT, "no such metric"),
        (grpc.StatusCode.INTERNAL, "exporter failed"),
    ],
)
def test_whatever_is_answered_by_grpc_is_certain(grpc_collector, endpoint, code, words):
    port, _ = grpc_collector(lambda context: context.abort(code, words))
    target = by_grpc(endpoint, port)
    for _ in range(2):
        error = failure(target)
        assert not error.uncertain
        assert words in str(error)


def test_nobody_there_is_certain_by_grpc(refused, endpoint):
    target = by_grpc(endpoint, refused)
    assert not failure(target).uncertain
    assert not failure(target).uncertain


def test_no_answer_in_time_is_uncertain_by_grpc(grpc_collector, endpoint):
    over = threading.Event()
    port, requests = grpc_collector(lambda _: over.wait(20))
    try:
        target = by_grpc(endpoint, port)
        assert failure(target).uncertain
        assert failure(target).uncertain
        assert len(requests) == 2
    finally:
        over.set()


def test_a_connection_that_breaks_below_a_request_is_uncertain_by_grpc_and_it_was_sent_once(grpc_collector, endpoint):
    proxies = []
    port, requests = grpc_collector(lambda _: proxies[0].break_all())
    proxies.append(Proxy(port))
    try:
        target = by_grpc(endpoint, proxies[0].port)
        assert failure(target).uncertain
        assert len(requests) == 1
        assert failure(target).uncertain
        assert len(requests) == 2
    finally:
        proxies[0].close()


def test_metrics_that_arrive_by_grpc_are_no_failure(grpc_collector, endpoint):
    port, requests = grpc_collector(lambda _: None)
    by_grpc(endpoint, port).send(run_batch().only(frozenset({METRICS})))
    assert len(requests) == 1
