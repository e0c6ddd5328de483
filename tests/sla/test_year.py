"""
A year of schedules in six time zones, with both changes of the clocks: due times, deadlines, warnings and margins are
those of another reckoning, which reads the C library's clocks and counts whole microseconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction

import pytest

from batch_observability import SLA
from batch_observability.schema import Outcome
from batch_observability.sla.judge import judge
from batch_observability.sla.promises import deadlines, due_ns, is_backfill, slot_of
from tests.sla.wall_clocks import DAY_S, wall

# Half an hour of summer time; none at all; changed at midnight, so that a day begins at 01:00; ahead of and behind UTC.
ZONES = (
    "Europe/London",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Pacific/Auckland",
)
CHANGES = {zone: 0 if zone == "Asia/Kolkata" else 2 for zone in ZONES}
# 2026, in days and seconds since 1970-01-01.
FIRST_DAY, DAYS = 20_454, 365
FIRST_S, LAST_S = FIRST_DAY * DAY_S, (FIRST_DAY + DAYS) * DAY_S
SECOND_US, MINUTE_S, HOUR_S = 1_000_000, 60, 3600
# Each is shown twice or not at all somewhere, on one day of the year.
TIMES = ("00:00", "00:30", "01:30", "02:15", "02:59:59", "06:30", "23:15", "23:59:59")
DAY_OFFSETS = (0, 0, 0, 1, 7)
WARN_AT = ("0.8", "0.5", "1", "0.07")
START_WITHIN_S, FINISH_WITHIN_S = 15 * MINUTE_S, 90 * MINUTE_S


# --- The schedules -------------------------------------------------------------------------------------------------


def daily(zone):
    """Each day at 02:15 on the wall: on some days that is twice, or never."""
    return [wall(zone).first_shows((FIRST_DAY + day) * DAY_S + 2 * HOUR_S + 15 * MINUTE_S) for day in range(DAYS)]


def weekly(zone):
    """Each Sunday at 01:30 on the wall: clocks are changed on Sundays."""
    sundays = [FIRST_DAY + day for day in range(DAYS) if (FIRST_DAY + day) % 7 == 3]
    return [wall(zone).first_shows(day * DAY_S + HOUR_S + 30 * MINUTE_S) for day in sundays]


def hourly(zone):
    """Five minutes past each hour; of five only one is compared, so that each hour of the day comes up."""
    return list(range(FIRST_S + 5 * MINUTE_S, LAST_S, 5 * HOUR_S))


SCHEDULES = (daily, weekly, hourly)


@dataclass(frozen=True)
class Made:
    """A DAG run as Airflow has it, with microseconds; and what it is, by how it was made."""

    run_type: str
    run_after_us: int
    queued_us: int | None
    due_us: int
    is_backfill: bool = False


def made(kind: str, slot_us: int, chance: random.Random) -> Made:
    """Make a DAG run for a slot; what is not scheduled comes some moment later."""
    moment = chance.randrange(3 * HOUR_S * SECOND_US)
    by_hand = slot_us + moment
    match kind:
        case "on time":
            return Made("scheduled", slot_us, by_hand, slot_us)
        case "not queued yet":
            return Made("scheduled", slot_us, None, slot_us)
        case "caught up":
            return Made("scheduled", slot_us, by_hand + 200 * DAY_S * SECOND_US, slot_us)
        case "backfill":
            return Made("backfill", slot_us, by_hand + 90 * DAY_S * SECOND_US, slot_us, is_backfill=True)
        case "by hand":
            return Made("manual", slot_us, by_hand, by_hand)
        case "by hand, for later":
            return Made("manual", by_hand, slot_us, by_hand)
        case "by an asset":
            return Made("asset_triggered", by_hand - moment // 2, by_hand, by_hand)
        case _:
            return Made("operator_triggered", by_hand, by_hand, by_hand)


KINDS = (
    "on time",
    "not queued yet",
    "caught up",
    "backfill",
    "by hand",
    "by hand, for later",
    "by an asset",
    "by an operator",
)


@dataclass(frozen=True)
class Promised:
    """What is promised, as text and as numbers."""

    sla: SLA
    zone: str
    clock_s: int
    days: int
    warn_at: Fraction
    for_backfills: bool


def _promise(zone: str, clock: str, days: int, warn_at: str, *, for_backfills: bool) -> Promised:
    hours, minutes, seconds = (int(part) for part in f"{clock}:00".split(":")[:3])
    sla = SLA(
        start_within="15m",
        finish_within="1h30m",
        finish_by=f"{f'+{days}d ' if days else ''}{clock} {zone}",
        warn_at=warn_at,
        judge_backfills=for_backfills,
    )
    assert not sla.mistake
    return Promised(sla, zone, hours * HOUR_S + minutes * MINUTE_S + seconds, days, Fraction(warn_at), for_backfills)


def promises(home: str) -> list[Promised]:
    """Return all times and day offsets in the zone of the schedule, and some of each other zone."""
    chance = random.Random(home)
    at_home = [(home, clock, days) for clock in TIMES for days in DAY_OFFSETS]
    abroad = [(zone, chance.choice(TIMES), chance.choice(DAY_OFFSETS)) for zone in ZONES for _ in range(3)]
    found = [
        _promise(*one, chance.choice(WARN_AT), for_backfills=chance.random() < 0.5)
        for one in [*at_home, *abroad, (home, "06:30", 42)]
    ]
    chance.shuffle(found)
    return found


# --- The other reckoning -------------------------------------------------------------------------------------------


def reckoned(run: Made, promised: Promised, first_start_us: int, granted_s: int) -> dict[str, tuple[int, Fraction]]:
    """Return deadline and warning of each objective, in microseconds."""
    granted_us = granted_s * SECOND_US
    finish_us = first_start_us + FINISH_WITHIN_S * SECOND_US + granted_us
    spans = {"finish_within": (first_start_us, finish_us)}
    if promised.for_backfills or not run.is_backfill:
        spans["start_within"] = (run.due_us, run.due_us + START_WITHIN_S * SECOND_US)
        there = wall(promised.zone)
        day = there.date(run.due_us // SECOND_US) + promised.days
        by_us = there.first_shows(day * DAY_S + promised.clock_s) * SECOND_US + granted_us
        spans["finish_by"] = (run.due_us, by_us)
    return {
        name: (end, begin + max(end - begin, 0) * promised.warn_at if end > begin else Fraction(begin))
        for name, (begin, end) in spans.items()
    }


# --- The comparison ------------------------------------------------------------------------------------------------


def compare(run: Made, promised: Promised, chance: random.Random) -> None:
    """Compare all that is reckoned of one run."""
    queued_ns = None if run.queued_us is None else run.queued_us * 1000
    due = due_ns(run.run_type, run.run_after_us * 1000, queued_ns)
    assert due == run.due_us * 1000
    assert is_backfill(run.run_type) == run.is_backfill
    first_start_us = max(run.due_us, run.queued_us or 0) + chance.randrange(1800 * SECOND_US)
    start_us = first_start_us + chance.choice((0, 0, chance.randrange(HOUR_S * SECOND_US)))
    end_us = start_us + chance.randrange(3 * HOUR_S * SECOND_US)
    granted_s = chance.choice((0, 0, 0, 1200, 5 * HOUR_S))
    found = deadlines(
        promised.sla, due=due, start=first_start_us * 1000, backfill=run.is_backfill, extended_s=granted_s
    )
    wanted = reckoned(run, promised, first_start_us, granted_s)
    assert {name: one.at_ns for name, one in found.items()} == {name: at * 1000 for name, (at, _) in wanted.items()}
    for name, (_, warn) in wanted.items():
        assert abs(found[name].warn_ns - warn * 1000) <= 1000, name
    judged = judge(
        promised.sla,
        found,
        outcome=Outcome.SUCCESS,
        first_start_ns=first_start_us * 1000,
        start_ns=start_us * 1000,
        end_ns=end_us * 1000,
        rows=None,
        first_try=True,
    )
    left_us = {name: at - (first_start_us if name == "start_within" else end_us) for name, (at, _) in wanted.items()}
    assert {one.objective: one.kept for one in judged} == {name: left >= 0 for name, left in left_us.items()}
    assert {one.objective: round(one.margin_s * SECOND_US) for one in judged} == left_us


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("zone", ZONES)
def test_a_year_is_as_another_reckoning_has_it(zone, schedule):
    chance, promised = random.Random(f"{zone} {schedule.__name__}"), promises(zone)
    slots = schedule(zone)
    # Of the many hours each is one kind of run, of days each is half of them, of weeks all.
    each = {hourly: 1, daily: 4, weekly: 8}[schedule]
    for number in range(each * len(slots)):
        run = made(KINDS[number % len(KINDS)], slots[number // each] * SECOND_US, chance)
        compare(run, promised[number % len(promised)], chance)
    assert len(slots) in (52, 365, 1752)


@pytest.mark.parametrize("zone", ZONES)
def test_each_time_is_promised_on_the_days_on_which_clocks_are_changed(zone):
    there, chance = wall(zone), random.Random(zone)
    changes = [moment for moment, _ in there.changes() if FIRST_S <= moment < LAST_S]
    assert len(changes) == CHANGES[zone]
    for moment in changes:
        for clock in TIMES:
            # From the day before, the day itself, and from a week before.
            for days, ahead_s in ((0, 0), (0, DAY_S), (1, DAY_S), (7, 7 * DAY_S)):
                promised = _promise(zone, clock, days, "0.8", for_backfills=False)
                for nudge_s in range(-3 * HOUR_S, 3 * HOUR_S, 30 * MINUTE_S):
                    compare(made("on time", (moment - ahead_s + nudge_s) * SECOND_US, chance), promised, chance)


def test_clocks_are_changed_by_half_an_hour_and_by_an_hour():
    """The other reckoning has seen what it is there for."""
    steps = {zone: {step for moment, step in wall(zone).changes() if FIRST_S <= moment < LAST_S} for zone in ZONES}
    assert steps == {
        "Europe/London": {3600, -3600},
        "America/New_York": {3600, -3600},
        "Asia/Kolkata": set(),
        "Australia/Lord_Howe": {1800, -1800},
        "America/Santiago": {3600, -3600},
        "Pacific/Auckland": {3600, -3600},
    }


def test_only_what_is_scheduled_is_known_by_its_time_before_it_exists():
    due = FIRST_S * 10**9
    assert slot_of("scheduled", due, "scheduled__1") == f"due {due}"
    assert {slot_of(kind, due, "its id") for kind in ("manual", "backfill", "asset_triggered")} == {"its id"}
