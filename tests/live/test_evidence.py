"""The comparison of what ran with what arrived finds every kind of loss."""

from __future__ import annotations

import copy
import re

import pytest

from tests.live.demo_table import table
from tests.live.dogstatsd import Metric
from tests.live.evidence import Attempt, Job, Key, differences, job_differences

KEY = Key("scoring", "day_1", "score", 0, 1)
TRIED = [Attempt(KEY, "success", 2.0, "EWR", {})]


def _span(name: str, span_id: int, parent_id: int = 0, **more):
    span = {"name": name, "resource": "r", "trace_id": 9, "span_id": span_id, "parent_id": parent_id, "error": 0}
    return {**span, "duration": 1_500_000_000, "meta": {}, "metrics": {}, **more}


def _arrived():
    meta = {
        "batch_model.outcome": "success",
        "airflow.dag_id": KEY.dag_id,
        "airflow.dag_run.run_id": KEY.run_id,
        "airflow.task_id": KEY.task_id,
    }
    numbers = {
        "airflow.task_instance.map_index": 0,
        "airflow.task_instance.try_number": 1,
        "batch_model.rows.read": 5,
    }
    return [
        [
            _span("airflow.dag_run", 1),
            _span("airflow.task", 2, 1),
            _span("batch_model.run", 3, 2, meta=meta, metrics=numbers),
            _span("batch_model.stage", 4, 3),
        ]
    ]


METRICS = [
    Metric("batch_model.run.started", 1.0, "c"),
    Metric("batch_model.run.finished", 1.0, "c"),
    Metric("batch_model.run.duration", 1.5, "d"),
    Metric("batch_model.stage.duration", 1.5, "d"),
    Metric("batch_model.rows.read", 5.0, "d"),
]


def test_what_arrived_as_it_ran_makes_no_difference():
    assert differences(TRIED, _arrived(), METRICS) == []


def _without(name):
    return [[span for span in _arrived()[0] if span["name"] != name]]


def _with(name, **changes):
    traces = copy.deepcopy(_arrived())
    for span in traces[0]:
        if span["name"] == name:
            span.update(changes)
    return traces


def _failed():
    traces = copy.deepcopy(_arrived())
    traces[0][2]["meta"]["batch_model.outcome"] = "failed"
    return traces


@pytest.mark.parametrize(
    ("traces", "expected"),
    [
        (_without("batch_model.run"), "scoring.score[0] try 1 of day_1: 0 batch_model.run spans, expected 1"),
        ([[*_arrived()[0], {**_arrived()[0][2], "span_id": 33}]], "2 batch_model.run spans, expected 1"),
        (_without("airflow.task"), "trace 00000000000000000000000000000009: parent of batch_model.run r is missing"),
        (_without("airflow.dag_run"), "0 airflow.dag_run spans, expected 1"),
        ([*_arrived(), [_span("other", 8)]], "2 traces arrived of 1 DAG runs"),
        (_with("batch_model.stage", span_id=3), "a span id is there twice"),
        (_failed(), "outcome 'failed', but Airflow's state is 'success'"),
        (_with("batch_model.run", error=1), "outcome 'success' with the error flag True"),
        (_with("batch_model.run", duration=60 * 10**9), "took 60.00 s, in Airflow 2.00 s"),
    ],
)
def test_it_finds_what_is_wrong_with_the_spans(traces, expected):
    assert any(expected in line for line in differences(TRIED, traces, METRICS))


def test_it_finds_a_run_that_airflow_did_not_run():
    (line, *_) = differences([], _arrived(), METRICS)
    assert line == "scoring.score[0] try 1 of day_1: 1 batch_model.run spans, but Airflow ran no such try"


@pytest.mark.parametrize("lost", METRICS, ids=lambda metric: metric.name)
def test_it_finds_a_lost_metric(lost):
    found = differences(TRIED, _arrived(), [metric for metric in METRICS if metric != lost])
    assert len(found) == 1
    assert "expected" in found[0]


# --- A cron job, by OTLP -----------------------------------------------------------------------------------------

JOB = Job("nightly", "2013-02-15", 2.0, frozenset({"nightly", "load"}))


def _otlp_span(name: str, number: int, parent: int | None, resource: str, **attributes):
    return {
        "name": name,
        "trace_id": "ab" * 16,
        "span_id": f"{number:016x}",
        "parent_span_id": "" if parent is None else f"{parent:016x}",
        "start_time_unix_nano": 10**18,
        "end_time_unix_nano": 10**18 + 1_500_000_000,
        "status": {},
        "attributes": {"resource.name": resource, **attributes},
    }


def _job_spans():
    rows = {"batch_model.rows.read": 9, "batch_model.rows.written": 7, "batch_model.rows.rejected": 2}
    own = {"batch_model.outcome": "success", "batch_model.run_id": "u-1", **rows}
    return [
        _otlp_span("batch_model.run", 1, None, "nightly", **own),
        _otlp_span("batch_model.stage", 2, 1, "nightly"),
        _otlp_span("batch_model.stage", 3, 2, "load"),
    ]


def _point(name: str, value: float = 1.0, **tags):
    return {"name": name, "value": value, "attributes": {"source": "cron", "model": "nightly", **tags}}


POINTS = [_point("batch_model.run.started"), _point("batch_model.run.finished")]


def test_a_job_that_arrived_as_it_ran_makes_no_difference():
    assert job_differences(JOB, _job_spans(), POINTS) == []


def _changed(index: int, **changes):
    spans = copy.deepcopy(_job_spans())
    for name, value in changes.items():
        if name in spans[index]:
            spans[index][name] = value
        else:
            spans[index]["attributes"][name.replace("__", ".")] = value
    return spans


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], "runs [] arrived, expected one of it"),
        (_job_spans()[1:], "runs [] arrived, expected one of it"),
        ([*_job_spans(), _job_spans()[0]], "runs ['nightly', 'nightly'] arrived"),
        (_changed(0, resource__name="other"), "runs ['other'] arrived"),
        (_changed(0, batch_model__outcome="killed"), "outcome 'killed' with the error flag False"),
        (_changed(0, status={"code": "STATUS_CODE_ERROR"}), "outcome 'success' with the error flag True"),
        (_changed(0, end_time_unix_nano=10**18 + 60 * 10**9), "took 60.00 s, as its caller saw it 2.00 s"),
        (_changed(2, trace_id="cd" * 16), "2 traces, expected 1"),
        (_changed(2, parent_span_id="99"), "parent of batch_model.stage load is missing"),
        (_job_spans()[:2], "stages ['nightly'], expected ['load', 'nightly']"),
    ],
)
def test_it_finds_what_is_wrong_with_the_spans_of_a_job(spans, expected):
    assert any(expected in line for line in job_differences(JOB, spans, POINTS))


def test_it_finds_rows_that_do_not_add_up():
    spans = _job_spans()
    spans[0]["attributes"]["batch_model.rows.read"] = 10
    (line,) = job_differences(JOB, spans, POINTS)
    assert "rows do not add up" in line


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (POINTS[1:], "batch_model.run.started 0, expected 1"),
        ([*POINTS, POINTS[1]], "batch_model.run.finished 2, expected 1"),
        ([*POINTS, _point("batch_model.telemetry.dropped")], "batch_model.telemetry.dropped 1, expected 0"),
        ([POINTS[0], _point("batch_model.run.finished", source="airflow")], "expected source cron and its model"),
    ],
)
def test_it_finds_what_is_wrong_with_the_metrics_of_a_job(points, expected):
    (line,) = job_differences(JOB, _job_spans(), points)
    assert expected in line


def test_both_are_in_one_table_and_told_apart():
    lines = table(TRIED, _arrived(), JOB, _job_spans())
    assert [re.split(r"  +", line) for line in lines if not line.startswith("-")] == [
        ["source", "run", "day", "read", "written", "rejected", "duration", "outcome", "trace id"],
        ["airflow", "scoring.score[EWR]", "5", "1.50 s", "success", f"{9:032x}"],
        ["cron", "nightly", "2013-02-15", "9", "7", "2", "1.50 s", "success", "ab" * 16],
    ]
    assert len({len(line) for line in lines[2:]}) == 1


def test_a_job_that_did_not_arrive_has_no_line():
    assert not [line for line in table(TRIED, _arrived(), JOB, []) if line.startswith("cron")]
