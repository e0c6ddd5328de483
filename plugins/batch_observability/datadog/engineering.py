"""
The engineering dashboard: what an on-call engineer looks at, from what is broken down to the log line.

Each widget answers a question of docs/dashboards.md.
"""

from __future__ import annotations

from batch_observability import schema
from batch_observability.datadog import widgets
from batch_observability.datadog.queries import (
    DURATION,
    FAILED_OUTCOMES,
    MESSAGE,
    RESOURCE,
    STATUS,
    VARIABLES,
    Json,
    attribute,
    metric,
    of_metric,
    of_spans,
    records,
    runs,
    stages,
    term,
)
from batch_observability.datadog.resource import MANAGED_BY, Resource
from batch_observability.datadog.widgets import Formula, Group, columns, good_is_none
from batch_observability.schema import Metric

KEY = "engineering"
_MODEL = (schema.TAG_MODEL,)
_SECONDS, _NANOSECONDS, _BYTES = "second", "nanosecond", "byte"
# By name of the query: how it is computed, and what it is called.
_PERCENTILES = {"half": ("median", "median"), "most": ("pc95", "95 %"), "longest": ("max", "longest")}
_FAILED_RUNS = term(schema.OUTCOME, FAILED_OUTCOMES)


def engineering() -> Resource:
    """Return the dashboard."""
    about = "One model or many, from what is wrong to why: runs, lateness, time, rows, memory, failures, logs, traces."
    groups = (_now(), _late(), _duration(), _rows(), _machine(), _failures(), _unusual(), _evidence())
    return widgets.dashboard(
        KEY, "Batch models: runs for engineers", about, groups, [widgets.variable(name) for name in VARIABLES], days=7
    )


def _series(name: str, of: Metric, by: tuple[str, ...] = _MODEL, how: str = "") -> list[Json]:
    return [of_metric(name, metric(of, by=by, how=how))]


def _now() -> Group:
    finished = _series("finished", schema.RUN_FINISHED, (schema.TAG_OUTCOME,))
    started = _series("started", schema.RUN_STARTED, ())
    at_risk = [of_metric("risk", metric(schema.SLA_AT_RISK, by=(*_MODEL, schema.TAG_OBJECTIVE)), "sum")]
    breached = [of_metric("breached", metric(schema.SLA_BREACHED, by=(*_MODEL, schema.TAG_OBJECTIVE)), "sum")]
    text = (
        "**Paged?** 1. Pick env and model above. 2. *Runs timeline*: since when, and how did it end? "
        "3. *Failures by fingerprint*: one cause or several? 4. *Failed runs* opens the trace, *Logs* the lines of it. "
        "5. The runbook is linked in the page and in the service's entry."
    )
    return Group(
        "What is wrong now?",
        "vivid_orange",
        (
            (
                (widgets.monitors("What is alerting", f"tag:({MANAGED_BY})"), 4),
                (
                    widgets.over_time(
                        "Runs timeline",
                        [*finished, *started],
                        [Formula("finished", "ended"), Formula("started", "started")],
                        "bars",
                    ),
                    5,
                ),
                (widgets.note(text), 3),
            ),
            columns(
                widgets.top("Promises broken, by model and objective", breached, Formula("breached", "broken")),
                widgets.top("Promises at risk, by model and objective", at_risk, Formula("risk", "at risk")),
            ),
        ),
    )


def _late() -> Group:
    delay = _series("delay", schema.RUN_START_DELAY, how="max")
    margin = _series("margin", schema.SLA_MARGIN, (*_MODEL, schema.TAG_OBJECTIVE), "min")
    missed = _series("missed", schema.RUN_MISSED)
    age = _series("age", schema.FRESHNESS, how="max")
    return Group(
        "Is it late, or did it not run?",
        "vivid_yellow",
        (
            columns(
                widgets.over_time("Start delay", delay, [Formula("delay", "due to start", _SECONDS)]),
                widgets.over_time("Time left; below 0 is late", margin, [Formula("margin", "left", _SECONDS)]),
                widgets.over_time("Runs that never started", missed, [Formula("missed", "never started")], "bars"),
                widgets.over_time("Age of the newest success", age, [Formula("age", "age", _SECONDS)]),
            ),
        ),
    )


def _duration() -> Group:
    percentiles = [of_spans(name, runs(), how, DURATION) for name, (how, _) in _PERCENTILES.items()]
    shown = [Formula(name, alias, _NANOSECONDS) for name, (_, alias) in _PERCENTILES.items()]
    usual = [of_metric("lasted", metric(schema.RUN_DURATION, by=_MODEL))]
    by_outcome = _series("longest", schema.RUN_DURATION, (schema.TAG_OUTCOME,), "max")
    by_stage = _series("stage", schema.STAGE_DURATION, (schema.TAG_STAGE,), "max")
    stage_spans = [of_spans("time", stages(), "pc95", DURATION, (RESOURCE,))]
    return Group(
        "Where does the time go?",
        "vivid_blue",
        (
            columns(
                widgets.over_time("Run duration, percentiles", percentiles, shown),
                widgets.over_time(
                    "Run duration against its usual range",
                    usual,
                    [Formula("anomalies(lasted, 'agile', 3)", "duration", _SECONDS)],
                ),
                widgets.over_time("Longest run by outcome", by_outcome, [Formula("longest", "longest", _SECONDS)]),
            ),
            columns(
                widgets.over_time("Time by stage", by_stage, [Formula("stage", "stage", _SECONDS)], "area"),
                widgets.top("Slowest stages, 95th percentile", stage_spans, Formula("time", "time", _NANOSECONDS)),
            ),
        ),
    )


def _rows() -> Group:
    flow = [
        of_metric("read", metric(schema.METRIC_ROWS_READ, how="sum")),
        of_metric("written", metric(schema.METRIC_ROWS_WRITTEN, how="sum")),
        of_metric("rejected", metric(schema.METRIC_ROWS_REJECTED, how="sum")),
    ]
    ratio = [
        of_metric("read", metric(schema.METRIC_ROWS_READ, by=_MODEL, how="sum"), "sum"),
        of_metric("rejected", metric(schema.METRIC_ROWS_REJECTED, by=_MODEL, how="sum"), "sum"),
    ]
    written = _series("written", schema.METRIC_ROWS_WRITTEN, how="min")
    measured = _series("measured", schema.METRIC_MEASUREMENT, (schema.TAG_MEASUREMENT,))
    names = [Formula(name, name) for name in ("read", "written", "rejected")]
    return Group(
        "Did it read and write what it should?",
        "vivid_green",
        (
            columns(
                widgets.over_time("Rows read, written, rejected", flow, names, "bars"),
                widgets.over_time("Fewest rows written by a run", written, [Formula("written", "rows")]),
                widgets.top("Rejected rows, % of read", ratio, Formula("100 * rejected / read", "rejected %")),
                widgets.over_time("Measurements of the models", measured, [Formula("measured", "value")]),
            ),
        ),
    )


def _machine() -> Group:
    memory = _series("memory", schema.METRIC_MEMORY_PEAK, how="max")
    cpu = _series("cpu", schema.METRIC_CPU_TIME, how="sum")
    of_model = (attribute(schema.MODEL_NAME),)
    near = [
        of_spans("peak", runs(), "max", attribute(schema.MEMORY_PEAK), of_model),
        of_spans("limit", runs(), "max", attribute(schema.MEMORY_LIMIT), of_model),
    ]
    killed = [of_spans("killed", runs(term(schema.SIGNAL, "*")), by=(*of_model, attribute(schema.SIGNAL)))]
    return Group(
        "Does it have the memory and processor it needs?",
        "vivid_purple",
        (
            columns(
                widgets.over_time("Memory, peak by model", memory, [Formula("memory", "peak", _BYTES)]),
                widgets.top("Memory, % of the limit", near, Formula("100 * peak / limit", "of limit %")),
                widgets.over_time("Processor time by model", cpu, [Formula("cpu", "time", _SECONDS)], "bars"),
                widgets.top("Killed, by signal", killed, Formula("killed", "killed")),
            ),
        ),
    )


def _failures() -> Group:
    cause = (attribute(schema.ERROR_FINGERPRINT), attribute(schema.ERROR_TYPE), attribute(schema.MODEL_NAME))
    place = (attribute(schema.MODEL_NAME), attribute(schema.STAGE_NAME), attribute(schema.OUTCOME))
    causes = [of_spans("failures", runs(_FAILED_RUNS), by=cause)]
    places = [of_spans("failures", runs(_FAILED_RUNS), by=place)]
    over_time = [of_spans("failures", runs(_FAILED_RUNS), by=cause[:1])]
    failures = Formula("failures", "failures")
    return Group(
        "Why does it fail?",
        "vivid_pink",
        (
            columns(
                widgets.top("Failures by fingerprint", causes, failures),
                widgets.over_time("Failures by fingerprint, over time", over_time, [failures], "bars"),
                widgets.table("Failures by model, stage and outcome", places, [failures]),
            ),
        ),
    )


def _unusual() -> Group:
    score = _series("score", schema.ANOMALY_SCORE, (*_MODEL, schema.TAG_SIGNAL), "max")
    detected = _series("detected", schema.ANOMALY_DETECTED, (*_MODEL, schema.TAG_SIGNAL))
    return Group(
        "Was the run unusual?",
        "vivid_blue",
        (
            columns(
                widgets.over_time("Surprise of runs by signal", score, [Formula("score", "surprise")]),
                widgets.over_time("Unusual runs by signal", detected, [Formula("detected", "unusual runs")], "bars"),
            ),
        ),
    )


def _evidence() -> Group:
    dropped = [of_metric("dropped", metric(schema.TELEMETRY_DROPPED, ("$service",), (schema.TAG_REASON,)), "sum")]
    span_columns = ("timestamp", RESOURCE, attribute(schema.OUTCOME), attribute(schema.ERROR_TYPE), DURATION)
    log_columns = ("timestamp", STATUS, attribute(schema.LOG_MODEL_NAME), attribute(schema.LOG_STAGE), MESSAGE)
    return Group(
        "Traces and logs",
        "gray",
        (
            columns(
                widgets.stream("Failed runs: traces", "trace_stream", runs(_FAILED_RUNS), span_columns),
                widgets.stream("All runs: traces", "trace_stream", runs(), span_columns),
            ),
            (
                (widgets.stream("Logs", "logs_stream", records(), log_columns), 9),
                (widgets.top("Telemetry dropped, by reason", dropped, Formula("dropped", formats=good_is_none())), 3),
            ),
        ),
        height=5,
    )
