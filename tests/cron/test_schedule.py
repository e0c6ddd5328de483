"""When a cron expression is due: judged by cron's own clockwork, minute by minute over a year in many zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_observability.cron.schedule import NICKNAMES, ScheduleError, local_zone, parse, zone_of
from tests.cron.clockwork import due_times, year

ZONES = [
    "UTC",
    "Europe/London",
    "America/New_York",
    "Australia/Sydney",
    "Australia/Lord_Howe",  # half an hour
    "America/Santiago",  # at midnight
    "America/Havana",  # midnight is skipped
    "Africa/Casablanca",  # twice a year the other way round
    "Antarctica/Troll",  # two hours
    "Asia/Kathmandu",  # a quarter of an hour, and never changes
]
TEXTS = [
    "0 0 * * *",
    "30 0 * * *",
    "59 23 * * *",
    "10 1 * * *",
    "0,15,45 1 * * *",
    "0 2 * * *",
    "5 2 * * *",
    "30 2 * * *",
    "59 2 * * *",
    "30 2,3 * * *",
    "0 3 * * *",
    "0-59/20 1-3 * * *",
    "30 * * * *",
    "*/15 2 * * *",
    "*/15 3 * * *",
    "*/7 */5 * * *",
    "45 0-23/2 * * *",
    "0 2 13 * 5",
    "0 2 13,20-25 * sun,7",
    "0 2 */2 * 5",
    "0 2 1 * */2",
    "15 2 29 2 *",
    "0 12 31 * *",
    "20 4 * jan,Mar-JUN/2 mon-FRI",
    "0 22 * * 0-7",
    "0 6 * * 5-7",
    "7-7/2 5-5/3 * feb-2/1 tue-tue/2",
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
    "@yearly",
]


def test_the_clockwork_agrees_with_the_manual():
    """Jobs in the hour that is skipped run right after it; those in the repeated hour once (man 8 cron)."""
    zone = zone_of("Europe/London")
    spring = due_times(["30 1 * * *", "30 * * * *"], zone, *_night(2026, 3, 29))
    assert [f"{one:%H:%M}" for one in spring["30 1 * * *"]] == ["01:00"]
    assert [f"{one:%H:%M}" for one in spring["30 * * * *"]] == ["00:30", "01:30", "02:30"]
    autumn = due_times(["30 1 * * *", "30 * * * *"], zone, *_night(2026, 10, 25))
    assert [f"{one:%H:%M}" for one in autumn["30 1 * * *"]] == ["00:30"]
    assert [f"{one:%H:%M}" for one in autumn["30 * * * *"]] == ["00:30", "01:30", "02:30"]


def _night(*date):
    begin = datetime(*date, tzinfo=UTC)
    return begin, begin + timedelta(hours=3)


def fields(low, high):
    """Fields of a range of numbers: stars, numbers, ranges, steps, and lists of them."""
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    step = st.integers(1, high)
    item = st.one_of(
        st.just("*"),
        number.map(str),
        span,
        st.tuples(st.one_of(st.just("*"), span), step).map(lambda parts: f"{parts[0]}/{parts[1]}"),
    )
    return st.lists(item, min_size=1, max_size=3).map(",".join)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(fields(0, 59), fields(0, 23), fields(1, 28), fields(1, 12), fields(0, 7)).map(" ".join),
    st.sampled_from(ZONES),
    st.sampled_from([(2026, 3, 7), (2026, 3, 28), (2026, 4, 4), (2026, 10, 3), (2026, 10, 24), (2026, 11, 1)]),
)
def test_any_schedule_is_due_when_cron_starts_it(text, name, day):
    after = datetime(*day, tzinfo=UTC)
    until = after + timedelta(days=2)
    zone = zone_of(name)
    assert list(parse(text, zone).between(after, until)) == due_times([text], zone, after, until)[text]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(TEXTS),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
)
def test_next_and_latest_are_the_neighbours_of_a_moment(text, name, moment):
    schedule = parse(text, zone_of(name))
    before, after = schedule.latest(moment), schedule.next(moment)
    assert before <= moment < after
    assert list(schedule.between(before - timedelta(microseconds=1), after)) == [before, after]


def test_what_is_due_on_a_start_has_no_time():
    schedule = parse("@reboot")
    now = datetime.now(UTC)
    assert (schedule.next(now), schedule.latest(now)) == (None, None)
    assert list(schedule.between(now - timedelta(days=9), now)) == []
    assert schedule.words() == "When the host starts"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10 3 * * *", "At 03:10 every day"),
        ("@daily", "At 00:00 every day"),
        ("*/15 9-17 * * mon-fri", "Every 15th minute from 09:00 through 17:59 on Monday through Friday"),
        ("0 0 1,15 * 5", "At 00:00 on the first and the 15th day of month and on Friday"),
    ],
)
def test_a_schedule_is_told_in_words(text, words):
    assert parse(text).words() == words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("61 * * * *", "minute '61' is not 0 to 59"),
        ("* 24 * * *", "hour '24' is not 0 to 23"),
        ("* * 0 * *", "day of month '0' is not 1 to 31"),
        ("* * * 13 *", "month '13' is not 1 to 12 or jan to dec"),
        ("* * * * 8", "day of week '8' is not 0 to 7 or sun to sat"),
        ("* * * * fri-mon", "day of week 'fri-mon' is not"),
        ("* * * * monday", "day of week 'monday' is not"),
        ("* * L * *", "day of month 'L' is not"),
        ("* * * * 5L", "day of week '5L' is not"),
        ("* * * * mon#2", "day of week 'mon#2' is not"),
        ("*/0 * * * *", "minute '*/0' is not"),
        ("0 0 30 2 *", "day of month '30' is not 1 to 31, or never comes"),
        ("1-5/ * * * *", "minute '1-5/' is not"),
        ("5/15 * * * *", "minute '5/15' has a step without a range; write 5-59/15"),
        ("* * * *", "not five fields"),
        ("* * * * * *", "not five fields"),
        ("", "not five fields"),
        ("@Daily", "no such nickname; write one of @yearly"),
        ("@every 5m", "no such nickname"),
        ("\N{ARABIC-INDIC DIGIT FIVE} * * * *", "minute"),
    ],
)
def test_what_is_no_schedule_is_told_in_one_line(text, said):
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"schedule {text!r} is wrong: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.thorough
@settings(max_examples=300)
@given(st.text(max_size=30) | st.from_regex(r"[0-9*/,\-a-z@ ]{0,20}", fullmatch=True))
def test_any_text_is_a_schedule_or_a_mistake(text):
    try:
        said = parse(text).words()
    except ScheduleError as error:
        said = str(error)
    assert said
    assert "\n" not in said


def test_space_and_tabs_between_fields_mean_nothing():
    assert parse(" 10\t3  * *\t* ").text == "10 3 * * *"


@pytest.mark.parametrize("nickname", NICKNAMES)
def test_a_nickname_is_its_five_fields(nickname):
    after, until = year(2026)
    assert list(parse(nickname).between(after, until)) == list(parse(NICKNAMES[nickname]).between(after, until))


def test_an_unknown_time_zone_is_told():
    with pytest.raises(ScheduleError, match="time zone 'Mars/Base' is unknown: write an IANA name"):
        zone_of("Mars/Base")


def test_the_time_zone_of_the_host_is_that_of_its_environment(monkeypatch):
    monkeypatch.setenv("TZ", ":Asia/Tokyo")
    assert local_zone().key == "Asia/Tokyo"
    assert parse("0 0 * * *").next(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2026, 1, 1, 15, tzinfo=UTC)
