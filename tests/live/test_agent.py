"""What the test agent received comes back as plain values, whichever way it was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.live import rest
from tests.live.agent import DatadogAgent, trace_id
from tests.live.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Iterator

RESOURCE = Resource({"service.name": "churn"})


@pytest.fixture(scope="module")
def running() -> Iterator[DatadogAgent]:
    with Processes() as processes, DatadogAgent(processes) as agent:
        yield agent


@pytest.fixture
def agent(running: DatadogAgent) -> DatadogAgent:
    running.clear()
    return running


TRACE = [
    {
        "name": "batch_model.run",
        "resource": "d.t",
        "service": "churn",
        "trace_id": 255,
        "span_id": 7,
        "parent_id": 0,
        "start": 1,
        "duration": 2,
        "error": 0,
        "metrics": {},
        "meta": {"_dd.p.tid": "0123456789abcdef"},
    }
]
HEADERS = {"X-Datadog-Trace-Count": "1", "Datadog-Meta-Tracer-Version": "4.16.0"}


def test_a_trace_comes_back_with_its_128_bit_id(agent):
    rest.call(f"{agent.apm_url}/v0.4/traces", "PUT", [TRACE], HEADERS)
    assert [span["resource"] for span in agent.spans("batch_model.run")] == ["d.t"]
    assert trace_id(agent.traces()[0]) == "0123456789abcdef00000000000000ff"
    agent.clear()
    assert agent.traces() == []


def test_it_refuses_what_a_tracer_would_not_send(agent):
    with pytest.raises(rest.RestError, match="trace_count_header"):
        rest.call(f"{agent.apm_url}/v0.4/traces", "PUT", [TRACE], HEADERS | {"X-Datadog-Trace-Count": "2"})


def test_otlp_spans_come_back_flat_with_hex_ids(agent):
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{agent.otlp_url}/v1/traces")))
    tracer = provider.get_tracer("test")
    attributes = {"rows": 5, "tier": "2", "stages": ["a", "b"]}
    with (
        tracer.start_as_current_span("run", attributes=attributes) as run,
        tracer.start_as_current_span("stage") as stage,
    ):
        stage.add_event("stale", {"feed": "weather"})
    provider.shutdown()
    (sent_run,), (sent_stage,) = agent.otlp_spans("run"), agent.otlp_spans("stage")
    assert sent_run["trace_id"] == f"{run.get_span_context().trace_id:032x}"
    assert (sent_run["parent_span_id"], sent_stage["parent_span_id"]) == ("", sent_run["span_id"])
    assert sent_run["attributes"] == attributes
    assert sent_run["resource"]["service.name"] == "churn"
    assert sent_run["start_time_unix_nano"] == run.start_time
    assert sent_stage["events"][0]["attributes"] == {"feed": "weather"}


def test_otlp_metrics_come_back_by_data_point(agent):
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{agent.otlp_url}/v1/metrics"))
    provider = MeterProvider([reader], resource=RESOURCE)
    meter = provider.get_meter("test")
    meter.create_counter("started", unit="{run}").add(3, {"model": "churn"})
    meter.create_histogram("duration", unit="s").record(2.5)
    provider.shutdown()
    (started,), (duration,) = agent.otlp_metrics("started"), agent.otlp_metrics("duration")
    assert (started["kind"], started["value"], started["unit"]) == ("sum", 3.0, "{run}")
    assert (started["attributes"], started["resource"]["service.name"]) == ({"model": "churn"}, "churn")
    assert (duration["kind"], int(duration["count"]), duration["sum"]) == ("histogram", 1, 2.5)


def test_otlp_logs_come_back_with_a_plain_body(agent):
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(f"{agent.otlp_url}/v1/logs")))
    provider.get_logger("test").emit(body="finished", attributes={"rows": 5}, severity_text="INFO")
    provider.shutdown()
    (record,) = agent.otlp_logs()
    assert (record["body"], record["attributes"], record["severity_text"]) == ("finished", {"rows": 5}, "INFO")
    assert record["resource"]["service.name"] == "churn"
