"""
Interrupted at each request, before and after it took effect, and run again: the end is that of an apply that nobody
disturbed. And with each fault of network and server at each request, in one go.
"""

from __future__ import annotations

import pytest
from datadog_api_client import rest

from batch_observability.datadog.apply import FAILED, SKIPPED
from batch_observability.datadog.connection import LONGEST_WAIT_S, TRIES, StopError
from tests.datadog.conftest import CHURN, DEMAND, Session, resources
from tests.datadog.server import FAILING_AFTER, FAILING_BEFORE, FAULTS, LIMITED, RESET_AFTER, RESET_BEFORE, Datadog

WANTED = resources(CHURN)


@pytest.fixture(scope="module")
def undisturbed():
    """Number of requests, and the state at the end, of an apply that nobody disturbs."""
    with Datadog() as datadog:
        assert Session(datadog).apply(WANTED).is_done
        return len(datadog.requests), datadog.organization.state()


@pytest.mark.thorough
@pytest.mark.parametrize("effect", ["before", "after"])
def test_an_apply_that_is_interrupted_at_any_request_is_resumed_to_the_same_end(undisturbed, monkeypatch, effect):
    requests, state = undisturbed
    real = rest.RESTClientObject.request
    for number in range(1, requests + 1):
        with Datadog() as datadog, monkeypatch.context() as patch:
            seen = 0

            def interrupted(*arguments, number=number, **named):
                nonlocal seen
                seen += 1
                if seen != number:
                    return real(*arguments, **named)
                if effect == "after":
                    real(*arguments, **named)
                raise KeyboardInterrupt

            patch.setattr(rest.RESTClientObject, "request", interrupted)
            try:
                report = Session(datadog).apply(WANTED)
                assert report.is_interrupted
                assert not report.is_done
            except KeyboardInterrupt:
                # While it was still reading.
                assert number <= 6
            assert Session(datadog).apply(WANTED).is_done
            assert datadog.organization.state() == state
            assert datadog.wrong == []


@pytest.mark.thorough
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_request_changes_nothing_of_the_end(undisturbed, fault):
    requests, state = undisturbed
    for number in range(1, requests + 1):
        with Datadog() as datadog:
            datadog.faults[number] = fault
            report = Session(datadog).apply(WANTED)
            assert report.is_done, (number, [one for one in report.steps if one.outcome == FAILED])
            assert datadog.organization.state() == state
            assert datadog.wrong == []


@pytest.mark.parametrize("fault", [RESET_AFTER, FAILING_AFTER, RESET_BEFORE, FAILING_BEFORE])
def test_faults_at_every_third_request_of_a_change_and_a_prune(fault):
    staging = resources(CHURN, DEMAND, envs=("staging", "prod"))
    with Datadog() as undisturbed:
        Session(undisturbed).apply(staging)
        Session(undisturbed).apply(WANTED, prune=True)
    with Datadog() as datadog:
        Session(datadog).apply(staging)
        datadog.faults.update(dict.fromkeys(range(len(datadog.requests) + 1, 500, 3), fault))
        assert Session(datadog).apply(WANTED, prune=True).is_done
        assert datadog.organization.state() == undisturbed.organization.state()


def test_a_create_whose_answer_is_lost_is_looked_up_and_not_repeated(datadog, session):
    begun = session()
    begun.plan(WANTED)
    first = len(datadog.requests) * 2 + 1
    datadog.faults[first] = RESET_AFTER
    assert begun.apply(WANTED).is_done
    created = [one for one in datadog.requests if one.startswith("POST /api/v1/logs/config/pipelines")]
    assert (len(created), len(datadog.organization.pipelines)) == (1, 1)


# --- Rate limits and outages -----------------------------------------------------------------------------------------


def test_a_rate_limit_is_waited_for_as_long_as_datadog_asks(datadog, session):
    datadog.faults.update(dict.fromkeys((3, 9, 10), LIMITED))
    one = session()
    assert one.apply(WANTED).is_done
    assert one.waited == [7.1] * 3


@pytest.mark.parametrize(
    ("headers", "waited"),
    [({"Retry-After": "3"}, 3.1), ({"X-RateLimit-Period": "2"}, 2.1), ({"X-RateLimit-Reset": "soon"}, 1.0), ({}, 1.0)],
)
def test_a_rate_limit_says_in_several_ways_for_how_long(datadog, session, headers, waited):
    datadog.limits = headers
    datadog.faults[1] = LIMITED
    one = session()
    one.plan(())
    assert one.waited == [waited]


def test_a_wait_that_is_too_long_ends_it_with_what_is_done_kept(datadog, session):
    datadog.limits = {"X-RateLimit-Reset": str(int(LONGEST_WAIT_S) + 1)}
    datadog.faults[12] = LIMITED
    one = session()
    report = one.apply(WANTED)
    (failed,) = [step for step in report.steps if step.outcome == FAILED]
    assert "asks to wait 121 s: run it again after that" in failed.reason
    assert len(datadog.requests) == 12
    assert {step.outcome for step in report.steps[report.steps.index(failed) + 1 :]} == {SKIPPED}
    assert one.waited == []
    assert session().apply(WANTED).is_done


def test_a_limit_without_end_is_not_waited_for_for_ever(datadog, session):
    datadog.faults.update(dict.fromkeys(range(1, 50), LIMITED))
    with pytest.raises(StopError, match="still reached after 10 waits"):
        session().plan(())


def test_an_outage_ends_it_after_a_few_tries(datadog, session):
    datadog.faults.update(dict.fromkeys(range(10, 5000), FAILING_BEFORE))
    one = session()
    report = one.apply(WANTED)
    assert len([step for step in report.steps if step.outcome == FAILED]) == 3
    assert len([step for step in report.steps if step.outcome == SKIPPED]) >= 10
    assert len(datadog.requests) < 150
    assert max(one.waited) < 0.5 * 2**TRIES
    datadog.faults.clear()
    assert session().apply(WANTED).is_done
