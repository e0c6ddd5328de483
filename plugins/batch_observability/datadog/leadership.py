"""
The leadership dashboard: how reliable the models are, whose they are, and what they cost.

Each widget answers a question of docs/dashboards.md.
"""

from __future__ import annotations

from batch_observability import schema
from batch_observability.datadog import widgets
from batch_observability.datadog.queries import (
    ENDED,
    FAILED,
    SUCCEEDED,
    VARIABLE_TAGS,
    VARIABLES,
    Json,
    attribute,
    daily,
    metric,
    of_metric,
    of_spans,
    runs,
    term,
)
from batch_observability.datadog.resource import Resource
from batch_observability.datadog.widgets import Formula, Group, columns, good_from, good_is_none

KEY = "leadership"
_OWNER, _MODEL, _TIER = (schema.TAG_OWNER,), (schema.TAG_MODEL,), (schema.TAG_TIER,)
_SECONDS, _HOURS = "second", "hour"
# Of 100 judgements; the same numbers are the targets of SLOs that promise no rate of their own (slos.py).
_GOOD, _WARNING = 99, 95
_ATTAINED = "100 * (checked - default_zero(breached)) / checked"
_SUCCEEDED = "100 * default_zero(succeeded) / ended"


def leadership() -> Resource:
    """Return the dashboard."""
    about = "How reliable our batch models are: promises kept, error budgets, owners, hours of compute, incidents."
    groups = (_promises(), _budgets(), _tiers(), _owners(), _compute(), _incidents(), _trust())
    return widgets.dashboard(
        KEY,
        "Batch models: reliability for leaders",
        about,
        groups,
        [widgets.variable(name) for name in VARIABLES],
        days=30,
    )


def _judged(by: tuple[str, ...] = (), aggregator: str = "sum") -> list[Json]:
    return [
        of_metric("checked", metric(schema.SLA_CHECKED, by=by), aggregator),
        of_metric("breached", metric(schema.SLA_BREACHED, by=by), aggregator),
    ]


def _ended(by: tuple[str, ...] = ()) -> list[Json]:
    return [
        of_metric("ended", metric(schema.RUN_FINISHED, (*VARIABLE_TAGS, *ENDED), by), "sum"),
        of_metric("succeeded", metric(schema.RUN_FINISHED, (*VARIABLE_TAGS, *SUCCEEDED), by), "sum"),
    ]


def _promises() -> Group:
    attained = Formula(_ATTAINED, "attainment", formats=good_from(_GOOD, _WARNING))
    succeeded = Formula(_SUCCEEDED, "succeeded", formats=good_from(_GOOD, _WARNING))
    by_day = [
        of_metric("checked", daily(metric(schema.SLA_CHECKED))),
        of_metric("breached", daily(metric(schema.SLA_BREACHED))),
    ]
    before = _ATTAINED.replace("checked", "week_before(checked)").replace("(breached)", "(week_before(breached))")
    trend = [Formula(_ATTAINED, "attainment %"), Formula(before, "a week before %")]
    breached = Formula("default_zero(breached)", "broken promises", formats=good_is_none())
    return Group(
        "Do our models keep their promises?",
        "vivid_blue",
        (
            columns(
                widgets.value("SLA attainment", _judged(), attained, "%"),
                widgets.value("Runs that succeeded", _ended(), succeeded, "%"),
                widgets.value("Promises broken", [_judged()[1]], breached),
            ),
            columns(
                widgets.over_time("SLA attainment by day, against the week before", by_day, trend),
                widgets.top("SLA attainment by objective", _judged((schema.TAG_OBJECTIVE,)), attained),
            ),
            columns(
                widgets.top("Promises broken by model", [_judged(_MODEL)[1]], breached),
                widgets.note(
                    "**Attainment** is promises kept of promises judged, in the time that is chosen above. "
                    f"Below {_WARNING} %: ask the owner of the first model in the list for its plan. "
                    "A fall against the week before with one model on top is that model; with many it is the platform."
                ),
            ),
        ),
    )


def _budgets() -> Group:
    text = (
        "A model that has used its **error budget** ships no new feature until it is reliable again. "
        "The list is of all SLOs, the least budget first; pick 7, 30 or 90 days in it."
    )
    return Group(
        "Error budgets",
        "vivid_green",
        (((widgets.budgets("Error budgets, the least first"), 8), (widgets.note(text), 4)),),
        height=4,
    )


def _tiers() -> Group:
    found = [of_spans("models", runs(), "cardinality", attribute(schema.MODEL_NAME), (attribute(schema.MODEL_TIER),))]
    all_models = [of_spans("models", runs(), "cardinality", attribute(schema.MODEL_NAME))]
    by_tier = [of_metric("finished", metric(schema.RUN_FINISHED, by=_TIER))]
    return Group(
        "Models by tier",
        "vivid_purple",
        (
            columns(
                widgets.value("Models that ran", all_models, Formula("models", "models")),
                widgets.top("Models by tier", found, Formula("models", "models")),
                widgets.top("SLA attainment by tier", _judged(_TIER), Formula(_ATTAINED, "attainment %")),
                widgets.over_time("Runs by tier", by_tier, [Formula("finished", "runs")], "bars"),
            ),
        ),
    )


def _owners() -> Group:
    failed = of_metric("failed", metric(schema.RUN_FINISHED, (*VARIABLE_TAGS, *FAILED), _OWNER), "sum")
    missed = of_metric("missed", metric(schema.RUN_MISSED, by=_OWNER), "sum")
    queries = [*_judged(_OWNER), *_ended(_OWNER), failed, missed, _compute_of(_OWNER)]
    league = [
        Formula(_ATTAINED, "attainment %", formats=good_from(_GOOD, _WARNING)),
        Formula(_SUCCEEDED, "succeeded %", formats=good_from(_GOOD, _WARNING)),
        Formula("default_zero(breached)", "broken promises"),
        Formula("default_zero(failed)", "failed runs"),
        Formula("default_zero(missed)", "never started"),
        Formula("compute", "compute", _SECONDS),
    ]
    text = "One line an owner. The best can say how; the last needs time, not blame. No owner: a gap in the catalog."
    return Group(
        "Owners' league table",
        "vivid_orange",
        (((widgets.table("Owners' league table", queries, league), 9), (widgets.note(text), 3)),),
        height=4,
    )


def _compute_of(by: tuple[str, ...] = ()) -> Json:
    return of_metric("compute", metric(schema.METRIC_CPU_TIME, by=by, how="sum"), "sum")


def _compute() -> Group:
    spent = of_metric("compute", daily(metric(schema.METRIC_CPU_TIME, by=_OWNER, how="sum")))
    lasted = of_metric("lasted", metric(schema.RUN_DURATION, by=_MODEL, how="sum"), "sum")
    hours = Formula("compute / 3600", "hours", _HOURS)
    lost = Formula("default_zero(lost) / 3600", "hours", _HOURS)
    failed = of_metric("lost", metric(schema.RUN_DURATION, (*VARIABLE_TAGS, *FAILED), how="sum"), "sum")
    return Group(
        "Hours of compute",
        "vivid_yellow",
        (
            columns(
                widgets.value("Compute: processor time", [_compute_of()], hours),
                widgets.value("Hours in runs that failed", [failed], lost),
                widgets.over_time("Compute by owner", [spent], [hours], "bars"),
                widgets.top("Hours of runs by model", [lasted], Formula("lasted / 3600", "hours", _HOURS)),
            ),
        ),
    )


def _incidents() -> Group:
    counted = [
        of_metric("failed", daily(metric(schema.RUN_FINISHED, (*VARIABLE_TAGS, *FAILED)))),
        of_metric("breached", daily(metric(schema.SLA_BREACHED))),
        of_metric("missed", daily(metric(schema.RUN_MISSED))),
    ]
    names = {"failed": "failed runs", "breached": "broken promises", "missed": "never started"}
    shown = [Formula(name, alias) for name, alias in names.items()]
    late = Formula("-1 * late", "late", _SECONDS)
    missed = of_metric("missed", metric(schema.RUN_MISSED, by=_MODEL), "sum")
    age = of_metric("age", metric(schema.FRESHNESS, by=_MODEL, how="max"), "last")
    return Group(
        "Incidents and time to recover",
        "vivid_pink",
        (
            columns(
                widgets.over_time("Incidents by day", counted, shown, "bars"),
                widgets.value("Time to recover: ready by", [_late("finish_by")], late),
                widgets.value("Time to recover: done within", [_late("finish_within")], late),
            ),
            columns(
                widgets.top("Time to recover by model", [_late("finish_by", (attribute(schema.MODEL_NAME),))], late),
                widgets.top("Runs that never started, by model", [missed], Formula("missed", "never started")),
                widgets.top("Age of the newest success, by model", [age], Formula("age", "age", _SECONDS)),
            ),
        ),
    )


def _late(objective: str, by: tuple[str, ...] = ()) -> Json:
    """Return how late the results came that broke a promise: from then on the model was well again."""
    search = runs(term(schema.SLA_STATE, schema.BREACHED, objective=objective))
    return of_spans("late", search, "avg", attribute(schema.SLA_MARGIN_S, objective=objective), by, least=True)


def _trust() -> Group:
    dropped = of_metric("dropped", metric(schema.TELEMETRY_DROPPED, ("$service",)), "sum")
    shown = Formula("default_zero(dropped)", "dropped", formats=good_is_none())
    text = (
        "**0 is the promise.** Anything else: some of what the models told did not arrive, and the numbers above are "
        "too low. Ask the team that runs batch_observability."
    )
    return Group(
        "Can these numbers be trusted?",
        "gray",
        (
            (
                (widgets.value("Telemetry dropped", [dropped], shown), 4),
                (widgets.note(text), 8),
            ),
        ),
        height=2,
    )
