"""A real Airflow without tracing of its own: one attempt, one outcome, one run span; one DAG run, one trace."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from batch_observability import schema
from tests.airflow_e2e.ran import DEATHS, DECLARED, Live, place, run_id
from tests.airflow_e2e.stand import arrivals, settled, stand
from tests.live import rest
from tests.live.agent import trace_id
from tests.live.evidence import DAG_RUN, RUN, STAGE, TASK, runs

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

# Two seconds on a machine that has nothing else to do (docs/table-of-deaths.md); this one may have.
ARRIVES_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def live():
    with stand() as running:
        # Alone and first: the time from a death to its arrival is measured.
        with arrivals(running.agent) as arrived:
            ids = running.run("killed")
            settled(lambda: len(arrived), len(DEATHS), "run spans of killed tasks")
        ids |= running.run("declared")
        expected = len(DEATHS) + len(DECLARED) + len(running.tried("declared", "killed")) + len(ids)
        settled(lambda: sum(span["name"] != STAGE for span in running.agent.spans()), expected, "spans")
        yield Live(running, ids, dict(arrived), running.agent.traces())


def test_every_observed_try_of_airflow_is_exactly_one_run_span(live):
    tried = [a.key for a in live.stand.tried("declared", "killed") if a.key.task_id != "unobserved"]
    assert Counter(run.key for run in runs(live.traces)) == Counter(tried)


def test_every_run_has_the_outcome_that_its_try_had(live):
    outcomes = {place(span): span["meta"]["batch_model.outcome"] for span in live.spans if span["name"] == RUN}
    assert outcomes == DECLARED | {(task_id, -1, 1): "killed" for task_id in DEATHS}


def test_a_dag_run_is_one_trace_and_every_parent_is_in_it(live):
    assert len({trace_id(trace) for trace in live.traces}) == 2
    for trace in live.traces:
        ids = [span["span_id"] for span in trace]
        assert len(set(ids)) == len(ids)
        roots = [span for span in trace if not span.get("parent_id")]
        assert [span["name"] for span in roots] == [DAG_RUN]
        assert [s["resource"] for s in trace if s.get("parent_id") and s["parent_id"] not in ids] == []


def test_every_try_of_airflow_is_one_task_span_under_the_dag_run(live):
    tried = Counter(attempt.key[2:] for attempt in live.stand.tried("declared", "killed"))
    tasks = [span for span in live.spans if span["name"] == TASK]
    assert Counter(map(place, tasks)) == tried
    dag_runs = {span["span_id"] for span in live.spans if span["name"] == DAG_RUN}
    assert {span["parent_id"] for span in tasks} <= dag_runs


def test_a_run_hangs_under_the_task_span_of_its_try_and_lies_in_it(live):
    tasks = {span["span_id"]: span for span in live.spans if span["name"] == TASK}
    for span in live.spans:
        if span["name"] == RUN:
            parent = tasks[span["parent_id"]]
            assert place(parent) == place(span)
            assert parent["start"] <= span["start"]


def test_a_run_span_says_what_the_contract_says(live):
    span = live.run_span("mixin")
    meta, numbers = span["meta"], span["metrics"]
    assert (span["service"], span["resource"], span["type"]) == ("churn", "declared.mixin", "worker")
    assert (meta["span.kind"], meta["env"], meta["version"]) == ("consumer", "test", "3")
    assert numbers["_dd.measured"] == 1
    assert numbers["_sampling_priority_v1"] == 2
    expected = {
        schema.MODEL_NAME: "churn-score",
        schema.MODEL_VERSION: "3",
        schema.MODEL_OWNER: "team-risk",
        schema.MODEL_TIER: "1",
        schema.OUTCOME: "success",
        schema.DAG_ID: "declared",
        schema.TASK_ID: "mixin",
        schema.DAG_RUN_ID: live.ids["declared"],
        schema.OBJECTIVE.replace("<objective>", "finish_within"): "20m",
        schema.OBJECTIVE.replace("<objective>", "min_rows"): "0",
        schema.MEASUREMENT_UNIT.replace("<name>", "auc"): "fraction",
    }
    assert {name: meta.get(name) for name in expected} == expected
    counted = {
        schema.ROWS_READ: 10,
        schema.ROWS_WRITTEN: 9,
        schema.ROWS_REJECTED: 1,
        schema.TRY_NUMBER: 1,
        schema.MAP_INDEX: -1,
        schema.MEASUREMENT.replace("<name>", "auc"): 0.9,
    }
    assert {name: numbers.get(name) for name in counted} == counted
    assert numbers[schema.MEMORY_PEAK] > 10_000_000
    (instance,) = (
        i for i in live.stand.airflow.task_instances("declared", live.ids["declared"]) if i["task_id"] == "mixin"
    )
    assert meta[schema.RUN_ID] == instance["id"]


def test_every_attribute_of_ours_is_in_the_schema(live):
    known = {name.partition("<")[0] for name in schema.ATTRIBUTES}
    prefixes = tuple(name for name in known if name.endswith("."))
    for span in live.spans:
        ours = [
            n
            for n in {**span["meta"], **span.get("metrics", {})}
            if n.startswith(("batch_model.", "airflow.", "error."))
        ]
        assert [name for name in ours if name not in known and not name.startswith(prefixes)] == []


def test_stages_nest_as_they_did(live):
    run = live.run_span("mixin")
    stages = {
        span["resource"]: span
        for span in live.spans
        if span["name"] == STAGE and span["meta"][schema.RUN_ID] == run["meta"][schema.RUN_ID]
    }
    assert set(stages) == {"load", "parse"}
    assert stages["load"]["parent_id"] == run["span_id"]
    assert stages["parse"]["parent_id"] == stages["load"]["span_id"]


def test_a_retry_links_to_the_try_before_it(live):
    first, second = (live.run_span("retried", try_number=number) for number in (1, 2))
    assert [link["span_id"] for link in second["span_links"]] == [first["span_id"]]
    assert not first.get("span_links")


def test_a_failed_try_says_what_went_wrong_and_where(live):
    span = live.run_span("retried")
    assert span["error"] == 1
    assert span["meta"]["error.type"] == "RuntimeError"
    assert span["meta"]["error.message"] == "the first try fails"
    assert "in execute" in span["meta"]["error.stack"]
    assert span["meta"][schema.STAGE_NAME] == "load"
    (line,) = (line for line in live.lines("retried") if line.get("error_detail"))
    assert line[schema.LOG_RUN_ID] == run_id(span)


def test_a_deferred_task_is_one_run_over_both_of_its_processes(live):
    span = live.run_span("deferred")
    assert span["metrics"][schema.ROWS_READ] == 3
    assert span["duration"] > 1e9
    stages = [s for s in live.spans if s["name"] == STAGE and s["parent_id"] == span["span_id"]]
    assert sorted(stage["resource"] for stage in stages) == ["phase", "phase", "waiting"]
    below = [s["resource"] for s in live.spans if s.get("parent_id") in {stage["span_id"] for stage in stages}]
    assert sorted(below) == ["answer", "ask"]
    assert span["metrics"][schema.PHASES] == 2
    assert 0.5 < span["metrics"][schema.WAITING_TIME] < span["duration"] / 1e9


@pytest.mark.parametrize(("task_id", "error"), DEATHS.items())
def test_a_death_without_a_word_is_a_killed_run_that_says_in_which_stage(live, task_id, error):
    span = live.run_span(task_id)
    assert span["error"] == 1
    assert span["meta"]["error.type"] == error
    assert span["meta"][schema.STAGE_NAME] == "predict"
    assert span["metrics"][schema.ROWS_READ] == 5
    stages = {s["resource"]: s for s in live.spans if s["name"] == STAGE and s["meta"][schema.RUN_ID] == run_id(span)}
    assert {name: bool(stage.get("error")) for name, stage in stages.items()} == {
        "load": False,
        "score": True,
        "predict": True,
    }


@pytest.mark.parametrize("task_id", DEATHS)
def test_a_death_arrives_within_seconds(live, task_id):
    span = live.run_span(task_id)
    ended = (span["start"] + span["duration"]) / 1e9
    assert live.arrived[run_id(span)] - ended < ARRIVES_WITHIN_S


def test_every_death_is_one_event_with_its_runbook(live):
    events = live.stand.dogstatsd.events()
    assert Counter(tag for event in events for tag in event.tags if tag.startswith("task_id:")) == {
        f"task_id:{task_id}": 1 for task_id in DEATHS
    }
    for event in events:
        assert event.title == "Batch model doomed-score was killed"
        assert "https://example.com/doom" in event.text
        assert event.alert_type == "error"


def test_the_agent_has_nothing_to_complain_of(live):
    summary = rest.call(f"{live.stand.agent.apm_url}/test/trace_check/summary?return_all=true")
    assert {name: result["Failed_Checks"] for name, result in summary.items() if result["Failed_Checks"]} == {}
    assert sum(result["Passed_Checks"] for result in summary.values()) > 0
    assert rest.call(f"{live.stand.agent.apm_url}/test/trace_check/failures?return_all=true") == "200: OK"
    assert live.stand.dogstatsd.malformed() == []


def test_metrics_are_those_of_the_schema_with_its_closed_list_of_tags(live):
    letters = {"count": "c", "distribution": "d", "gauge": "g"}
    metrics = live.stand.dogstatsd.metrics()
    for metric in metrics:
        known = schema.METRICS[metric.name]
        assert metric.type == letters[known.type]
        tags = {tag.partition(":")[0] for tag in metric.tags}
        assert tags <= {*schema.TAGS, known.extra_tag} - {""}
        assert {"env", "service", "version", "model", "owner", "tier", "source", "dag_id", "task_id"} <= tags
        assert not known.extra_tag or known.extra_tag in tags
    every_run = {"run.started", "run.finished", "run.duration", "cpu.time", "memory.peak"}
    counts = Counter(metric.name.removeprefix("batch_model.") for metric in metrics)
    assert {name: counts[name] for name in every_run} == dict.fromkeys(every_run, len(DECLARED) + len(DEATHS))
    assert counts["stage.duration"] == sum(span["name"] == STAGE for span in live.spans)
    assert counts["telemetry.dropped"] == 0


@pytest.mark.parametrize(
    ("task_id", "map_index", "try_number"),
    [("mixin", -1, 1), ("mapped", 1, 1), ("retried", -1, 1), ("decorated", 0, 1), ("wrapped", -1, 1)],
)
def test_every_line_after_the_run_began_finds_its_trace(live, task_id, map_index, try_number):
    lines = live.lines(task_id, map_index, try_number)
    span = live.run_span(task_id, map_index, try_number)
    began = next(n for n, line in enumerate(lines) if schema.LOG_TRACE_ID in line)
    fields = {
        schema.LOG_SERVICE: "churn",
        schema.LOG_ENV: "test",
        schema.LOG_VERSION: "3",
        schema.LOG_MODEL_NAME: "churn-score",
        schema.LOG_RUN_ID: run_id(span),
        schema.DAG_ID: "declared",
        schema.TASK_ID: task_id,
        schema.DAG_RUN_ID: live.ids["declared"],
        schema.TRY_NUMBER: try_number,
        schema.MAP_INDEX: map_index,
        schema.LOG_DD_DAG_ID: "declared",
        schema.LOG_DD_RUN_ID: live.ids["declared"],
        schema.LOG_DD_TASK_ID: task_id,
    }
    (trace,) = (trace for trace in live.traces if span in trace)
    fields[schema.LOG_TRACE_ID] = trace_id(trace)
    span_ids = {str(s["span_id"]) for s in trace}
    assert len(lines) > began + 1
    for line in lines[began:]:
        assert {name: line.get(name) for name in fields} == fields, line["event"]
        assert line[schema.LOG_SPAN_ID] in span_ids


def test_both_processes_of_a_deferred_task_log_with_its_trace(live):
    expected = run_id(live.run_span("deferred"))
    # Each process says some before it begins, or goes on with, the run; after that every line is the run's.
    found = [line.get(schema.LOG_RUN_ID) == expected for line in live.lines("deferred")]
    assert [begun for begun, _ in itertools.groupby(found)] == [False, True, False, True]


@pytest.mark.parametrize(
    ("event", "stage"),
    [
        ("before any stage", None),
        ("stdlib line in load", "load"),
        ("printed line in parse", "parse"),
        ("thread line in parse", "parse"),
        ("printed line after the stages", None),
    ],
)
def test_a_line_says_the_stage_that_it_was_written_in(live, event, stage):
    (line,) = (line for line in live.lines("mixin") if line["event"] == event)
    assert line.get(schema.LOG_STAGE) == stage
    (span,) = (span for span in live.spans if str(span["span_id"]) == line[schema.LOG_SPAN_ID])
    assert (span["name"], span["resource"]) == ((STAGE, stage) if stage else (RUN, "declared.mixin"))


def test_an_unobserved_task_is_left_alone(live):
    ours = [name for line in live.lines("unobserved") for name in line if name.startswith(("dd.", "batch_model."))]
    assert ours == []
    assert live.links("unobserved") == {}


@pytest.mark.parametrize("task_id", ["mixin", "wrapped", "retried", "deferred", "skipped"])
def test_an_observed_task_links_to_its_trace(live, task_id):
    (trace,) = (trace for trace in live.traces if live.run_span("mixin") in trace)
    assert live.links(task_id) == {"Trace in Datadog": f"https://app.datadoghq.eu/apm/trace/{trace_id(trace)}"}


@pytest.mark.parametrize("task_id", ["mapped", "decorated"])
def test_a_mapped_task_links_to_its_trace(live, task_id):
    (trace,) = (trace for trace in live.traces if live.run_span("mixin") in trace)
    assert live.links(task_id, 1) == {"Trace in Datadog": f"https://app.datadoghq.eu/apm/trace/{trace_id(trace)}"}


def test_nobody_complains(live):
    assert live.stand.airflow.import_errors() == []
    assert live.stand.observer_log() == ""
    for component in ("scheduler", "dag-processor", "api-server", "triggerer"):
        log = live.stand.log(component)
        assert "already registered" not in log
        assert "batch_observability:" not in log
