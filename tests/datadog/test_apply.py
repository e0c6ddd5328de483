"""What is applied is there, once, as rendered; nothing else is touched; the second time nothing happens."""

from __future__ import annotations

import copy
import time
from collections import Counter
from dataclasses import replace

import pytest

from batch_observability.datadog.apply import FAILED, KEPT, LEFT, REMOVED, SKIPPED
from batch_observability.datadog.plan import CHANGE, CREATE, REMOVE
from batch_observability.datadog.render import Options, rendered
from tests.datadog.catalogs import hundreds
from tests.datadog.conftest import CHURN, DEMAND, resources


@pytest.mark.thorough
def test_hundreds_of_models_are_applied_as_datadog_describes_its_api_and_then_nothing_is_left_to_do(datadog, session):
    """Measured at the time of writing: 2,205 resources, 2,211 requests; then 10 requests tell that nothing changed."""
    wanted = rendered(hundreds(300), Options())
    report = session().apply(wanted)
    assert Counter(one.outcome for one in report.steps) == {"created": len(wanted)}
    assert not [one for one in report.steps if one.kept]
    before = len(datadog.requests)
    plan = session().plan(wanted)
    assert (plan.is_empty, plan.of(REMOVE)) == (True, [])
    # Two pages of monitors, one of SLOs, two of services, each list once, and both dashboards.
    assert len(datadog.requests) - before <= 12
    assert all(one.startswith("GET ") for one in datadog.requests[before:])
    assert datadog.wrong == []


@pytest.mark.thorough
def test_planning_thousands_takes_seconds():
    """Five environments of 300 models, against what Datadog has of them: no network here."""
    wanted = rendered(hundreds(300), Options(envs=("prod", "staging", "qa", "dev", "ci")))
    from batch_observability.datadog.kinds import Found
    from batch_observability.datadog.plan import Existing, planned
    from batch_observability.datadog.resource import filled

    ids = {f"{one.kind}:{one.key}": number for number, one in enumerate(wanted, 1000)}
    found = {name: (one, filled(one.body, ids)) for name, one in zip(ids, wanted, strict=True)}
    state = Existing({name: Found(one.kind, one.key, ids[name], body) for name, (one, body) in found.items()})
    begun = time.process_time()
    plan = planned(wanted, state)
    assert time.process_time() - begun < 5
    assert plan.is_empty
    assert len(wanted) > 9000


def test_the_second_time_nothing_is_sent(datadog, session):
    session().apply(resources())
    before = len(datadog.requests)
    report = session().apply(resources())
    assert {one.outcome for one in report.steps} == {KEPT}
    assert {one.split()[0] for one in datadog.requests[before:]} == {"GET"}


def test_what_changed_is_changed_and_nothing_else(datadog, session):
    session().apply(resources())
    changed = replace(CHURN, model=replace(CHURN.model, runbook="https://wiki.example.com/new"))
    plan = session().plan(resources(changed, DEMAND))
    keys = {one.key for one in plan.of(CHANGE)}
    assert keys == {one.key for one in resources() if "churn" in one.key}
    assert plan.of(CREATE) == []
    before = len(datadog.organization.monitors)
    assert session().apply(resources(changed, DEMAND)).is_done
    assert len(datadog.organization.monitors) == before
    assert session().plan(resources(changed, DEMAND)).is_empty


def test_what_somebody_edited_is_put_right(datadog, session):
    session().apply(resources())
    monitor = next(one for one in datadog.organization.monitors.values() if one["name"].endswith("a run failed"))
    monitor["options"]["thresholds"]["critical"] = 5.0
    (change,) = session().plan(resources()).of(CHANGE)
    assert [(one.path, one.before, one.after) for one in change.fields] == [("options.thresholds.critical", 5.0, 1.0)]
    session().apply(resources())
    assert session().plan(resources()).is_empty


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("slos", ("thresholds", 0, "target"), 50.0),
        ("dashboards", ("widgets", 1, "definition", "title"), "mine"),
        ("dashboards", ("widgets", 0, "definition", "widgets", 0, "layout", "width"), 6),
        ("pipelines", ("filter", "query"), "source:other"),
        ("filters", ("attributes", "rate"), 0.5),
        ("services", ("metadata", "owner"), "team-other"),
        ("monitors", ("tags",), ["managed_by:batch_observability", "batchobs_key:monitor/demand/failed/prod"]),
    ],
)
def test_each_kind_is_put_right(datadog, session, kind, path, value):
    session().apply(resources(DEMAND))
    target = next(iter(vars(datadog.organization)[kind].values()))
    if kind == "monitors":
        kept = vars(datadog.organization)[kind].values()
        target = next(one for one in kept if "batchobs_key:monitor/demand/failed/prod" in one["tags"])
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    (change,) = session().plan(resources(DEMAND)).of(CHANGE)
    assert len(change.fields) == 1
    report = session().apply(resources(DEMAND))
    assert [one.outcome for one in report.steps if one.outcome != KEPT] == ["changed"]
    assert session().plan(resources(DEMAND)).is_empty


def test_an_id_that_is_not_there_yet_is_said_in_words(session):
    parts = [one for one in resources() if not one.key.endswith("/silent/prod")]
    session().apply([one for one in parts if "silent" not in str(one.body.get("query"))])
    plan = session().plan(resources())
    page = next(one for one in plan.changes if one.key == "monitor/churn-score/page/prod")
    assert page.action == CREATE
    session().apply(resources())
    removed = next(one for one in session().plan(resources()).changes if one.key == "monitor/churn-score/silent/prod")
    session().api.repeatable("v1.api.monitors_api:MonitorsApi", "delete_monitor", monitor_id=removed.id, force="true")
    (page,) = session().plan(resources()).of(CHANGE)
    assert "(id of monitor/churn-score/silent/prod)" in page.fields[0].after


# --- Whose it is -------------------------------------------------------------------------------------------------


def test_what_is_somebody_elses_is_not_touched(datadog, session):
    organization = datadog.organization
    session().apply(resources())
    foreign = copy.deepcopy(organization)
    for kept in (organization.monitors, organization.slos, organization.dashboards, organization.pipelines):
        # A composite of theirs would keep our monitors from being removed: a test of its own.
        for one in [each for each in kept.values() if each.get("type") != "composite"]:
            other = copy.deepcopy(one)
            other["id"] = organization.number() if kept is organization.monitors else f"other-{organization.number()}"
            other.update(tags=["team:other"], description="of another team")
            kept[other["id"]] = other
    theirs = {name: set(vars(organization)[name]) - set(vars(foreign)[name]) for name in ("monitors", "slos")}
    before = copy.deepcopy(organization)
    assert session().plan(resources()).is_empty
    assert session().apply(resources(DEMAND), prune=True).is_done
    assert session().destroy().is_done
    assert set(organization.monitors) == theirs["monitors"]
    assert set(organization.slos) == theirs["slos"]
    for name in ("monitors", "slos", "dashboards", "pipelines"):
        assert all(vars(before)[name][id_] == one for id_, one in vars(organization)[name].items())
    assert (len(organization.dashboards), len(organization.pipelines), len(organization.services)) == (2, 1, 0)


def test_a_service_that_somebody_else_declared_stays_as_it_is(datadog, session):
    theirs = {"apiVersion": "v3", "kind": "service", "metadata": {"name": "churn", "owner": "team-other"}}
    elsewhere = {**theirs, "metadata": {"name": "demand", "namespace": "elsewhere"}}
    datadog.organization.services.update(x=copy.deepcopy(theirs), y=elsewhere)
    report = session().apply(resources())
    (left,) = [one for one in report.steps if one.outcome == LEFT]
    assert (left.kind, left.key, report.is_done) == ("service", "service/churn", True)
    assert datadog.organization.services["x"] == theirs
    datadog.organization.services["x"]["metadata"]["tags"] = [
        "managed_by:batch_observability",
        "batchobs_key:service/churn",
    ]
    session().apply(resources())
    assert datadog.organization.services["x"]["metadata"]["owner"] == "team-risk"
    assert session().plan(resources()).is_empty


def test_a_copy_that_somebody_made_is_theirs(datadog, session):
    """Datadog's "clone" copies tags and descriptions, our marks with them."""
    session().apply(resources())
    organization = datadog.organization
    for kept in (organization.monitors, organization.dashboards):
        first = next(iter(kept.values()))
        clone = {**copy.deepcopy(first), "id": 99_999_999 if kept is organization.monitors else "zzz-zzz-zzz"}
        clone["title" if "title" in clone else "name"] += " (clone)"
        clone["created_at" if "title" in first else "created"] = "2026-09-02T00:00:00+00:00"
        kept[clone["id"]] = clone
    plan = session().plan(resources())
    assert plan.is_empty
    assert {one.title.endswith(" (clone)") for one in plan.copies} == {True}
    assert len(plan.copies) == 2
    session().destroy()
    assert (list(organization.monitors), list(organization.dashboards)) == ([99_999_999], ["zzz-zzz-zzz"])


def test_a_retention_filter_that_decides_before_ours_is_told_and_not_moved(datadog, session):
    session().apply(resources())
    (ours,) = datadog.organization.filters.values()
    before = {"name": "a tenth of prod", "filter": {"query": "env:prod"}, "rate": 0.1, "enabled": True}
    kept = {**ours["attributes"], **before, "execution_order": 0}
    theirs = {"id": "theirs", "type": "apm_retention_filter", "attributes": kept}
    datadog.organization.filters["theirs"] = copy.deepcopy(theirs)
    plan = session().plan(resources())
    (warning,) = plan.warnings
    assert "comes after 'a tenth of prod', which keep less than all" in warning
    assert session().apply(resources()).is_done
    assert datadog.organization.filters["theirs"] == theirs
    for harmless in ({"rate": 1.0}, {"enabled": False}, {"execution_order": 9}):
        datadog.organization.filters["theirs"]["attributes"] = {**kept, **harmless}
        assert session().plan(resources()).warnings == ()


# --- What is not in the catalog any more ---------------------------------------------------------------------------


def test_nothing_is_removed_unless_it_is_asked_for(datadog, session):
    session().apply(resources(envs=("prod", "staging")))
    before = len(datadog.organization.monitors)
    assert session().apply(resources()).is_done
    assert len(datadog.organization.monitors) == before
    gone = session().plan(resources()).of(REMOVE)
    assert {one.key.rpartition("/")[2] for one in gone} == {"staging"}
    report = session().apply(resources(), prune=True)
    assert {one.key for one in report.steps if one.outcome == REMOVED} == {one.key for one in gone}
    assert session().plan(resources()).of(REMOVE) == []


def test_a_part_is_removed_after_the_page_that_looked_at_it_was_changed(session):
    """Datadog refuses to remove a monitor that a composite refers to."""
    session().apply(resources())
    no_schedule = replace(CHURN, schedule="", model=replace(CHURN.model, sla=None))
    report = session().apply(resources(no_schedule, DEMAND), prune=True)
    assert report.is_done
    assert "monitor/churn-score/silent/prod" in {one.key for one in report.steps if one.outcome == REMOVED}


def test_what_others_look_at_is_not_removed_and_said_so(datadog, session):
    session().apply(resources())
    ours = next(id_ for id_, one in datadog.organization.monitors.items() if one["name"].endswith("a run failed"))
    page = next(one for one in datadog.organization.monitors.values() if one["type"] == "composite")
    datadog.organization.monitors[1] = {**page, "id": 1, "name": "theirs", "tags": [], "query": f"{ours} || {ours}"}
    report = session().destroy()
    (failed,) = [one for one in report.steps if one.outcome == FAILED]
    assert (failed.id, report.is_done) == (ours, False)
    assert "is referenced in composite monitors: ['theirs']" in failed.reason


def test_everything_is_removed_by_destroy_those_first_that_refer_to_others(datadog, session):
    session().apply(resources(envs=("prod", "staging")))
    report = session().destroy()
    assert report.is_done
    state = datadog.organization.state()
    assert {name: len(several) for name, several in state.items()} == dict.fromkeys(state, 0)


# --- What is refused -----------------------------------------------------------------------------------------------


def test_one_that_is_refused_stops_what_needs_it_and_nothing_else(datadog, session):
    datadog.refused.append("[prod] demand: a run failed")
    wanted = resources()
    report = session().apply(wanted)
    outcomes = {one.key: one for one in report.steps}
    assert outcomes["monitor/demand/failed/prod"].outcome == FAILED
    assert "answered 400, The value provided for parameter 'query' is invalid" in (
        outcomes["monitor/demand/failed/prod"].reason
    )
    page = outcomes["monitor/demand/page/prod"]
    assert (page.outcome, page.reason) == (SKIPPED, "needs monitor/demand/failed/prod, which was refused")
    others = {one.outcome for one in report.steps if one.key not in ("monitor/demand/failed/prod", page.key)}
    assert (others, report.is_done) == ({"created"}, False)
    datadog.refused.clear()
    assert session().apply(wanted).is_done
    assert session().plan(wanted).is_empty


def test_a_scope_that_the_key_lacks_is_asked_for_once(datadog, session):
    datadog.forbidden.append("/api/v1/slo")
    report = session().apply(resources())
    slos = [one for one in report.steps if one.kind == "slo"]
    assert {one.outcome for one in slos} == {FAILED}
    assert len(slos) > 3
    assert all("give the application key the scope" in one.reason for one in slos)
    assert len([one for one in datadog.requests if one.startswith("POST /api/v1/slo")]) == 1
    assert {one.outcome for one in report.steps if one.kind != "slo"} == {"created"}


def test_keys_that_are_not_accepted_stop_all_at_once(datadog, session):
    from batch_observability.datadog.connection import StopError

    one = session()
    datadog.keys["DD-API-KEY"] = "c" * 32
    with pytest.raises(StopError, match="answered 401, Unauthorized: the keys are not accepted"):
        one.plan(resources())
    assert len(datadog.requests) == 1


def test_a_field_that_datadog_keeps_otherwise_is_told(datadog, session, monkeypatch):
    from tests.datadog import stores

    real = stores._slo
    monkeypatch.setattr(stores, "_slo", lambda body: {**real(body), "description": "in Datadog's own words"})
    report = session().apply(resources())
    assert {one.kept for one in report.steps if one.kind == "slo"} == {("description",)}
