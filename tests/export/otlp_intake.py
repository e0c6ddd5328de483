"""
Stands in for Datadog's OTLP intake: refuses what the real one refuses, and keeps of metrics what the real one keeps.

As documented: the key, protobuf only, 3.2 MB of traces, 500 KB of metrics or 5 MB that were compressed, deltas only; of
values with the same name, tags, host and second the last is kept.
"""

from __future__ import annotations

import gzip
import http.server
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MAX_BYTES = {"traces": 3_200_000, "metrics": 5_000_000, "logs": 5_000_000}
MAX_RAW_BYTES = {"metrics": 500_000}
_REQUESTS = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
_DELTA = 1


class Series(NamedTuple):
    """What names one value: of two that share all of it only the last is kept."""

    name: str
    tags: frozenset[tuple[str, str]]
    host: str
    second: int


class Intake:
    """
    What the intake was sent.

    Attributes:
        url: of it, as BATCHOBS_AGENTLESS_URL.
        statuses: by signal, to be answered one after the other before it takes anything.
        says: what it says with every answer.
        requests: signal and headers of each.
        accepted: bytes, before compression, of each request that was taken, by signal.
        spans, logs: as dicts, with their resource.
        values: of metrics, as they are kept.
    """

    def __init__(self, port: int) -> None:
        self.key = secrets.token_hex(16)
        self.url = f"http://127.0.0.1:{port}"
        self.environ = {"DD_API_KEY": self.key}
        self.statuses: dict[str, list[int]] = {}
        self.says = b"{}"
        self.max_bytes = dict(MAX_BYTES)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.accepted: dict[str, list[int]] = {"traces": [], "metrics": [], "logs": []}
        self.spans: list[dict[str, Any]] = []
        self.logs: list[dict[str, Any]] = []
        self.values: dict[Series, Any] = {}
        self.overwritten: list[Series] = []
        self._lock = threading.Lock()

    def count(self, name: str, **tags: str) -> float:
        """Return the sum of what is kept of a metric with these tags."""
        wanted = set(tags.items())
        return sum(value for series, value in self.values.items() if series.name == name and wanted <= series.tags)

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Take a request; return the status."""
        signal = path.removeprefix("/v1/")
        with self._lock:
            self.requests.append((signal, headers))
            if statuses := self.statuses.get(signal):
                return statuses.pop(0)
            return self._take(signal, headers, body)

    def _take(self, signal: str, headers: dict[str, str], body: bytes) -> int:
        if headers.get("dd-api-key") != self.key:
            return 403
        if signal not in _REQUESTS:
            return 404
        if headers.get("content-type") != "application/x-protobuf":
            return 415
        compressed = headers.get("content-encoding") == "gzip"
        raw = gzip.decompress(body) if compressed else body
        limits = (self.max_bytes, MAX_RAW_BYTES if not compressed else {})
        if any(len(raw) > limit.get(signal, len(raw)) for limit in limits):
            return 413
        request = _REQUESTS[signal].FromString(raw)
        if signal == "traces":
            self._take_spans(request)
        elif signal == "logs":
            self._take_logs(request)
        elif not self._take_values(request):
            return 400
        self.accepted[signal].append(len(raw))
        return 202

    def _take_spans(self, request: Any) -> None:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += [_as_dict(span, resource) for span in scope.spans]

    def _take_logs(self, request: Any) -> None:
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                self.logs += [
                    {**_as_dict(record, resource), "body": record.body.string_value} for record in scope.log_records
                ]

    def _take_values(self, request: Any) -> bool:
        found: list[tuple[Series, Any]] = []
        for resource in request.resource_metrics:
            host = _attributes(resource.resource).get("host.name", "")
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                if kind != "gauge" and data.aggregation_temporality != _DELTA:
                    return False
                for point in data.data_points:
                    second = point.time_unix_nano // 10**9
                    series = Series(metric.name, frozenset(_attributes(point).items()), host, second)
                    found.append((series, point.as_double if kind in {"sum", "gauge"} else (point.count, point.sum)))
        self.overwritten += [series for series, _ in found if series in self.values]
        self.values.update(found)
        return True


def _attributes(holder: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value") or "", None) for item in holder.attributes}


def _as_dict(message: Any, holder: Any) -> dict[str, Any]:
    ids = {name: getattr(message, name).hex() for name in ("trace_id", "span_id")}
    known = MessageToDict(message, preserving_proto_field_name=True)
    return {**known, **ids, "attributes": _attributes(message), "resource": _attributes(holder.resource)}


@contextmanager
def serving() -> Iterator[Intake]:
    """Serve an intake on a free port of 127.0.0.1."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(intake.answer(self.path, headers, body))
            self.send_header("Content-Length", str(len(intake.says)))
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
            self.wfile.write(intake.says)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        intake = Intake(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield intake
        finally:
            server.shutdown()
            thread.join()
