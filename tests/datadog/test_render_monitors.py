"""What pages whom, when, and with which words."""

from __future__ import annotations

import re

import pytest

from batch_observability.config import ConfigError
from batch_observability.datadog.cadence import silence_h, window_h
from batch_observability.datadog.monitors import monitors_of, telemetry_dropped
from batch_observability.datadog.options import Options
from batch_observability.model import SLA
from tests.datadog.catalogs import SUPPLY, entry

OPTIONS = Options()
CHURN = entry(
    "churn-score",
    service="churn",
    tier=1,
    schedule="10 3 * * *",
    runbook="https://wiki.example.com/churn",
    sla=SLA(finish_by="06:30 Europe/London", min_duration="2m", freshness="26h"),
)


def rendered(one=CHURN, env="prod", options=OPTIONS) -> dict[str, dict]:
    return {found.key.split("/")[-2]: found.body for found in monitors_of(one, env, options)}


def test_a_model_has_a_monitor_for_each_way_to_go_wrong():
    assert list(rendered()) == ["failed", "breached", "missed", "silent", "too_fast", "at_risk", "page"]


def test_a_model_of_which_nothing_is_known_is_watched_for_failures_and_promises_in_code():
    assert list(rendered(entry("plain", owner=None))) == ["failed", "breached", "page"]


def test_only_the_first_tier_is_told_before_it_happens():
    assert "at_risk" not in rendered(entry("second", tier=2, sla=SLA(finish_within="1h")))
    assert "at_risk" in rendered(entry("first", tier="1", sla=SLA(finish_within="1h")))


def test_one_cause_pages_once():
    """Parts have no handle; one composite of all of them has the owner's."""
    found = rendered()
    page = found.pop("page")
    assert page["type"] == "composite"
    assert "@pagerduty-risk" in page["message"]
    assert not [name for name, body in found.items() if "@" in body["message"]]
    referred = re.findall(r"\{\{ref:monitor:monitor/churn-score/(\w+)/prod\}\}", page["query"])
    assert referred == list(found)
    assert len(referred) <= 10


def test_what_is_well_again_is_told_to_who_was_paged():
    """The handle is in no condition, or PagerDuty would never close the incident."""
    outside = re.sub(r"\{\{#(\w+)\}\}.*?\{\{/\1\}\}", "", rendered()["page"]["message"], flags=re.DOTALL)
    assert "@pagerduty-risk" in outside


def test_who_has_no_handle_is_told_that_nobody_is_paged():
    assert "Nobody is paged" in rendered(entry("orphan", owner=None))["page"]["message"]


def test_parts_are_not_grouped():
    """A composite looks at groups that all its parts report: an environment that never failed would page nobody."""
    assert not [body["query"] for body in rendered().values() if " by {" in body["query"]]


def test_each_environment_has_its_own_monitors():
    prod, staging = monitors_of(CHURN, "prod", OPTIONS), monitors_of(CHURN, "staging", OPTIONS)
    assert not {one.key for one in prod} & {one.key for one in staging}
    assert all("env:staging" in one.body["query"] for one in staging if one.body["type"] != "composite")


def test_no_data_is_an_alert_of_silence_and_of_nothing_else():
    found = rendered()
    assert found["silent"]["options"]["on_missing_data"] == "show_and_notify_no_data"
    # 24 h from slot to slot, and a tenth of that.
    assert found["silent"]["query"].startswith("sum(last_27h):")
    assert found["page"]["options"]["notify_no_data"] is True
    others = [body for name, body in found.items() if name not in ("silent", "page")]
    assert {body["options"]["on_missing_data"] for body in others} == {"default"}
    assert rendered(entry("plain"))["page"]["options"]["notify_no_data"] is False


def test_a_monitor_recovers_below_its_threshold():
    for name, body in rendered().items():
        thresholds = body["options"].get("thresholds", {})
        if "critical_recovery" in thresholds:
            assert body["query"].endswith(">= 1")
            assert thresholds["critical_recovery"] < thresholds["critical"]
        else:
            assert name in ("silent", "page")


@pytest.mark.parametrize("name", ["failed", "page"])
def test_a_message_says_what_where_and_what_to_do(name):
    message = rendered()[name]["message"]
    for word in (
        "{{#is_alert}}",
        "{{#is_recovery}}",
        "/apm/traces?query=",
        "/logs?query=",
        "{{ref:dashboard:engineering}}",
    ):
        assert word in message
    assert "https://wiki.example.com/churn" in message
    assert "Tier 1, service churn, owner team-risk." in message
    opened = re.findall(r"\{\{#(\w+)\}\}", message)
    assert opened == re.findall(r"\{\{/(\w+)\}\}", message)


def test_links_open_at_the_time_of_the_alert():
    """Datadog's pages open with the last minutes, and who is called is there later than that."""
    for name in ("failed", "page"):
        links = re.findall(r"\]\((https://.*?)\)", rendered()[name]["message"])
        assert len(links) == 4
        assert all('from_ts={{eval "last_triggered_at_epoch-' in one for one in links)
        assert all('to_ts={{eval "last_triggered_at_epoch+' in one for one in links)


def test_only_what_may_have_no_data_speaks_of_it():
    with_no_data = {name for name, body in rendered().items() if "{{#is_no_data}}" in body["message"]}
    assert with_no_data == {"silent", "page"}


@pytest.mark.parametrize(("tier", "priority"), [(1, 1), (2, 2), (5, 5), (9, 5), ("2", 2), ("gold", 3)])
def test_the_priority_is_the_tier(tier, priority):
    assert {body["priority"] for body in rendered(entry("x", tier=tier)).values()} == {priority}


def test_tags_say_whose_it_is_and_that_it_is_ours():
    assert rendered()["failed"]["tags"] == [
        "managed_by:batch_observability",
        "batchobs_key:monitor/churn-score/failed/prod",
        "service:churn",
        "owner:team-risk",
        "tier:1",
        "model:churn-score",
        "env:prod",
    ]


def test_links_lead_to_the_site_that_is_used():
    message = rendered(options=Options(site="us5.datadoghq.com"))["failed"]["message"]
    assert "https://us5.datadoghq.com/logs?" in message
    assert "https://app.datadoghq.eu/logs?" in rendered(options=Options(site="datadoghq.eu"))["failed"]["message"]


@pytest.mark.parametrize(
    ("schedule", "window", "silence"),
    [
        # Once a year the night has an hour less.
        ("10 3 * * *", 11, 27),
        ("0 * * * *", 1, 2),
        # From Friday evening to Monday morning.
        ("*/5 8-18 * * 1-5", 1, 68),
        ("0 */6 * * *", 2, 7),
        # Nobody looks back more than a week.
        ("@weekly", 12, None),
        ("0 6 1 * *", 12, None),
        ("@reboot", 4, None),
    ],
)
def test_how_far_back_a_monitor_looks_comes_from_the_schedule(schedule, window, silence):
    one = entry("job", schedule=schedule)
    assert (window_h(one), silence_h(one)) == (window, silence)


def test_without_a_schedule_silence_is_measured_by_the_freshness_that_is_promised():
    assert silence_h(entry("fresh", sla=SLA(freshness="26h"))) == 29
    assert silence_h(entry("old", sla=SLA(freshness="30d"))) is None
    assert silence_h(entry("unknown")) is None


def test_one_monitor_tells_of_lost_telemetry_of_all_services():
    body = telemetry_dropped(Options(platform="@slack-batch-platform")).body
    assert "by {service,reason}" in body["query"]
    assert "@slack-batch-platform" in body["message"]
    assert "@" not in telemetry_dropped(OPTIONS).body["message"]


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"envs": ("Prod",)}, "'Prod'"),
        ({"envs": ("prod", "prod")}, "twice"),
        ({"site": "https://datadoghq.eu"}, "'https://datadoghq.eu'"),
        ({"platform": "slack-x"}, "'slack-x'"),
    ],
)
def test_options_that_cannot_be_are_refused_with_the_value(given, seen):
    with pytest.raises(ConfigError, match=seen):
        Options(**given)


def test_another_owner_is_paged_by_its_own_handle():
    assert "@slack-supply" in rendered(entry("demand", owner=SUPPLY))["page"]["message"]
