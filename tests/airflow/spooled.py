"""Reads back what left the system by the spool: OTLP/JSON documents on disk, as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

RUN, STAGE, TASK, DAG_RUN = "batch_model.run", "batch_model.stage", "airflow.task", "airflow.dag_run"


@dataclass(frozen=True)
class Spooled:
    """One span; ids are hex digits, `parent` is "" for a root."""

    name: str
    resource: str
    service: str
    trace_id: str
    span_id: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    error: str
    events: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        return self.attributes.get("batch_model.outcome", "")

    @property
    def stage(self) -> str:
        return self.attributes.get("batch_model.stage", "")

    @property
    def task_id(self) -> str:
        return self.attributes.get("airflow.task_id", "")

    @property
    def try_number(self) -> int:
        return self.attributes.get("airflow.task_instance.try_number", 0)


def spans(state: Path, name: str | None = None) -> list[Spooled]:
    """Returns all spans below a state folder, or those with this name, in the order in which they began."""
    found = [
        _span(span, attributes(resource["resource"]))
        for document in _documents(state, "traces")
        for resource in document["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    return sorted((span for span in found if name in {None, span.name}), key=lambda span: span.start_ns)


def points(state: Path) -> list[tuple[str, dict[str, Any]]]:
    """Returns name and tags of every value of a metric."""
    return [
        (metric["name"], attributes(point))
        for document in _documents(state, "metrics")
        for resource in document["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
        for kind in ("sum", "gauge", "histogram", "exponentialHistogram")
        for point in metric.get(kind, {}).get("dataPoints", [])
    ]


def attributes(holder: dict[str, Any]) -> dict[str, Any]:
    """Returns OTLP's list of keys and values as a dict."""
    return {item["key"]: _plain(item["value"]) for item in holder.get("attributes", [])}


def _documents(state: Path, signal: str) -> list[dict[str, Any]]:
    files = sorted((state / "spool").glob(f"*/*.{signal}.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _span(span: dict[str, Any], resource: dict[str, Any]) -> Spooled:
    values = attributes(span)
    return Spooled(
        name=span["name"],
        resource=values.get("resource.name", ""),
        service=resource["service.name"],
        trace_id=span["traceId"],
        span_id=span["spanId"],
        parent=span.get("parentSpanId", ""),
        start_ns=int(span["startTimeUnixNano"]),
        end_ns=int(span["endTimeUnixNano"]),
        attributes=values,
        error=values.get("error.type", ""),
        events=[attributes(event).get("message", "") for event in span.get("events", [])],
        links=[link["spanId"] for link in span.get("links", [])],
    )


def _plain(value: dict[str, Any]) -> Any:
    (kind, held), *_ = value.items()
    return int(held) if kind == "intValue" else held
