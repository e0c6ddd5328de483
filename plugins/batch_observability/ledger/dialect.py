"""
What SQLite and PostgreSQL do differently: to be reached, to begin, to be waited for, to fail. The only such place.

SQLite serves one host: a file that makes itself. PostgreSQL serves a fleet, and is only changed by who is told to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from batch_observability.ledger.address import LedgerError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

# Execution option of a connection that is going to write.
WRITES = "batchobs_writes"
_POLL_S = 0.05
_MIGRATION_S = 60.0
# Any number, as long as it is always the same one.
_MIGRATION_LOCK = 0x62617463686F6273

_FREE_SPACE = "free some space on that disk"
_TRY_AGAIN = "try again, or set BATCHOBS_LEDGER_TIMEOUT higher"
# Of SQLite's primary result codes: https://sqlite.org/rescode.html. The remedy, and whether to try again.
_SQLITE_REMEDIES = {
    3: ("make the file and its folder writable", False),
    5: (_TRY_AGAIN, True),
    6: (_TRY_AGAIN, True),
    7: ("free some memory", True),
    8: ("make the file and its folder writable", False),
    10: ("look after that disk", True),
    11: ("move the file away, a new ledger is then made, and mend it with sqlite3's .recover", False),
    13: (_FREE_SPACE, True),
    14: ("make the file and its folder readable and writable", False),
    15: (_TRY_AGAIN, True),
    26: ("set BATCHOBS_LEDGER_URL to another file, or move this one away", False),
}
# Classes of SQLSTATE that pass: connection, rollback (deadlock), resources, in use, intervention (timeout), system.
_PASSING = ("08", "40", "53", "55", "57", "58")


class SQLite:
    """A file in SQLite's format, in WAL mode, of this user only (0600)."""

    name = "sqlite"
    distribution = "airflow-batch-observability"
    shared = False
    migrates_itself = True
    has_revision_sql = "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'"

    def __init__(self, url: str, timeout_s: float) -> None:
        path = url.partition("://")[2].removeprefix("/")
        if not path or path.startswith((":memory:", "file:")) or "?" in path:
            raise LedgerError("is no file of its own", url, "write sqlite:////path/to/ledger.db", retry=False)
        self._url = url
        self._path = Path(path).expanduser()
        self._timeout_s = timeout_s

    def engine(self) -> Engine:
        """Return an engine that keeps no connection, so that none is shared over a fork."""
        from sqlalchemy import URL, create_engine, event
        from sqlalchemy.pool import NullPool

        engine = create_engine(
            URL.create("sqlite", database=str(self._path)),
            poolclass=NullPool,
            # Without an isolation level the driver begins no transaction by itself.
            connect_args={"timeout": self._timeout_s, "isolation_level": None},
        )
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
        event.listen(engine, "begin", self._begin)
        return engine

    @staticmethod
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes then cannot wait for its turn: it fails if another has written.
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    @staticmethod
    def insert(table: Any) -> Any:
        """Return an INSERT that can say what to do on a conflict."""
        from sqlalchemy.dialects.sqlite import insert

        return insert(table)

    def prepare(self) -> None:
        """Make file and folders, if they are missing."""
        if self._path.is_dir():
            raise LedgerError("is a folder", self._url, "name a file in it, or remove it", retry=False)
        if not self._path.exists():
            _make_folder(self._path.parent)
            # Never opened by its own name: closing it would drop the locks of another thread's connection to it.
            blank = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
            os.close(os.open(blank, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            try:
                with contextlib.suppress(FileExistsError):
                    os.link(blank, self._path)
            finally:
                blank.unlink()

    @contextlib.contextmanager
    def migrating(self, engine: Engine, is_done: Callable[[], bool]) -> Iterator[Connection | None]:
        """Give one process at a time a transaction to migrate in; None if another one has done it meanwhile."""
        lock = self._path.with_name(f"{self._path.name}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:

            def take_turn() -> None:
                # Of many that wait all but one need none.
                if not is_done():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

            self._until_timeout(take_turn, BlockingIOError)
            if is_done():
                yield None
            else:
                self._switch_wal_on()
                with engine.connect() as connection, connection.execution_options(**{WRITES: True}).begin():
                    yield connection
        finally:
            os.close(descriptor)

    def _switch_wal_on(self) -> None:
        import sqlite3

        # This one statement does not wait for readers by itself.
        with contextlib.closing(sqlite3.connect(self._path, timeout=self._timeout_s)) as connection:
            self._until_timeout(lambda: connection.execute("PRAGMA journal_mode=WAL"), sqlite3.OperationalError)

    def _until_timeout(self, attempt: Callable[[], object], refusal: type[Exception]) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                attempt()
            except refusal as error:
                passing = isinstance(error, BlockingIOError) or self._remedy(error)[1]
                if not passing or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)
            else:
                return

    def size(self, _connection: Connection) -> int:
        """Bytes on disk, with what waits in the write-ahead log."""
        files = (self._path, self._path.with_name(f"{self._path.name}-wal"))
        return sum(path.stat().st_size for path in files if path.exists())

    def failure(self, error: Exception) -> LedgerError:
        """Return an error of the driver or the system in words for the user."""
        if isinstance(error, BlockingIOError):
            return LedgerError("is being made by another process", self._url, _TRY_AGAIN, retry=True)
        if isinstance(error, OSError):
            what = f"cannot be made: {error.strerror or error}"
            return LedgerError(what, self._url, "set BATCHOBS_STATE_DIR to a folder that is writable", retry=False)
        remedy, retry = self._remedy(error)
        return LedgerError(f"cannot be used, {_first_line(error)}", self._url, remedy, retry=retry)

    @staticmethod
    def _remedy(error: Exception) -> tuple[str, bool]:
        code = getattr(getattr(error, "orig", error), "sqlite_errorcode", None)
        return _SQLITE_REMEDIES.get((code or 0) & 0xFF, ("this is a defect: please report it", False))


class PostgreSQL:
    """A database of a PostgreSQL server, by psycopg or psycopg2; what is behind the + of the address is passed over."""

    name = "postgresql"
    distribution = "airflow-batch-observability[postgres]"
    shared = True
    migrates_itself = False
    has_revision_sql = "SELECT count(to_regclass('alembic_version'))"
    _drivers: ClassVar = ("psycopg", "psycopg2")

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s

    def engine(self) -> Engine:
        """Return an engine that keeps no connection, so that none is shared over a fork."""
        from sqlalchemy import create_engine, event, make_url
        from sqlalchemy.exc import ArgumentError
        from sqlalchemy.pool import NullPool

        driver = next((name for name in self._drivers if find_spec(name)), None)
        if driver is None:
            raise ImportError(f"no driver: none of {', '.join(self._drivers)} is installed")
        try:
            url = make_url(f"postgresql+{driver}://{self._url.partition('://')[2]}")
        except (ArgumentError, ValueError):  # either may repeat the password
            remedy = "write postgresql://user@host/database, with %40 for an @ in a name or password"
            raise LedgerError("has an address that cannot be read", self._url, remedy, retry=False) from None
        arguments = self._connect_args(driver)
        engine = create_engine(
            url,
            poolclass=NullPool,
            connect_args={name: value for name, value in arguments.items() if name not in url.query},
        )
        event.listen(engine, "begin", self._begin)
        return engine

    def _connect_args(self, driver: str) -> dict[str, Any]:
        seconds = max(round(self._timeout_s), 2)  # libpq takes no less
        arguments: dict[str, Any] = {
            "connect_timeout": seconds,
            "tcp_user_timeout": int(self._timeout_s * 1000),
            "keepalives_idle": seconds,
            "keepalives_interval": 1,
            "keepalives_count": 3,
            "application_name": "batchobs",
        }
        # A prepared statement is lost where a pooler hands the connection on.
        return arguments | ({"prepare_threshold": None} if driver == "psycopg" else {})

    def _begin(self, connection: Connection) -> None:
        self._limit(connection, statement_s=self._timeout_s, lock_s=self._timeout_s)

    @staticmethod
    def _limit(connection: Connection, *, statement_s: float, lock_s: float) -> None:
        # Of this transaction only, in a statement: poolers refuse them as options of a connection.
        connection.exec_driver_sql(
            f"SELECT set_config('statement_timeout', '{int(statement_s * 1000)}', true), "
            f"set_config('lock_timeout', '{int(lock_s * 1000)}', true)"
        )

    @staticmethod
    def insert(table: Any) -> Any:
        """Return an INSERT that can say what to do on a conflict."""
        from sqlalchemy.dialects.postgresql import insert

        return insert(table)

    def prepare(self) -> None:
        """Do nothing: a server's database is made by who runs it."""

    @contextlib.contextmanager
    def migrating(self, engine: Engine, is_done: Callable[[], bool]) -> Iterator[Connection | None]:
        """Give one process at a time a transaction to migrate in; None if another one has done it meanwhile."""
        with engine.begin() as connection:
            self._limit(connection, statement_s=0, lock_s=max(self._timeout_s, _MIGRATION_S))
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            yield None if is_done() else connection

    @staticmethod
    def size(connection: Connection) -> int:
        """Bytes on disk of the ledger's tables with their indexes."""
        from batch_observability.ledger.tables import tables

        names = ", ".join(f"pg_total_relation_size('{name}')" for name in tables().metadata.tables)
        return int(connection.exec_driver_sql(f"SELECT {names.replace(', ', ' + ')}").scalar_one())

    def failure(self, error: Exception) -> LedgerError:
        """Return an error of the driver or the system in words for the user."""
        cause = getattr(error, "orig", error)
        state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        if not state and "OperationalError" in {kind.__name__ for kind in type(cause).__mro__}:
            remedy = "start the server, or set BATCHOBS_LEDGER_URL to where it is"
            return LedgerError(f"cannot be reached, {_first_line(error)}", self._url, remedy, retry=True)
        if state and state.startswith(_PASSING):
            return LedgerError(f"did not answer in time, {_first_line(error)}", self._url, _TRY_AGAIN, retry=True)
        remedy = (
            "grant this user the rights to its tables" if state == "42501" else "this is a defect: please report it"
        )
        return LedgerError(f"cannot be used, {_first_line(error)}", self._url, remedy, retry=False)


def dialect_of(url: str, timeout_s: float) -> SQLite | PostgreSQL:
    """
    Return the dialect of an address.

    Raises:
        LedgerError: if there is none for it.
    """
    scheme = url.partition("://")[0].partition("+")[0]
    if scheme == "sqlite":
        return SQLite(url, timeout_s)
    if scheme in ("postgresql", "postgres"):
        return PostgreSQL(url, timeout_s)
    raise LedgerError("is no ledger", url, "write sqlite:////path/to/ledger.db or postgresql://...", retry=False)


def _make_folder(folder: Path) -> None:
    for path in (*reversed(folder.parents), folder):
        if not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
