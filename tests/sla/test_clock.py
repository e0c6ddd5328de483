"""The clock of a run that goes on: each promise rings once when it is at risk, and once when it is broken."""

from __future__ import annotations

from batch_observability.sla.clock import Clock
from batch_observability.sla.promises import Deadline
from batch_observability.sla.telling import AT_RISK, BROKEN


def within(at_ns: int = 100, warn_ns: int = 80) -> dict[str, Deadline]:
    return {"finish_within": Deadline("finish_within", "20m", at_ns, warn_ns)}


BOTH = {**within(), "finish_by": Deadline("finish_by", "06:30 UTC", 200, 90)}


def rung(clock: Clock, now_ns: int) -> list[tuple[str, str]]:
    return [(state, one.objective) for state, one in clock.ring(now_ns)]


def test_it_does_not_ring_before_a_promise_is_at_risk():
    assert rung(Clock(BOTH), 79) == []


def test_a_promise_is_at_risk_from_its_warning_on():
    assert rung(Clock(BOTH), 80) == [(AT_RISK, "finish_within")]


def test_a_promise_is_kept_at_its_deadline_and_broken_after():
    clock = Clock(within())
    assert rung(clock, 100) == [(AT_RISK, "finish_within")]
    assert rung(clock, 101) == [(BROKEN, "finish_within")]


def test_each_rings_once():
    clock = Clock(BOTH)
    heard = [one for now_ns in range(300) for one in rung(clock, now_ns)]
    assert heard == [
        (AT_RISK, "finish_within"),
        (AT_RISK, "finish_by"),
        (BROKEN, "finish_within"),
        (BROKEN, "finish_by"),
    ]


def test_what_is_broken_when_it_is_first_looked_at_is_no_longer_at_risk():
    clock = Clock(BOTH)
    assert rung(clock, 1000) == [(BROKEN, "finish_within"), (BROKEN, "finish_by")]
    assert rung(clock, 2000) == []


def test_a_warning_that_comes_with_the_deadline_is_passed_over():
    clock = Clock(within(100, warn_ns=100))
    assert rung(clock, 99) == []
    assert rung(clock, 101) == [(BROKEN, "finish_within")]


def test_a_deadline_before_its_warning_is_broken():
    """Of a run that was due when its time was over."""
    assert rung(Clock(within(100, warn_ns=500)), 101) == [(BROKEN, "finish_within")]


def test_it_says_when_it_rings_next():
    clock = Clock(BOTH)
    assert clock.next_ns == 80
    clock.ring(80)
    assert clock.next_ns == 90
    clock.ring(95)
    assert clock.next_ns == 100


def test_it_rings_no_more_when_all_is_broken():
    clock = Clock(BOTH)
    clock.ring(1000)
    assert clock.next_ns is None
    assert Clock({}).next_ns is None


def test_who_waits_until_it_rings_hears_something_in_the_end():
    """At its deadline a promise is kept: to wake up then is too early by the least that a clock can show."""
    clock, heard, looks = Clock(BOTH), [], 0
    now_ns = 0
    while (moment := clock.next_ns) is not None and looks < 10:
        now_ns, looks = max(moment, now_ns + 1), looks + 1
        heard += rung(clock, now_ns)
    assert len(heard) == 4
    assert looks <= 6


def test_a_deadline_that_is_moved_rings_at_its_new_time():
    clock = Clock(within())
    clock.move(within(at_ns=500, warn_ns=400))
    assert rung(clock, 399) == []
    assert rung(clock, 400) == [(AT_RISK, "finish_within")]
    assert rung(clock, 501) == [(BROKEN, "finish_within")]


def test_what_has_rung_does_not_ring_again_when_it_is_moved():
    clock = Clock(within())
    assert rung(clock, 90) == [(AT_RISK, "finish_within")]
    clock.move(within(at_ns=500, warn_ns=400))
    assert clock.next_ns == 500
    assert rung(clock, 450) == []
    assert rung(clock, 501) == [(BROKEN, "finish_within")]


def test_what_is_broken_stays_broken_when_it_is_moved():
    clock = Clock(within())
    clock.ring(101)
    clock.move(within(at_ns=500, warn_ns=400))
    assert clock.next_ns is None
    assert rung(clock, 1000) == []
