"""A host with an Airflow, a ledger and journals, for the second layer to compare: all real, and empty to begin with."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from sqlalchemy import create_engine, insert, select

from batch_observability import BatchModel
from batch_observability.airflow import registry
from batch_observability.airflow.reconcile import Reconciler
from batch_observability.airflow.records import Records
from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery
from batch_observability.export.target import Choice
from batch_observability.sidecar import row
from batch_observability.sidecar.journal import Entry, Journal
from batch_observability.sidecar.observation import Observation
from batch_observability.usage import birth, host_name
from tests.sidecar.frames import context, stage
from tests.sidecar.ledger_rows import rows

if TYPE_CHECKING:
    from pathlib import Path

    from batch_observability.run import RunContext

HERE = "here"
GONE = 2**22 + 1  # above the highest pid that Linux gives
MODEL = BatchModel("churn", owner="team-churn")
PLACE = {"dag_id": "dag", "task_id": "task", "run_id": "manual__1", "map_index": -1, "try_number": 1}


class Host:
    """What is known on one host of one try of `dag.task`, which began 100 s ago."""

    def __init__(self, state: Path, database: str) -> None:
        copy = state.parent / "airflow.db"
        # Not the file: a part of it may be in the log of what was written last.
        with (
            closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as source,
            closing(sqlite3.connect(copy)) as to,
        ):
            source.backup(to)
        self.state = state
        self.database = f"sqlite:///{copy}"
        self._engine = create_engine(self.database)
        self.settings = Settings(export=("spool",), state_dir=str(state), retry_for=0.1, ledger_timeout=10.0)
        self.run_id = str(uuid4())
        self.held: list[Journal] = []

    @property
    def delivery(self) -> Delivery:
        return Delivery(self.settings, Choice(("spool",), ()), 0)

    def close(self) -> None:
        """Let go of what is open."""
        for journal in self.held:
            journal.release()
        self._engine.dispose()

    def reconciler(self, database: str = "") -> Reconciler:
        """Return the second layer of a scheduler on this host."""
        records = Records(database or self.database)
        return Reconciler(self.settings, self.delivery, records, [HERE], "test", task_spans=True)

    def run(self, run_id: str = "") -> RunContext:
        """Return the try as its process knew it."""
        return context(run_id=run_id or self.run_id, start_ns=time.time_ns() - 100 * 10**9)

    # --- What Airflow knows ------------------------------------------------------------------------------------------

    def airflow(
        self, state: str | None, *, past: bool = False, ended_s: float = 60, run_id: str = "", **values: Any
    ) -> None:
        """Record a try that ended so many seconds ago, if its state says that it ended."""
        now = datetime.now(UTC)
        ended = past or state in {"success", "failed", "skipped", "removed"}
        table, key = (TaskInstanceHistory, "task_instance_id") if past else (TaskInstance, "id")
        known = {
            **PLACE,
            key: UUID(run_id or self.run_id),
            "state": state,
            "pool": "default_pool",
            "start_date": now - timedelta(seconds=100),
            "end_date": now - timedelta(seconds=ended_s) if ended else None,
            "updated_at": now - timedelta(seconds=ended_s),
            "hostname": HERE,
            **values,
        }
        dag_run = {"dag_id": known["dag_id"], "run_id": known["run_id"], "run_type": "manual", "state": "running"}
        there = select(DagRun.__table__.c.id).where(DagRun.run_id == known["run_id"], DagRun.dag_id == known["dag_id"])
        with self._engine.begin() as connection:
            connection.execute(insert(table.__table__).values(known))
            if not connection.execute(there).first():
                connection.execute(insert(DagRun.__table__).values({"run_after": now, **dag_run}))

    def given_up(self, event: str, text: str) -> None:
        """Record what the scheduler writes to its log of events when it gives a try up."""
        with self._engine.begin() as connection:
            connection.execute(insert(Log.__table__).values(dttm=datetime.now(UTC), event=event, extra=text, **PLACE))

    # --- What we know ------------------------------------------------------------------------------------------------

    def declared(self) -> None:
        """Write down that the task is a batch model, as the DAG processor does."""
        task = type("Task", (), {"task_id": "task", "model": MODEL})()
        registry.declare(type("Dag", (), {"dag_id": "dag", "tasks": [task]})(), self.state)
        for path in (self.state / "models").iterdir():
            written = json.loads(path.read_text())
            # Long before the tries that the tests record.
            path.write_text(
                json.dumps({**written, "tasks": {t: {**one, "since_ns": 0} for t, one in written["tasks"].items()}})
            )

    def open_row(self, run_id: str = "") -> None:
        """Let its sidecar have looked at it once."""
        assert self.delivery.ledger.apply(row.started(self.run(run_id), 4711, host_name()))

    def journal(self, *, pid: int = GONE, hold: bool = False, change: Any = None, **values: Any) -> Entry:
        """Leave a journal of it, whose run is in a stage and has read five rows."""
        run = self.run()
        observation = Observation(run, 100, phase_began_ns=run.start_ns)
        observation.add({**stage(1, "score", 0), "ts": run.start_ns + 10**9})
        observation.add({"t": "rows", "ts": 1, "pid": pid, "read": 5, "written": 0, "rejected": 0})
        if change is not None:
            change(observation)
        born = birth(pid) or "1"
        entry = replace(Entry(observation.state(), pid, born, host_name(), True, False), **values)
        journal = Journal(self.state, self.run_id)
        journal.keep(entry)
        if hold:
            self.held.append(journal)
        else:
            journal.release()
        return entry

    def paused(self) -> None:
        """Leave it without a process, as a deferred run is."""

        def pause(observation: Observation) -> None:
            ended = {"t": "stage_end", "ts": observation.phase_began_ns + 2 * 10**9, "id": 1, "error": None}
            for frame in (ended, {"t": "pause", "ts": observation.phase_began_ns + 3 * 10**9}):
                observation.add(frame)

        self.journal(paused=True, change=pause)

    def known(self, what: str) -> None:
        """Let one of the things be known of it that may be."""
        self.declared()
        if what in {"row", "dead", "alive", "held", "waiting"}:
            self.open_row()
        match what:
            case "dead":
                self.journal()
            case "alive" | "held":
                self.journal(pid=os.getpid(), hold=what == "held")
            case "paused":
                self.paused()
            case "waiting":
                self.keep_waiting()

    def keep_waiting(self) -> None:
        """Leave an ending of it on disk, for a ledger that was away."""
        from batch_observability.ledger.records import Finished, encode
        from batch_observability.sidecar.telling import started

        run = self.run()
        change = Finished(
            run=row.run_row(run, 4711, HERE), end_ns=time.time_ns(), outcome="success", token="t", closed_by="sidecar"
        )
        batch = replace(started(run), name=run.run_id)
        for entry in self.delivery.spool.put(batch, {}, encode(change)):
            entry.release()

    def outcome(self) -> str | None:
        """Return the outcome that the ledger has, None while it has none."""
        found = [one["outcome"] for one in rows(self.state) if one["run_id"] == self.run_id]
        return found[0] if found else None
