"""
The model: what it sees of a flight, how it learns and how it predicts.

It sees what is known when the aircraft leaves the gate. That is a list of columns to take, not of columns to
drop: a column that joins the data later cannot leak the future into the model.
"""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from flight_delay.data import WEATHER

CATEGORIES = ["carrier", "origin", "dest"]
FEATURES = [*CATEGORIES, "month", "weekday", "hour", "minute", "distance", "dep_delay", *WEATHER]

VALIDATION_DAYS = 7


def features(flights: pd.DataFrame) -> pd.DataFrame:
    """Return the columns `FEATURES`, with the index of `flights`. Only weather may be missing."""
    table = flights.assign(weekday=flights["date"].dt.day_of_week)[FEATURES]
    return table.astype(dict.fromkeys(CATEGORIES, "category"))


def split(flights: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    Split into flights to learn from and those of the last `VALIDATION_DAYS` days, to validate with.

    By time and not at random: the flights of a day share its weather and its queues, so a model that has seen
    half of them looks better on the other half than it will be tomorrow. Too few days are a ValueError.
    """
    early = flights["date"] <= flights["date"].max() - timedelta(days=VALIDATION_DAYS)
    if not early.any():
        raise ValueError(f"nothing to learn from: the last {VALIDATION_DAYS} days validate; choose a later cut-off")
    return flights[early], flights[~early]


def fit(table: pd.DataFrame, arr_delay: pd.Series) -> HistGradientBoostingRegressor:
    """
    Learn how many minutes a flight loses, or makes up, between departure and arrival.

    Not the arrival delay: trees cannot predict beyond what they have seen, and a flight may leave later
    than any before it. The same rows give the same model.
    """
    regressor = HistGradientBoostingRegressor(
        loss="absolute_error", max_leaf_nodes=8, early_stopping=False, random_state=2013
    )
    with _one_thread():
        return regressor.fit(table, arr_delay - table["dep_delay"])


def predict(regressor: HistGradientBoostingRegressor, table: pd.DataFrame) -> pd.Series:
    """Predict arrival delays in minutes, with the index of `table`; none for an empty table."""
    if table.empty:  # scikit-learn refuses it
        return pd.Series(index=table.index, dtype="float64")
    with _one_thread():
        return table["dep_delay"] + regressor.predict(table)


def mean_absolute_error(predicted: pd.Series, actual: pd.Series) -> float | None:
    """Compare over the flights that have landed; None if none has."""
    error = (predicted - actual).abs().mean()
    return None if pd.isna(error) else float(error)


def _one_thread() -> threadpool_limits:
    # OpenMP's threads spin while they wait for each other, which is slow where other tasks want the same
    # cores: a fit of 1 s was seen to take 12 s. One thread also adds up in one order, so results repeat.
    return threadpool_limits(limits=1, user_api="openmp")
