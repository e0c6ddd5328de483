"""What is read of the flights and their weather."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime

import pytest

from flight_delay.data import WEATHER, parse_day, read_flights, replayed_day
from flight_delay.scores import departed


@pytest.mark.parametrize("origin", ["EWR", "JFK", "LGA"])
@pytest.mark.parametrize("day", [8, 9])
def test_a_day_of_the_blizzard_is_read_whole(raw_flights, day, origin):
    """Cancelled flights are among the flights of a day, and are those that cannot be scored."""
    raw = [row for row in raw_flights if (row["month"], row["day"], row["origin"]) == ("2", str(day), origin)]
    cancelled = [row for row in raw if row["dep_time"] == "NA"]

    flights = read_flights(date(2013, 2, day), date(2013, 2, day), origin)

    assert len(flights) == len(raw)
    assert flights["dep_time"].isna().sum() == len(cancelled) > 100
    assert Counter(departed(flights)["flight"]) == Counter(int(row["flight"]) for row in raw if row["dep_time"] != "NA")


def test_both_ends_of_a_range_are_read(raw_flights):
    flights = read_flights(date(2013, 1, 30), date(2013, 2, 2))
    assert set(flights["date"].dt.date) == {
        date(2013, 1, 30),
        date(2013, 1, 31),
        date(2013, 2, 1),
        date(2013, 2, 2),
    }
    assert len(flights) == sum(
        (row["month"], row["day"]) in {("1", "30"), ("1", "31"), ("2", "1"), ("2", "2")} for row in raw_flights
    )


def test_missing_weather_drops_no_flight(raw_flights, flights):
    """On 1 January there are hours without weather: the flights are there, and their weather is empty."""
    assert len(flights) == len(raw_flights)
    unknown = flights[flights[WEATHER].isna().all(axis="columns")]
    assert len(unknown[unknown["date"] == "2013-01-01"]) == 39


def test_weather_is_that_of_the_airport_in_the_scheduled_hour(flights):
    """Compared with the line `EWR,2013,2,9,7,28.4,21.2,74.08,300,23.0156,...` of weather.csv."""
    morning = flights[(flights["date"] == "2013-02-09") & (flights["hour"] == 7) & (flights["origin"] == "EWR")]
    assert set(morning["temp"]) == {28.4}
    assert set(morning["wind_speed"]) == {23.0156}
    assert set(morning["time_hour"]) == {"2013-02-09T12:00:00Z"}


def test_a_flight_is_scheduled_in_utc(flights):
    first = flights.iloc[0]
    assert (first["hour"], first["minute"]) == (5, 15)
    assert first["scheduled"].isoformat() == "2013-01-01T10:15:00+00:00"


def test_a_day_is_read():
    assert parse_day("2013-02-08") == date(2013, 2, 8)


@pytest.mark.parametrize("text", ["", "yesterday", "2013-02-30", "08/02/2013", "2013-2-8"])
def test_what_is_no_date_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=f"^day is {text!r}: not a date; write YYYY-MM-DD, for example .*$"):
        parse_day(text)


@pytest.mark.parametrize("text", ["2012-12-31", "2014-01-01", "2026-06-01"])
def test_a_day_without_flights_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=f"^day is {text!r}: .*; write a day from 2013-01-01 to 2013-12-31$"):
        parse_day(text)


@pytest.mark.parametrize(
    ("moment", "day"), [("2026-11-23T04:00:00", "2013-11-23"), ("2028-02-29T00:00:00", "2013-02-28")]
)
def test_a_run_of_another_year_scores_the_same_day_of_2013(moment, day):
    assert replayed_day(datetime.fromisoformat(moment)) == date.fromisoformat(day)
