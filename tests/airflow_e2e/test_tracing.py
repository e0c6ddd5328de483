"""A real Airflow with tracing of its own, to the Agent's OTLP port: our spans join its trace, and come once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from batch_observability import schema
from tests.airflow_e2e.ran import DEATHS, DECLARED
from tests.airflow_e2e.stand import Stand, settled, stand
from tests.live.evidence import DAG_RUN, RUN, STAGE, TASK

# The first test also pays for the start of an Airflow and for all runs on it.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

# A silent exit with 0 is no failure to Airflow's supervisor: no span of the try is sent, the run has no parent.
ROOTS = {"exit_zero"}


@dataclass(frozen=True)
class Live:
    """The stand after both DAGs have ended and all has arrived."""

    stand: Stand
    ids: dict[str, str]
    spans: list

    @property
    def ours(self):
        return [span for span in self.spans if span["name"].startswith("batch_model.")]

    @property
    def runs(self):
        return [span for span in self.spans if span["name"] == RUN]

    @property
    def by_id(self):
        return {span["span_id"]: span for span in self.spans}

    def run_span(self, task_id, map_index=-1, try_number=1):
        (span,) = (span for span in self.runs if _place(span) == (task_id, map_index, try_number))
        return span


@pytest.fixture(scope="module")
def live():
    with stand(tracing=True) as running:
        ids = running.run("declared", "killed")
        settled(lambda: len(running.agent.otlp_spans(RUN)), len(DEATHS) + len(DECLARED), "run spans")
        # Airflow's own come last: the scheduler sends the DAG run's.
        settled(lambda: sum(s["name"].startswith("dag_run.") for s in running.agent.otlp_spans()), 2, "DAG runs")
        yield Live(running, ids, running.agent.otlp_spans())


def _place(span):
    attributes = span["attributes"]
    return (attributes[schema.TASK_ID], attributes[schema.MAP_INDEX], attributes[schema.TRY_NUMBER])


def _parent_name(live, span):
    return live.by_id[span["parent_span_id"]]["name"].partition(".")[0] if span["parent_span_id"] else ""


def test_every_observed_try_is_exactly_one_run_span_with_its_outcome(live):
    expected = DECLARED | {(task_id, -1, 1): "killed" for task_id in DEATHS}
    assert Counter(map(_place, live.runs)) == Counter(list(expected))
    assert {_place(span): span["attributes"][schema.OUTCOME] for span in live.runs} == expected


def test_no_span_of_ours_is_there_twice(live):
    ids = Counter(span["span_id"] for span in live.ours)
    assert [span_id for span_id, count in ids.items() if count > 1] == []
    # And no id of ours is one of Airflow's.
    assert not ids.keys() & {span["span_id"] for span in live.spans if span not in live.ours}


def test_dag_runs_and_tries_are_left_to_airflow(live):
    assert not [span["name"] for span in live.spans if span["name"] in {DAG_RUN, TASK}]
    assert {span["name"] for span in live.spans if span["name"].startswith("dag_run.")} == {
        "dag_run.declared",
        "dag_run.killed",
    }


def test_a_dag_run_is_one_trace(live):
    for dag_id in ("declared", "killed"):
        (dag_run,) = (span for span in live.spans if span["name"] == f"dag_run.{dag_id}")
        runs = [span for span in live.runs if span["attributes"][schema.DAG_ID] == dag_id]
        assert {span["trace_id"] for span in runs} == {dag_run["trace_id"]}


def test_every_parent_has_arrived(live):
    missing = [s["name"] for s in live.spans if s["parent_span_id"] and s["parent_span_id"] not in live.by_id]
    assert missing == []


def test_a_run_hangs_under_the_span_of_airflows_worker(live):
    told = [span for span in live.runs if span["attributes"][schema.OUTCOME] != "killed"]
    assert {_parent_name(live, span) for span in told} == {"worker"}
    for span in told:
        worker = live.by_id[span["parent_span_id"]]
        assert worker["name"].removeprefix("worker.").partition("[")[0] == span["attributes"][schema.TASK_ID]


@pytest.mark.parametrize(
    "task_id",
    [
        "sigkill",
        "segfault",
        "exit_zero",
        "exit_three",
    ],
)
def test_a_killed_run_hangs_under_what_airflow_sends_of_its_try(live, task_id):
    span = live.run_span(task_id)
    assert _parent_name(live, span) == ("" if task_id in ROOTS else "task_run")
    sent = [s["name"] for s in live.spans if s["name"] == f"task_run.{task_id}"]
    assert len(sent) == (0 if task_id in ROOTS else 1)


@pytest.mark.parametrize("task_id", DEATHS)
def test_a_killed_run_says_in_which_stage(live, task_id):
    span = live.run_span(task_id)
    assert span["attributes"][schema.STAGE_NAME] == "predict"
    assert span["status"]["code"] == "STATUS_CODE_ERROR"
    stages = {s["attributes"]["resource.name"]: s for s in live.ours if _run_id(s) == _run_id(span)}
    assert {name for name, stage in stages.items() if stage["status"].get("code") == "STATUS_CODE_ERROR"} >= {
        "score",
        "predict",
    }


def _run_id(span):
    return span["attributes"][schema.RUN_ID]


def test_stages_hang_under_their_run(live):
    run = live.run_span("mixin")
    stages = {
        s["attributes"]["resource.name"]: s for s in live.ours if s["name"] == STAGE and _run_id(s) == _run_id(run)
    }
    assert stages["load"]["parent_span_id"] == run["span_id"]
    assert stages["parse"]["parent_span_id"] == stages["load"]["span_id"]


def test_a_retry_links_to_the_try_before_it(live):
    first, second = (live.run_span("retried", try_number=number) for number in (1, 2))
    assert [link["span_id"] for link in second["links"]] == [first["span_id"]]


def test_a_run_span_says_what_the_contract_says(live):
    span = live.run_span("mixin")
    assert span["kind"] == "SPAN_KIND_CONSUMER"
    assert span["resource"]["service.name"] == "churn"
    assert span["resource"]["service.version"] == "3"
    assert span["resource"]["deployment.environment.name"] == "test"
    expected = {
        "operation.name": RUN,
        "resource.name": "declared.mixin",
        schema.MODEL_NAME: "churn-score",
        schema.MODEL_OWNER: "team-risk",
        schema.ROWS_READ: 10,
        schema.ROWS_WRITTEN: 9,
        schema.ROWS_REJECTED: 1,
        schema.TRY_NUMBER: 1,
        schema.DAG_RUN_ID: live.ids["declared"],
    }
    assert {name: span["attributes"].get(name) for name in expected} == expected


def test_nothing_of_ours_goes_to_the_apm_port_as_well(live):
    assert [span["name"] for span in live.stand.agent.spans()] == []
    assert live.stand.dogstatsd.metrics() == []


def test_metrics_come_by_otlp_with_the_closed_list_of_tags(live):
    points = [point for point in live.stand.agent.otlp_metrics() if point["name"].startswith("batch_model.")]
    for point in points:
        known = schema.METRICS[point["name"]]
        assert set(point["attributes"]) <= {*schema.TAGS, known.extra_tag} - {""}
    finished = Counter(point["attributes"]["outcome"] for point in points if point["name"] == schema.RUN_FINISHED.name)
    assert finished == Counter([*DECLARED.values(), *["killed"] * len(DEATHS)])


def test_the_log_names_the_trace_of_airflow(live):
    span = live.run_span("mixin")
    lines = live.stand.airflow.log_lines("declared", live.ids["declared"], "mixin")
    (line,) = (line for line in lines if line["event"] == "printed line in parse")
    assert line[schema.LOG_TRACE_ID] == span["trace_id"]
    assert line[schema.LOG_STAGE] == "parse"


def test_nobody_complains(live):
    assert live.stand.airflow.import_errors() == []
    assert live.stand.observer_log() == ""
