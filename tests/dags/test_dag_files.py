"""The example DAG files: parsed as Airflow does, and their tasks called one by one, with nobody observing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SCORED = [(origin, day) for origin in ("EWR", "JFK", "LGA") for day in ("2013-02-05", "2013-02-08", "2013-02-09")]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What `dag_files.py` prints."""
    home = tmp_path_factory.mktemp("airflow")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # Operators may be called outside of Airflow's task runner.
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "FLIGHT_DELAY_ARTIFACTS": str(home / "artifacts"),
    }
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("dag_files.py")],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_both_files_parse_without_an_error(seen):
    assert seen["parsed"]["import_errors"] == {}
    assert seen["parsed"]["dags"] == {"flight_delay_scoring": ["score"], "flight_delay_training": ["train"]}
    assert seen["parsed"]["mapped"]


def test_the_shared_package_is_not_parsed_as_dag_files(seen):
    assert set(seen["parsed"]["files"]) == {"flight_delay_scoring.py", "flight_delay_training.py"}


def test_parsing_imports_nothing_heavy(seen):
    assert seen["parsed"]["imported"] == []


def test_training_runs_its_stages_and_accounts_for_all_rows(seen, raw_flights):
    trained = seen["trained"]
    assert trained["stages"] == ["load", "features", "train", "validate", "publish"]
    january = [row for row in raw_flights if row["month"] == "1"]
    landed = sum(row["arr_delay"] != "NA" for row in january)
    assert trained["counts"] == {"read": len(january), "written": landed, "rejected": len(january) - landed}


def test_training_measures_its_error_and_writes_it_down(seen):
    mae, unit = seen["trained"]["measurements"]["mae"]
    assert unit == "minute"
    assert 10 < mae < seen["trained"]["measurements"]["baseline_mae"][0] < 15
    metadata = json.loads(Path(seen["trained"]["path"]).with_suffix(".json").read_text())
    assert metadata["mae"] == mae
    assert metadata["cutoff"] == "2013-01-31"
    assert metadata["training_rows"] + metadata["validation_rows"] == seen["trained"]["counts"]["written"]


def test_scoring_before_training_names_the_remedy_in_one_line(seen):
    assert "\n" not in seen["untrained"]["error"]
    assert seen["untrained"]["error"].endswith("run the DAG flight_delay_training first")


@pytest.mark.parametrize(("origin", "day"), SCORED)
def test_scoring_runs_its_stages_and_accounts_for_all_rows(seen, raw_flights, origin, day):
    scored = seen["scored"][f"{origin} {day}"]
    month, number = str(int(day[5:7])), str(int(day[8:]))
    raw = [row for row in raw_flights if (row["month"], row["day"], row["origin"]) == (month, number, origin)]
    cancelled = sum(row["dep_time"] == "NA" for row in raw)

    assert scored["stages"] == ["load", "features", "score", "check", "publish"]
    counts = scored["counts"]
    assert counts == {"read": len(raw), "written": len(raw) - cancelled, "rejected": cancelled}
    assert len(pd.read_parquet(scored["path"])) == counts["written"]
    assert scored["path"].endswith(f"/scores/date={day}/origin={origin}.parquet")


@pytest.mark.parametrize(("origin", "day"), SCORED)
def test_scoring_measures_its_error_and_the_cancelled_share(seen, origin, day):
    measurements, counts = (seen["scored"][f"{origin} {day}"][name] for name in ("measurements", "counts"))
    assert measurements["cancelled_share"] == [pytest.approx(counts["rejected"] / counts["read"]), "fraction"]
    mae, unit = measurements["mae"]
    assert unit == "minute"
    assert 5 < mae < 25


def test_a_scheduled_run_scores_its_day_of_2013_unless_it_asks_for_another(seen):
    assert "/date=2013-02-10/" in seen["by schedule"]["path"]
    assert "/date=2013-02-11/" in seen["param before schedule"]["path"]


def test_a_run_without_flights_to_score_says_so_in_one_line(seen):
    assert seen["day out of range"]["error"] == (
        "day is '2026-01-01': there are no flights of it; write a day from 2013-01-01 to 2013-12-31"
    )
