"""
The ledger: every run of a batch model, from its start to its one outcome, in an SQL database.

SQLAlchemy is imported when the ledger is first used. A connection lasts for one call: those who write are short-lived,
and nothing is left open over a fork.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batch_observability.ledger import attainment, history, migrations, queries, scheduled, standing
from batch_observability.ledger.address import LedgerError, shown
from batch_observability.ledger.changes import Writer
from batch_observability.ledger.dialect import WRITES, PostgreSQL, SQLite, dialect_of
from batch_observability.ledger.records import Change, Model, ModelStanding, OpenRun, PromiseRow, Run, Standing, Verdict
from batch_observability.ledger.statements import Statements

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["Ledger", "LedgerError", "Standing"]

# So many changes hold SQLite's only write lock for some 0.1 s.
_AT_ONCE = 200


class Ledger:
    """
    The ledger at an address. Every call may raise `LedgerError`.

    Args:
        url: `sqlite:////path/to/ledger.db`, which is made when it is first used, or `postgresql://user@host/database`.
        timeout_s: seconds that one call may wait for a connection, a lock or an answer.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._is_current = False

    def __repr__(self) -> str:
        return f"Ledger({shown(self._url)!r})"

    @property
    def shared(self) -> bool:
        """Whether other hosts write to it too."""
        return self._dialect.shared

    def apply(self, change: Change) -> bool:
        """
        Write one change, in one transaction; to do so again changes nothing.

        Returns:
            Of `Finished`: True if this closed the run, or had closed it before; False if somebody else had. Of
            `Started`, `Paused` and `Extended`: whether the run is open. Of `Verdict`: whether it is about a run that is
            open. Of `Promised` and `Recovered`: True if this is to be told by who asks, or was before; False if
            somebody else tells it, or there is nothing to tell. Of `Declared`: True.
        """
        return self.apply_all([change])[0]

    def apply_all(self, changes: Sequence[Change]) -> list[bool]:
        """Write many changes, some in a transaction, in their order; return for each what `apply` does."""
        results: list[bool] = []
        for start in range(0, len(changes), _AT_ONCE):
            with self._transaction(writes=True) as connection:
                writer = Writer(self._statements, connection)
                results += [writer.write(change) for change in changes[start : start + _AT_ONCE]]
                writer.finish()
        return results

    def open_runs(self, source: str) -> list[OpenRun]:
        """Return the open runs of a source, oldest first."""
        with self._transaction() as connection:
            return queries.open_runs(connection, source)

    def outcomes(self, run_ids: Collection[str]) -> dict[str, str | None]:
        """Return the outcome of each of these runs that is known, None while it is open."""
        with self._transaction() as connection:
            return queries.outcomes(connection, run_ids)

    def verdict(self, run_id: str) -> Verdict | None:
        """Return what somebody who knows said of the run's end."""
        with self._transaction() as connection:
            return queries.verdict(connection, run_id)

    def paused_state(self, run_id: str) -> str | None:
        """Return the observation of an open run that has paused."""
        with self._transaction() as connection:
            return queries.paused_state(connection, run_id)

    def model_of(self, dag_id: str, task_id: str) -> Model | None:
        """Return the model of the newest run of a task."""
        with self._transaction() as connection:
            return queries.model_of(connection, dag_id, task_id)

    def observed_tasks(self) -> dict[tuple[str, str], Model]:
        """Return DAG id, task id and newest model of each task of Airflow that ran or was declared within 400 days."""
        return {task: model for task, (model, _) in self.known_tasks("airflow").items()}

    def known_tasks(self, source: str) -> dict[tuple[str, str], tuple[Model, int]]:
        """Return the same of a source, with the time since which it is known; a cron job is one of no DAG."""
        with self._transaction() as connection:
            return queries.known_tasks(connection, source)

    def jobs(self, source: str) -> list[scheduled.Scheduled]:
        """Return the jobs of a source, whether they ever ran or not."""
        with self._transaction() as connection:
            return scheduled.jobs(connection, source)

    def runs_of_jobs(self, source: str, since_ns: int) -> list[scheduled.CronRun]:
        """Return the runs of the jobs of a source that began since then, oldest first."""
        with self._transaction() as connection:
            return scheduled.runs(connection, source, since_ns)

    def standing(self, run: Run) -> Standing:
        """Return what a run must know of before it to judge itself."""
        with self._transaction() as connection:
            return standing.standing(connection, run)

    def promises_of(self, keys: Collection[str]) -> dict[str, PromiseRow]:
        """Return what is known of each of these causes that is."""
        with self._transaction() as connection:
            return standing.promises_of(connection, keys)

    def open_promises(self, since_ns: int = 0) -> list[PromiseRow]:
        """Return what was breached since then and has not recovered, newest first."""
        with self._transaction() as connection:
            return standing.open_promises(connection, since_ns)

    def success_rate(self, model_name: str, since_ns: int) -> tuple[int, int, int | None]:
        """Return how many runs of a model succeeded and failed for good since then, and when the newest failed."""
        with self._transaction() as connection:
            return attainment.success_rates(connection, {model_name: since_ns})[model_name]

    def success_rates(self, since_ns_by_model: Mapping[str, int]) -> dict[str, tuple[int, int, int | None]]:
        """Return the same of many models, each since its own time."""
        with self._transaction() as connection:
            return attainment.success_rates(connection, since_ns_by_model)

    def newest_successes(self) -> dict[str, tuple[Model, int, int | None]]:
        """Return of each model what it is, when it was first known, and when it last succeeded."""
        with self._transaction() as connection:
            return attainment.newest_successes(connection)

    def attainment(self, since_ns: int, recent_ns: int, *, model: str = "", owner: str = "") -> list[ModelStanding]:
        """Return how models stand, by name: over a window, and over the end of it that begins at `recent_ns`."""
        with self._transaction() as connection:
            return attainment.attainment(connection, since_ns, recent_ns, model=model, owner=owner)

    def past_runs(self, model: str, since_ns: int, limit: int) -> list[history.PastRun]:
        """Return the runs of a model that began since then and have ended, newest first, so many at most."""
        with self._transaction() as connection:
            return history.past_runs(connection, model, since_ns, limit)

    def migrate(self) -> str:
        """Bring the tables up to date; return from which revision to which, as text."""
        with self._in_words():
            self._dialect.prepare()
            before = self._upgrade()
            self._is_current = True
        return f"{before or 'nothing'} -> {migrations.HEAD}"

    def info(self) -> dict[str, Any]:
        """Return where it is, dialect, schema revision, size in bytes, and what is in it."""
        with self._transaction() as connection:
            return {
                "where": shown(self._url),
                "dialect": self._dialect.name,
                "revision": migrations.HEAD,
                "size": self._dialect.size(connection),
                **queries.summary(connection),
            }

    def prune(self, keep: timedelta) -> int:
        """
        Delete the runs that ended longer ago than that, in short transactions; return how many.

        With them go the breaches that recovered longer ago: those that are open stay.
        """
        self._prune(queries.prune_promises, keep)
        return self._prune(queries.prune, keep)

    def _prune(self, some: Callable[[Connection, timedelta], int], keep: timedelta) -> int:
        total = 0
        while True:
            with self._transaction(writes=True) as connection:
                count = some(connection, keep)
            if not count:
                return total
            total += count

    def close(self) -> None:
        """Forget the database; the next call opens it again."""
        if "_engine" in self.__dict__:
            self._engine.dispose()
            del self._engine
        self._is_current = False

    @cached_property
    def _dialect(self) -> SQLite | PostgreSQL:
        return dialect_of(self._url, self._timeout_s)

    @cached_property
    def _statements(self) -> Statements:
        return Statements(self._dialect)

    @cached_property
    def _engine(self) -> Engine:
        return self._dialect.engine()

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        with self._in_words():
            if not self._is_current:
                self._become_current()
            # Without being told, SQLAlchemy forgets on PostgreSQL how many rows an INSERT wrote.
            options = {WRITES: writes, "preserve_rowcount": True}
            with self._engine.connect() as connection, connection.execution_options(**options).begin():
                yield connection

    def _become_current(self) -> None:
        self._dialect.prepare()
        found = self._found()
        if found != migrations.HEAD:
            if not self._dialect.migrates_itself:
                what = f"is at schema revision {found}, {migrations.HEAD} is needed" if found else "has no tables yet"
                raise LedgerError(what, self._url, "run batchobs ledger migrate", retry=False)
            self._upgrade()
        self._is_current = True

    def _upgrade(self) -> str | None:
        """Migrate, if nobody else has in the meantime; return the revision that there was."""
        found = self._found()
        with self._dialect.migrating(self._engine, lambda: self._found() == migrations.HEAD) as connection:
            if connection is None:
                return migrations.HEAD
            if connection.exec_driver_sql(self._dialect.has_revision_sql).scalar():
                migrations.upgrade(connection)
            else:
                migrations.create(connection)
        return found

    def _found(self) -> str | None:
        with self._engine.begin() as connection:
            return self._revision(connection)

    def _revision(self, connection: Connection) -> str | None:
        """Return the schema's revision, None if there are no tables yet."""
        if not connection.exec_driver_sql(self._dialect.has_revision_sql).scalar():
            return None
        found: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        if found and found not in migrations.REVISIONS:
            what = f"is at schema revision {found}, which was migrated by a newer version (or is another program's)"
            raise LedgerError(what, self._url, "upgrade airflow-batch-observability", retry=False)
        return found

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except LedgerError:
            raise
        except ImportError as error:
            remedy = f"run pip install '{self._dialect.distribution}'"
            raise LedgerError(f"needs what cannot be imported, {error}", self._url, remedy, retry=False) from None
        except Exception as error:
            # Somebody may have taken the file away.
            self._is_current = False
            # Without its cause: that repeats the statement with all its values.
            raise self._dialect.failure(error) from None
