"""Which flights are scored, and which scores are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flight_delay.model import features, predict
from flight_delay.scores import SCHEMA, check, departed, scores_of


@pytest.fixture(scope="module")
def scores(flights, regressor):
    day = departed(flights[flights["date"] == "2013-02-05"])
    return scores_of(day, predict(regressor, features(day)))


def test_every_flight_is_scored_or_cancelled(raw_flights, flights):
    """In every day and airport of two months, diverted flights included: they left, and nobody knew yet."""
    scorable = departed(flights)
    assert scorable["arr_delay"].isna().any()
    for (day, origin), part in flights.groupby(["date", "origin"]):
        written = len(scorable[(scorable["date"] == day) & (scorable["origin"] == origin)])
        assert len(part) == written + part["dep_time"].isna().sum()
    assert len(scorable) == sum(row["dep_time"] != "NA" for row in raw_flights)


def test_scores_have_the_columns_of_the_schema_and_no_truth(scores):
    assert list(scores.columns) == SCHEMA.names
    assert "arr_delay" not in scores.columns


def test_sane_scores_pass(scores):
    check(scores, expected=len(scores))


def test_no_scores_for_no_flights_pass(scores):
    check(scores.iloc[:0], expected=0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda scores: scores.iloc[1:], r"\d+ scores for \d+ flights: some were lost or doubled on the way"),
        (lambda scores: pd.concat([scores, scores[:1]]), r"\d+ scores for \d+ flights: .*"),
        (lambda scores: _with_first(scores, np.nan), r"1 of \d+ scores are not a number: .*"),
        (lambda scores: _with_first(scores, np.inf), r"1 of \d+ scores are not a number: .*"),
        (
            lambda scores: _with_first(scores, -500.0),
            r"1 of \d+ scores are implausible, they reach from -500 to .*",
        ),
        (
            lambda scores: _with_first(scores, 90_000.0),
            r"1 of \d+ scores are implausible, .* to 90000 minutes: .*",
        ),
    ],
    ids=["lost", "doubled", "nan", "infinite", "far too early", "far too late"],
)
def test_spoilt_scores_are_refused_in_one_line(scores, spoil, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check(spoil(scores), expected=len(scores))


def _with_first(scores, minutes):
    spoilt = scores.copy()
    spoilt.iloc[0, spoilt.columns.get_loc("predicted_arr_delay")] = minutes
    return spoilt
