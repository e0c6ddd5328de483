"""Backends that come and go while many runs end: afterwards each run is told once, and nothing waits or was dropped."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from batch_observability import schema
from tests.faults.page import paragraph
from tests.live.evidence import RUN
from tests.live.faulty import Fault
from tests.live.processes import LiveError, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

SEED = 20130208
# A slow Agent may have taken what its sender has given up on: whether to send again is then a guess.
FAULTS = (Fault.REFUSED, Fault.SILENT, Fault.ERROR, Fault.BUSY, Fault.RESET)
# Longer than a change of the ledger may take, at times.
LOCKED_S = (0.5, 8.0)
TOLD_WITHIN_S = 90


@dataclass
class Weather:
    """
    What was wrong, and for how long.

    Attributes:
        agent_away, ledger_locked: seconds of each time.
    """

    agent_away: list[float] = field(default_factory=list)
    ledger_locked: list[float] = field(default_factory=list)
    problems: list[BaseException] = field(default_factory=list)


@contextlib.contextmanager
def bad_weather(ground):
    """Switches Agent and ledger off and on, each by a thread of its own, until the block ends."""
    weather, over = Weather(), threading.Event()

    def agent() -> None:
        chance = random.Random(SEED)
        while not over.is_set():
            ground.switch(chance.choice(FAULTS))
            began = time.monotonic()
            over.wait(chance.uniform(1, 6))
            weather.agent_away.append(time.monotonic() - began)
            ground.switch(Fault.NONE)
            over.wait(chance.uniform(0.5, 3))

    def ledger() -> None:
        chance = random.Random(SEED + 1)
        while not over.is_set():
            over.wait(chance.uniform(0.5, 3))
            path = ground.state / "ledger.db"
            if not path.exists():
                continue
            with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as database:
                try:
                    database.execute("BEGIN EXCLUSIVE")
                except sqlite3.OperationalError:  # so many write to it that we had no turn
                    continue
                began = time.monotonic()
                over.wait(chance.uniform(*LOCKED_S))
                database.execute("ROLLBACK")
                weather.ledger_locked.append(time.monotonic() - began)

    def noticed(work) -> None:
        try:
            work()
        except BaseException as error:
            weather.problems.append(error)

    threads = [threading.Thread(target=noticed, args=(work,), daemon=True) for work in (agent, ledger)]
    for thread in threads:
        thread.start()
    try:
        yield weather
    finally:
        over.set()
        for thread in threads:
            thread.join()
        ground.switch(Fault.NONE)


def replay(ground) -> subprocess.CompletedProcess:
    """Runs `batchobs spool replay` as a user on that host would."""
    command = [str(Path(sys.executable).with_name("batchobs")), "spool", "replay"]
    environment = ground.processes.environment(ground.airflow.environment)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def _counted(ground, metric) -> int:
    return sum(
        round(value.value) for value in ground.dogstatsd.metrics(metric.name) if value.tag("dag_id") == "recovery"
    )


def _senders_of(ground, run_id) -> list[int]:
    """Returns the processes that sent the spans of a run: ddtrace names its own."""
    return [span["metrics"]["process_id"] for span in ground.agent.spans(RUN) if span["meta"][schema.RUN_ID] == run_id]


def _said_of(ground, runs) -> list[str]:
    path = ground.state / "logs" / "observer.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if any(run_id in line for run_id in runs)]


@pytest.fixture(scope="module")
def told(ground, page):
    """What there is of each run when the weather is over: spans and ledger rows, by run id."""
    ground.dogstatsd.clear()
    ground.airflow.wait_for_dag("recovery")
    with bad_weather(ground) as weather:
        run = ground.airflow.trigger("recovery")
        assert ground.airflow.wait("recovery", run, 240) == "success"
    waiting = len(ground.spooled())
    replay(ground)
    assert weather.problems == []
    runs = {one.run_id for one in ground.tries() if one.dag_id == "recovery"}

    def spans() -> Counter[str]:
        ids = (span["meta"][schema.RUN_ID] for span in ground.agent.spans(RUN))
        return Counter(run_id for run_id in ids if run_id in runs)

    def rows() -> dict[str, dict]:
        return {run_id: dict(outcomes) for run_id, outcomes in ground.ledger().items() if run_id in runs}

    # What a sidecar is sending, others leave alone.
    wait_until(lambda: not ground.ours("sidecar"), "the sidecars have ended", TOLD_WITHIN_S, every=1)
    replayed = replay(ground)
    with contextlib.suppress(LiveError):  # what is missing is seen below
        wait_until(lambda: len(spans()) >= len(runs) and not ground.spooled(), "all is told", TOLD_WITHIN_S, every=1)
    found = {"runs": runs, "spans": spans(), "rows": rows(), "replayed": replayed}
    away, locked = weather.agent_away, weather.ledger_locked
    closed = sum(outcomes == {"success": 1} for outcomes in found["rows"].values())
    started, finished = (_counted(ground, metric) for metric in (schema.RUN_STARTED, schema.RUN_FINISHED))
    text = f"""
    {len(runs)} mapped tasks, while the Agent was away {len(away)} times, for {sum(away):.0f} s in all
    ({", ".join(FAULTS)}), and the ledger locked {len(locked)} times, for {sum(locked):.0f} s in all; by chance, seed
    {SEED}. When the last task had ended, {waiting} files waited in the spool. After `batchobs spool replay`:
    {found["spans"].total()} run spans of {len(found["spans"])} runs, {closed} closed rows in the ledger,
    {started} runs counted as started and {finished} as finished, {len(ground.spooled())} files in the spool.
    """
    page.add("Recovery", paragraph(text))
    return found


def test_every_run_has_exactly_one_run_span(told, ground):
    wrong = {run_id: _senders_of(ground, run_id) for run_id in told["runs"] if told["spans"][run_id] != 1}
    assert not wrong, f"not one span, but sent by processes: {wrong}; observers said: {_said_of(ground, wrong)}"


def test_every_run_has_exactly_one_closed_row_in_the_ledger(told):
    assert told["rows"] == {run_id: {"success": 1} for run_id in told["runs"]}


def test_the_replay_could_send_what_waited(told):
    assert "Traceback" not in told["replayed"].stderr
    assert told["replayed"].returncode == 0, told["replayed"].stdout + told["replayed"].stderr


@pytest.mark.usefixtures("told")
def test_nothing_waits_any_more(ground):
    assert ground.spooled() == []


@pytest.mark.usefixtures("told")
def test_no_journal_is_left(ground):
    wait_until(lambda: not list((ground.state / "runs").glob("*.json")), "the journals are gone", 20)


@pytest.mark.usefixtures("told")
def test_nothing_was_dropped(ground):
    log = ground.state / "logs" / "batch_models.jsonl"
    records = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert [record for record in records if record.get(schema.DROPPED)] == []
    assert ground.dogstatsd.metrics(schema.TELEMETRY_DROPPED.name) == []
