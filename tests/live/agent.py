"""
Datadog's own test agent (ddapm-test-agent) as a context manager, and what it received as plain Python values.

It takes traces as the Agent does and OTLP as a collector does, and refuses what the Agent would refuse. For what
it lacks, an intake of DogStatsD, see `tests.live.dogstatsd`.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.live import rest
from tests.live.processes import LOOPBACK, LiveError, Process, Processes, free_ports, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKS = (
    "trace_count_header",
    "meta_tracer_version_header",
    "trace_content_length",
    "trace_dd_service",
    "meta_events_is_valid_json",
)

Span = dict[str, Any]


class DatadogAgent:
    """
    Datadog's test agent on free ports of 127.0.0.1; a context manager.

    `apm_url` is for DD_TRACE_AGENT_URL, `otlp_url` for OTEL_EXPORTER_OTLP_ENDPOINT (HTTP); `web_url` shows
    traces in a browser, if `web_ui` was asked for. The executable is .venv-agent/bin/ddapm-test-agent of this
    repository, or what the environment variable DDAPM_TEST_AGENT names.
    """

    def __init__(self, processes: Processes, *, web_ui: bool = False, stall_s: float = 0) -> None:
        """Prepares an agent among `processes`; with `stall_s` it answers every trace so many seconds late."""
        apm, otlp, self._grpc, web = free_ports(4)
        self.apm_url = f"http://{LOOPBACK}:{apm}"
        self.otlp_url = f"http://{LOOPBACK}:{otlp}"
        self.web_url = f"http://{LOOPBACK}:{web}" if web_ui else ""
        self._ports = ["--port", f"{apm}", "--otlp-http-port", f"{otlp}", "--otlp-grpc-port", f"{self._grpc}"]
        self._ports += ["--web-ui-port", f"{web}"] if web_ui else []
        self._stall_s = stall_s
        self._processes = processes
        self._process: Process | None = None

    def __enter__(self) -> Self:
        """Starts the agent and waits until it answers on both ports."""
        snapshots = self._processes.folder / "snapshots"
        snapshots.mkdir(exist_ok=True)
        command = [
            str(_executable()),
            "--host",
            LOOPBACK,
            "--snapshot-dir",
            str(snapshots),
            "--max-requests",
            "5000",
        ]
        # Read from the environment only: the flag --enabled-checks is ignored (ddapm-test-agent 1.69).
        extra = {"ENABLED_CHECKS": ",".join(CHECKS)}
        if self._stall_s:
            extra["DD_TEST_STALL_REQUEST_SECONDS"] = str(self._stall_s)
        self._process = process = self._processes.start("datadog-agent", [*command, *self._ports], extra)

        def answers() -> bool:
            process.check()
            return rest.reachable(f"{self.apm_url}/info") and rest.reachable(f"{self.otlp_url}/test/session/traces")

        wait_until(answers, "the Datadog test agent answers", 30, process.tail)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stops the agent."""
        self.stop()

    def stop(self) -> None:
        """Stops the agent, as when a real one dies; what it received is gone. Stopping twice does no harm."""
        if self._process:
            self._processes.stop(self._process)
            self._process = None

    def traces(self) -> list[list[Span]]:
        """Returns what came on the APM port: a list of spans for each trace, as the tracer sent them."""
        traces: list[list[Span]] = rest.call(f"{self.apm_url}/test/session/traces")
        return traces

    def spans(self, name: str | None = None) -> list[Span]:
        """Returns the spans of all traces, those with this operation name or all."""
        return [span for trace in self.traces() for span in trace if name is None or span["name"] == name]

    def requests(self) -> list[dict[str, Any]]:
        """Returns every request on either port: method, url, headers, body (base64)."""
        requests: list[dict[str, Any]] = rest.call(f"{self.apm_url}/test/session/requests")
        return requests

    def otlp_spans(self, name: str | None = None) -> list[Span]:
        """
        Returns the spans that came by OTLP, flat.

        Ids are hex digits, `attributes` and `resource` dicts, times integers (nanoseconds); the rest is as in
        OTLP/JSON with names in snake_case.
        """
        spans = [
            {
                **span,
                **_hex_ids(span),
                "start_time_unix_nano": int(span.get("start_time_unix_nano", 0)),
                "end_time_unix_nano": int(span.get("end_time_unix_nano", 0)),
                "attributes": attributes(span),
                "events": [{**event, "attributes": attributes(event)} for event in span.get("events", [])],
                "links": [{**_hex_ids(link), "attributes": attributes(link)} for link in span.get("links", [])],
                "resource": resource,
            }
            for resource, span in self._otlp("traces", "resource_spans", "scope_spans", "spans")
        ]
        return [span for span in spans if name is None or span["name"] == name]

    def otlp_metrics(self, name: str | None = None) -> list[dict[str, Any]]:
        """
        Returns the metrics that came by OTLP, flat: one dict for each data point.

        `name`, `unit`, `kind` (sum, gauge, histogram, exponential_histogram), `temporality`, `attributes`,
        `resource`, and the point as it came: `value` (sum and gauge), `count`, `sum`, `min`, `max`,
        `bucket_counts`...
        """
        points = []
        for resource, metric in self._otlp("metrics", "resource_metrics", "scope_metrics", "metrics"):
            for kind in ("sum", "gauge", "histogram", "exponential_histogram"):
                for point in metric.get(kind, {}).get("data_points", []):
                    value = point.get("as_double", point.get("as_int"))
                    points.append(
                        {
                            **point,
                            "name": metric["name"],
                            "unit": metric.get("unit", ""),
                            "kind": kind,
                            "temporality": metric[kind].get("aggregation_temporality"),
                            "value": None if value is None else float(value),
                            "attributes": attributes(point),
                            "resource": resource,
                        }
                    )
        return [point for point in points if name is None or point["name"] == name]

    def otlp_logs(self) -> list[dict[str, Any]]:
        """Returns the log records that came by OTLP, flat; `body` is plain, ids are hex digits."""
        return [
            {
                **record,
                **_hex_ids(record),
                "body": _plain(record.get("body", {})),
                "attributes": attributes(record),
                "resource": resource,
            }
            for resource, record in self._otlp("logs", "resource_logs", "scope_logs", "log_records")
        ]

    def clear(self) -> None:
        """Forgets all that came on either port."""
        rest.call(f"{self.apm_url}/test/session/clear")

    def _otlp(self, signal: str, resources: str, scopes: str, items: str) -> Iterator[tuple[dict[str, Any], Span]]:
        for request in rest.call(f"{self.otlp_url}/test/session/{signal}"):
            for resource in request.get(resources, []):
                for scope in resource.get(scopes, []):
                    for item in scope.get(items, []):
                        yield attributes(resource.get("resource", {})), item


def trace_id(trace: list[Span]) -> str:
    """
    Returns the 32 hex digits of a trace's id.

    The upper half travels as a tag on the first span of each payload, every span holds the lower one.
    """
    upper = next((span["meta"]["_dd.p.tid"] for span in trace if "_dd.p.tid" in span.get("meta", {})), "0" * 16)
    return f"{upper}{trace[0]['trace_id']:016x}"


def attributes(holder: dict[str, Any]) -> dict[str, Any]:
    """Returns OTLP's list of keys and values as a dict."""
    return {item["key"]: _plain(item.get("value", {})) for item in holder.get("attributes", [])}


def _plain(value: dict[str, Any]) -> Any:
    """Returns what an OTLP AnyValue holds."""
    for kind, held in value.items():
        match kind:
            case "int_value":
                return int(held)
            case "array_value":
                return [_plain(item) for item in held.get("values", [])]
            case "kvlist_value":
                return {item["key"]: _plain(item.get("value", {})) for item in held.get("values", [])}
            case _:
                return held
    return None


def _hex_ids(holder: dict[str, Any]) -> dict[str, str]:
    """Returns the ids of a span, link or record as hex digits; protobuf's JSON has them in base64."""
    names = ("trace_id", "span_id", "parent_span_id")
    return {name: base64.b64decode(holder[name]).hex() if holder.get(name) else "" for name in names}


def _executable() -> Path:
    path = Path(os.environ.get("DDAPM_TEST_AGENT") or REPOSITORY / ".venv-agent" / "bin" / "ddapm-test-agent")
    if not path.exists():
        raise LiveError(f"there is no Datadog test agent at {path}: run make setup, or set DDAPM_TEST_AGENT")
    return path
