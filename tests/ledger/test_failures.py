"""A ledger that cannot be used: told in one line, with the remedy, without the password, and within its time."""

from __future__ import annotations

import os
import secrets
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from batch_observability.ledger import address, dialect
from batch_observability.ledger.store import Ledger, LedgerError
from tests.ledger.conftest import TIMEOUT_S
from tests.ledger.runs import finished, started
from tests.live import postgres
from tests.live.processes import Processes, free_ports

REPOSITORY = Path(__file__).parents[2]


def problem(url, timeout_s=TIMEOUT_S):
    """Return the error of a ledger that cannot be used."""
    with pytest.raises(LedgerError) as raised:
        Ledger(url, timeout_s).apply(started())
    assert "\n" not in str(raised.value)
    return raised.value


# --- Files -------------------------------------------------------------------------------------------------------


def test_a_locked_file_is_worth_another_try(tmp_path):
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url, TIMEOUT_S).apply(started())
    with sqlite3.connect(tmp_path / "ledger.db", isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        before = time.monotonic()
        error = problem(url, timeout_s=0.3)
        assert 0.3 <= time.monotonic() - before < 5
        # Who reads does not wait for who writes.
        assert Ledger(url, 0.3).outcomes(["run-1"]) == {"run-1": None}
        holder.execute("ROLLBACK")
    holder.close()
    assert error.retry
    assert "database is locked: try again" in str(error)
    assert Ledger(url, TIMEOUT_S).apply(finished())


def test_a_file_that_another_process_is_making_is_waited_for_until_the_timeout(tmp_path):
    lock = tmp_path / "ledger.db.lock"
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held'); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        error = problem(f"sqlite:///{tmp_path / 'ledger.db'}", timeout_s=0.3)
        holder.communicate("\n")
    assert error.retry
    assert "is being made by another process" in str(error)


@pytest.mark.parametrize("content", [b"garbage\n" * 200, b"SQLite format 3\0" + b"\xff" * 4096])
def test_garbage_is_left_as_it_is(tmp_path, content):
    (tmp_path / "ledger.db").write_bytes(content)
    error = problem(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert not error.retry
    assert "set BATCHOBS_LEDGER_URL to another file, or move this one away" in str(error)
    assert (tmp_path / "ledger.db").read_bytes() == content


def test_a_folder_in_its_place_is_told(tmp_path):
    error = problem(f"sqlite:///{tmp_path}")
    assert not error.retry
    assert str(error) == f"ledger sqlite:///{tmp_path} is a folder: name a file in it, or remove it"


def test_a_file_in_place_of_its_folder_is_told(tmp_path):
    (tmp_path / "state").write_text("")
    error = problem(f"sqlite:///{tmp_path / 'state' / 'ledger.db'}")
    assert not error.retry
    assert "cannot be made" in str(error)
    assert "BATCHOBS_STATE_DIR" in str(error)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x", "sqlite:////tmp/x.db?timeout=1"]
)
def test_what_is_no_file_of_its_own_is_told(url):
    error = problem(url)
    assert not error.retry
    assert "write sqlite:////path/to/ledger.db" in str(error)


UNWRITABLE = """
import os, sys
# Python itself may lie where the other user cannot look.
import alembic.command, sqlalchemy.dialects.sqlite, sqlite3
from batch_observability.ledger.store import Ledger, LedgerError
from tests.ledger.runs import started
os.setgid(65534)
os.setuid(65534)
try:
    Ledger(sys.argv[1], 1).apply(started())
except LedgerError as error:
    print(error.retry, error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("is_there", [True, False])
def test_what_this_user_may_not_write_is_told(tmp_path, is_there):
    # Below pytest's own folder nobody else can look.
    folder = Path("/tmp") / f"batchobs-{secrets.token_hex(6)}"
    folder.mkdir(mode=0o755)
    try:
        url = f"sqlite:///{folder / 'ledger.db'}"
        if is_there:
            Ledger(url, TIMEOUT_S).apply(started())
            (folder / "ledger.db").chmod(0o644)
        done = subprocess.run(
            [sys.executable, "-c", UNWRITABLE, url], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    assert done.stdout.startswith(f"False ledger {url} cannot be "), done
    assert "writable" in done.stdout


def test_a_full_disk_is_worth_another_try(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", TIMEOUT_S)
    ledger.apply(started("run-1"))

    def limited(connection, _record):
        connection.execute(f"PRAGMA max_page_count={connection.execute('PRAGMA page_count').fetchone()[0]}")

    from sqlalchemy import event

    event.listen(ledger._engine, "connect", limited)
    with pytest.raises(LedgerError, match="disk is full: free some space") as raised:
        ledger.apply(started("run-2", {"large": "x" * 1_000_000}))
    assert raised.value.retry
    assert ledger.outcomes(["run-1", "run-2"]) == {"run-1": None}


# --- Servers -----------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_worth_another_try():
    password = secrets.token_hex(8)
    port = free_ports(1)[0]
    error = problem(f"postgresql://batchobs:{password}@127.0.0.1:{port}/ledger")
    assert error.retry
    assert f"ledger postgresql://batchobs@127.0.0.1:{port}/ledger cannot be reached" in str(error)
    assert password not in str(error)


def test_a_server_that_goes_away_and_comes_back_is_used_again():
    if reason := postgres.missing():
        pytest.skip(reason)
    with Processes() as processes, postgres.PostgresServer(processes) as server:
        ledger = Ledger(server.url, TIMEOUT_S)
        ledger.migrate()
        ledger.apply(started())
        server.stop()
        with pytest.raises(LedgerError, match="cannot be reached") as raised:
            ledger.apply(finished())
        assert raised.value.retry
        server.start_again()
        assert ledger.apply(finished())


def test_a_server_that_does_not_answer_is_given_up_in_time(server):
    """It takes the connection and is silent: another process holds the lock of the table."""
    import psycopg

    url = server.create_database()
    Ledger(url, TIMEOUT_S).migrate()
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE runs")
        before = time.monotonic()
        error = problem(url, timeout_s=0.5)
        assert time.monotonic() - before < 5
    assert error.retry
    assert "did not answer in time" in str(error)


def test_a_port_that_accepts_and_is_silent_is_given_up_in_time():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = time.monotonic()
        error = problem(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/ledger", timeout_s=0.5)
        assert time.monotonic() - before < 8
    assert error.retry


def test_a_user_without_rights_is_told(server):
    password = secrets.token_hex(8)
    url = server.create_database()
    Ledger(url, TIMEOUT_S).migrate()
    reader = f"reader_{secrets.token_hex(4)}"
    server.run(f"CREATE USER {reader} PASSWORD '{password}'")
    server.run(f"GRANT SELECT ON alembic_version TO {reader}", url)
    error = problem(url.replace(f"batchobs:{server.password}", f"{reader}:{password}"))
    assert not error.retry
    assert "permission denied for table runs: grant this user the rights" in str(error)


def test_a_wrong_password_is_not_repeated(server):
    wrong = secrets.token_hex(8)
    error = problem(server.url.replace(server.password, wrong))
    assert "password authentication failed" in str(error)
    assert wrong not in str(error)


def test_without_a_driver_the_command_is_told_that_installs_one(monkeypatch):
    monkeypatch.setattr(dialect, "find_spec", lambda _name: None)
    error = problem("postgresql://u@127.0.0.1/ledger")
    assert not error.retry
    assert "run pip install 'airflow-batch-observability[postgres]'" in str(error)


def test_another_driver_of_postgresql_is_passed_over(server):
    """Airflow's own setting says for example `postgresql+asyncpg`."""
    ledger = Ledger(server.url.replace("postgresql://", "postgresql+asyncpg://"), TIMEOUT_S)
    assert ledger.shared
    assert "password" not in repr(ledger)
    with pytest.raises(LedgerError, match="run batchobs ledger migrate"):
        ledger.info()


# --- Passwords ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ("postgresql://u:{}@h:1/d", "postgresql://u@h:1/d"),
        ("postgres://u:{}@h/d?sslmode=require", "postgres://u@h/d"),
        ("postgresql+psycopg2://u:{}@h/d", "postgresql://u@h/d"),
        ("postgresql://u:a@{}@h/d", "postgresql://u@h/d"),
        ("postgresql://u:a/{}#x@h/d", "postgresql://u@h/d"),
        ("postgresql://u:a?{}@h/d", "postgresql://..."),
        ("postgresql://h/d?user=u&password={}", "postgresql://h/d"),
        ("postgresql://h:1/d?password=a@{}", "postgresql://..."),
        ("postgresql://u:{}@h:port/d", "postgresql://u@h:port/d"),
        ("mysql://u:{}@h/d", "mysql://u@h/d"),
        ("postgresql:u:{}@h", "..."),
    ],
)
def test_no_password_is_printed(form, where):
    password = secrets.token_hex(8)
    url = form.format(password)
    assert address.shown(url) == where
    assert repr(Ledger(url, 1)) == f"Ledger({where!r})"
    assert password not in str(LedgerError(f"failed for {url}", url, "mend it", retry=False))


@pytest.mark.parametrize("form", ["mysql://u:{}@h/d", "postgresql:u:{}@h", "postgresql://u:{}@h:port/d"])
def test_an_address_that_cannot_be_read_is_told_without_its_password(form):
    password = secrets.token_hex(8)
    error = problem(form.format(password))
    assert not error.retry
    assert password not in str(error)
    assert "write " in str(error)


def test_an_error_keeps_no_statement_with_its_values(tmp_path):
    """A traceback in a log would show what a model told of its error."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", TIMEOUT_S)
    ledger.migrate()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("DROP TABLE runs")
    connection.close()
    with pytest.raises(LedgerError, match="no such table: runs") as raised:
        ledger.apply(finished(error_message="told"))
    assert raised.value.__suppress_context__
    assert "told" not in str(raised.value)


# --- Threads and forks -------------------------------------------------------------------------------------------


def test_threads_share_a_ledger(ledger):
    answers = []
    threads = [
        threading.Thread(target=lambda name=f"run-{number}": answers.append(ledger.apply(finished(name))))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 8
    assert ledger.info()["runs"] == 8


def test_a_forked_child_uses_the_ledger_of_its_parent(url):
    code = """
import os, sys
from batch_observability.ledger.store import Ledger
from tests.ledger.runs import started
ledger = Ledger(sys.argv[1], 10)
ledger.migrate()
ledger.apply(started("parent"))
child = os.fork()
ledger.apply(started("child" if child == 0 else "parent again"))
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", code, url], cwd=REPOSITORY, check=True, timeout=60)
    assert {found.run.run_id for found in Ledger(url, TIMEOUT_S).open_runs("airflow")} == {
        "parent",
        "child",
        "parent again",
    }


def test_importing_the_ledger_imports_no_sqlalchemy():
    code = "import sys; from batch_observability.ledger.store import Ledger; Ledger('sqlite:////x', 1); "
    code += "print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_alembic_is_not_imported_where_the_tables_are_current(tmp_path):
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url, TIMEOUT_S).migrate()
    code = "import sys; from batch_observability.ledger.store import Ledger; Ledger(sys.argv[1], 9).info(); "
    code += "print('alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
