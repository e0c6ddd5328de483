"""
A real Airflow on loopback: API server, scheduler with LocalExecutor, DAG processor, triggerer, SQLite.

Not `airflow standalone`: its log server binds all interfaces.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import sqlite3
import sys
from typing import TYPE_CHECKING, Self

from tests.live import rest
from tests.live.airflow_client import AirflowClient
from tests.live.processes import (
    LOOPBACK,
    LiveError,
    Process,
    Processes,
    free_ports,
    uninterrupted,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# The part of the API that tasks use is a process of its own. In one process with the other part, on SQLite, Airflow
# 3.3.2 locks itself out when a DAG run is triggered while tasks run: the audit log is written by the event loop
# (api_fastapi/logging/decorators.py:241), which waits for the database, which waits for the event loop to commit.
COMPONENTS = {
    "api-server": ["api-server", "--apps", "core"],
    "execution-api": ["api-server", "--apps", "execution"],
    "dag-processor": ["dag-processor"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
HEALTHY = ("metadatabase", "scheduler", "triggerer", "dag_processor")


class Airflow(AirflowClient):
    """
    A running Airflow, which answers as an `AirflowClient`; healthy inside of its `with` block, gone after it.

    Its home is a folder below that of `processes`. Only the pip-installed plugins are used, unless `plugins`
    names a folder. Every DAG of `dags` is unpaused. `environment` adds to, or overrides, what all components and
    so all tasks have in theirs. The attribute `environment` is for whoever runs commands of this Airflow, or starts
    a single API server at `url` instead of entering the block.
    """

    def __init__(
        self,
        processes: Processes,
        dags: Path,
        *,
        plugins: Path | None = None,
        environment: Mapping[str, str] | None = None,
        parallelism: int = 4,
        report: Callable[[str], None] | None = None,
    ) -> None:
        """Prepares an Airflow for `parallelism` tasks at once; `report` hears of each step of its start."""
        self._ports = dict(zip(("api-server", "execution-api"), free_ports(2), strict=True))
        super().__init__(f"http://{LOOPBACK}:{self._ports['api-server']}", processes.folder / "airflow")
        self._execution_url = f"http://{LOOPBACK}:{self._ports['execution-api']}/execution/"
        self._processes = processes
        self._report = report or (lambda _step: None)
        self._components: list[Process] = []
        for folder in (self.home, self.home / "plugins"):
            folder.mkdir()
        folders = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags.resolve()),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins or self.home / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db?timeout=60",
        }
        addresses = {
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__PORT": self.url.rpartition(":")[2],
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
        }
        size = {"AIRFLOW__CORE__PARALLELISM": str(parallelism)}
        self.environment = _settings() | folders | addresses | size | dict(environment or {})

    def __enter__(self) -> Self:
        """Creates the database, starts all components at once, waits until Airflow calls itself healthy."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Ends all components with their tasks."""
        self.stop()

    def stop(self) -> None:
        """Ends all components with their tasks; sidecars of tasks end by themselves."""
        with uninterrupted():
            components, self._components = self._components, []
            if components:
                # Its database is thrown away, so nothing is lost by not waiting long for a tidy end.
                self._processes.stop(*components, grace=4)

    def component(self, name: str) -> Process:
        """Returns the process of a component: api-server, execution-api, dag-processor, scheduler, triggerer."""
        return next(process for process in self._components if process.name == f"airflow-{name}")

    def _start(self) -> None:
        migrate = self._run("db-migrate", ["db", "migrate"])
        self._components = [migrate]
        migrate.wait(120)
        self._processes.stop(migrate)
        # Readers and a writer at once; else a busy machine soon has requests that end with "database is locked".
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db")) as database:
            database.execute("PRAGMA journal_mode=WAL")
        self._report("database ready")
        self._components = [self._run(name, command) for name, command in COMPONENTS.items()]
        wait_until(self._warm, "the API server answers", 120, self._tails)
        wait_until(self._healthy, "Airflow is healthy", 60, self._tails)
        # A test's server must not be reachable from outside, whatever a new version binds by default.
        if exposed := {where for where in self._processes.listening() if not _is_loopback(where[0])}:
            raise LiveError(f"a component listens on more than loopback: {sorted(exposed)}")
        self._report("scheduler, API server, DAG processor and triggerer healthy")

    def _run(self, name: str, arguments: list[str]) -> Process:
        port = ["--port", str(self._ports[name])] if name in self._ports else []
        command = [sys.executable, "-m", "airflow", *arguments, *port]
        # The API server at `url` is two here, see COMPONENTS.
        environment = self.environment | {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": self._execution_url}
        return self._processes.start(f"airflow-{name}", command, environment, cwd=self.home)

    def check(self) -> None:
        """Raises LiveError with the end of its log if a component has died."""
        for component in self._components:
            component.check()

    def _warm(self) -> bool:
        """
        Returns whether the part of the API that tasks use has answered.

        Its first request takes seconds, to build its schemas; tasks that come first would time out after 5 s.
        """
        self.check()
        with contextlib.suppress(OSError):
            return bool(rest.call(f"{self._execution_url}health", timeout=60))
        return False

    def _healthy(self) -> bool:
        self.check()
        with contextlib.suppress(OSError, rest.RestError):
            health = rest.call(f"{self.url}/api/v2/monitor/health", timeout=5)
            return all(health[part]["status"] == "healthy" for part in HEALTHY)
        return False

    def _tails(self) -> str:
        return "".join(f"\n--- {component.name}\n{component.tail(8)}" for component in self._components)


def _is_loopback(address: str) -> bool:
    # gRPC binds 127.0.0.1 as ::ffff:127.0.0.1, which Python 3.11 does not count as loopback.
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback


def _settings() -> dict[str, str]:
    """Returns the environment of every component: one machine, one user, quick, silent to the outside."""
    return {
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # The default asks the name service, which may be far away and slow.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "1",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        # Else a task's failure is noticed up to 5 s late.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # Nothing phones home.
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "SCARF_ANALYTICS": "false",
    }
