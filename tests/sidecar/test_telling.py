"""A run as signals: spans, metrics, the wide log record and an event; plain values in, plain values out."""

from __future__ import annotations

import pytest

from batch_observability import schema
from batch_observability.export.signals import Error
from batch_observability.schema import Outcome
from batch_observability.sidecar import telling
from tests.sidecar.endings import BROKEN, HOST, PID, TAGS, died, points, told
from tests.sidecar.frames import (
    MODEL,
    PARENT,
    RUN_SPAN,
    START_NS,
    TRACE_ID,
    at,
    context,
    end,
    rows,
    stage,
    stage_end,
)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_is_told_everywhere_alike(outcome):
    error = BROKEN if outcome in {Outcome.FAILED, Outcome.RETRYING} else None
    batch = told(end(outcome.value, error=error))
    run = batch.spans[0]
    failed = outcome not in {Outcome.SUCCESS, Outcome.SKIPPED}
    assert run.attributes[schema.OUTCOME] == outcome.value
    assert (run.error is not None) == failed
    assert points(batch, "run.finished") == [(1, {**TAGS, "outcome": outcome.value})]
    assert points(batch, "run.duration") == [(10.0, {**TAGS, "outcome": outcome.value})]
    record = batch.logs[-1]
    assert record.attributes[schema.OUTCOME] == outcome.value
    level = "warning" if outcome is Outcome.RETRYING else "error" if failed else "info"
    assert record.level == level
    assert len(batch.events) == (outcome in {Outcome.KILLED, Outcome.LOST})


def test_an_error_is_the_one_that_was_told_or_says_the_outcome():
    assert told(end("failed", error=BROKEN)).spans[0].error == Error(**BROKEN)
    assert told(end("timed_out")).spans[0].error == Error("Error", "the run ended as timed_out")
    # An operator may skip by an exception: that is no error.
    assert told(end("skipped", error=BROKEN)).spans[0].error is None


def test_the_run_span_says_who_what_and_where():
    run = told(end(), rows(1, 100, 90, 10)).spans[0]
    assert (run.operation, run.resource, run.service, run.version) == (
        "batch_model.run",
        "dag.task",
        "churn-service",
        "3",
    )
    assert (run.trace_id, run.span_id, run.parent_id) == (TRACE_ID, RUN_SPAN, PARENT)
    assert (run.start_ns, run.end_ns) == (START_NS, at(10))
    assert run.attributes == {
        "batch_model.name": "churn",
        "batch_model.version": "3",
        "batch_model.owner": "team-churn",
        "batch_model.tier": "2",
        "batch_model.run_id": "0199-run",
        "batch_model.outcome": "success",
        "batch_model.rows.read": 100,
        "batch_model.rows.written": 90,
        "batch_model.rows.rejected": 10,
        "batch_model.memory.peak": 50_000_000,
        "batch_model.cpu.time": 2.5,
        "batch_model.objective.finish_within": "9999d",
        "batch_model.objective.min_rows": "0",
        "airflow.dag_id": "dag",
        "airflow.task_id": "task",
        "airflow.dag_run.run_id": "manual__1",
        "airflow.task_instance.try_number": 1,
        "airflow.task_instance.map_index": -1,
        "process.pid": PID,
        "host.name": HOST,
    }


def test_what_is_not_known_is_left_out():
    batch = told(end(), run=context(model={**MODEL, "owner": "", "objectives": {}}, env=""))
    assert schema.MODEL_OWNER not in batch.spans[0].attributes
    assert schema.ROWS_READ not in batch.spans[0].attributes
    assert points(batch, "rows.read") == []
    assert points(batch, "run.start_delay") == []
    (_, tags) = points(batch, "run.started")[0]
    assert {"owner", "env"}.isdisjoint(tags)


def test_measurements_are_attributes_of_the_span_and_points_of_the_metric():
    batch = told(
        {"t": "measure", "ts": at(1), "name": "mae", "value": 20.0, "unit": "minute"},
        {"t": "measure", "ts": at(2), "name": "mae", "value": 14.5, "unit": "minute"},
        {"t": "measure", "ts": at(2), "name": "drift", "value": 0.5, "unit": ""},
        end(),
    )
    attributes = batch.spans[0].attributes
    assert (attributes["batch_model.measurement.mae"], attributes["batch_model.measurement.drift"]) == (14.5, 0.5)
    assert attributes["batch_model.measurement_unit.mae"] == "minute"
    assert "batch_model.measurement_unit.drift" not in attributes
    assert points(batch, "measurement") == [
        (20.0, {**TAGS, "measurement": "mae"}),
        (14.5, {**TAGS, "measurement": "mae"}),
        (0.5, {**TAGS, "measurement": "drift"}),
    ]


def test_events_of_the_run_are_span_events():
    batch = told({"t": "event", "ts": at(3), "text": "stale", "stage": 0}, end())
    ((event),) = batch.spans[0].events
    assert (event.time_ns, event.name, event.attributes) == (at(3), "batch_model.event", {"message": "stale"})


def test_a_run_links_to_those_that_it_follows():
    assert told(end(), run=context(linked_spans=((5, 6),))).spans[0].links == ((5, 6),)


def test_stages_hang_under_the_run_and_under_each_other():
    batch = told(stage(1, "score", 1), stage(2, "predict", 2, parent=1), stage_end(2, 3), stage_end(1, 4), end())
    _, outer, inner = batch.spans
    assert (outer.operation, outer.resource, outer.parent_id) == ("batch_model.stage", "score", RUN_SPAN)
    assert (inner.span_id, inner.parent_id, inner.start_ns, inner.end_ns) == (2, 1, at(2), at(3))
    assert inner.attributes == {
        "batch_model.name": "churn",
        "batch_model.run_id": "0199-run",
        "batch_model.stage": "predict",
    }
    assert {span.service for span in batch.spans} == {"churn-service"}
    assert points(batch, "stage.duration") == [(3.0, {**TAGS, "stage": "score"}), (1.0, {**TAGS, "stage": "predict"})]


def test_a_stage_whose_outer_one_was_dropped_hangs_under_the_run():
    assert told(stage(2, "inner", 2, parent=1), stage_end(2, 3), end()).spans[1].parent_id == RUN_SPAN


def test_a_failed_run_says_the_innermost_stage_that_failed():
    batch = told(
        *(stage(1, "score", 1), stage(2, "predict", 2, parent=1)),
        *(stage_end(2, 3, BROKEN), stage_end(1, 3, BROKEN)),
        end("failed", error=BROKEN),
    )
    assert batch.spans[0].attributes[schema.STAGE_NAME] == "predict"
    assert [span.error for span in batch.spans] == [Error(**BROKEN)] * 3


def test_a_run_that_went_well_after_a_stage_failed_names_no_stage():
    batch = told(stage(1, "try", 1), stage_end(1, 2, BROKEN), end())
    assert schema.STAGE_NAME not in batch.spans[0].attributes
    assert [span.error for span in batch.spans] == [None, Error(**BROKEN)]


def test_a_stage_that_is_open_at_the_end_ends_with_the_run_as_an_error():
    batch = told(stage(1, "score", 1), end())
    assert (batch.spans[1].end_ns, batch.spans[1].error.type) == (at(10), "StageNotEnded")


def test_the_wide_record_answers_most_questions_alone():
    _, record = told(
        *(stage(1, "load", 1), stage_end(1, 2), stage(2, "load", 2), stage_end(2, 4), stage(3, "score", 5)),
        rows(1, 100, 90, 10),
        end("failed", error=BROKEN),
    ).logs
    assert (record.time_ns, record.event) == (at(10), "batch model run finished")
    assert (record.trace_id, record.span_id) == (TRACE_ID, RUN_SPAN)
    expected = {
        "dd.trace_id": f"{TRACE_ID:032x}",
        "dd.span_id": str(RUN_SPAN),
        "dd.service": "churn-service",
        "dd.env": "test",
        "dd.version": "3",
        "batch_model.name": "churn",
        "batch_model.run_id": "0199-run",
        "batch_model.outcome": "failed",
        "batch_model.stage": "score",
        "batch_model.stages": {"load": 3.0, "score": 5.0},
        "batch_model.duration": 10.0,
        "batch_model.rows.written": 90,
        "batch_model.objective.finish_within": "9999d",
        "airflow.dag_id": "dag",
        "airflow.dagRun.dag_id": "dag",
        "airflow.dagRun.run_id": "manual__1",
        "airflow.task.task_id": "task",
        "airflow.task_instance.try_number": 1,
        "error.kind": "ValueError",
        "error.message": "no such airport",
        "error.stack": "Traceback...",
    }
    assert expected.items() <= record.attributes.items()


def test_every_name_that_leaves_is_in_the_schema():
    batch = died(
        stage(1, "load", 1),
        rows(1, 5),
        {"t": "measure", "ts": at(1), "name": "mae", "value": 20.0, "unit": "minute"},
        run=context(due_ns=at(-60)),
    )
    patterns = [name.partition("<")[0] for name in schema.ATTRIBUTES if "<" in name]
    for span in batch.spans:
        unknown = set(span.all_attributes()) - set(schema.ATTRIBUTES)
        assert [name for name in unknown if not name.startswith(tuple(patterns))] == []
    for point in batch.points:
        assert set(point.tags) <= {*schema.TAGS, point.metric.extra_tag}
    known = {*schema.LOG_FIELDS, *schema.ATTRIBUTES}
    assert [n for n in set(batch.logs[0].attributes) - known if not n.startswith(tuple(patterns))] == []


def test_frames_that_were_dropped_are_told():
    batch = told(end(dropped=7))
    assert batch.spans[0].attributes[schema.DROPPED] == 7
    assert points(batch, "telemetry.dropped") == [(7, {**TAGS, "reason": "frame"})]
    assert points(told(end(dropped=0)), "telemetry.dropped") == []


def test_the_delay_of_the_start_is_measured_where_the_due_time_is_known():
    assert points(told(end(), run=context(due_ns=at(-90))), "run.start_delay") == [(90.0, TAGS)]
    # A clock that is ahead makes no negative delay.
    assert points(told(end(), run=context(due_ns=at(5))), "run.start_delay") == [(0.0, TAGS)]


def test_a_clock_that_went_back_makes_no_negative_duration():
    batch = told(stage(1, "load", 5), end(seconds=-3))
    assert all(span.end_ns >= span.start_ns for span in batch.spans)
    assert points(batch, "run.duration")[0][0] == 0


def test_the_start_is_counted_once():
    assert points(told(end(), with_start=True), "run.started") == [(1, TAGS)]
    assert points(told(end(), with_start=False), "run.started") == []
    begun = telling.started(context())
    assert points(begun, "run.started") == [(1, TAGS)]
    assert not begun.spans
    assert [record.event for record in begun.logs] == ["batch model run started"]
    assert (begun.service, begun.version, begun.env) == ("churn-service", "3", "test")
