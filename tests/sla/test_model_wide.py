"""How many runs succeed and how old the newest success is: one breach is open at a time, until it is kept again."""

from __future__ import annotations

import pytest

from batch_observability import SLA
from batch_observability.sla.model_wide import Rate, tell_freshness, tell_rate
from batch_observability.sla.promises import Subject
from batch_observability.sla.telling import Teller
from tests.sla.causes import DAY, DUE, HOUR, MINUTE, RUNBOOK, finished, model, run, subject

NEWEST = DUE


class Model:
    """A model as who looks at it again and again: what is open is asked of the ledger."""

    def __init__(self, host, told_by="helper", **promised):
        self.sla = SLA(**promised)
        self.host = host
        self.subject = Subject(model=model(**promised), source="", env="prod", resource="")
        self.teller = Teller(host.delivery(), told_by, must_claim=True)

    def is_open(self, objective):
        return objective in {one.objective for one in self.host.ledger.open_promises()}

    def rate(self, succeeded, failed, newest_failure_ns=DUE, now_ns=DUE + HOUR):
        known = Rate(succeeded, failed, newest_failure_ns if failed else None)
        return tell_rate(self.teller, self.subject, self.sla, known, now_ns, is_open=self.is_open("success_rate"))

    def age(self, now_ns, newest_ns=NEWEST):
        is_open = self.is_open("freshness")
        return tell_freshness(self.teller, self.subject, self.sla, newest_ns, now_ns, is_open=is_open)


@pytest.fixture
def rated(host):
    return Model(host, success_rate="90%", window="7d")


@pytest.fixture
def fresh(host):
    return Model(host, freshness="10h")


# --- Rates and budgets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("succeeded", "failed", "rate", "used"),
    [(9, 1, 0.9, 1.0), (19, 1, 0.95, 0.5), (8, 2, 0.8, 2.0), (0, 0, 1.0, 0.0), (5, 0, 1.0, 0.0), (0, 3, 0.0, 10.0)],
)
def test_a_rate_uses_up_a_budget_of_failures(succeeded, failed, rate, used):
    one = Rate(succeeded, failed, None)
    assert (one.rate, one.budget_used(0.9)) == (pytest.approx(rate), pytest.approx(used))


def test_who_promises_that_all_succeed_has_no_budget():
    assert Rate(99, 1, None).budget_used(1.0) == float("inf")
    assert Rate(99, 0, None).budget_used(1.0) == 0.0


def test_a_rate_that_is_kept_is_told_nowhere(rated, host):
    assert rated.rate(100, 0) == ""
    assert rated.rate(100, 1) == ""
    assert (host.promises(), host.events(), host.records()) == ([], [], [])


def test_a_rate_is_at_risk_when_most_of_its_budget_is_used_up(rated, host):
    assert rated.rate(92, 7) == ""
    assert rated.rate(92, 8) == "at_risk"
    assert rated.rate(92, 8) == ""
    assert host.counted("sla.at_risk", objective="success_rate") == 1
    assert host.events() == []


def test_a_rate_just_as_promised_is_kept(rated):
    assert rated.rate(90, 10) == "at_risk"
    assert rated.rate(89, 10, newest_failure_ns=DUE + 1) == "breached"


def test_a_broken_rate_says_what_it_is(rated, host):
    assert rated.rate(1234, 200) == "breached"
    (event,) = host.events()
    assert event["title"] == "Batch model churn broke success_rate 0.9"
    assert "churn: 1,234 of 1,434 runs in 7d succeeded, 86.05%." in event["body"]
    assert event["body"].endswith(f"Owner: team-risk.\nRunbook: {RUNBOOK}")
    (row,) = host.promises()
    assert (row["key"], row["episode"]) == (f"success_rate|churn|{DUE}", "success_rate|churn")
    assert (row["breached_ns"], row["resource"], row["deadline_ns"]) == (DUE, "", None)


def test_of_a_rate_one_breach_is_open_at_a_time(rated, host):
    assert rated.rate(8, 2) == "breached"
    assert rated.rate(8, 3, newest_failure_ns=DUE + MINUTE) == ""
    # Also by one who does not know yet that it is open.
    known = Rate(8, 3, DUE + MINUTE)
    assert tell_rate(rated.teller, rated.subject, rated.sla, known, DUE + HOUR, is_open=False) == ""
    assert host.counted("sla.breached") == 1
    assert len(host.promises()) == 1


def test_a_rate_recovers_once_and_may_be_broken_again(rated, host):
    said = [
        rated.rate(8, 2),
        rated.rate(19, 2, now_ns=DUE + HOUR),
        rated.rate(20, 2, now_ns=DUE + HOUR),
        rated.rate(20, 3, newest_failure_ns=DUE + 2 * HOUR),
        rated.rate(40, 3, now_ns=DUE + 3 * HOUR),
    ]
    assert said == ["breached", "recovered", "", "breached", "recovered"]
    assert [one["alert_type"] for one in host.events()] == ["error", "success", "error", "success"]
    assert [row["episode"] for row in host.promises()] == [None, None]
    assert host.counted("sla.breached") == 2


def test_a_rate_that_falls_again_without_a_new_failure_has_no_new_cause(rated, host):
    """Old successes have left the window; who failed then has been told of it."""
    assert [rated.rate(8, 2), rated.rate(18, 2), rated.rate(8, 2)] == ["breached", "recovered", ""]
    assert host.counted("sla.breached") == 1


def test_without_runs_no_rate_is_broken(rated):
    assert rated.rate(0, 0) == ""


def test_a_model_that_promises_no_rate_has_none(fresh):
    assert fresh.rate(0, 100) == ""


# --- Freshness -----------------------------------------------------------------------------------------------------


def test_a_success_grows_old_is_at_risk_and_is_too_old(fresh, host):
    hours = (7.9, 8, 9, 10, 10.01, 30)
    assert [fresh.age(NEWEST + round(one * HOUR)) for one in hours] == ["", "at_risk", "", "", "breached", ""]
    assert [host.counted(f"sla.{name}") for name in ("at_risk", "breached", "checked")] == [1, 1, 0]
    (row,) = host.promises()
    assert row["key"] == f"freshness|churn|{NEWEST}"
    assert (row["at_risk_ns"], row["breached_ns"]) == (NEWEST + 8 * HOUR, NEWEST + 10 * HOUR)
    assert row["deadline_ns"] == NEWEST + 10 * HOUR
    (event,) = host.events()
    assert "churn: the newest success is 10h36s old." in event["body"]
    assert "Promised for 2026-06-01T16:00:00Z." in event["body"]


def test_a_new_success_ends_it_and_may_grow_old_too(fresh, host):
    newer = NEWEST + 20 * HOUR
    said = [
        fresh.age(NEWEST + 11 * HOUR),
        fresh.age(newer + HOUR, newer),
        fresh.age(newer + 2 * HOUR, newer),
        fresh.age(newer + 11 * HOUR, newer),
    ]
    assert said == ["breached", "recovered", "", "breached"]
    assert [row["recovered_ns"] for row in host.promises()] == [newer + HOUR, None]
    assert [one["alert_type"] for one in host.events()] == ["error", "success", "error"]


def test_a_success_that_is_newer_and_too_old_itself_ends_nothing(fresh, host):
    assert fresh.age(NEWEST + 11 * HOUR) == "breached"
    assert fresh.age(NEWEST + 40 * HOUR, NEWEST + 20 * HOUR) == ""
    assert host.counted("sla.breached") == 1


def test_a_success_of_the_future_is_fresh(fresh):
    """Of a host whose clock goes ahead."""
    assert fresh.age(NEWEST - HOUR) == ""


def test_two_who_look_at_the_same_moment_tell_one_breach(host):
    both = [Model(host, told_by, freshness="10h", success_rate="90%") for told_by in ("helper", "check")]
    aged = [tell_freshness(one.teller, one.subject, one.sla, NEWEST, NEWEST + DAY, is_open=False) for one in both]
    rated = [tell_rate(one.teller, one.subject, one.sla, Rate(1, 1, DUE), DUE, is_open=False) for one in both]
    assert (aged, rated) == (["breached", ""], ["breached", ""])
    again = [
        tell_freshness(one.teller, one.subject, one.sla, NEWEST + DAY, NEWEST + DAY + 1, is_open=True) for one in both
    ]
    assert again == ["recovered", ""]


def test_models_have_episodes_of_their_own(host):
    names = ("churn", "fraud")
    for name in names:
        of = Subject(model=model(name, freshness="10h"), source="", env="prod", resource="")
        teller = Teller(host.delivery(), "helper", must_claim=True)
        assert tell_freshness(teller, of, SLA(freshness="10h"), NEWEST, NEWEST + DAY, is_open=False) == "breached"
    assert [row["model_name"] for row in host.promises()] == list(names)


def test_a_run_tells_of_its_model_as_others_do(host, fresh):
    """Its own place is not part of it."""
    fresh.subject = subject(model=fresh.subject.model)
    assert fresh.age(NEWEST + DAY) == "breached"
    (row,) = host.promises()
    assert [row[name] for name in ("resource", "dag_id", "task_id", "dag_run_id", "run_id", "due_ns")] == [""] * 5 + [
        None
    ]
    assert host.ledger.apply(finished(run(subject())))
    assert host.ledger.standing(run(subject())).open[0].objective == "freshness"
