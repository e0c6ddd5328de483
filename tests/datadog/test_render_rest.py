"""SLOs, service entries, log pipeline and retention filter."""

from __future__ import annotations

import pytest

from batch_observability import schema
from batch_observability.datadog.options import Options
from batch_observability.datadog.pipeline import pipeline
from batch_observability.datadog.retention import retention_filter
from batch_observability.datadog.services import services_of
from batch_observability.datadog.slos import slos_of
from batch_observability.export.datadog_logs import SOURCE
from batch_observability.model import SLA
from tests.datadog.catalogs import RISK, SUPPLY, entry


def slos(**model) -> dict[str, dict]:
    return {one.key.split("/")[-2]: one.body for one in slos_of(entry("churn-score", **model), "prod")}


def services(*entries) -> dict[str, dict]:
    return {one.key: one.body for one in services_of(entries, Options())}


# --- SLOs --------------------------------------------------------------------------------------------------------


def test_every_model_has_an_slo_of_runs_that_succeed():
    found = slos()
    assert list(found) == ["success_rate"]
    assert found["success_rate"]["query"] == {
        "numerator": "sum:batch_model.run.finished{env:prod,model:churn-score,outcome:success}.as_count()",
        "denominator": "sum:batch_model.run.finished{env:prod,model:churn-score,"
        "!outcome:retrying,!outcome:skipped,!outcome:cancelled}.as_count()",
    }


def test_each_time_that_is_promised_has_its_slo():
    found = slos(sla=SLA(start_within="15m", finish_within="1h", finish_by="06:30 UTC", min_rows=10))
    assert list(found) == ["success_rate", "start_within", "finish_within", "finish_by"]
    numerator = found["finish_by"]["query"]["numerator"]
    assert "batch_model.sla.checked{env:prod,model:churn-score,objective:finish_by}" in numerator
    # No breach is no number in Datadog, and not 0.
    assert "- default_zero(sum:batch_model.sla.breached{" in numerator


def test_freshness_is_a_share_of_time():
    body = slos(sla=SLA(freshness="26h"))["freshness"]
    condition = body["sli_specification"]["time_slice"]
    assert (body["type"], condition["comparator"], condition["threshold"]) == ("time_slice", "<=", 26 * 3600)


@pytest.mark.parametrize(
    ("model", "target", "warning"),
    [
        ({"sla": SLA(success_rate="99.5%"), "tier": 3}, 99.5, 99.75),
        ({"sla": SLA(success_rate=1.0)}, 99.999, 99.9995),
        ({"tier": 1}, 99.0, 99.5),
        ({"tier": "2"}, 95.0, 97.5),
        ({"tier": "gold"}, 90.0, 95.0),
    ],
)
def test_the_target_is_what_is_promised_else_by_tier(model, target, warning):
    thresholds = slos(**model)["success_rate"]["thresholds"]
    assert [one["timeframe"] for one in thresholds] == ["7d", "30d", "90d"]
    assert {(one["target"], one["warning"]) for one in thresholds} == {(target, warning)}


# --- Service entries ---------------------------------------------------------------------------------------------


def test_a_service_is_of_the_owner_of_its_most_important_model():
    models = (entry("b", service="Churn", tier=2, owner=SUPPLY), entry("a", service="Churn", tier=1, owner=RISK))
    body = services(*models)["service/churn"]
    metadata = body["metadata"]
    assert (metadata["name"], metadata["displayName"], metadata["owner"]) == ("churn", "Churn", "team-risk")
    assert metadata["additionalOwners"] == [{"name": "team-supply", "type": "team"}]
    assert body["spec"]["tier"] == "1"
    assert [one["name"] for one in body["extensions"]["batch_observability"]["models"]] == ["a", "b"]


def test_a_service_that_nobody_owns_has_no_owner():
    metadata = services(entry("orphan", owner=None))["service/orphan"]["metadata"]
    assert "owner" not in metadata
    assert metadata["contacts"] == []


def test_contacts_are_of_the_kind_that_they_are():
    models = (entry("a", service="s"), entry("b", service="s", owner=SUPPLY))
    contacts = services(*models)["service/s"]["metadata"]["contacts"]
    assert [(one["type"], one["contact"]) for one in contacts] == [
        ("email", "risk@example.com"),
        ("slack", "https://example.slack.com/archives/supply"),
    ]


def test_links_are_runbook_dashboard_and_what_the_catalog_has():
    one = entry("a", runbook="https://wiki.example.com/a", links={"design": "https://wiki.example.com/design"})
    links = services(one)["service/a"]["metadata"]["links"]
    assert [(link["type"], link["name"]) for link in links] == [
        ("runbook", "Runbook of a"),
        ("other", "design"),
        ("dashboard", "Runs of a"),
    ]


@pytest.mark.parametrize("name", ["pagerduty", "opsgenie"])
def test_an_integration_is_there_where_a_link_leads_to_it(name):
    url = f"https://acme.{name}.com/service-directory/P1"
    body = services(entry("a", links={"on-call": url}))["service/a"]
    assert body["integrations"] == {name: {"serviceURL": url}}


def test_a_handle_alone_is_no_integration():
    """It does not say whose account it is; and an address that only looks like theirs is none."""
    body = services(entry("a", links={"x": "https://notpagerduty.com/x"}))["service/a"]
    assert "integrations" not in body
    assert body["extensions"]["batch_observability"]["models"][0]["oncall"] == "@pagerduty-risk"


# --- Logs and spans ----------------------------------------------------------------------------------------------


def test_the_pipeline_gives_records_what_datadog_reserves():
    body = pipeline().body
    assert body["filter"]["query"] == f"source:{SOURCE}"
    assert {one["type"]: one["sources"] for one in body["processors"] if one["type"] != "attribute-remapper"} == {
        "date-remapper": [schema.LOG_TIMESTAMP],
        "status-remapper": [schema.LOG_LEVEL],
        "message-remapper": [schema.LOG_EVENT],
        "service-remapper": [schema.LOG_SERVICE],
        "trace-id-remapper": [schema.LOG_TRACE_ID],
        "span-id-remapper": [schema.LOG_SPAN_ID],
    }
    tags = {one["target"] for one in body["processors"] if one["type"] == "attribute-remapper"}
    assert tags == {"env", "version", "model", "owner", "tier"}
    assert all(one["is_enabled"] for one in body["processors"])


def test_the_span_of_every_run_is_kept():
    body = retention_filter().body
    assert (body["filter"]["query"], body["rate"]) == ("operation_name:batch_model.run", 1.0)
