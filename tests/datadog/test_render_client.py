"""Datadog's client parses all that is rendered, and knows every key of it."""

from __future__ import annotations

import copy

import pytest

from batch_observability.datadog.render import Options, rendered
from batch_observability.datadog.resource import KINDS, filled
from tests.datadog import accepted
from tests.datadog.catalogs import hundreds


@pytest.fixture(scope="module")
def bodies():
    resources = rendered(hundreds(48), Options(envs=("prod", "staging")))
    ids = {f"{one.kind}:{one.key}": number for number, one in enumerate(resources, 1000)}
    return [(one.kind, one.key, filled(one.body, ids)) for one in resources]


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_accepts_it_with_nothing_unparsed_or_unknown(bodies, kind):
    of_kind = [(key, body) for found, key, body in bodies if found == kind]
    assert of_kind
    assert [(key, said) for key, body in of_kind if (said := accepted.complaints(kind, body))] == []


@pytest.mark.parametrize(
    ("kind", "path", "wrong"),
    [
        ("dashboard", ("widgets", 0, "definition", "widgets", 0, "definition", "type"), "query_number"),
        ("dashboard", ("widgets", 0, "definition", "widgets", 0, "definition", "colour"), "red"),
        ("dashboard", ("widgets", 0, "layout", "x"), -1),
        ("dashboard", ("reflow_type",), "free"),
        ("monitor", ("type",), "batch alert"),
        ("monitor", ("options", "on_missing"), "default"),
        ("slo", ("thresholds", 0, "timeframe"), "14d"),
        ("slo", ("objective",), "99"),
        ("pipeline", ("processors", 0, "type"), "time-remapper"),
        ("service", ("metadata", "team"), "risk"),
        ("service", ("apiVersion",), "v9"),
        ("retention_filter", ("filter_type",), "everything"),
        ("retention_filter", ("keep",), True),
    ],
)
def test_what_the_client_would_not_understand_is_found(bodies, kind, path, wrong):
    body = copy.deepcopy(
        next(body for found, key, body in bodies if found == kind and key != "monitor/telemetry_dropped")
    )
    target = body
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = wrong
    assert accepted.complaints(kind, body)
