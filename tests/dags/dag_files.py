"""
Parse the example DAGs as Airflow does, call their tasks, and print what was seen as one JSON object.

A script, run by test_dag_files.py: it needs an Airflow home of its own, read when Airflow is imported.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

DAGS = Path(__file__).parents[2] / "dags"


class Notebook:
    """Stands where the run is: notes what the task says of itself."""

    def __init__(self):
        self.stages, self.counts, self.measurements = [], {}, {}

    def stage(self, name):
        self.stages.append(name)
        return nullcontext()

    def rows(self, **counts):
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    def measure(self, name, value, unit=""):
        self.measurements[name] = (float(value), unit)


def parse():
    from airflow.dag_processing.dagbag import BundleDagBag

    bag = BundleDagBag(dag_folder=str(DAGS), bundle_path=DAGS, bundle_name="examples")
    return {
        "import_errors": bag.import_errors,
        "dags": {dag_id: sorted(dag.task_dict) for dag_id, dag in bag.dags.items()},
        "files": sorted(Path(path).name for path in bag.file_last_changed),
        "mapped": bag.dags["flight_delay_scoring"].get_task("score").is_mapped if bag.dags else None,
        "imported": sorted({"sklearn", "pyarrow", "flight_delay"} & set(sys.modules)),
    }


def train():
    import flight_delay_training

    notes = Notebook()
    flight_delay_training.current_run = lambda: notes
    path = flight_delay_training.train.function(cutoff="2013-01-31")
    return {"path": path, **vars(notes)}


def score(origin, day, due="2026-02-10"):
    from flight_delay_scoring import ScoreFlights

    notes = Notebook()
    operator = type("Noted", (ScoreFlights,), {"batch": notes})(task_id="score", origin=origin)
    dag_run = SimpleNamespace(run_after=datetime.fromisoformat(due))
    context = {"params": {"day": day}, "dag_run": dag_run}
    try:
        path = operator.execute(context)
    except (ValueError, OSError) as error:
        return {"error": str(error)}
    return {"path": path, **vars(notes)}


if __name__ == "__main__":
    seen = {"parsed": parse()}
    seen["untrained"] = score("EWR", "2013-02-05")
    seen["trained"] = train()
    seen["scored"] = {
        f"{origin} {day}": score(origin, day)
        for origin in ("EWR", "JFK", "LGA")
        for day in ("2013-02-05", "2013-02-08", "2013-02-09")
    }
    seen["by schedule"] = score("LGA", None)
    seen["param before schedule"] = score("LGA", "2013-02-11")
    seen["day out of range"] = score("LGA", "2026-01-01")
    print("\n" + json.dumps(seen))
