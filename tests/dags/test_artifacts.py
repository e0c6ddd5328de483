"""The files that the example leaves: complete or not there."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import joblib
import pandas as pd
import pyarrow.parquet as pq
import pytest

from flight_delay.artifacts import folder, load_model, publish_model, publish_scores
from flight_delay.model import features, predict
from flight_delay.scores import SCHEMA, departed, scores_of

DAY = date(2013, 2, 9)


@pytest.fixture(scope="module")
def day(flights):
    return departed(flights[(flights["date"] == "2013-02-09") & (flights["origin"] == "EWR")])


@pytest.fixture(scope="module")
def scores(day, regressor):
    return scores_of(day, predict(regressor, features(day)))


def files(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def test_a_published_model_predicts_as_before(artifacts, regressor, day):
    publish_model(regressor, cutoff="2013-01-31")
    pd.testing.assert_series_equal(
        predict(load_model(), features(day)), predict(regressor, features(day)), check_exact=True
    )
    assert files(artifacts) == ["model.joblib", "model.json"]


def test_the_metadata_tell_what_the_model_is(artifacts, regressor):
    publish_model(regressor, cutoff="2013-01-31", training_rows=20_679, mae=13.5)
    metadata = json.loads((artifacts / "model.json").read_text())
    assert metadata["cutoff"] == "2013-01-31"
    assert metadata["training_rows"] == 20_679
    assert metadata["mae"] == 13.5
    assert set(metadata["versions"]) == {"scikit-learn", "pandas", "numpy", "joblib"}
    assert metadata == joblib.load(artifacts / "model.joblib")["metadata"]


def test_without_a_model_the_remedy_is_named_in_one_line(artifacts):
    with pytest.raises(FileNotFoundError, match=r"^no model at .*: run the DAG flight_delay_training first$"):
        load_model()


def test_a_crash_while_writing_keeps_the_model_from_before(artifacts, regressor, mocker):
    publish_model(regressor, cutoff="2013-01-31")
    before = (artifacts / "model.joblib").read_bytes()

    def half(_, path):
        Path(path).write_bytes(b"half a model")
        raise OSError("No space left on device")

    mocker.patch("joblib.dump", half)
    with pytest.raises(OSError, match="No space left"):
        publish_model(regressor, cutoff="2013-02-28")

    assert (artifacts / "model.joblib").read_bytes() == before
    assert files(artifacts) == ["model.joblib", "model.json"]


def test_a_crash_while_writing_leaves_no_scores(artifacts, scores, mocker):
    def half(_, path):
        Path(path).write_bytes(b"PAR1")
        raise OSError("No space left on device")

    mocker.patch("pyarrow.parquet.write_table", half)
    with pytest.raises(OSError, match="No space left"):
        publish_scores(scores, DAY, "EWR")
    assert files(artifacts) == []


def test_scores_lie_by_day_and_airport_and_read_as_one_table(artifacts, scores):
    publish_scores(scores, DAY, "EWR")
    publish_scores(scores.iloc[:5], date(2013, 2, 10), "EWR")

    assert files(artifacts) == [
        "scores/date=2013-02-09/origin=EWR.parquet",
        "scores/date=2013-02-10/origin=EWR.parquet",
    ]
    table = pd.read_parquet(artifacts / "scores")
    assert len(table) == len(scores) + 5
    assert table["date"].value_counts().to_dict() == {"2013-02-09": len(scores), "2013-02-10": 5}
    assert table["predicted_arr_delay"].notna().all()


def test_scoring_a_day_again_replaces_its_scores(artifacts, scores):
    publish_scores(scores.iloc[:5], DAY, "EWR")
    path = publish_scores(scores, DAY, "EWR")
    assert len(pd.read_parquet(path)) == len(scores)
    assert len(files(artifacts)) == 1


def test_a_day_on_which_nothing_flew_has_the_same_columns(artifacts, day, regressor):
    nothing = scores_of(day.iloc[:0], predict(regressor, features(day.iloc[:0])))
    path = publish_scores(nothing, DAY, "LGA")
    assert pq.read_metadata(path).num_rows == 0
    assert pq.read_schema(path).names == SCHEMA.names
    assert pq.read_schema(path).field("predicted_arr_delay").type == "double"


def test_the_folder_is_a_setting_and_else_in_the_home_of_airflow(monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", "/srv/airflow")
    monkeypatch.delenv("FLIGHT_DELAY_ARTIFACTS", raising=False)
    assert folder() == Path("/srv/airflow/flight_delay")
    monkeypatch.setenv("FLIGHT_DELAY_ARTIFACTS", "/mnt/models")
    assert folder() == Path("/mnt/models")
    monkeypatch.delenv("FLIGHT_DELAY_ARTIFACTS")
    monkeypatch.delenv("AIRFLOW_HOME")
    assert folder() == Path.home() / "airflow" / "flight_delay"
