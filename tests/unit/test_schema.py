"""The telemetry contract: what is listed here is in users' monitors, so it may be added to, and not changed."""

from __future__ import annotations

import pytest

from batch_observability import schema
from batch_observability.schema import ATTRIBUTES, LOG_FIELDS, METRICS, SPANS, TAGS, MetricType, Outcome

# name, type, unit, extra tag
CONTRACT_METRICS = [
    ("run.started", "count", "run", ""),
    ("run.finished", "count", "run", "outcome"),
    ("run.duration", "distribution", "second", "outcome"),
    ("run.start_delay", "distribution", "second", ""),
    ("stage.duration", "distribution", "second", "stage"),
    ("rows.read", "distribution", "row", ""),
    ("rows.written", "distribution", "row", ""),
    ("rows.rejected", "distribution", "row", ""),
    ("measurement", "distribution", "", "measurement"),
    ("memory.peak", "distribution", "byte", ""),
    ("cpu.time", "distribution", "second", ""),
    ("sla.margin", "gauge", "second", "objective"),
    ("sla.checked", "count", "", "objective"),
    ("sla.breached", "count", "", "objective"),
    ("sla.at_risk", "count", "", "objective"),
    ("freshness", "gauge", "second", ""),
    ("run.missed", "count", "run", ""),
    ("anomaly.score", "gauge", "", "signal"),
    ("anomaly.detected", "count", "", "signal"),
    ("telemetry.dropped", "count", "", "reason"),
]
CONTRACT_ATTRIBUTES = {
    "batch_model.name": "string",
    "batch_model.version": "string",
    "batch_model.owner": "string",
    "batch_model.tier": "string",
    "batch_model.run_id": "string",
    "batch_model.outcome": "string",
    "batch_model.rows.read": "int",
    "batch_model.rows.written": "int",
    "batch_model.rows.rejected": "int",
    "batch_model.sla.<objective>": "string",
    "batch_model.memory.peak": "int",
    "batch_model.cpu.time": "double",
    "airflow.dag_id": "string",
    "airflow.task_id": "string",
    "airflow.dag_run.run_id": "string",
    "airflow.task_instance.try_number": "int",
    "airflow.task_instance.map_index": "int",
    "process.pid": "int",
    "host.name": "string",
    "error.type": "string",
    "error.message": "string",
    "error.stack": "string",
}
CONTRACT_LOG_FIELDS = {
    "timestamp": "string",
    "level": "string",
    "logger": "string",
    "event": "string",
    "dd.trace_id": "string",
    "dd.span_id": "string",
    "dd.service": "string",
    "dd.env": "string",
    "dd.version": "string",
    "batch_model.name": "string",
    "batch_model.run_id": "string",
    "batch_model.stage": "string",
    "airflow.dag_id": "string",
    "airflow.task_id": "string",
    "airflow.dag_run.run_id": "string",
    "airflow.task_instance.try_number": "int",
    "airflow.task_instance.map_index": "int",
    "airflow.dagRun.dag_id": "string",
    "airflow.dagRun.run_id": "string",
    "airflow.task.task_id": "string",
    "error.kind": "string",
    "error.message": "string",
    "error.stack": "string",
}


@pytest.mark.parametrize(("name", "kind", "unit", "extra_tag"), CONTRACT_METRICS)
def test_the_contracts_metrics_are_there(name, kind, unit, extra_tag):
    metric = METRICS[f"batch_model.{name}"]
    assert (metric.name, metric.type, metric.unit, metric.extra_tag) == (f"batch_model.{name}", kind, unit, extra_tag)


@pytest.mark.parametrize(("name", "kind"), CONTRACT_ATTRIBUTES.items())
def test_the_contracts_attributes_are_there(name, kind):
    assert (ATTRIBUTES[name].name, ATTRIBUTES[name].type) == (name, kind)


@pytest.mark.parametrize(("name", "kind"), CONTRACT_LOG_FIELDS.items())
def test_the_contracts_log_fields_are_there(name, kind):
    assert (LOG_FIELDS[name].name, LOG_FIELDS[name].type) == (name, kind)


@pytest.mark.parametrize(
    ("operation", "resource"),
    [
        ("airflow.dag_run", "<dag_id>"),
        ("airflow.task", "<dag_id>.<task_id>"),
        ("batch_model.run", "<dag_id>.<task_id> or <job>"),
        ("batch_model.stage", "<stage>"),
    ],
)
def test_the_contracts_spans_are_there(operation, resource):
    span = SPANS[operation]
    assert (span.operation, span.resource) == (operation, resource)
    assert span.service
    assert span.emitted_by
    assert span.parent


def test_the_tags_of_all_metrics_are_a_closed_list():
    assert TAGS == ("env", "service", "version", "model", "owner", "tier", "source", "dag_id", "task_id", "job")


def test_an_extra_tag_is_of_one_metric_only_where_it_is_listed():
    assert {metric.extra_tag for metric in METRICS.values()} == {
        "",
        "outcome",
        "stage",
        "measurement",
        "objective",
        "signal",
        "reason",
    }
    assert not {metric.extra_tag for metric in METRICS.values()} & set(TAGS)


def test_no_tag_tells_single_runs_apart():
    """Every value of a tag is a metric series, and is paid for."""
    tags = {*TAGS, *(metric.extra_tag for metric in METRICS.values())}
    assert not {tag for tag in tags if "run" in tag or "date" in tag or "try" in tag or "host" in tag or "pid" in tag}


def test_the_outcomes():
    assert [outcome.value for outcome in Outcome] == [
        "success",
        "failed",
        "retrying",
        "skipped",
        "timed_out",
        "killed",
        "cancelled",
        "lost",
    ]
    assert {outcome.value for outcome in Outcome} - schema.ERRORS == {"success", "skipped"}


def test_the_record_at_the_end_of_a_run():
    assert schema.RUN_EVENT == "batch model run finished"


def test_the_type_of_a_run_span():
    assert schema.SPAN_TYPE == "worker"


def test_everything_is_listed_under_its_own_name_and_described():
    for table in (METRICS, ATTRIBUTES, LOG_FIELDS):
        for name, entry in table.items():
            assert entry.name == name
            assert entry.description.strip()
            assert len(entry.description.splitlines()) == 1
    assert {metric.type for metric in METRICS.values()} <= set(MetricType)
    assert {field.type for field in ATTRIBUTES.values()} <= {"string", "int", "double"}
    assert {field.type for field in LOG_FIELDS.values()} <= {"string", "int", "double", "boolean", "object", "array"}


def test_names_fit_datadog():
    """https://docs.datadoghq.com/metrics/custom_metrics/: a letter first, then letters, digits, _ and dots, to 200."""
    for name in METRICS:
        assert name.startswith("batch_model.")
        assert name.replace(".", "").replace("_", "").isalnum()
        assert len(name) <= 200


def test_every_constant_is_listed():
    """A name that is only a constant would be in no dashboard, document or test."""
    listed = {*ATTRIBUTES, *LOG_FIELDS, *SPANS}
    dotted = {
        value for name, value in vars(schema).items() if name.isupper() and isinstance(value, str) and "." in value
    }
    assert dotted <= listed
