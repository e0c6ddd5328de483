"""A try whose sidecar is killed: the adapter starts another, a few times, and for the run that is open only."""

from __future__ import annotations

from datetime import datetime

import psutil
import pytest
from airflow.sdk import DAG, BaseOperator

from batch_observability import BatchModel, BatchModelMixin, current_run
from batch_observability.airflow import listener, observed
from batch_observability.sidecar.journal import run_ids
from tests.airflow import fakes
from tests.airflow.spooled import RUN, STAGE, points, spans
from tests.live.processes import is_over, wait_until


class Score(BatchModelMixin, BaseOperator):
    model = BatchModel("churn-score", owner="team-risk")
    killed = ()

    def on_kill(self):
        self.killed = (*self.killed, current_run().run_id)


@pytest.fixture
def score(monkeypatch):
    monkeypatch.setenv("BATCHOBS_SAMPLE_INTERVAL", "0.1")
    with DAG("faked", start_date=datetime(2024, 1, 1), schedule=None):
        return Score(task_id="score")


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    observed.pause()


@pytest.fixture
def sidecars(state):
    """Return the living sidecars of this test; none outlives it."""

    def found():
        alive = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("BATCHOBS_STATE_DIR") == str(state)
                if ours and "sidecar" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
            except psutil.Error:
                continue
        return [process for process in alive if "python" in process.name()]

    yield found
    for process in found():
        process.kill()


def begin(instance):
    listener.on_task_instance_running(task_instance=instance)


def succeed(instance):
    listener.on_task_instance_success(previous_state=fakes.RUNNING, task_instance=instance)


def kill(sidecars):
    """Kill the sidecar once it is alone, that is, once its child has told the start."""
    (sidecar,) = wait_until(lambda: len(sidecars()) == 1 and sidecars(), "there is one sidecar", 30, sidecars)
    sidecar.kill()
    wait_until(lambda: is_over(sidecar), "it is gone", 10, sidecars, every=0.02)


def until_known(state, name):
    """Wait until a stage is in the journal, and the start is told."""

    def known():
        journal = next((state / "runs").glob("*.json")).read_text("utf-8")
        return f'"{name}"' in journal and '"start_told": true' in journal

    wait_until(known, f"{name} is in the journal", 30, every=0.02)


def test_at_most_three_more_go_on_with_a_run(score, state, sidecars):
    instance = fakes.task_instance(score)
    begin(instance)
    for number in range(4):
        with current_run().stage(f"step {number}"):
            current_run().rows(read=1)
        until_known(state, f"step {number}")
        kill(sidecars)
    current_run().event("nobody hears it")
    assert sidecars() == []
    succeed(instance)
    assert spans(state, RUN) == []
    # The second layer closes it, with all that was known.
    assert list(run_ids(state)) == [str(instance.id)]


def test_a_run_whose_sidecar_was_killed_is_one_run_with_all_its_stages(score, state, sidecars):
    instance = fakes.task_instance(score)
    begin(instance)
    with current_run().stage("load"):
        current_run().rows(read=1)
    until_known(state, "load")
    kill(sidecars)
    with current_run().stage("score"):
        current_run().rows(read=2)
    succeed(instance)
    (run,) = spans(state, RUN)
    assert (run.outcome, run.attributes["batch_model.rows.read"]) == ("success", 3)
    assert {stage.resource for stage in spans(state, STAGE)} == {"load", "score"}
    names = [name for name, _ in points(state)]
    assert names.count("batch_model.run.started") == names.count("batch_model.run.finished") == 1
    assert list(run_ids(state)) == []


def test_a_run_that_has_ended_gets_no_observer_of_another_one(score, state, sidecars):
    """`dag.test()` runs all tasks in one process; user code may keep what `current_run()` was."""
    first, second = fakes.task_instance(score), fakes.task_instance(score)
    begin(first)
    ended = current_run()
    succeed(first)
    begin(second)
    ended.event("too late")
    with ended.stage("too late as well"):
        current_run().rows(read=1)
    succeed(second)
    runs = {span.attributes["batch_model.run_id"]: span for span in spans(state, RUN)}
    assert set(runs) == {str(first.id), str(second.id)}
    assert [run.events for run in runs.values()] == [[], []]
    assert spans(state, STAGE) == []


def test_who_is_asked_to_end_tells_its_sidecar_and_does_what_its_operator_does(score, state):
    instance = fakes.task_instance(score)
    begin(instance)
    run_id = current_run().run_id
    score.on_kill()
    assert score.killed == (run_id,)
    wait_until(
        lambda: '"killed_after_s"' in next((state / "runs").glob("*.json")).read_text("utf-8"),
        "the sidecar has heard it",
        20,
        every=0.02,
    )
    succeed(instance)
    assert [run.outcome for run in spans(state, RUN)] == ["success"]


def test_what_breaks_in_telling_it_does_not_keep_the_operator_from_ending(score, outside_pytest, monkeypatch, caplog):
    instance = fakes.task_instance(score)
    begin(instance)

    def broken(*args, **values):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(current_run(), "tell", broken)
        score.on_kill()
    assert len(score.killed) == 1
    assert "Too many open files" in caplog.text
    succeed(instance)
