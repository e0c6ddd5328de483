"""
Signals to Datadog's OTLP intake, for hosts without an Agent and without a collector.

Sources: https://docs.datadoghq.com/opentelemetry/setup/otlp_ingest/ and below it `traces`, `metrics` and `logs`. Each
signal goes to `https://otlp.<site>/v1/<signal>` as protobuf. Of traces the intake takes 3.2 MB at once, the name of a
span for its operation, and computes trace metrics if `compute_stats` says so. Metrics are deltas, 500 KB at once, or
5 MB that were compressed; of values with the same name, tags and second it keeps the last: see `seconds`. Logs have
the limits of the intake of logs.

The exporters of the OpenTelemetry SDK are not used: they know no limit in bytes, and take the key along where an answer
leads them. Their encoders are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import groupby
from typing import Any

from batch_observability.config import Settings
from batch_observability.export.intake import REMEDY, Answer, IntakeError, otlp_address, post
from batch_observability.export.otlp_sdk import logs, metrics, resources, spans
from batch_observability.export.seconds import Seconds
from batch_observability.export.signals import LOGS, METRICS, TRACES, Batch, Point
from batch_observability.export.target import ExportError, otlp_switched_off

_NS = 10**9
# Below what the intake takes, before compression; metrics of a run are seldom a tenth of that.
_MAX_BYTES = {TRACES: 3_000_000, METRICS: 450_000, LOGS: 4_500_000}
_MAX_ITEMS = {LOGS: 1000}
_HEADERS = {
    TRACES: {"compute_stats": "true"},
    # The tags of a metric are a closed list: what OTEL_RESOURCE_ATTRIBUTES says is not in it.
    METRICS: {"dd-otel-metric-config": '{"resource_attributes_as_tags":false,"histograms":{"mode":"distributions"}}'},
    LOGS: {},
}
# What is wrong with the data will be wrong the next time.
_NEVER = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY)
_TRACES_TOO = f"{REMEDY}, and ask Datadog whether your organisation may send traces by OTLP: it may be a preview"


class AgentlessTarget:
    """
    Datadog's OTLP intake.

    Args:
        environ: `DD_API_KEY`, `DD_SITE`, and `OTEL_<SIGNAL>_EXPORTER`, which may be none.
        settings: where the intake is, if it is not that of the site, and the folder where seconds are taken.
    """

    name = "agentless"

    def __init__(self, environ: Mapping[str, str], settings: Settings) -> None:
        self._environ = environ
        self._settings = settings
        self._seconds = Seconds(settings.state_path)

    def send(self, batch: Batch) -> None:
        """Send the spans, points and log records of a batch."""
        reasons: dict[str, str] = {}
        uncertain, rejected = False, []
        for signal, items in (
            (TRACES, batch.spans),
            (METRICS, _by_series(batch.points)),
            (LOGS, batch.logs),
        ):
            if not items or otlp_switched_off(self._environ, signal.upper()):
                continue
            try:
                reason = self._send(signal, batch, items)
                rejected.append(bool(reason))
            except IntakeError as error:
                reason = str(error)
                rejected.append(False)
                uncertain = uncertain or error.uncertain
            if reason:
                reasons[signal] = reason
        if reasons:
            raise ExportError(reasons, uncertain=uncertain, rejected=all(rejected))

    def _send(self, signal: str, batch: Batch, items: Sequence[Any]) -> str:
        """Send one signal; return why some of it will never be taken, or ""."""
        url = f"{otlp_address(self._environ, self._settings.agentless_url)}/v1/{signal}"
        encode = {TRACES: _traces, METRICS: _points, LOGS: _records}[signal]
        return _Way(signal, url, self._environ, batch, encode, self._seconds).send(items)


@dataclass
class _Way:
    """One signal of a batch on its way, in as many requests as it needs."""

    signal: str
    url: str
    environ: Mapping[str, str]
    batch: Batch
    encode: Callable[[Batch, Sequence[Any]], Any]
    seconds: Seconds
    taken: int = field(default=0, init=False)

    def send(self, items: Sequence[Any]) -> str:
        """Send some; return why some of them will never be taken, or ""."""
        if len(items) > _MAX_ITEMS.get(self.signal, len(items)):
            return self._in_halves(items)
        request = self.encode(self.batch, items)
        if request.ByteSize() > _MAX_BYTES[self.signal] and len(items) > 1:
            return self._in_halves(items)
        if self.signal == METRICS:
            self._stamp(request, items)
        answer = self._post(request.SerializeToString())
        if answer.taken:
            self.taken += 1
            return self._left_out(answer)
        if answer.too_large and len(items) > 1:
            return self._in_halves(items)
        problem = f"Datadog's OTLP intake answered {answer} to the {self.signal}"
        if answer.key_refused:
            problem = f"{problem}: {_TRACES_TOO if self.signal == TRACES else REMEDY}"
        if answer.status in _NEVER:
            return problem
        # A second time the part that was taken would count twice.
        raise IntakeError(problem, uncertain=bool(self.taken))

    def _left_out(self, answer: Answer) -> str:
        """Return what the intake says that it left out of a request, which is not to be sent again; or ""."""
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

        responses: dict[str, tuple[Any, str]] = {
            TRACES: (ExportTraceServiceResponse, "rejected_spans"),
            METRICS: (ExportMetricsServiceResponse, "rejected_data_points"),
            LOGS: (ExportLogsServiceResponse, "rejected_log_records"),
        }
        response, number = responses[self.signal]
        try:
            partial = response.FromString(answer.body).partial_success
        except Exception:
            # It is no protobuf, but the request was taken.
            return ""
        if not (left_out := getattr(partial, number)):
            return ""
        return f"Datadog's OTLP intake left {left_out} out of the {self.signal}: {partial.error_message}"

    def _in_halves(self, items: Sequence[Any]) -> str:
        half = len(items) // 2
        first, second = self.send(items[:half]), self.send(items[half:])
        return first or second

    def _stamp(self, request: Any, items: Sequence[tuple[Point, ...]]) -> None:
        """Give all values of a request a second in which nobody has sent the like."""
        second = self.seconds.take(same[0] for same in items)
        if second is None:
            raise IntakeError("in each second of the last hour such metrics were sent already: they have to wait")
        for resource in request.resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                for point in getattr(metric, metric.WhichOneof("data")).data_points:
                    point.start_time_unix_nano, point.time_unix_nano = (second - 1) * _NS, second * _NS

    def _post(self, body: bytes) -> Answer:
        headers = {"Content-Type": "application/x-protobuf", **_HEADERS[self.signal]}
        try:
            return post("Datadog's OTLP intake", self.url, body, headers, self.environ)
        except IntakeError as error:
            raise IntakeError(str(error), uncertain=error.uncertain or bool(self.taken)) from None


def _by_series(points: Sequence[Point]) -> list[tuple[Point, ...]]:
    """Put together what must go in one request: a second one would overwrite it."""

    def series(point: Point) -> tuple[str, list[tuple[str, str]]]:
        return point.metric.name, sorted(point.tags.items())

    return [tuple(same) for _, same in groupby(sorted(points, key=series), key=series)]


def _traces(batch: Batch, items: Sequence[Any]) -> Any:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    return encode_spans(spans(replace(batch, spans=tuple(items)), resources()))


def _points(batch: Batch, items: Sequence[tuple[Point, ...]]) -> Any:
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

    points = tuple(point for same in items for point in same)
    return encode_metrics(metrics(replace(batch, points=points), resources()))


def _records(batch: Batch, items: Sequence[Any]) -> Any:
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

    return encode_logs(logs(replace(batch, logs=tuple(items)), resources()))
