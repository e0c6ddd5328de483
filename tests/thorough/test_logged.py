"""A task that logs a hundred thousand lines through a real Airflow: none is lost, and each finds its span."""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest

from batch_observability import schema
from tests.airflow_e2e.stand import DAGS, settled, stand
from tests.live.evidence import RUN, STAGE

sys.path.append(str(DAGS))

import log_lines

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FLOWS = {f"{kind}-{number}" for kind, count in log_lines.FLOWS.items() for number in range(count)}


class Logged:
    """The log file of the task, and the spans of its run."""

    def __init__(self, running):
        run_id = running.run("logged")["logged"]
        # The DAG run, the task, the run, "all", and two stages for each flow.
        settled(lambda: len(running.agent.spans()), 4 + 2 * len(FLOWS), "spans")
        self.spans = running.agent.spans()
        path = running.airflow.log_file("logged", run_id, "loud", -1, 1)
        self.raw = path.read_bytes().splitlines()
        self.lines = [json.loads(line) for line in self.raw]
        self.ours = [
            (line["event"].split(" "), line) for line in self.lines if line["event"].split("-")[0] in FLOW_KINDS
        ]


FLOW_KINDS = set(log_lines.FLOWS)


@pytest.fixture(scope="module")
def logged():
    with stand() as running:
        yield Logged(running)


def test_no_line_is_lost_and_none_comes_twice(logged):
    found = Counter((flow, int(number)) for (flow, number, _), _ in logged.ours)
    assert set(found.values()) == {1}
    assert len(found) == log_lines.LINES > 100_000


def test_lines_of_one_thread_come_in_order(logged):
    for flow in FLOWS:
        numbers = [int(number) for (name, number, _), _ in logged.ours if name == flow]
        assert numbers == list(range(log_lines.EACH))


def test_every_line_has_the_trace_and_the_span_of_its_stage(logged):
    (run,) = (span for span in logged.spans if span["name"] == RUN)
    stages = {str(span["span_id"]): span["resource"] for span in logged.spans if span["name"] == STAGE}
    for (flow, number, span_id), line in logged.ours:
        assert line[schema.LOG_SPAN_ID] == span_id
        assert line[schema.LOG_RUN_ID] == run["meta"][schema.RUN_ID]
        assert (
            stages[span_id]
            == line[schema.LOG_STAGE]
            == (flow if int(number) < log_lines.EACH // 2 else f"within {flow}")
        )
    assert len({line[schema.LOG_TRACE_ID] for _, line in logged.ours}) == 1


def test_stages_of_children_hang_under_the_stage_that_they_were_started_in(logged):
    by_name = {span["resource"]: span for span in logged.spans if span["name"] == STAGE}
    for flow in FLOWS:
        assert by_name[flow]["parent_id"] == by_name["all"]["span_id"]
        assert by_name[f"within {flow}"]["parent_id"] == by_name[flow]["span_id"]


def test_extra_fields_of_stdlib_logging_are_there(logged):
    for (_, number, _), line in logged.ours:
        if not int(number) % 6:
            assert line["n"] == int(number)
            assert line.get("field.target", line.get("target")) == "x"
