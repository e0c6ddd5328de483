"""The spool's documents, read by the official protobuf JSON parser: what a Collector would make of them."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import replace

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from batch_observability import schema
from batch_observability.export.otlp_json import encode
from batch_observability.export.signals import Batch, Point, Span
from tests.export.batches import ENV, VERSION, run_batch

NOW_NS = 1_790_000_000_123_456_789
REQUESTS = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
    "events": ExportLogsServiceRequest,
}
IDS = {"traceId", "spanId", "parentSpanId"}


def parse(signal, document):
    """
    Parse a document strictly: an unknown or misspelt field is an error.

    OTLP/JSON writes ids in hex where protobuf's own JSON has base64; all else is the same.
    """

    def base64_ids(value):
        if isinstance(value, dict):
            return {
                key: base64.b64encode(bytes.fromhex(held)).decode() if key in IDS else base64_ids(held)
                for key, held in value.items()
            }
        return [base64_ids(item) for item in value] if isinstance(value, list) else value

    text = json.dumps(base64_ids(json.loads(json.dumps(document))))
    return json_format.Parse(text, REQUESTS[signal]())


def plain(attributes):
    """Return a list of keys and values as a dict."""

    def held(value):
        kind = value.WhichOneof("value")
        return plain(value.kvlist_value.values) if kind == "kvlist_value" else getattr(value, kind)

    return {attribute.key: held(attribute.value) for attribute in attributes}


@pytest.fixture(scope="module")
def batch():
    return run_batch()


@pytest.fixture(scope="module")
def documents(batch):
    return encode(batch, NOW_NS)


@pytest.fixture(scope="module")
def spans(documents):
    (resource,) = parse("traces", documents["traces"]).resource_spans
    return {plain(span.attributes)["resource.name"]: span for span in resource.scope_spans[0].spans}


@pytest.fixture(scope="module")
def metrics(documents):
    (resource,) = parse("metrics", documents["metrics"]).resource_metrics
    return resource.scope_metrics[0].metrics


def test_there_is_a_document_for_each_signal_that_the_batch_holds(documents):
    assert set(documents) == set(REQUESTS)
    assert encode(Batch("s", "1", "", "empty"), NOW_NS) == {}


@pytest.mark.parametrize(
    ("signal", "resources"),
    [
        ("traces", "resource_spans"),
        ("metrics", "resource_metrics"),
        ("logs", "resource_logs"),
        ("events", "resource_logs"),
    ],
)
def test_the_resource_names_service_version_environment_and_host(batch, documents, signal, resources):
    (resource,) = getattr(parse(signal, documents[signal]), resources)
    attributes = plain(resource.resource.attributes)
    assert attributes.pop("host.name")
    assert attributes == {
        "service.name": batch.service,
        "service.version": VERSION,
        "deployment.environment.name": ENV,
    }


def test_spans_keep_ids_times_and_parents(batch, spans):
    run, outer, inner = batch.spans
    for span, original in zip((spans["dag.täsk"], spans["score"], spans["predict"]), (run, outer, inner), strict=True):
        assert int.from_bytes(span.trace_id) == original.trace_id
        assert len(span.trace_id) == 16
        assert int.from_bytes(span.span_id) == original.span_id
        assert int.from_bytes(span.parent_span_id) == original.parent_id
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (original.start_ns, original.end_ns)


def test_a_root_has_no_parent_and_small_ids_keep_their_length():
    span = Span(schema.DAG_RUN, "dag", "airflow", "", 1, 2, None, 5, 6)
    (resource,) = parse("traces", encode(Batch("airflow", "", "", "d", spans=(span,)), NOW_NS)["traces"]).resource_spans
    (found,) = resource.scope_spans[0].spans
    assert found.parent_span_id == b""
    assert (found.trace_id, found.span_id) == ((1).to_bytes(16), (2).to_bytes(8))
    assert found.kind == found.SPAN_KIND_INTERNAL
    assert "service.version" not in plain(resource.resource.attributes)


def test_a_run_is_a_measured_consumer_with_its_attributes(spans):
    run = spans["dag.täsk"]
    attributes = plain(run.attributes)
    assert run.kind == run.SPAN_KIND_CONSUMER
    assert (attributes["span.type"], attributes["_dd.measured"]) == ("worker", 1)
    assert (run.name, attributes["operation.name"]) == ("batch_model.run", "batch_model.run")
    assert attributes["batch_model.note"] == 'smørrebrød 🚂 "quoted"'
    assert (attributes["batch_model.rows.read"], attributes["batch_model.cpu.time"]) == (48210, 1.25)
    assert attributes["batch_model.flag"] is True
    assert "span.type" not in plain(spans["score"].attributes)


def test_errors_events_and_links(batch, spans):
    run = spans["dag.täsk"]
    assert (run.status.code, run.status.message) == (run.status.STATUS_CODE_ERROR, "no such airport: «XYZ»")
    assert plain(run.attributes)["error.type"] == "ValueError"
    assert spans["score"].status.code == run.status.STATUS_CODE_UNSET
    assert [(event.name, event.time_unix_nano, plain(event.attributes)) for event in run.events] == [
        (event.name, event.time_ns, event.attributes) for event in batch.spans[0].events
    ]
    ((trace_id, span_id),) = batch.spans[0].links
    (link,) = run.links
    assert (int.from_bytes(link.trace_id), int.from_bytes(link.span_id)) == (trace_id, span_id)


def test_spans_of_several_services_have_a_resource_each(batch):
    other = replace(batch.spans[1], service="airflow", version="")
    request = parse("traces", encode(replace(batch, spans=(*batch.spans, other)), NOW_NS)["traces"])
    services = [plain(resource.resource.attributes)["service.name"] for resource in request.resource_spans]
    assert services == [batch.service, "airflow"]


def test_the_first_resource_is_the_batch_s_own_and_spans_keep_their_order(batch):
    run, outer, inner = batch.spans
    mixed = (replace(run, service="airflow"), outer, replace(inner, service="airflow"))
    request = parse("traces", encode(replace(batch, spans=mixed), NOW_NS)["traces"])
    found = [
        (plain(resource.resource.attributes)["service.name"], [span.name for span in scope.spans])
        for resource in request.resource_spans
        for scope in resource.scope_spans or [resource.scope_spans.add()]
    ]
    assert found == [
        (batch.service, []),
        ("airflow", [run.operation]),
        (batch.service, [outer.operation]),
        ("airflow", [inner.operation]),
    ]


def test_every_metric_type_is_a_delta_or_a_gauge(batch, metrics):
    assert [metric.name for metric in metrics] == [point.metric.name for point in batch.points]
    for metric, point in zip(metrics, batch.points, strict=True):
        kind = {"count": "sum", "gauge": "gauge", "distribution": "histogram"}[point.metric.type]
        assert metric.WhichOneof("data") == kind
        data = getattr(metric, kind)
        (data_point,) = data.data_points
        assert data_point.time_unix_nano == NOW_NS
        assert plain(data_point.attributes) == point.tags
        assert (metric.unit, metric.description) == (point.metric.unit, point.metric.description)
        if kind == "histogram":
            assert (data_point.count, data_point.sum, list(data_point.bucket_counts)) == (1, point.value, [1])
            assert data_point.min == data_point.max == point.value
        else:
            assert data_point.as_double == point.value
        assert kind == "gauge" or data.aggregation_temporality == 1
        assert kind != "sum" or data.is_monotonic


def test_a_log_record_finds_its_trace_and_nests(batch, documents):
    (resource,) = parse("logs", documents["logs"]).resource_logs
    (record,) = resource.scope_logs[0].log_records
    assert int.from_bytes(record.trace_id) == batch.logs[0].trace_id
    assert int.from_bytes(record.span_id) == batch.logs[0].span_id
    assert (record.severity_number, record.severity_text) == (record.severity_number.__class__(17), "ERROR")
    assert record.time_unix_nano == batch.logs[0].time_ns
    assert record.body.string_value == "batch model run finished"
    assert plain(record.attributes)["batch_model.stages"] == {"score": 2.5, "predict": 0.25}


@pytest.mark.parametrize(("alert_type", "severity"), [("error", 17), ("warning", 13), ("success", 9)])
def test_an_event_is_a_log_record(batch, alert_type, severity):
    event = replace(batch.events[0], alert_type=alert_type)
    (resource,) = parse("events", encode(replace(batch, events=(event,)), NOW_NS)["events"]).resource_logs
    (record,) = resource.scope_logs[0].log_records
    assert record.severity_number == severity
    assert record.body.string_value == "Batch model churn was killed\nline one\nline two: é"
    attributes = plain(record.attributes)
    assert attributes["aggregation_key"] == "churn:killed"
    assert (attributes["title"], attributes["alert_type"]) == (event.title, alert_type)


def test_a_number_beyond_64_bits_can_be_read_back(batch):
    run = replace(batch.spans[0], attributes={schema.ROWS_READ: 2**64})
    point = Point(schema.METRIC_ROWS_READ, 2**64, {})
    documents = encode(replace(batch, spans=(run,), points=(point,)), NOW_NS)
    assert parse("metrics", documents["metrics"])
    assert parse("traces", documents["traces"])


@pytest.mark.parametrize(("number", "text"), [(math.inf, "Infinity"), (-math.inf, "-Infinity"), (math.nan, "NaN")])
def test_a_number_that_json_does_not_have_is_written_as_protobuf_does(batch, number, text):
    run = replace(batch.spans[0], attributes={schema.CPU_TIME: number})
    points = (Point(schema.METRIC_CPU_TIME, number, {}), Point(schema.SLA_MARGIN, number, {}))
    documents = encode(replace(batch, spans=(run,), points=points), NOW_NS)
    assert f'"doubleValue": "{text}"' in json.dumps(documents["traces"], allow_nan=False)
    distribution, gauge = parse("metrics", documents["metrics"]).resource_metrics[0].scope_metrics[0].metrics
    for value in (distribution.histogram.data_points[0].sum, gauge.gauge.data_points[0].as_double):
        assert repr(value) == repr(number)


def test_a_field_may_be_a_list_or_nothing(batch):
    record = replace(batch.logs[0], attributes={"list": [1, "a", None], "none": None})
    (resource,) = parse("logs", encode(replace(batch, logs=(record,)), NOW_NS)["logs"]).resource_logs
    held = {item.key: item.value for item in resource.scope_logs[0].log_records[0].attributes}
    assert [value.WhichOneof("value") for value in held["list"].array_value.values] == [
        "int_value",
        "string_value",
        None,
    ]
    assert held["none"].WhichOneof("value") is None
