"""
One change of the ledger as rows, within a transaction of the caller.

Each is idempotent, and an ending is claimed by whoever comes first: one statement writes it if nobody has, so that of
any number of processes that try at once exactly one has closed the run.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from batch_observability.ledger import columns
from batch_observability.ledger.claims import Claims
from batch_observability.ledger.notes import Notes
from batch_observability.ledger.records import (
    Change,
    Declared,
    Extended,
    Finished,
    Paused,
    Promised,
    Recovered,
    Run,
    Started,
    Verdict,
)
from batch_observability.ledger.statements import Statements
from batch_observability.ledger.tables import tables
from batch_observability.schema import Outcome

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable


class Writer:
    """Writes changes within one transaction. `finish` must be called before it is committed."""

    def __init__(self, statements: Statements, connection: Connection) -> None:
        self._statements = statements
        self._connection = connection
        self._stages: list[dict[str, Any]] = []
        self._measurements: list[dict[str, Any]] = []
        self._notes = Notes(statements, connection)
        self._claims = Claims(statements.promises, connection, self._notes)

    def write(self, change: Change) -> bool:
        """Write one change; return what `Ledger.apply` does."""
        match change:
            case Started():
                return self._start(change)
            case Paused():
                return self._pause(change)
            case Verdict():
                return self._judge(change)
            case Finished():
                return self._finish(change)
            case Promised():
                return self._claims.promise(change)
            case Recovered():
                return self._claims.recover(change)
            case Extended():
                return self._extend(change)
            case Declared():
                self._notes.declared(change)
                return True

    def finish(self) -> None:
        """Write what is written for all changes together."""
        for table, rows in ((tables().stages, self._stages), (tables().measurements, self._measurements)):
            if rows:
                self._connection.execute(table.insert(), rows)
        self._notes.write()

    def _start(self, change: Started) -> bool:
        values = {**columns.of_run(change.run), "context": json.dumps(change.context)}
        if self._wrote(self._statements.start, values):
            self._arrived(change.run)
            return True
        return self._ended(change.run)[0] is None

    def _pause(self, change: Paused) -> bool:
        values = {
            **columns.of_run(change.run),
            "state": columns.text(change.state),
            "paused_ns": columns.whole(change.paused_ns),
        }
        written = self._wrote(self._statements.pause, values)
        if written:
            self._arrived(change.run)
        return written

    def _judge(self, change: Verdict) -> bool:
        news = {
            "new_verdict_outcome": columns.text(change.outcome),
            "new_verdict_reason": columns.text(change.reason),
            "new_verdict_ns": columns.whole(change.time_ns),
        }
        if change.run_id:
            run_id = columns.text(change.run_id)
            beforehand = {name.removeprefix("new_"): value for name, value in news.items()}
            self._connection.execute(self._statements.judge_beforehand, {"run_id": run_id, **beforehand})
            return self._wrote(self._statements.judge_run, {**news, "of_run": run_id})
        if not change.dag_id or not change.dag_run_id:
            # It would be about every cron job.
            raise ValueError("a verdict is of a run or of a DAG run, and this one names neither")
        whose = {"of_dag": columns.text(change.dag_id), "of_dag_run": columns.text(change.dag_run_id)}
        return self._wrote(self._statements.judge_dag_run, {**news, **whose})

    def _finish(self, change: Finished) -> bool:
        values = {**columns.of_run(change.run), **columns.of_ending(change)}
        if not self._wrote(self._statements.finish, values):
            return bool(self._ended(change.run)[1] == values["token"])
        self._stages += columns.of_stages(change)
        self._measurements += columns.of_measurements(change)
        for margin in change.margins:
            if math.isfinite(margin.margin_s):
                values = {"of_key": columns.text(margin.key), "new_margin_s": margin.margin_s}
                self._connection.execute(self._statements.promises.margin, values)
        self._arrived(change.run)
        if change.outcome == Outcome.SUCCESS:
            self._notes.succeeded(change.run, change.end_ns)
        return True

    def _extend(self, change: Extended) -> bool:
        values = {"of_run": columns.text(change.run.run_id), "new_extended_s": change.total_s}
        return self._wrote(self._statements.extend, values)

    def _wrote(self, statement: Executable, values: dict[str, Any]) -> bool:
        return bool(self._connection.execute(statement, values).rowcount > 0)

    def _ended(self, run: Run) -> tuple[str | None, str | None]:
        outcome, token = self._connection.execute(self._statements.ended, {"of_run": columns.text(run.run_id)}).one()
        return outcome, token

    def _arrived(self, run: Run) -> None:
        self._notes.arrived(run)
        if run.dag_run_id and run.try_number > 0:
            self._link(run)

    def _link(self, run: Run) -> None:
        """Link this try with the one before and the next: they may come in any order."""
        run_id = columns.text(run.run_id)
        if run.try_number > 1:
            self._connection.execute(self._statements.link, {"of_run": run_id})
        same = {
            f"of_{name}": columns.plain(getattr(run, name)) for name in ("dag_id", "dag_run_id", "task_id", "map_index")
        }
        following = {**same, "of_try_number": columns.whole(run.try_number + 1), "of_run": run_id}
        self._connection.execute(self._statements.link_next, following)
