"""
One Airflow with all that it sends to, where everything can be killed, switched off and looked at.

Between Airflow and the backends stand fronts that can refuse: `switch(Fault.REFUSED)` is an Agent that is gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psutil

from tests.live.agent import DatadogAgent
from tests.live.airflow import COMPONENTS, Airflow
from tests.live.dogstatsd import DogStatsDListener
from tests.live.faulty import Fault, FaultyDatagrams, FaultyServer
from tests.live.processes import Processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PARALLELISM = 8
OOM_LIMIT_BYTES = 200_000_000
ENDED = ("success", "failed")


class MortalAirflow(Airflow):
    """An Airflow whose scheduler can be killed and started again; workers and tasks of the killed one go on."""

    def kill_scheduler(self) -> None:
        """Kills the scheduler's own process."""
        scheduler = self.component("scheduler")
        os.kill(scheduler.pid, signal.SIGKILL)
        wait_until(lambda: not scheduler.alive(), "the scheduler is dead", 10)
        self._components.remove(scheduler)

    def start_scheduler(self) -> None:
        """Starts another scheduler."""
        self._components.append(self._run("scheduler", COMPONENTS["scheduler"]))


@dataclass(frozen=True)
class Try:
    """A try of a task that a process worked on, from Airflow's records; times are Unix seconds."""

    run_id: str
    dag_id: str
    number: int
    state: str
    ended: float | None


@dataclass(frozen=True)
class Playground:
    """An Airflow, what it sends to by way of the fronts, and the folder by which tasks and tests talk."""

    airflow: MortalAirflow
    agent: DatadogAgent
    dogstatsd: DogStatsDListener
    processes: Processes
    fronts: tuple[FaultyServer | FaultyDatagrams, ...]
    folder: Path
    oom_group: Path | None

    @property
    def state(self) -> Path:
        """Our folder of spool, ledger and logs."""
        return self.airflow.home / "batch_observability"

    def switch(self, fault: Fault) -> None:
        """Puts every backend at fault, or none."""
        for front in self.fronts:
            front.fault = fault

    def told(self, dag_id: str, number: int, what: str) -> str | None:
        """Returns what a try has told, None if nothing yet."""
        path = self.folder / f"{dag_id}.{number}.{what}"
        return path.read_text() if path.exists() else None

    def let_go_on(self, dag_id: str) -> None:
        """Lets a waiting task go on."""
        (self.folder / f"{dag_id}.go").touch()

    def ours(self, role: str = "") -> list[psutil.Process]:
        """Returns the processes of ours, or those with a role: sidecar, helper."""
        return [process for process in self.processes.survivors() if (found := _role(process)) and role in ("", found)]

    def sidecar_of(self, pid: int) -> psutil.Process | None:
        """Returns the sidecar that watches a process, None if there is none (yet)."""
        return next((process for process in self.ours("sidecar") if pid in _watched(process.pid)), None)

    def tries(self) -> list[Try]:
        """Returns every try that a process worked on."""
        select = (
            "SELECT one.{}, one.dag_id, one.try_number, one.state, COALESCE(one.end_date, run.end_date) FROM {} AS one "
            "JOIN dag_run AS run USING (dag_id, run_id) WHERE one.start_date IS NOT NULL AND one.try_number > 0"
        )
        history, current = (
            select.format("task_instance_id", "task_instance_history"),
            select.format("id", "task_instance"),
        )
        return [
            Try(str(UUID(run_id)), dag_id, number, state or "none", _unix(ended))
            for run_id, dag_id, number, state, ended in self._query(f"{history} UNION {current}")
        ]

    def dag_runs(self) -> dict[tuple[str, str], str]:
        """Returns the state of every DAG run."""
        return {
            (dag_id, run_id): state
            for dag_id, run_id, state in self._query("SELECT dag_id, run_id, state FROM dag_run")
        }

    def ledger(self) -> dict[str, Counter[str | None]]:
        """Returns the outcomes in the ledger by run id: of a run that is closed once, one."""
        rows: dict[str, Counter[str | None]] = {}
        path = self.state / "ledger.db"
        if path.exists():
            for run_id, outcome in _query(path, "SELECT run_id, outcome FROM runs"):
                rows.setdefault(run_id, Counter())[outcome] += 1
        return rows

    def spooled(self) -> list[Path]:
        """Returns the files that wait in the spool."""
        folder = self.state / "spool"
        return [path for path in folder.rglob("*.jsonl") if path.is_file()] if folder.is_dir() else []

    def _query(self, statement: str) -> list[tuple[Any, ...]]:
        return _query(self.airflow.home / "airflow.db", statement)


def _query(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        return database.execute(statement).fetchall()


def _unix(moment: str | None) -> float | None:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() if moment else None


def _role(process: psutil.Process) -> str:
    try:
        command = process.cmdline()
    except psutil.Error:
        return ""
    # The shell that starts one has the same words.
    ours = len(command) > 3 and "python" in command[0] and command[2].endswith("sidecar/__main__.py")
    return command[3] if ours else ""


def _watched(pid: int) -> set[int]:
    """Returns the processes that a process has a pidfd of."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for info in Path(f"/proc/{pid}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                found |= {int(number) for number in re.findall(r"^Pid:\s+(\d+)$", info.read_text(), re.MULTILINE)}
    return found


@contextlib.contextmanager
def playground(**extra: str) -> Iterator[Playground]:
    """Starts everything."""
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(Processes())
        dogstatsd = stack.enter_context(DogStatsDListener())
        agent = stack.enter_context(DatadogAgent(processes))
        traces, otlp, metrics = fronts = (
            stack.enter_context(FaultyServer(agent.apm_url, prompt=True)),
            stack.enter_context(FaultyServer(agent.otlp_url)),
            stack.enter_context(FaultyDatagrams(dogstatsd.url)),
        )
        oom_group = stack.enter_context(_memory_groups())
        folder = processes.folder / "told"
        folder.mkdir()
        environment = {
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            # Only what a test triggers runs.
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
            "BATCHOBS_RECONCILE_AFTER": "3",
            "BATCHOBS_RECONCILE_INTERVAL": "2",
            "DD_DOGSTATSD_URL": metrics.url,
            "DD_ENV": "faults",
            "DD_TRACE_AGENT_URL": traces.url,
            "FAULTS_FOLDER": str(folder),
            "FAULTS_OOM_GROUP": str(oom_group or ""),
            "FAULTS_OTLP_URL": otlp.url,
            **extra,
        }
        # A copy: Airflow must not write its bytecode into the repository's folder of plugins.
        plugins = shutil.copytree(HERE / "plugins", processes.folder / "plugins")
        airflow = stack.enter_context(MortalAirflow(processes, HERE / "dags", environment=environment, plugins=plugins))
        yield Playground(airflow, agent, dogstatsd, processes, fronts, folder, oom_group)


@contextlib.contextmanager
def _memory_groups() -> Iterator[Path | None]:
    """Makes a cgroup with little memory for each subject; None where this host does not let us."""
    v1 = Path("/sys/fs/cgroup/memory")
    top, limit = (v1, "memory.limit_in_bytes") if v1.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    group = top / f"batchobs-faults-{os.getpid()}"
    members = [group / subject for subject in ("ours", "ddtrace", "otel")]
    made: list[Path] = []
    try:
        try:
            for folder in (group, *members):
                folder.mkdir()
                made.append(folder)
                if folder is group and not v1.is_dir():
                    (group / "cgroup.subtree_control").write_text("+memory")
            for folder in members:
                (folder / limit).write_text(str(OOM_LIMIT_BYTES))
        except OSError:
            yield None
        else:
            yield group
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
