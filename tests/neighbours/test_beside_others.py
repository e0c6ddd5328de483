"""The plugin beside what is there already: a plugins folder with the same plugin, and DAGs that know nothing of it."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.airflow_e2e.ran import DECLARED
from tests.airflow_e2e.stand import DAGS, settled, stand
from tests.live.agent import REPOSITORY
from tests.live.evidence import DAG_RUN, RUN, TASK, key
from tests.live.processes import LiveError

# The first test also pays for the start of an Airflow and for all runs on it.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

# Quick ones that need no network: branches, skips, mapped tasks, setup and teardown, failures, templates.
EXAMPLES = {
    "example_nested_branch_dag": "example_nested_branch_dag.py",
    "example_skip_dag": "example_skip_dag.py",
    "example_dynamic_task_mapping": "example_dynamic_task_mapping.py",
    "example_setup_teardown_taskflow": "example_setup_teardown_taskflow.py",
    "example_failed_dag": "example_failed_dag.py",
    "tutorial_taskflow_api": "tutorial_taskflow_api.py",
}


def _hide_plugin():
    """Written to a sitecustomize.py: processes that load it do not see that our distribution is installed."""
    import importlib.metadata

    import importlib_metadata

    # Airflow reads entry points by the one or the other, depending on the version of Python.
    for module in (importlib.metadata, importlib_metadata):
        found = module.MetadataPathFinder.find_distributions

        def find_distributions(*arguments, found=found):
            return (each for each in found(*arguments) if each.metadata["Name"] != "airflow-batch-observability")

        module.MetadataPathFinder.find_distributions = staticmethod(find_distributions)


@pytest.fixture(scope="module")
def dags(tmp_path_factory):
    """Airflow's own examples beside ours."""
    folder = tmp_path_factory.mktemp("dags")
    examples = Path(find_spec("airflow.example_dags").submodule_search_locations[0])
    for name in EXAMPLES.values():
        shutil.copy(examples / name, folder)
    return folder


def _final_states(running, runs):
    return {
        (dag_id, instance["task_id"], instance["map_index"]): instance["state"]
        for dag_id, run_id in runs.items()
        for instance in running.airflow.task_instances(dag_id, run_id)
    } | {dag_id: running.airflow.dag_run(dag_id, run_id)["state"] for dag_id, run_id in runs.items()}


def _plugins(running):
    return [plugin["name"] for plugin in running.airflow.api("plugins")["plugins"]]


@pytest.fixture(scope="module")
def without_plugin(dags, tmp_path_factory):
    """How the examples end on an Airflow that has no plugin of ours."""
    site = tmp_path_factory.mktemp("site")
    source = inspect.getsource(_hide_plugin)
    (site / "sitecustomize.py").write_text(f"{source}\n_hide_plugin()\n")
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    with stand(dags, PYTHONPATH=path) as running:
        assert "batch_observability" not in _plugins(running)
        states = _final_states(running, running.run(*EXAMPLES))
        assert running.agent.spans() == []
        return states


@pytest.fixture(scope="module")
def beside(without_plugin, dags):
    """An Airflow with the plugin both installed and in its plugins folder, after the examples and our DAG have run."""
    shutil.copy(DAGS / "declared.py", dags)
    with stand(dags, plugins=REPOSITORY / "plugins") as running:
        runs = running.run(*EXAMPLES)
        runs |= running.run("declared")
        expected = len(DECLARED) + len(runs) + len(running.tried(*runs))
        names = {RUN, TASK, DAG_RUN}
        # What does not come is named by the tests.
        with contextlib.suppress(LiveError):
            settled(lambda: sum(span["name"] in names for span in running.agent.spans()), expected, "spans")
        yield running, runs


def test_airflows_examples_end_as_they_do_without_the_plugin(beside, without_plugin):
    running, runs = beside
    states = _final_states(running, {dag_id: runs[dag_id] for dag_id in EXAMPLES})
    assert states == without_plugin
    assert {dag_id: states[dag_id] for dag_id in EXAMPLES} == {
        dag_id: "failed" if dag_id == "example_failed_dag" else "success" for dag_id in EXAMPLES
    }


def test_no_line_of_ours_is_in_the_logs_of_unobserved_tasks(beside):
    running, _ = beside
    logs = running.airflow.home / "logs"
    examples = [path for dag_id in EXAMPLES for path in (logs / f"dag_id={dag_id}").rglob("attempt=*.log")]
    assert len(examples) >= 15
    for path in examples:
        for word in ("batch_observability", "batch_model", "dd.trace_id"):
            assert word not in path.read_text(), path


def test_unobserved_tasks_have_no_run(beside):
    running, _ = beside
    assert {span["meta"]["airflow.dag_id"] for span in running.agent.spans(RUN)} == {"declared"}


def test_the_plugin_installed_and_in_the_plugins_folder_is_one_plugin(beside):
    running, _ = beside
    assert Counter(_plugins(running))["batch_observability"] == 1
    for component in ("scheduler", "dag-processor", "api-server", "triggerer"):
        log = running.log(component)
        assert "already registered" not in log
        assert "Failed to import plugin" not in log
    assert running.airflow.import_errors() == []
    assert running.airflow.api("plugins/importErrors")["import_errors"] == []
    assert running.observer_log() == ""


def test_nothing_is_doubled_and_nothing_is_missing(beside):
    running, runs = beside
    spans = running.agent.spans()
    assert len({span["span_id"] for span in spans}) == len(spans)
    assert {span["meta"]["airflow.dag_run.run_id"] for span in spans if span["name"] == DAG_RUN} == set(runs.values())
    tried = Counter(attempt.key for attempt in running.tried(*runs))
    assert Counter(key(span) for span in spans if span["name"] == TASK) == tried
    assert {key(span)[2:] for span in spans if span["name"] == RUN} == set(DECLARED)
    counts = Counter(span["name"] for span in spans)
    assert (counts[RUN], counts[DAG_RUN]) == (len(DECLARED), len(runs))
    finished = running.dogstatsd.metrics("batch_model.run.finished")
    assert sum(metric.value for metric in finished) == len(DECLARED)
    links = running.airflow.api(f"dags/declared/dagRuns/{runs['declared']}/taskInstances/mixin/links")
    assert list(links["extra_links"]) == ["Trace in Datadog"]
