"""
The scores of a day: one row for each flight that left, and the check that they can be used.

The columns and types are written out, so that a day on which nothing flew has the same ones as any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = pa.schema(
    {
        "origin": pa.string(),
        "dest": pa.string(),
        "carrier": pa.string(),
        "flight": pa.int32(),
        "scheduled": pa.timestamp("s", tz="UTC"),
        "dep_delay": pa.float64(),
        "predicted_arr_delay": pa.float64(),
    }
)

# Minutes. No flight makes up two hours on the way, and none leaves a whole day late: it is cancelled.
PLAUSIBLE = (-120, 24 * 60)


def departed(flights: pd.DataFrame) -> pd.DataFrame:
    """Return the flights that can be scored: what never left will not arrive."""
    return flights.dropna(subset=["dep_time", "dep_delay"])


def scores_of(flights: pd.DataFrame, predicted: pd.Series) -> pd.DataFrame:
    """Put each prediction, in minutes, beside the flight it is for."""
    return flights.assign(predicted_arr_delay=predicted)[SCHEMA.names]


def check(scores: pd.DataFrame, expected: int) -> None:
    """Raise a ValueError for scores that nobody should use: too few, too many, missing or implausible."""
    if len(scores) != expected:
        raise ValueError(f"{len(scores)} scores for {expected} flights: some were lost or doubled on the way")
    minutes = scores["predicted_arr_delay"]
    if broken := int((~np.isfinite(minutes)).sum()):
        raise ValueError(f"{broken} of {expected} scores are not a number: look at the features of these flights")
    if implausible := int((~minutes.between(*PLAUSIBLE)).sum()):
        raise ValueError(
            f"{implausible} of {expected} scores are implausible, they reach from {minutes.min():.0f} to "
            f"{minutes.max():.0f} minutes: look at the departure delays, then train the model again"
        )
