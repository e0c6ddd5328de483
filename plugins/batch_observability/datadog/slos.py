"""
SLOs of a model in one environment: how many runs succeed, how many keep each time that is promised, how long its
results are fresh.

A promise of an SLA is of each run; an SLO says of how many runs. `success_rate` is such a number. For the others it
comes from the tier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from batch_observability import schema
from batch_observability.catalog import Cataloged
from batch_observability.datadog.queries import ENDED, SUCCEEDED, Json, metric, model_tags, of_metric, tag, tag_value
from batch_observability.datadog.resource import KEY_TAG, MANAGED_BY, SLO, Resource, made

_TIMEFRAMES = ("7d", "30d", "90d")
_TARGETS = {"1": 99.0, "2": 95.0}
_TARGET_BELOW = 90.0
# Datadog takes no target of 100.
_GREATEST = 99.999
_TIMES = ("start_within", "finish_within", "finish_by")
_SLICE_S = 300
_RATE, _FRESHNESS = "success_rate", "freshness"


@dataclass(frozen=True)
class _Objective:
    """What is promised: the end of its key, in words, of how many of 100, and how it is counted."""

    name: str
    words: str
    target: float
    counted: Json


def slos_of(entry: Cataloged, env: str) -> list[Resource]:
    """Return the SLOs of a model in one environment."""
    return [_made(entry, env, objective) for objective in _objectives(entry, env)]


def _objectives(entry: Cataloged, env: str) -> Iterator[_Objective]:
    of_model = (tag(schema.TAG_ENV, env), tag(schema.TAG_MODEL, entry.model.name))
    by_tier = _TARGETS.get(str(entry.model.tier), _TARGET_BELOW)
    sla = entry.model.sla
    rate = sla.success_rate if sla else None
    target = min(round(rate * 100, 3), _GREATEST) if isinstance(rate, float) else by_tier
    good = metric(schema.RUN_FINISHED, (*of_model, *SUCCEEDED))
    yield _Objective(_RATE, "runs succeed", target, _share(good, metric(schema.RUN_FINISHED, (*of_model, *ENDED))))
    promised = entry.model.objectives()
    for name in _TIMES:
        if name in promised:
            filters = (*of_model, tag(schema.TAG_OBJECTIVE, name))
            checked, breached = metric(schema.SLA_CHECKED, filters), metric(schema.SLA_BREACHED, filters)
            # Most of the time there is no breach, and to a formula no number is not 0.
            kept = f"{checked} - default_zero({breached})"
            yield _Objective(name, f"{name} {promised[name]} is kept", by_tier, _share(kept, checked))
    if sla and isinstance(sla.freshness, timedelta):
        age = metric(schema.FRESHNESS, of_model, how="max")
        words = f"the newest success is younger than {promised[_FRESHNESS]}"
        yield _Objective(_FRESHNESS, words, by_tier, _while_below(age, sla.freshness.total_seconds()))


def _share(good: str, total: str) -> Json:
    return {"type": "metric", "query": {"numerator": good, "denominator": total}}


def _while_below(query: str, threshold: float) -> Json:
    condition = {
        "query": {"formulas": [{"formula": "age"}], "queries": [of_metric("age", query)]},
        "comparator": "<=",
        "threshold": threshold,
        "query_interval_seconds": _SLICE_S,
    }
    return {"type": "time_slice", "sli_specification": {"time_slice": condition}}


def _made(entry: Cataloged, env: str, objective: _Objective) -> Resource:
    model, target = entry.model, objective.target
    key = f"{SLO}/{tag_value(model.name)}/{objective.name}/{env}"
    runbook = model.runbook or "none in the catalog"
    body = {
        **objective.counted,
        "name": f"[{env}] {model.name}: {objective.words}",
        "description": f"{objective.words}: {target:g} %. Runbook: {runbook}",
        "tags": [MANAGED_BY, f"{KEY_TAG}:{key}", *model_tags(model, env)],
        "thresholds": [
            {"timeframe": frame, "target": target, "warning": round(target + (100 - target) / 2, 4)}
            for frame in _TIMEFRAMES
        ],
    }
    return made(SLO, key, body)
