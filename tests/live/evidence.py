"""
Compares what ran with what arrived: Airflow's own task tries on one side, spans and metrics at the agent on the other.

This is the promise of the whole package (one attempt, one outcome, one run span, one trace for each DAG run), stated
once for the demo and for tests that run a whole Airflow.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.live.agent import trace_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.live.agent import Span
    from tests.live.airflow_client import AirflowClient
    from tests.live.dogstatsd import Metric

RUN, STAGE, TASK, DAG_RUN = "batch_model.run", "batch_model.stage", "airflow.task", "airflow.dag_run"
ROWS = {kind: f"batch_model.rows.{kind}" for kind in ("read", "written", "rejected")}
# States of a try that no process ever worked on, so that there is nothing to observe.
NEVER_RAN = frozenset({None, "scheduled", "queued", "upstream_failed", "removed"})
OUTCOMES = {
    "success": {"success"},
    "failed": {"failed", "timed_out", "killed", "cancelled"},
    "up_for_retry": {"retrying", "killed"},
    "skipped": {"skipped"},
}
# Airflow's clock of a try starts before the hook and stops after it, on another process; both round to milliseconds.
CLOCK_TOLERANCE_S = 1.0


class Key(NamedTuple):
    """What names one try of one task."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int

    def __str__(self) -> str:
        """Returns the words in which people speak of it."""
        index = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{index} try {self.try_number} of {self.run_id}"


@dataclass(frozen=True)
class Attempt:
    """One try of one task as Airflow recorded it; `label` is its map index in Airflow's words ("EWR")."""

    key: Key
    state: str
    duration_s: float
    label: str
    conf: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """
    One `batch_model.run` span as it arrived, with the id of its trace (32 hex digits).

    The key of a cron job's has its name as task, its run's id, and no DAG.
    """

    key: Key
    outcome: str
    duration_s: float
    rows: dict[str, int]
    trace_id: str
    failed: bool


@dataclass(frozen=True)
class Job:
    """One start of a cron job that succeeded: its name, the day that it scored, wall time, and names of its stages."""

    name: str
    day: str
    duration_s: float
    stages: frozenset[str]


def attempts(airflow: AirflowClient, dag_ids: Iterable[str]) -> list[Attempt]:
    """Returns every try that Airflow ran of these DAGs, whoever triggered it."""
    return [
        Attempt(
            Key(dag_id, run["dag_run_id"], one["task_id"], one["map_index"], one["try_number"]),
            one["state"],
            _seconds(one),
            one["rendered_map_index"] or (str(one["map_index"]) if one["map_index"] >= 0 else ""),
            run["conf"] or {},
        )
        for dag_id in dag_ids
        for run in airflow.dag_runs(dag_id)
        for instance in airflow.task_instances(dag_id, run["dag_run_id"])
        for one in _tries(airflow, instance)
        if one["state"] not in NEVER_RAN
    ]


def key(span: Span) -> Key:
    """Returns which try of which task a span is of."""
    meta, numbers = span.get("meta", {}), span.get("metrics", {})
    return Key(
        meta.get("airflow.dag_id", ""),
        meta.get("airflow.dag_run.run_id", ""),
        meta.get("airflow.task_id", ""),
        int(numbers.get("airflow.task_instance.map_index", -1)),
        int(numbers.get("airflow.task_instance.try_number", 0)),
    )


def runs(traces: Iterable[Sequence[Span]]) -> list[Run]:
    """Returns the batch model runs among the traces of the agent."""
    return [
        Run(
            key(span),
            span.get("meta", {}).get("batch_model.outcome", ""),
            span["duration"] / 1e9,
            _rows(span),
            trace_id(list(trace)),
            bool(span.get("error")),
        )
        for trace in traces
        for span in trace
        if span["name"] == RUN
    ]


def job_runs(spans: Iterable[Span]) -> list[Run]:
    """Returns the runs of cron jobs among spans that came by OTLP."""
    return [
        Run(
            Key(
                "", span["attributes"].get("batch_model.run_id", ""), span["attributes"].get("resource.name", ""), -1, 1
            ),
            span["attributes"].get("batch_model.outcome", ""),
            (span["end_time_unix_nano"] - span["start_time_unix_nano"]) / 1e9,
            {kind: int(span["attributes"][name]) for kind, name in ROWS.items() if name in span["attributes"]},
            span["trace_id"],
            _is_error(span),
        )
        for span in spans
        if span["name"] == RUN
    ]


def job_differences(job: Job, spans: Sequence[Span], points: Sequence[dict[str, Any]]) -> list[str]:
    """Returns a line for everything that arrived by OTLP other than a cron job ran; nothing if all is well."""
    return [*_job_differs(job, spans), *_job_points_differ(job, points)]


def _job_differs(job: Job, spans: Sequence[Span]) -> Iterable[str]:
    """One run span, with all stages below it, in one trace."""
    found = job_runs(spans)
    if len(found) != 1 or found[0].key.task_id != job.name:
        yield f"job {job.name}: runs {[run.key.task_id for run in found]} arrived, expected one of it"
    for run in found:
        if run.outcome != "success" or run.failed:
            yield f"job {job.name}: outcome {run.outcome!r} with the error flag {run.failed}, but its exit status was 0"
        if not 0 < run.duration_s <= job.duration_s + CLOCK_TOLERANCE_S:
            yield f"job {job.name}: took {run.duration_s:.2f} s, as its caller saw it {job.duration_s:.2f} s"
        if run.rows.get("read", 0) != run.rows.get("written", 0) + run.rows.get("rejected", 0) or not run.rows:
            yield f"job {job.name}: rows do not add up: {run.rows}"
    traces = {span["trace_id"] for span in spans}
    if len(traces) > 1:
        yield f"job {job.name}: {len(traces)} traces, expected 1"
    ids = {span["span_id"] for span in spans}
    for span in spans:
        if span["parent_span_id"] not in ids and span["name"] != RUN:
            yield f"job {job.name}: parent of {span['name']} {span['attributes'].get('resource.name')} is missing"
    stages = sorted(span["attributes"].get("resource.name", "") for span in spans if span["name"] == STAGE)
    if stages != sorted(job.stages):
        yield f"job {job.name}: stages {stages}, expected {sorted(job.stages)}"


def _job_points_differ(job: Job, points: Sequence[dict[str, Any]]) -> Iterable[str]:
    """One run is counted, as one of cron; nothing was dropped."""
    for name, expected in (
        ("batch_model.run.started", 1),
        ("batch_model.run.finished", 1),
        ("batch_model.telemetry.dropped", 0),
    ):
        found = [point for point in points if point["name"] == name]
        if (got := sum(point["value"] for point in found)) != expected:
            yield f"job {job.name}: {name} {got:g}, expected {expected}"
        for tags in (point["attributes"] for point in found):
            if expected and (tags.get("source"), tags.get("model")) != ("cron", job.name):
                yield f"job {job.name}: {name} has the tags {tags}, expected source cron and its model"


def differences(tried: Sequence[Attempt], traces: Sequence[Sequence[Span]], metrics: Sequence[Metric]) -> list[str]:
    """Returns a line for everything that arrived other than it ran; nothing if all is well."""
    seen = runs(traces)
    return [
        *_runs_differ(tried, seen),
        *_traces_differ(tried, seen, traces),
        *_metrics_differ(tried, seen, traces, metrics),
    ]


def _runs_differ(tried: Sequence[Attempt], seen: Sequence[Run]) -> Iterable[str]:
    """One run span for each attempt, which says what Airflow says."""
    by_key = defaultdict(list)
    for run in seen:
        by_key[run.key].append(run)
    for attempt in tried:
        found = by_key.pop(attempt.key, [])
        if len(found) != 1:
            yield f"{attempt.key}: {len(found)} {RUN} spans, expected 1"
        for run in found:
            if run.outcome not in OUTCOMES.get(attempt.state, {attempt.state}):
                yield f"{attempt.key}: outcome {run.outcome!r}, but Airflow's state is {attempt.state!r}"
            if run.failed != (run.outcome not in {"success", "skipped"}):
                yield f"{attempt.key}: outcome {run.outcome!r} with the error flag {run.failed}"
            if not 0 < run.duration_s <= attempt.duration_s + CLOCK_TOLERANCE_S:
                yield f"{attempt.key}: took {run.duration_s:.2f} s, in Airflow {attempt.duration_s:.2f} s"
    for key, found in by_key.items():
        yield f"{key}: {len(found)} {RUN} spans, but Airflow ran no such try"


def _traces_differ(tried: Sequence[Attempt], seen: Sequence[Run], traces: Sequence[Sequence[Span]]) -> Iterable[str]:
    """One trace for each DAG run, complete: no span without its parent, one DAG-run span, one span a task try."""
    dag_runs = {(attempt.key.dag_id, attempt.key.run_id) for attempt in tried}
    ids = {dag_run: {run.trace_id for run in seen if run.key[:2] == dag_run} for dag_run in dag_runs}
    for (dag_id, run_id), found in sorted(ids.items()):
        if len(found) != 1:
            yield f"DAG run {dag_id} {run_id}: {len(found)} traces, expected 1"
    if len(traces) != len(dag_runs):
        yield f"{len(traces)} traces arrived of {len(dag_runs)} DAG runs"
    for trace in traces:
        spans = {span["span_id"] for span in trace}
        if len(spans) != len(trace):
            yield f"trace {trace_id(list(trace))}: a span id is there twice"
        for span in trace:
            if span.get("parent_id") and span["parent_id"] not in spans:
                yield f"trace {trace_id(list(trace))}: parent of {span['name']} {span['resource']} is missing"
    counts = Counter(span["name"] for trace in traces for span in trace)
    for name, expected in ((DAG_RUN, len(dag_runs)), (TASK, len(tried))):
        if counts[name] != expected:
            yield f"{counts[name]} {name} spans, expected {expected}"


def _metrics_differ(
    tried: Sequence[Attempt],
    seen: Sequence[Run],
    traces: Sequence[Sequence[Span]],
    metrics: Sequence[Metric],
) -> Iterable[str]:
    """As many counted runs as there were attempts, as many values as there were runs and stages."""
    counted: Counter[str] = Counter()
    values: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for metric in metrics:
        counted[metric.name] += round(float(metric.value) / metric.rate)
        values[metric.name] += 1
        if metric.name.startswith("batch_model.rows."):
            rows[metric.name.rpartition(".")[2]] += round(float(metric.value))
    stages = sum(span["name"] == STAGE for trace in traces for span in trace)
    for name, got, expected in (
        ("batch_model.run.started", counted["batch_model.run.started"], len(tried)),
        ("batch_model.run.finished", counted["batch_model.run.finished"], len(tried)),
        ("values of batch_model.run.duration", values["batch_model.run.duration"], len(tried)),
        ("values of batch_model.stage.duration", values["batch_model.stage.duration"], stages),
        *(
            (f"rows {kind}, added up", rows[kind], sum(run.rows.get(kind, 0) for run in seen))
            for kind in ("read", "written", "rejected")
        ),
        ("batch_model.telemetry.dropped", counted["batch_model.telemetry.dropped"], 0),
    ):
        if got != expected:
            yield f"{name}: {got}, expected {expected}"


def _tries(airflow: AirflowClient, instance: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns all tries of a task instance; asks for them only if there was more than one."""
    if instance["try_number"] <= 1:
        return [instance]
    key = (instance["dag_id"], instance["dag_run_id"], instance["task_id"], instance["map_index"])
    return [{**one, "rendered_map_index": instance["rendered_map_index"]} for one in airflow.task_tries(*key)]


def _seconds(one: dict[str, Any]) -> float:
    if not one["start_date"] or not one["end_date"]:
        return 0.0
    return (datetime.fromisoformat(one["end_date"]) - datetime.fromisoformat(one["start_date"])).total_seconds()


def _rows(span: Span) -> dict[str, int]:
    numbers = span.get("metrics", {})
    return {kind: int(numbers[name]) for kind, name in ROWS.items() if name in numbers}


def _is_error(span: Span) -> bool:
    return span.get("status", {}).get("code") in {2, "STATUS_CODE_ERROR"}
