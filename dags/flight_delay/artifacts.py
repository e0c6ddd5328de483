"""
The files that outlive a task: the model, and the scores of each day and airport.

A file gets its name when it is complete. So no reader sees half of one, a task that is killed leaves the one
from before, and scoring a day again replaces its scores.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import joblib
import pyarrow as pa
import pyarrow.parquet as pq

from flight_delay.scores import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingRegressor

LIBRARIES = ("scikit-learn", "pandas", "numpy", "joblib")


def folder() -> Path:
    """Return `$FLIGHT_DELAY_ARTIFACTS`, or `flight_delay` in Airflow's home. All workers must share it."""
    if setting := os.environ.get("FLIGHT_DELAY_ARTIFACTS"):
        return Path(setting)
    return Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "flight_delay"


def publish_model(regressor: HistGradientBoostingRegressor, **facts: Any) -> Path:
    """
    Replace the model; `facts` join its metadata, with the time and the versions of the libraries.

    Model and metadata are one file, so that they always belong together; `model.json` is a copy for people.
    """
    metadata = {
        **facts,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "features": list(regressor.feature_names_in_),
        "versions": {library: version(library) for library in LIBRARIES},
    }
    path = folder() / "model.joblib"
    with _replacing(path) as draft:
        joblib.dump({"regressor": regressor, "metadata": metadata}, draft)
    with _replacing(path.with_suffix(".json")) as draft:
        draft.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    return path


def load_model() -> HistGradientBoostingRegressor:
    """Return the model that was published last. A FileNotFoundError names the remedy if there is none."""
    path = folder() / "model.joblib"
    if not path.exists():
        raise FileNotFoundError(f"no model at {path}: run the DAG flight_delay_training first")
    return joblib.load(path)["regressor"]


def publish_scores(scores: pd.DataFrame, day: date, origin: str) -> Path:
    """Replace the scores of a day and airport. The folder `scores` reads as one table, in parts by date."""
    path = folder() / "scores" / f"date={day}" / f"origin={origin}.parquet"
    with _replacing(path) as draft:
        pq.write_table(pa.Table.from_pandas(scores, schema=SCHEMA, preserve_index=False), draft)
    return path


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a draft beside `path`, which takes its place if the block succeeds and vanishes if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, as a rename is atomic within a file system; hidden, so that Parquet readers skip it.
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
