"""Airflow's own examples are observed models by a catalog alone: no line of theirs is edited."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.airflow_e2e.stand import settled, stand
from tests.live.evidence import RUN, key
from tests.live.processes import LiveError

# The test also pays for the start of an Airflow and for all runs on it.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

EXAMPLES = (
    "example_dynamic_task_mapping",
    "example_failed_dag",
    "example_setup_teardown_taskflow",
    "tutorial_taskflow_api",
)
CATALOG = "defaults: {owner: team-examples, tier: 2, runbook: https://example.com/runbook}\nmodels:\n" + "".join(
    f"  - name: {dag_id}\n    match: {{dag_id: {dag_id}}}\n" for dag_id in EXAMPLES
)


@pytest.fixture(scope="module")
def dags(tmp_path_factory):
    """The examples, and the catalog beside their folder."""
    folder = tmp_path_factory.mktemp("dags")
    examples = Path(find_spec("airflow.example_dags").submodule_search_locations[0])
    for name in EXAMPLES:
        shutil.copy(examples / f"{name}.py", folder)
    return folder


def test_every_try_of_every_example_is_a_run_of_its_model(dags, tmp_path):
    catalog = tmp_path / "batch_models.yaml"
    catalog.write_text(CATALOG)
    with stand(dags, BATCHOBS_CATALOG=str(catalog)) as running:
        runs = running.run(*EXAMPLES)
        states = {dag_id: running.airflow.dag_run(dag_id, run_id)["state"] for dag_id, run_id in runs.items()}
        tried = Counter(attempt.key for attempt in running.tried(*runs))
        # What does not come is named below.
        with contextlib.suppress(LiveError):
            settled(lambda: len(running.agent.spans(RUN)), tried.total(), "run spans")
        spans = running.agent.spans(RUN)
        assert running.airflow.import_errors() == []
        assert running.observer_log() == ""
    assert states == {dag_id: "failed" if dag_id == "example_failed_dag" else "success" for dag_id in EXAMPLES}
    assert Counter(key(span) for span in spans) == tried
    assert tried.total() >= 12
    for span in spans:
        meta = span["meta"]
        assert meta["batch_model.name"] == span["service"] == meta["airflow.dag_id"]
        assert (meta["batch_model.owner"], meta["batch_model.tier"]) == ("team-examples", "2")
