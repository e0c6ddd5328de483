"""
A real PostgreSQL as a context manager: its own cluster in a temporary folder, on a free port of 127.0.0.1.

It refuses to run as root; there it runs as the system's user `postgres`, or else `nobody`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.live.processes import LOOPBACK, LiveError, Process, Processes, free_ports, wait_until

# Of a throw-away cluster: what a crash of the machine would cost does not matter.
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "off",
    "max_connections": "100",
    "shared_buffers": "64MB",
}


class PostgresServer:
    """PostgreSQL on a free port; a context manager. `url` is of an empty database, `password` is in it."""

    def __init__(self, processes: Processes) -> None:
        """Prepares a server among `processes`."""
        self._port = free_ports(1)[0]
        self.password = secrets.token_hex(12)
        self._processes = processes
        self._process: Process | None = None
        self._folder = Path()

    @property
    def url(self) -> str:
        """Address of the database that every cluster has."""
        return self._url("postgres")

    def __enter__(self) -> Self:
        """Makes the cluster and waits until it answers."""
        # The folder of the processes is closed to other users.
        self._folder = Path(tempfile.mkdtemp(prefix="batchobs-postgres-"))
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stops the server and removes its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def stop(self) -> None:
        """Stops the server, as when a real one goes away; stopping twice does no harm."""
        if self._process:
            if self._process.alive():
                # By SIGTERM it would wait for its clients to leave.
                os.kill(self._process.pid, signal.SIGINT)
            self._processes.stop(self._process)
            self._process = None

    def start_again(self) -> None:
        """Starts the server after `stop`, with what was in it."""
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [str(executable("postgres")), "-D", str(self._folder / "data"), "-p", f"{self._port}", *settings]
        self._process = process = self._processes.start("postgres", [*_as_other_user(), *command], cwd=self._folder)

        def answers() -> bool:
            process.check()
            with contextlib.suppress(LiveError):
                self.run("SELECT 1")
                return True
            return False

        wait_until(answers, "PostgreSQL answers", 30, process.tail)

    def create_database(self) -> str:
        """Makes an empty database; returns its address."""
        name = f"ledger_{secrets.token_hex(4)}"
        self.run(f"CREATE DATABASE {name}")
        return self._url(name)

    def run(self, statement: str, url: str | None = None) -> list[tuple[object, ...]]:
        """Runs a statement outside of a transaction; returns its rows."""
        import psycopg

        try:
            with psycopg.connect(url or self.url, autocommit=True, connect_timeout=5) as connection:
                cursor = connection.execute(statement)
                return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError as error:
            raise LiveError(f"PostgreSQL does not answer: {error}") from error

    def _url(self, database: str) -> str:
        return f"postgresql://batchobs:{self.password}@{LOOPBACK}:{self._port}/{database}"

    def _start(self) -> None:
        password = self._folder / "password"
        password.write_text(self.password, encoding="utf-8")
        if os.geteuid() == 0:
            for path in (self._folder, password):
                shutil.chown(path, _other_user())
        command = [
            *(
                str(executable("initdb")),
                "-D",
                str(self._folder / "data"),
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
            ),
            *("--username=batchobs", "--auth=scram-sha-256", f"--pwfile={password}"),
        ]
        made = subprocess.run(
            [*_as_other_user(), *command],
            cwd=self._folder,
            env=self._processes.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if made.returncode:
            raise LiveError(f"initdb failed: {made.stderr}")
        self.start_again()


def missing() -> str:
    """Returns why there can be no server here, or ""."""
    try:
        executable("initdb")
        _as_other_user()
    except LiveError as error:
        return str(error)
    return ""


def executable(name: str) -> Path:
    """Returns the path of one of the server's programs; Debian keeps them off the PATH."""
    if found := shutil.which(name):
        # A link from elsewhere into the folder of one version.
        return Path(found).resolve()
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(versions, key=lambda path: int(re.sub(r"\D", "", path.parts[4]) or 0), default=None)
    if newest is None:
        raise LiveError(f"there is no PostgreSQL server, {name} is not found: install the package postgresql")
    return newest


def _other_user() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise LiveError("PostgreSQL does not run as root, and there is no other user: add one that is named postgres")


def _as_other_user() -> list[str]:
    """Returns what to put before a command so that root does not run it."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LiveError("PostgreSQL does not run as root, and setpriv is not found: install the package util-linux")
    user = pwd.getpwnam(_other_user())
    return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
