"""
Monitors of a model: parts that watch one thing each and tell nobody, and one composite of them that pages.

One cause pages once: a run that fails also breaks its promise, later also that of its freshness. All that is one alert
of the composite, which opens with the first part and closes with the last.

Parts are not grouped. A composite of grouped monitors considers only groups that all of its parts report
(https://docs.datadoghq.com/monitors/types/composite/#common-reporting-sources), and an environment that never failed
has no group in a count of failures: its first failure would page nobody. A count that is not grouped is 0 where there
is none. So there is a set of monitors for each environment that pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batch_observability import schema
from batch_observability.catalog import Cataloged
from batch_observability.datadog import engineering
from batch_observability.datadog.cadence import silence_h, window_h
from batch_observability.datadog.options import Options
from batch_observability.datadog.queries import (
    FAILED,
    FAILED_OUTCOMES,
    Json,
    but,
    link,
    metric,
    model_tags,
    records_of,
    runs_of,
    tag,
    tag_value,
    term,
)
from batch_observability.datadog.resource import DASHBOARD, KEY_TAG, MANAGED_BY, MONITOR, Resource, made, reference

PAGE = "page"
_TOO_FAST = "min_duration"
_FROM_DUE = ("start_within", "finish_by")
# Below a half of one is none, whatever Datadog makes of whole numbers on the way.
_COUNTED = {"critical": 1.0, "critical_recovery": 0.5}
_DEFAULT_PRIORITY, _LOWEST_PRIORITY = 3, 5
# Pages of Datadog show the last minutes, and a batch run may be hours ago: from a day before the alert to an hour after
# (https://docs.datadoghq.com/monitors/guide/template-variable-evaluation/#scope-links-to-specific-times).
_THEN = (
    '&from_ts={{eval "last_triggered_at_epoch-24*60*60*1000"}}'
    '&to_ts={{eval "last_triggered_at_epoch+60*60*1000"}}&live=false'
)


@dataclass(frozen=True)
class _Part:
    """One thing that is watched: the end of its key, what is wrong in a few words, what to do, query and options."""

    name: str
    wrong: str
    remedy: str
    query: str
    thresholds: Json
    on_missing: str = "default"


def monitors_of(entry: Cataloged, env: str, options: Options) -> list[Resource]:
    """Return the monitors of a model in one environment, the one that pages last."""
    parts = list(_parts(entry, env))
    return [*(_part(part, entry, env, options) for part in parts), _page(parts, entry, env, options)]


def _parts(entry: Cataloged, env: str) -> Iterator[_Part]:
    of_model = (tag(schema.TAG_ENV, env), tag(schema.TAG_MODEL, entry.model.name))
    last = f"sum(last_{window_h(entry)}h)"
    promised = entry.model.objectives()

    def counted(of: schema.Metric, *filters: str) -> str:
        return f"{last}:{metric(of, (*of_model, *filters))} >= 1"

    yield _Part(
        "failed",
        "a run failed",
        "Open the failed run's trace and its last log lines; when the cause is mended, clear the task or run the job.",
        counted(schema.RUN_FINISHED, *FAILED),
        _COUNTED,
    )
    yield _Part(
        "breached",
        "a promise is broken",
        "See which objective on the dashboard; tell those who wait for the result, then look where the time went.",
        counted(schema.SLA_BREACHED, but(schema.TAG_OBJECTIVE, _TOO_FAST)),
        _COUNTED,
    )
    if entry.schedule or any(name in promised for name in _FROM_DUE):
        yield _Part(
            "missed",
            "a run was due and never started",
            "Is the DAG paused, its file broken, or the scheduler or cron host down? `batchobs check` says which.",
            counted(schema.RUN_MISSED),
            _COUNTED,
        )
    if hours := silence_h(entry):
        yield _Part(
            "silent",
            f"nothing was heard for {hours} h",
            "Nothing runs, or nothing arrives: look at scheduler or cron host, then at the Agent (`batchobs doctor`).",
            f"sum(last_{hours}h):{metric(schema.RUN_STARTED, of_model)} < 1",
            {"critical": 1.0},
            "show_and_notify_no_data",
        )
    if _TOO_FAST in promised:
        yield _Part(
            "too_fast",
            "a run was too fast to have done its work",
            "Look at the rows it read and wrote: an empty input, a filter, or a branch that was skipped.",
            counted(schema.SLA_BREACHED, tag(schema.TAG_OBJECTIVE, _TOO_FAST)),
            _COUNTED,
        )
    if str(entry.model.tier) == "1" and promised:
        yield _Part(
            "at_risk",
            "a promise is at risk",
            "There is still time: look at the stage that it is in; `extend_sla` if the delay is agreed on.",
            counted(schema.SLA_AT_RISK),
            _COUNTED,
        )


def key_of(entry: Cataloged, part: str, env: str) -> str:
    """Return the key of a monitor; letters of the model as tags have them, which hold the key."""
    return f"{MONITOR}/{tag_value(entry.model.name)}/{part}/{env}"


def _part(part: _Part, entry: Cataloged, env: str, options: Options) -> Resource:
    body = {
        "type": "query alert",
        "name": f"[{env}] {entry.model.name}: {part.wrong}",
        "query": part.query,
        "message": _message(entry, env, options, part.wrong, [part.remedy], silent=part.name == "silent"),
        "options": {
            "thresholds": dict(part.thresholds),
            "on_missing_data": part.on_missing,
            "require_full_window": False,
            "include_tags": True,
        },
    }
    return _made(key_of(entry, part.name, env), body, entry, env)


def _page(parts: list[_Part], entry: Cataloged, env: str, options: Options) -> Resource:
    keys = [reference(MONITOR, key_of(entry, part.name, env)) for part in parts]
    silent = any(part.name == "silent" for part in parts)
    remedies = [f"If {part.wrong}: {part.remedy}" for part in parts]
    handle = entry.owner.oncall if entry.owner else ""
    body = {
        "type": "composite",
        "name": f"[{env}] {entry.model.name} needs its owner",
        "query": " || ".join(keys),
        "message": "\n".join(
            [
                _message(entry, env, options, " or ".join(part.wrong for part in parts), remedies, silent=silent),
                # Outside of all conditions: what is well again must be told to who was paged.
                handle or "Nobody is paged: the owner has no on-call handle in the catalog.",
            ]
        ),
        # A composite has no data when a part that tells so has none.
        "options": {"notify_no_data": silent, "include_tags": True},
    }
    return _made(key_of(entry, PAGE, env), body, entry, env)


def _made(key: str, body: Json, entry: Cataloged, env: str) -> Resource:
    tags = [MANAGED_BY, f"{KEY_TAG}:{key}", *model_tags(entry.model, env)]
    return made(MONITOR, key, {**body, "tags": tags, "priority": _priority(entry.model.tier)})


def _priority(tier: int | str) -> int:
    """Return Datadog's P1 to P5 for a tier; labels that are no number are in the middle."""
    text = str(tier)
    return min(int(text), _LOWEST_PRIORITY) if text.isdecimal() and int(text) else _DEFAULT_PRIORITY


def _message(entry: Cataloged, env: str, options: Options, wrong: str, remedies: list[str], *, silent: bool) -> str:
    model, site = entry.model, options.site
    of_model = {f"tpl_var_{schema.TAG_ENV}": env, f"tpl_var_{schema.TAG_MODEL}": tag_value(model.name)}
    page = link(site, f"dashboard/{reference(DASHBOARD, engineering.KEY)}", **of_model)
    failed = runs_of(model.name, env, term(schema.OUTCOME, FAILED_OUTCOMES))
    lines = ["{{#is_alert}}", f"**{model.name}** in {env}: {wrong}.", "{{/is_alert}}"]
    if silent:
        lines += ["{{#is_no_data}}", f"**{model.name}** in {env} is silent.", "{{/is_no_data}}"]
    lines += ["{{#is_recovery}}", f"**{model.name}** in {env} is well again.", "{{/is_recovery}}", ""]
    lines += [f"- {remedy}" for remedy in remedies]
    lines += [
        "",
        f"- Runbook: {model.runbook or 'none in the catalog'}",
        f"- [Failed runs: traces]({link(site, 'apm/traces', query=failed)}{_THEN})",
        f"- [All runs: traces]({link(site, 'apm/traces', query=runs_of(model.name, env))}{_THEN})",
        f"- [Logs]({link(site, 'logs', query=records_of(model.name, env))}{_THEN})",
        f"- [Dashboard]({page}{_THEN})",
        "",
        f"Tier {model.tier}, service {model.service}, owner {model.owner or 'unknown'}.",
    ]
    return "\n".join(lines)


# --- One for all -------------------------------------------------------------------------------------------------


def telemetry_dropped(options: Options) -> Resource:
    """Return the monitor of telemetry that did not arrive: each of a service's reasons alerts by itself."""
    key = f"{MONITOR}/telemetry_dropped"
    dropped = metric(schema.TELEMETRY_DROPPED, (), (schema.TAG_SERVICE, schema.TAG_REASON))
    body = {
        "type": "query alert",
        "name": "batch_observability dropped telemetry",
        "query": f"sum(last_1h):{dropped} >= 1",
        "message": "\n".join(
            [
                "{{#is_alert}}",
                "Telemetry of {{service.name}} was dropped ({{reason.name}}): dashboards and SLOs show too little.",
                "{{/is_alert}}",
                "{{#is_recovery}}",
                "No more telemetry of {{service.name}} is dropped.",
                "{{/is_recovery}}",
                "",
                "- `batchobs spool` on the host says what waits and why; `batchobs doctor` whether the target answers.",
                f"- [Dashboard]({link(options.site, f'dashboard/{reference(DASHBOARD, engineering.KEY)}')})",
                *([options.platform] if options.platform else []),
            ]
        ),
        "options": {
            "thresholds": dict(_COUNTED),
            "on_missing_data": "default",
            "require_full_window": False,
            "include_tags": True,
        },
        "priority": _DEFAULT_PRIORITY,
        "tags": [MANAGED_BY, f"{KEY_TAG}:{key}"],
    }
    return made(MONITOR, key, body)
