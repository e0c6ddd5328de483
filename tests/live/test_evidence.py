"""The comparison of what ran with what arrived finds every kind of loss."""

from __future__ import annotations

import copy

import pytest

from tests.live.dogstatsd import Metric
from tests.live.evidence import Attempt, Key, differences

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
