"""What the model sees, how it is validated, and that it repeats itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flight_delay.model import FEATURES, features, fit, mean_absolute_error, predict, split

# All that the raw file knows of a flight only after it has left.
AFTER_DEPARTURE = ["arr_time", "arr_delay", "air_time"]


def test_the_model_is_shown_nothing_from_after_the_departure(flights, regressor):
    assert not set(AFTER_DEPARTURE) & set(FEATURES)
    assert list(features(flights).columns) == FEATURES
    assert list(regressor.feature_names_in_) == FEATURES


def test_predictions_do_not_depend_on_the_arrival(flights, regressor):
    """Whatever the arrival was, and also if it is not known yet, the prediction is the same."""
    day = flights[(flights["date"] == "2013-02-05") & flights["dep_time"].notna()]
    unknown = day.assign(arr_delay=np.nan)
    late = day.assign(arr_delay=day["arr_delay"] + 600)

    predicted = predict(regressor, features(day))

    pd.testing.assert_series_equal(predict(regressor, features(unknown)), predicted)
    pd.testing.assert_series_equal(predict(regressor, features(late)), predicted)


def test_the_same_flights_give_the_same_predictions(january, flights, regressor):
    table = features(flights[flights["dep_time"].notna()])
    again = fit(features(january), january["arr_delay"])
    pd.testing.assert_series_equal(predict(again, table), predict(regressor, table), check_exact=True)


def test_a_flight_is_scored_the_same_alone_and_among_others(flights, regressor):
    """A carrier has the same meaning in a table of one airport as in that of the training."""
    day = flights[(flights["date"] == "2013-02-05") & flights["dep_time"].notna()]
    among_others = predict(regressor, features(day))
    for origin, part in day.groupby("origin"):
        alone = predict(regressor, features(part))
        pd.testing.assert_series_equal(alone, among_others[day["origin"] == origin])


def test_unknown_carriers_airports_and_weather_are_scored(flights, regressor):
    strange = flights.iloc[:3].assign(carrier="??", dest="XXX", temp=np.nan, wind_speed=np.nan)
    assert np.isfinite(predict(regressor, features(strange))).all()


def test_validation_takes_the_last_seven_days(january):
    past, recent = split(january)
    assert past["date"].max() == pd.Timestamp("2013-01-24")
    assert recent["date"].min() == pd.Timestamp("2013-01-25")
    assert len(past) + len(recent) == len(january)


def test_too_few_days_are_refused(january):
    with pytest.raises(ValueError, match=r"^nothing to learn from: the last 7 days validate; choose a later cut-off$"):
        split(january[january["date"] <= "2013-01-07"])


def test_the_model_beats_landing_as_late_as_it_left(january, flights):
    """On the days that are held out, and in the month after."""
    past, recent = split(january)
    regressor = fit(features(past), past["arr_delay"])
    for unseen in (recent, flights[(flights["month"] == 2) & flights["dep_time"].notna()]):
        mae = mean_absolute_error(predict(regressor, features(unseen)), unseen["arr_delay"])
        assert mae < mean_absolute_error(unseen["dep_delay"], unseen["arr_delay"])
        assert 10 < mae < 15


def test_the_error_is_taken_over_landed_flights():
    predicted = pd.Series([10.0, 20.0, 30.0])
    assert mean_absolute_error(predicted, pd.Series([12.0, 16.0, np.nan])) == 3
    assert mean_absolute_error(predicted, pd.Series([np.nan] * 3)) is None
    assert mean_absolute_error(pd.Series(dtype=float), pd.Series(dtype=float)) is None


def test_no_flights_give_no_predictions(flights, regressor):
    predicted = predict(regressor, features(flights.iloc[:0]))
    assert predicted.empty
    assert predicted.dtype == "float64"
