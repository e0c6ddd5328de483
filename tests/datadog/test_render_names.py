"""Every name that a query asks for is one that is emitted, and everything that is emitted can be seen somewhere."""

from __future__ import annotations

import copy

import pytest

from batch_observability import schema
from batch_observability.datadog import queries
from batch_observability.datadog.render import Options, rendered
from batch_observability.datadog.resource import made
from tests.datadog.catalogs import hundreds
from tests.datadog.queried import names_in

# Metrics that nobody needs to see, and why.
NOT_SHOWN: dict[str, str] = {}


@pytest.fixture(scope="module")
def resources():
    return rendered(hundreds(48), Options(envs=("prod", "staging"), platform="@slack-batch-platform"))


def test_every_name_that_is_asked_for_is_in_the_schema(resources):
    assert names_in(resources).wrong == []


def test_every_metric_is_on_a_dashboard_or_in_a_monitor_unless_a_reason_is_stated(resources):
    shown = names_in([one for one in resources if one.kind in ("dashboard", "monitor")]).metrics
    assert set(schema.METRICS) - shown == set(NOT_SHOWN)
    assert all(NOT_SHOWN.values())


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("dashboard", "batch_model.run.finished", "batch_model.run.ended"),
        ("dashboard", "by {owner}", "by {team}"),
        ("dashboard", "by {stage}", "by {measurement}"),
        ("dashboard", "$tier", "$level"),
        ("dashboard", "operation_name:batch_model.run", "operation_name:batch_model.task"),
        ("dashboard", "@error.fingerprint", "@error.hash"),
        ("dashboard", "@batch_model.outcome:(failed", "@batch_model.outcome:(crashed"),
        ("dashboard", "@batch_model.sla.finish_by", "@batch_model.sla.finish"),
        ("dashboard", "default_zero(breached)", "default_zero(broken)"),
        ("monitor", "batch_model.sla.breached", "batch_model.sla.broken"),
        ("monitor", "!objective:", "!promise:"),
        ("monitor", "%40batch_model.name%3A", "%40batch_model.model%3A"),
        ("monitor", "tpl_var_model", "tpl_var_name"),
        ("slo", "outcome:success", "state:success"),
        ("slo", "batch_model.freshness", "batch_model.age"),
        ("service", "@batch_model.name", "@model.name"),
        ("pipeline", "dd.trace_id", "trace.id"),
        ("pipeline", "source:", "origin:"),
        ("retention_filter", "batch_model.run", "batch_model.runs"),
    ],
)
def test_a_wrong_name_is_found(resources, kind, before, after):
    """The test of the tests: each way in which a query can ask for what there is not."""

    def changed(value):
        if isinstance(value, str):
            return value.replace(before, after)
        if isinstance(value, dict):
            return {key: changed(child) for key, child in value.items()}
        return [changed(child) for child in value] if isinstance(value, list) else value

    touched = [made(one.kind, one.key, changed(copy.deepcopy(one.body))) for one in resources if one.kind == kind]
    assert [one.body for one in touched] != [one.body for one in resources if one.kind == kind]
    assert names_in(touched).wrong


def test_a_tag_that_a_metric_does_not_have_cannot_be_written():
    with pytest.raises(ValueError, match="has no tag 'objective'"):
        queries.metric(schema.RUN_FINISHED, by=(schema.TAG_OBJECTIVE,))
    with pytest.raises(ValueError, match="has no tag 'outcome'"):
        queries.metric(schema.FRESHNESS, queries.FAILED)


def test_an_attribute_that_no_span_has_cannot_be_written():
    with pytest.raises(ValueError, match=r"no attribute 'batch_model\.color'"):
        queries.attribute("batch_model.color")


@pytest.mark.parametrize(
    ("written", "kept"), [("Team Risk", "team_risk"), ("A/b.c-d:e", "a/b.c-d:e"), ("x" * 300, "x" * 200), (1, "1")]
)
def test_a_tag_is_asked_for_as_datadog_keeps_it(written, kept):
    assert queries.tag_value(written) == kept


def test_what_is_no_plain_word_is_quoted_in_a_search():
    assert queries.term(schema.MODEL_NAME, 'a/b "c"') == '@batch_model.name:"a/b \\"c\\""'
    assert queries.term(schema.MODEL_NAME, "churn-score") == "@batch_model.name:churn-score"
