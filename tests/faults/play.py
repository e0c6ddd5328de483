"""Plays the rows: starts their DAGs, does to the tasks what is to be done to them, and sees everything to its end."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from tests.faults.rows import ROWS, SUBJECTS, Act, Row, Scene
from tests.live import rest
from tests.live.evidence import RUN
from tests.live.faulty import Fault
from tests.live.processes import LiveError, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.faults.playground import Playground

PLAIN = "batch.job"
PLAYED_WITHIN_S = 150
RUNNING_WITHIN_S = 60
SETTLED_WITHIN_S = 45


def dag_id(row: Row, subject: str) -> str:
    """Returns the DAG of a row and a subject."""
    return f"{row.name}__{subject}"


@dataclass
class Played:
    """
    What happened while the rows were played.

    Attributes:
        arrived: Unix time when the span of (subject, run id) was first seen at the agent, at most 0.5 s late.
        back: Unix time when a DAG's backend came back, for those that had none.
        problems: what a DAG's play was in want of.
    """

    arrived: dict[tuple[str, str], float] = field(default_factory=dict)
    back: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def play(ground: Playground) -> Played:
    """Plays all rows; returns when all has arrived that is going to."""
    played = Played()
    with _watching(ground, played):
        for scene, action in (
            (Scene.TOGETHER, _play_together),
            (Scene.SCHEDULER_KILLED, _play_without_scheduler),
            (Scene.AGENT_DOWN, _play_without_agent),
            (Scene.HOST_RESTARTED, _play_with_restart),
        ):
            action(ground, [row for row in ROWS if row.scene is scene], played)
        _settle(ground, played)
    return played


def _play_together(ground: Playground, rows: Sequence[Row], played: Played) -> None:
    # Those that have to be ended take longest.
    rows = sorted(rows, key=lambda row: row.act is None)
    runs = _trigger(ground, rows)
    todo = {
        dag_id(row, subject): row for row in rows for subject in SUBJECTS if row.act and (dag_id(row, subject) in runs)
    }

    def over() -> bool:
        for dag, row in list(todo.items()):
            if _act(ground, row, dag, runs[dag]):
                del todo[dag]
        return not todo and _ended(ground, runs)

    _see_to_the_end(ground, runs, over, played)


def _quiet(ground: Playground) -> None:
    """Waits until nobody sends any more: who is killed just then cannot say whether it was heard."""
    wait_until(lambda: not ground.ours("sidecar"), "the sidecars have ended", SETTLED_WITHIN_S, every=0.5)


def _play_without_scheduler(ground: Playground, rows: Sequence[Row], played: Played) -> None:
    runs = _trigger(ground, rows)
    for dag in runs:
        wait_until(lambda dag=dag: ground.told(dag, 1, "running"), f"{dag} runs", RUNNING_WITHIN_S)
    ground.airflow.kill_scheduler()
    ground.airflow.start_scheduler()
    for dag in runs:
        ground.let_go_on(dag)
    _see_to_the_end(ground, runs, lambda: _ended(ground, runs), played)


def _play_without_agent(ground: Playground, rows: Sequence[Row], played: Played) -> None:
    ground.switch(Fault.REFUSED)
    runs = _trigger(ground, rows)
    _see_to_the_end(ground, runs, lambda: _ended(ground, runs) and ground.spooled(), played)
    played.back |= dict.fromkeys(runs, time.time())
    ground.switch(Fault.NONE)
    _arrived(ground, played, runs)


def _play_with_restart(ground: Playground, rows: Sequence[Row], played: Played) -> None:
    _quiet(ground)
    ground.switch(Fault.REFUSED)
    runs = _trigger(ground, rows)
    _see_to_the_end(ground, runs, lambda: _ended(ground, runs) and ground.spooled(), played)
    ground.airflow.kill_scheduler()
    for process in ground.ours():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    played.back |= dict.fromkeys(runs, time.time())
    ground.switch(Fault.NONE)
    ground.airflow.start_scheduler()
    _arrived(ground, played, runs)


def _trigger(ground: Playground, rows: Sequence[Row]) -> dict[str, str]:
    """Starts the DAGs of these rows; returns their run ids."""
    dags = [dag_id(row, subject) for row in rows for subject in SUBJECTS if subject == "ours" or not row.only_ours]
    for dag in dags:
        ground.airflow.wait_for_dag(dag)
    return {dag: ground.airflow.trigger(dag) for dag in dags}


def _ended(ground: Playground, runs: dict[str, str]) -> bool:
    states = ground.dag_runs()
    return all(states[run] in ("success", "failed") for run in runs.items()) and all(
        one.state not in ("running", "restarting", "queued", "deferred") for one in ground.tries() if one.dag_id in runs
    )


def _see_to_the_end(ground: Playground, runs: dict[str, str], over: Callable[[], object], played: Played) -> None:
    try:
        wait_until(over, "all DAG runs end", PLAYED_WITHIN_S, every=0.5)
    except LiveError:
        # The other rows still have something to say.
        states = ground.dag_runs()
        played.problems |= {
            dag: f"DAG run {states[dag, run]}" for dag, run in runs.items() if states[dag, run] == "running"
        }


def _act(ground: Playground, row: Row, dag: str, run: str) -> bool:
    """Does to a task what is to be done to it, if the time has come; returns whether it was done."""
    pid = ground.told(dag, 1, "running")
    if pid is None:
        return False
    airflow, path = ground.airflow, f"dags/{dag}/dagRuns/{rest.quoted(run)}"
    match row.act:
        case Act.MARK_FAILED | Act.MARK_SUCCESS:
            state = "failed" if row.act is Act.MARK_FAILED else "success"
            airflow.api(f"{path}/taskInstances/work", "PATCH", {"new_state": state})
        case Act.MARK_DEFERRED:
            if not any(one.dag_id == dag and one.state == "deferred" for one in ground.tries()):
                return False
            airflow.api(f"{path}/taskInstances/work", "PATCH", {"new_state": "failed"})
        case Act.CLEAR:
            body = {"dry_run": False, "only_failed": False, "dag_run_id": run, "task_ids": ["work"]}
            airflow.api(f"dags/{dag}/clearTaskInstances", "POST", body)
        case Act.FAIL_DAG_RUN:
            airflow.api(path, "PATCH", {"state": "failed"})
        case Act.KILL_SIDECAR | Act.KILL_BOTH:
            sidecar = ground.sidecar_of(int(pid))
            if sidecar is None:
                return False
            sidecar.kill()
            if row.act is Act.KILL_BOTH:
                psutil.Process(int(pid)).kill()
            else:
                ground.let_go_on(dag)
    return True


def _settle(ground: Playground, played: Played) -> None:
    """Waits until all of ours has arrived, and then a little: more would be too much."""
    runs = {dag_id(row, "ours") for row in ROWS}
    _arrived(ground, played, runs)
    seen: list[tuple[int, int]] = []

    def still() -> bool:
        seen.append((len(ground.agent.spans()), len(ground.dogstatsd.metrics())))
        return len(seen) > 3 and len(set(seen[-4:])) == 1

    wait_until(still, "nothing arrives any more", SETTLED_WITHIN_S, lambda: seen[-4:], every=1)


def _arrived(ground: Playground, played: Played, dags: object) -> None:
    wanted = {("ours", one.run_id) for one in ground.tries() if one.dag_id in dags and one.dag_id.endswith("__ours")}
    # What is missing is seen in the table.
    with contextlib.suppress(LiveError):
        wait_until(lambda: wanted <= played.arrived.keys(), "the spans arrive", SETTLED_WITHIN_S, every=0.5)


@contextlib.contextmanager
def _watching(ground: Playground, played: Played) -> Iterator[None]:
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            now = time.time()
            for span in ground.agent.spans():
                if span["name"] == RUN:
                    played.arrived.setdefault(("ours", span["meta"]["batch_model.run_id"]), now)
                elif span["name"] == PLAIN:
                    played.arrived.setdefault(("ddtrace", span["meta"]["run_id"]), now)
            for span in ground.agent.otlp_spans(PLAIN):
                played.arrived.setdefault(("otel", span["attributes"]["run_id"]), now)

    thread = threading.Thread(target=watch, name="arrivals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
