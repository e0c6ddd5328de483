"""
Who tells that a promise is at risk, broken or kept again: of all who claim it at once exactly one.

The key of a cause is written by one statement if nobody has; what rules a claim out is looked up before. To claim again
with the same token is to be told the same again: the claim was written, and its answer was lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batch_observability.ledger import columns
from batch_observability.ledger.notes import Notes
from batch_observability.ledger.promise_statements import PromiseStatements
from batch_observability.ledger.records import BREACHED, Promised, Recovered
from batch_observability.objective import OBJECTIVES

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable, Row

# Of a slot: a run of it that has kept them has kept them for good. The others are of each run.
_OF_SLOT = ("start_within", "finish_within", "finish_by")


class Claims:
    """Writes claims within one transaction."""

    def __init__(self, statements: PromiseStatements, connection: Connection, notes: Notes) -> None:
        self._statements = statements
        self._connection = connection
        self._notes = notes

    def promise(self, change: Promised) -> bool:
        """Claim a cause; return whether it is to be told by who claims it now."""
        known = self._known(change)
        if known is None or (change.state == BREACHED and known.breached_ns is None):
            if not self._may_be_told(change):
                return False
            if self._write(change, is_known=known is not None):
                return True
            # Somebody came in between.
            known = self._known(change)
        if known is None:
            return False
        token: str | None = known.breached_token if change.state == BREACHED else known.at_risk_token
        return token == columns.text(change.token)

    def recover(self, change: Recovered) -> bool:
        """Close what is open of an objective that is kept again; return whether there was anything."""
        whose = {"of_model": columns.text(change.model_name), "of_objective": columns.text(change.objective)}
        token = columns.text(change.token)
        values = {
            **whose,
            "of_resource": columns.text(change.resource),
            "of_before_ns": columns.whole(change.before_ns),
            "of_key": columns.text(change.key),
            "new_ns": columns.whole(change.time_ns),
            "new_token": token,
        }
        statements = self._statements
        return self._wrote(statements.recover, values) or self._is(statements.recovered, {**whose, "of_token": token})

    def _known(self, change: Promised) -> Row[Any] | None:
        return self._connection.execute(self._statements.claimed, {"of_key": columns.text(change.key)}).first()

    def _may_be_told(self, change: Promised) -> bool:
        return (
            self._was_known_when_due(change)
            and not self._is_covered(change)
            and not self._was_kept(change)
            and not (
                change.episode and self._is(self._statements.episode, {"of_episode": columns.text(change.episode)})
            )
        )

    def _was_known_when_due(self, change: Promised) -> bool:
        if not change.counts_from_due or change.due_ns is None:
            return True
        since_ns = self._notes.first_seen_ns(change.dag_id, change.task_id or change.job)
        return since_ns is not None and since_ns <= columns.whole(change.due_ns)

    def _is_covered(self, change: Promised) -> bool:
        """Whether a slot that nobody ran was told: its mapped tasks start late each, for the same cause."""
        own = f"{change.objective}|{change.resource}|{change.map_index}|"
        if change.objective != "start_within" or change.map_index == -1 or not change.key.startswith(own):
            return False
        slot = f"{change.objective}|{change.resource}|-1|{change.key.removeprefix(own)}"
        known = self._connection.execute(self._statements.claimed, {"of_key": columns.text(slot)}).first()
        return known is not None and known.breached_ns is not None

    def _was_kept(self, change: Promised) -> bool:
        """Whether a run of the same slot has kept it: it was cleared and runs again, or ended a moment ago."""
        if not change.dag_run_id or change.objective not in _OF_SLOT:
            return False
        number = None if change.clear_number is None else columns.whole(change.clear_number)
        names = ("dag_id", "dag_run_id", "task_id", "map_index")
        slot = {f"of_{name}": columns.plain(getattr(change, name)) for name in names}
        bit = {"of_bit": 1 << OBJECTIVES.index(change.objective), "of_clear_number": number}
        return self._is(self._statements.kept, {**slot, **bit})

    def _write(self, change: Promised, *, is_known: bool) -> bool:
        from sqlalchemy.exc import IntegrityError

        values = columns.of_promise(change)
        if not is_known and self._wrote(self._statements.claim, values):
            return True
        if change.state != BREACHED:
            return False
        names = {name: value for name, value in values.items() if name != "key"}
        try:
            with self._connection.begin_nested():
                return self._wrote(self._statements.break_promise, {**names, "of_key": values["key"]})
        except IntegrityError:
            # On PostgreSQL another one has begun the same episode, with another cause, at this moment.
            return False

    def _wrote(self, statement: Executable, values: dict[str, Any]) -> bool:
        return bool(self._connection.execute(statement, values).rowcount > 0)

    def _is(self, statement: Executable, values: dict[str, Any]) -> bool:
        return self._connection.execute(statement, values).first() is not None
