"""How objectives are written: durations, times of day, ratios and counts, each parsed strictly."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batch_observability import SLA, BatchModel, ModelError
from batch_observability.objective import FinishBy, format_duration, parse_duration

DURATIONS = ("start_within", "finish_within", "min_duration", "freshness", "window")
RATIOS = ("max_rejected_ratio", "success_rate", "warn_at")
whole_seconds = st.integers(1, 999_999 * 86400).map(lambda seconds: timedelta(seconds=seconds))


def problem(**objective) -> str:
    """Return the message for one wrong objective: one line that names it, shows the value and says what to write."""
    ((name, value),) = objective.items()
    with pytest.raises(ModelError) as caught:
        BatchModel("churn", sla=SLA(**objective))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"SLA {name!r} of model 'churn' is {value!r}: ")
    assert "write" in message
    return message


# --- Durations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172800),
        ("1d2h3m4.5s", 93784.5),
        (" 15m ", 900),
        ("0h1m", 60),
        ("90m", 5400),
        ("0.5s", 0.5),
    ],
)
def test_a_duration_is_read(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@given(whole_seconds)
def test_a_duration_is_read_as_it_was_written(value):
    assert parse_duration(format_duration(value)) == value


@given(st.timedeltas(min_value=timedelta(microseconds=1)))
@example(timedelta(microseconds=1))
@example(timedelta(seconds=59.123456))
def test_a_duration_with_microseconds_is_read_as_it_was_written(value):
    assert parse_duration(format_duration(value)) == value


@given(st.timedeltas(min_value=timedelta(microseconds=1)))
def test_a_timedelta_is_taken_as_it_is(value):
    assert SLA(finish_within=value).finish_within == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(minutes=20), "20m"),
        (timedelta(hours=1, minutes=30), "1h30m"),
        (timedelta(days=2), "2d"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(milliseconds=500), "0.5s"),
        (timedelta(hours=26), "1d2h"),
        (timedelta(0), "0s"),
    ],
)
def test_a_duration_is_written_short(value, text):
    assert format_duration(value) == text


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize(
    "text",
    ["", " ", "15", "m", "15 minutes", "1.5h", "-15m", "+15m", "15M", "15m1h", "15m15m", "1m,5s", "1e3s", "inf", "nan"],
)
def test_what_is_no_duration_is_refused(name, text):
    assert "not a duration; write for example 90s, 15m, 1h30m or 2d" in problem(**{name: text})


@pytest.mark.parametrize("value", [15, 1.5, True, b"15m", ["15m"], time(1)])
def test_a_number_is_no_duration(value):
    """Of what? Seconds or minutes is for the user to say."""
    assert "not a duration; write for example 15m" in problem(finish_within=value)


@pytest.mark.parametrize("value", ["0s", "0d0h0m0s", "0.0000001s", timedelta(0), timedelta(seconds=-1)])
def test_a_duration_is_positive(value):
    assert "not positive; write for example 15m" in problem(finish_within=value)


@pytest.mark.parametrize("text", ["1000000000d", f"{'9' * 400}d", f"{'9' * 400}s"])
def test_a_duration_has_an_end(text):
    assert "longer than a duration can be; write a shorter one" in problem(finish_within=text)


@given(st.text())
def test_any_text_is_a_duration_or_told_in_one_line(text):
    try:
        parse_duration(text)
    except ModelError:
        problem(finish_within=text)


# --- Finish by ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at", "zone", "days"),
    [
        ("06:30", time(6, 30), "UTC", 0),
        ("6:30 UTC", time(6, 30), "UTC", 0),
        ("06:30 Europe/London", time(6, 30), "Europe/London", 0),
        ("23:59:59 America/New_York", time(23, 59, 59), "America/New_York", 0),
        ("+1d 02:00 UTC", time(2), "UTC", 1),
        ("+99d 00:00 Asia/Kathmandu", time(0), "Asia/Kathmandu", 99),
        (" 06:30   Europe/London ", time(6, 30), "Europe/London", 0),
    ],
)
def test_a_time_of_day_is_read_with_zone_and_day(text, at, zone, days):
    read = FinishBy.parse(text)
    assert (read.at.replace(tzinfo=None), read.at.tzinfo, read.days) == (at, ZoneInfo(zone), days)


def test_the_zone_follows_summer_time():
    at = FinishBy.parse("06:30 Europe/London").at
    winter, summer = (datetime.combine(date(2024, month, 1), at).astimezone(UTC) for month in (1, 7))
    assert (winter.hour, summer.hour) == (6, 5)


@given(
    at=st.times().map(lambda at: at.replace(microsecond=0)),
    days=st.integers(0, 99),
    zone=st.sampled_from(sorted(available_timezones())),
)
def test_a_time_of_day_is_read_as_it_was_written(at, days, zone):
    value = FinishBy(at.replace(tzinfo=ZoneInfo(zone)), days)
    read = FinishBy.parse(str(value))
    assert read == value
    assert str(read) == str(value)


@pytest.mark.parametrize(
    "text", ["", "6", "0630", "06.30", "06:3", "6:30pm", "06:30:1", "-1d 06:30", "1d 06:30", "+1d06:30", "+100d 06:30"]
)
def test_what_is_no_time_of_day_is_refused(text):
    assert "not a time of day; write HH:MM and a time zone, for example 06:30 Europe/London" in problem(finish_by=text)


@pytest.mark.parametrize("text", ["24:00", "25:00", "06:60", "06:30:60", "99:99 UTC"])
def test_a_time_that_no_clock_shows_is_refused(text):
    assert "not a time of day; write HH:MM from 00:00 to 23:59" in problem(finish_by=text)


@pytest.mark.parametrize("zone", ["Mars/Base", "../../etc/passwd", "/etc/localtime", "zone.tab", "a\0b", "\ud800"])
def test_an_unknown_zone_is_refused(zone):
    message = problem(finish_by=f"06:30 {zone}")
    assert f"unknown time zone {zone!r}; write an IANA name, for example Europe/London" in message


@pytest.mark.parametrize("zone", ["Europe", "America/Argentina", "A" * 300])
def test_a_zone_that_cannot_be_opened_is_unknown(zone):
    assert f"unknown time zone {zone!r}" in problem(finish_by=f"06:30 {zone}")


@pytest.mark.parametrize("value", [630, time(6, 30), datetime(2024, 1, 1, tzinfo=UTC), True, b"06:30"])
def test_a_time_of_day_is_text(value):
    assert "not a time of day; write for example '06:30 Europe/London'" in problem(finish_by=value)


@given(st.from_regex(r"(\+[0-9]{1,3}d )?[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?( [A-Za-z/_+0-9-]{1,12})?", fullmatch=True))
@example("06:30 Etc/GMT+5")
def test_any_time_of_day_is_read_or_told_in_one_line(text):
    # A folder of the zone database: has a test of its own.
    with contextlib.suppress(IsADirectoryError):
        try:
            FinishBy.parse(text)
        except ModelError:
            problem(finish_by=text)


def test_a_finish_by_is_taken_as_it_is():
    value = FinishBy(time(6, 30, tzinfo=UTC), 1)
    assert SLA(finish_by=value).finish_by is value


@pytest.mark.parametrize(
    "make",
    [
        lambda: FinishBy(time(6, 30)),
        lambda: FinishBy(time(6, 30, tzinfo=UTC), -1),
        lambda: FinishBy(time(6, 30, tzinfo=UTC), 100),
    ],
    ids=["no zone", "a day before", "too late"],
)
def test_a_finish_by_made_by_hand_is_checked_too(make):
    with pytest.raises(ModelError):
        SLA(finish_by=make())


def test_the_same_time_in_another_zone_is_another_promise():
    assert SLA(finish_by="06:30 Europe/London") != SLA(finish_by="06:30 America/New_York")


def test_the_same_time_another_day_is_another_promise():
    assert SLA(finish_by="06:30 UTC") != SLA(finish_by="+1d 06:30 UTC")


# --- Ratios and counts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RATIOS)
@pytest.mark.parametrize(("value", "ratio"), [(0.5, 0.5), (1, 1.0), ("0.25", 0.25), ("99%", 0.99), (" 50% ", 0.5)])
def test_a_ratio_is_read(name, value, ratio):
    read = getattr(SLA(**{name: value}), name)
    assert (read, type(read)) == (ratio, float)


@given(st.floats(0, 1))
def test_a_ratio_is_kept_exactly(value):
    assert SLA(max_rejected_ratio=value).max_rejected_ratio == value
    assert SLA(max_rejected_ratio=repr(value)).max_rejected_ratio == value


@pytest.mark.parametrize("name", RATIOS)
@pytest.mark.parametrize("value", ["", "half", "50 %%", "%", True, False, [0.5], {}])
def test_what_is_no_ratio_is_refused(name, value):
    assert "not a ratio; write a number from 0 to 1, or a percentage such as 99%" in problem(**{name: value})


@pytest.mark.parametrize("name", RATIOS)
@pytest.mark.parametrize("value", [-0.1, 1.01, 99, "101%", "-1%", "nan", float("inf"), "1e400"])
def test_a_ratio_is_between_0_and_1(name, value):
    assert "not between 0 and 1; write for example 0.99 or 99%" in problem(**{name: value})


def test_a_huge_number_is_no_ratio():
    assert "write" in problem(success_rate=10**400)


@pytest.mark.parametrize("name", ["success_rate", "warn_at"])
@pytest.mark.parametrize("value", [0, 0.0, "0%", "0"])
def test_a_promise_of_nothing_is_refused(name, value):
    assert "zero promises nothing; write a number above 0" in problem(**{name: value})


def test_no_row_may_be_rejected():
    assert SLA(max_rejected_ratio=0).objectives() == {"max_rejected_ratio": "0.0"}


@pytest.mark.parametrize(("value", "count"), [(0, 0), (1000, 1000), ("1000", 1000), (" 7 ", 7)])
def test_a_count_is_read(value, count):
    assert SLA(min_rows=value).min_rows == count


@pytest.mark.parametrize("value", ["", "many", "1.5", "1,000", 1.0, True, [1], "9" * 5000])
def test_what_is_no_count_is_refused(value):
    assert "not a whole number; write for example 1000" in problem(min_rows=value)


@pytest.mark.parametrize("value", [-1, "-1"])
def test_a_count_is_not_negative(value):
    assert "negative; write 0 or more" in problem(min_rows=value)


# --- The whole ---------------------------------------------------------------------------------------------------


def test_objectives_are_named_in_text_without_the_terms_they_are_judged_by():
    sla = SLA(
        start_within=timedelta(minutes=15),
        finish_within="20m",
        finish_by="+1d 06:30 Europe/London",
        min_duration="1s",
        freshness="26h",
        min_rows=100,
        max_rejected_ratio=0.5,
        success_rate="99%",
        window="7d",
        warn_at=0.9,
    )
    assert sla.objectives() == {
        "start_within": "15m",
        "finish_within": "20m",
        "finish_by": "+1d 06:30 Europe/London",
        "min_duration": "1s",
        "freshness": "1d2h",
        "min_rows": "100",
        "max_rejected_ratio": "0.5",
        "success_rate": "0.99",
    }
    assert SLA(**sla.objectives()).objectives() == sla.objectives()


def test_nothing_need_be_promised():
    assert SLA().objectives() == {}
    assert (SLA().window, SLA().warn_at) == (timedelta(days=30), 0.8)


@pytest.mark.parametrize("name", ["window", "warn_at"])
def test_a_term_cannot_be_none(name):
    assert problem(**{name: None})


def test_objectives_are_written_by_name():
    with pytest.raises(TypeError):
        SLA("20m")
