"""Spans, metrics and logs by OTLP at a real Datadog test agent, over HTTP and gRPC."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest

from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery
from batch_observability.export.otlp import OtlpTarget
from batch_observability.export.signals import LOGS, METRICS, TRACES
from batch_observability.export.target import Choice, ExportError
from tests.export.batches import ENV, VERSION, run_batch
from tests.export.sender import Order, waiting
from tests.live import wait_until

DELTA = {1, "AGGREGATION_TEMPORALITY_DELTA"}
EVERYTHING = frozenset({TRACES, METRICS, LOGS})


def of(batch, entries):
    return [entry for entry in entries if entry["resource"].get("service.name") == batch.service]


def send(batch, monkeypatch, **environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    OtlpTarget(environ).send(batch.only(EVERYTHING))


@pytest.fixture(scope="module", params=["http", "grpc"])
def sent(request, agent):
    """Send one batch; return it with its spans by resource, its data points and its log records."""
    batch = run_batch()
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": agent.otlp_url}
    if request.param == "grpc":
        endpoint = f"http://127.0.0.1:{agent._grpc}"
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    environ["OTEL_RESOURCE_ATTRIBUTES"] = "team=flights,service.name=not-this,host.name=not-this-either"
    with pytest.MonkeyPatch.context() as monkeypatch:
        send(batch, monkeypatch, **environ)
    spans = wait_until(lambda: of(batch, agent.otlp_spans()), "spans", 5, every=0.05)
    points = wait_until(lambda: of(batch, agent.otlp_metrics()), "metrics", 5, every=0.05)
    logs = wait_until(lambda: of(batch, agent.otlp_logs()), "logs", 5, every=0.05)
    return batch, {span["attributes"]["resource.name"]: span for span in spans}, points, logs


def test_spans_have_the_ids_times_and_parents_of_the_run(sent):
    batch, spans, _, _ = sent
    run, outer, inner = batch.spans
    found = spans["dag.täsk"], spans["score"], spans["predict"]
    assert [span["trace_id"] for span in found] == [f"{run.trace_id:032x}"] * 3
    for span, original in zip(found, (run, outer, inner), strict=True):
        assert span["span_id"] == f"{original.span_id:016x}"
        assert span["parent_span_id"] == f"{original.parent_id:016x}"
        assert span["start_time_unix_nano"] == original.start_ns
        assert span["end_time_unix_nano"] == original.end_ns


def test_a_run_is_a_consumer_span_that_datadog_takes_for_a_measured_worker(sent):
    run, stage = sent[1]["dag.täsk"], sent[1]["score"]
    assert run["kind"] in {5, "SPAN_KIND_CONSUMER"}
    assert stage["kind"] in {1, "SPAN_KIND_INTERNAL"}
    assert run["name"] == run["attributes"]["operation.name"] == "batch_model.run"
    assert (run["attributes"]["span.type"], run["attributes"]["_dd.measured"]) == ("worker", 1)
    assert "_dd.measured" not in stage["attributes"]


def test_attributes_keep_their_types(sent):
    attributes = sent[1]["dag.täsk"]["attributes"]
    assert attributes["batch_model.rows.read"] == 48210
    assert attributes["batch_model.cpu.time"] == 1.25
    assert attributes["batch_model.flag"] is True
    assert attributes["batch_model.note"] == 'smørrebrød 🚂 "quoted"'


def test_errors_events_and_links(sent):
    batch, spans, _, _ = sent
    run = spans["dag.täsk"]
    assert run["status"]["code"] in {2, "STATUS_CODE_ERROR"}
    assert run["status"]["message"] == run["attributes"]["error.message"] == "no such airport: «XYZ»"
    assert run["attributes"]["error.type"] == "ValueError"
    assert run["attributes"]["error.stack"].startswith("Traceback:")
    assert "code" not in spans["score"].get("status", {})
    assert [(event["name"], event["attributes"]["message"]) for event in run["events"]] == [
        ("batch_model.event", "weather feed was stale ☁"),
        ("batch_model.event", "second"),
    ]
    assert [int(event["time_unix_nano"]) for event in run["events"]] == [e.time_ns for e in batch.spans[0].events]
    ((trace_id, span_id),) = batch.spans[0].links
    assert [(link["trace_id"], link["span_id"]) for link in run["links"]] == [(f"{trace_id:032x}", f"{span_id:016x}")]


def test_counts_are_delta_sums_distributions_exponential_histograms_and_gauges_gauges(sent):
    points = {(point["name"], point["attributes"].get("stage", "")): point for point in sent[2]}
    assert {key: point["kind"] for key, point in points.items()} == {
        ("batch_model.run.started", ""): "sum",
        ("batch_model.run.finished", ""): "sum",
        ("batch_model.run.duration", ""): "exponential_histogram",
        ("batch_model.stage.duration", "score"): "exponential_histogram",
        ("batch_model.stage.duration", "predict"): "exponential_histogram",
        ("batch_model.rows.read", ""): "exponential_histogram",
        ("batch_model.sla.margin", ""): "gauge",
    }
    for point in points.values():
        assert point["kind"] == "gauge" or point["temporality"] in DELTA
    assert points["batch_model.run.finished", ""]["value"] == 1
    assert points["batch_model.run.finished", ""]["attributes"]["outcome"] == "failed"
    assert points["batch_model.sla.margin", ""]["value"] == -12.5
    duration = points["batch_model.run.duration", ""]
    assert (int(duration["count"]), duration["sum"], duration["unit"]) == (1, 3.5, "second")


def test_a_log_record_finds_its_trace_and_holds_the_wide_event(sent):
    batch, _, _, (record,) = sent
    assert record["trace_id"] == f"{batch.logs[0].trace_id:032x}"
    assert record["span_id"] == f"{batch.logs[0].span_id:016x}"
    assert record["body"] == "batch model run finished"
    assert record["severity_number"] in {17, "SEVERITY_NUMBER_ERROR"}
    assert int(record["time_unix_nano"]) == batch.logs[0].time_ns
    assert record["attributes"]["batch_model.stages"] == {"score": 2.5, "predict": 0.25}
    assert record["attributes"]["airflow.task_instance.try_number"] == 2


def test_the_resource_names_the_model_and_heeds_otel_resource_attributes(sent):
    batch, spans, points, logs = sent
    for entry in [*spans.values(), *points, *logs]:
        resource = entry["resource"]
        assert (resource["service.name"], resource["service.version"]) == (batch.service, VERSION)
        assert resource["deployment.environment.name"] == ENV
        assert resource["team"] == "flights"
        assert resource["host.name"] != "not-this-either"


def test_values_of_one_metric_with_the_same_tags_are_added_up(agent, monkeypatch):
    batch = run_batch().only(frozenset({METRICS}))
    batch = replace(batch, points=batch.points * 3)
    send(batch, monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp_url)
    points = wait_until(lambda: of(batch, agent.otlp_metrics()), "metrics", 5, every=0.05)
    assert [point["value"] for point in points if point["name"] == "batch_model.run.started"] == [3]
    assert [int(point["count"]) for point in points if point["name"] == "batch_model.run.duration"] == [3]


def test_only_the_signals_that_failed_stay_in_the_spool(answering, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{answering(metrics=400, logs=400)}")
    settings = Settings(state_dir=str(tmp_path))
    report = Delivery(settings, Choice(("otlp",), ()), patience_s=0).deliver(run_batch())
    assert waiting(tmp_path) == ["otlp.logs", "otlp.metrics"]
    assert report.targets["otlp"].startswith("the OTLP endpoint did not take the metrics: ")
    assert "; the OTLP endpoint did not take the logs: " in report.targets["otlp"]
    assert "400" in report.targets["otlp"]


def test_a_signal_has_its_own_endpoint_protocol_and_switch(agent, answering, monkeypatch):
    batch = run_batch()
    send(
        batch,
        monkeypatch,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{answering(traces=500, metrics=500, logs=500)}",
        OTEL_TRACES_EXPORTER="none",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"http://127.0.0.1:{agent._grpc}",
        OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{agent.otlp_url}/v1/logs",
    )
    wait_until(lambda: of(batch, agent.otlp_metrics()), "metrics", 5, every=0.05)
    wait_until(lambda: of(batch, agent.otlp_logs()), "logs", 5, every=0.05)
    assert of(batch, agent.otlp_spans()) == []


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "http"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, "grpc"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "http",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:1", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "grpc"),
    ],
)
def test_the_protocol_is_the_one_that_is_said_or_that_the_port_says(environ, protocol, monkeypatch):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    exporter = OtlpTarget(environ)._exporter(TRACES)
    assert type(exporter).__module__.split(".")[4] == protocol


def test_a_collector_that_refuses_keeps_all_signals_and_is_reported(refused, monkeypatch):
    with pytest.raises(ExportError, match="the OTLP endpoint did not take the traces: ") as caught:
        send(
            run_batch(),
            monkeypatch,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{refused}",
            OTEL_EXPORTER_OTLP_TIMEOUT="0.3",
        )
    assert caught.value.signals == EVERYTHING


def test_a_collector_that_is_silent_is_waited_for_no_longer_than_its_timeout(silent, monkeypatch):
    with pytest.raises(ExportError) as caught:
        send(
            run_batch(),
            monkeypatch,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent}",
            OTEL_EXPORTER_OTLP_TIMEOUT="0.3",
        )
    assert caught.value.signals == EVERYTHING


def test_a_signal_whose_exporter_is_broken_does_not_count_for_the_others(agent, monkeypatch):
    original = importlib.import_module

    def without_grpc(name, package=None):
        if ".grpc." in name:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", without_grpc)
    batch = run_batch()
    with pytest.raises(ExportError) as caught:
        send(
            batch,
            monkeypatch,
            OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp_url,
            OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="grpc",
        )
    assert caught.value.signals == {METRICS}


def test_otlp_that_is_asked_for_without_an_endpoint_does_not_lose_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    report = Delivery(Settings(state_dir=str(tmp_path)), Choice(("otlp",), ()), patience_s=0).deliver(run_batch())
    assert report.targets["otlp"]
    assert waiting(tmp_path) == ["otlp.logs", "otlp.metrics", "otlp.traces"]


def test_both_targets_at_once_heed_that_otlp_is_to_send_no_traces(agent, dogstatsd, dispatch, tmp_path):
    batches = (run_batch(), run_batch())
    dispatch(
        Order(("datadog", "otlp"), batches, Settings(state_dir=str(tmp_path))),
        DD_TRACE_AGENT_URL=agent.apm_url,
        DD_DOGSTATSD_URL=dogstatsd.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp_url,
        OTEL_TRACES_EXPORTER="none",
    )
    wait_until(lambda: of(batches[1], agent.otlp_metrics()), "metrics", 5, every=0.05)
    assert of(batches[0], agent.otlp_spans()) == of(batches[1], agent.otlp_spans()) == []
