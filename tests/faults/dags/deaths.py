"""
Every way to die, each as three DAGs of one task: observed by us, by plain ddtrace, and by plain OpenTelemetry.

A DAG is named `<row>__<subject>`, after a row of `tests.faults.rows`. What a task has to tell goes to files in the
folder FAULTS_FOLDER, `<dag_id>.<try>.<what>`; what it waits for comes from there as `<dag_id>.go`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import plain
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, get_parsing_context
from airflow.sdk.exceptions import AirflowSkipException

from batch_observability import BatchModel, BatchModelMixin, current_run

FOLDER = Path(os.environ["FAULTS_FOLDER"])
OOM_GROUP = os.environ.get("FAULTS_OOM_GROUP", "")
# More than the group may have.
OOM_BYTES = 400_000_000
# Something has gone wrong if a task is not ended, or told to go on, within this time.
PATIENCE_S = 120.0
MODEL = BatchModel("doomed", version="1", owner="team-faults", service="doomed")


class Try:
    """One try of a task, as its work sees it."""

    def __init__(self, context: Any) -> None:
        self.dag_id = context["ti"].dag_id
        self.number = context["ti"].try_number

    def tell(self, what: str, text: str = "") -> None:
        """Tell the test something, all at once."""
        partial = FOLDER / f"{self.dag_id}.{self.number}.{what}.part"
        partial.write_text(text)
        partial.rename(partial.with_suffix(""))

    def run(self) -> None:
        """Say that it runs, as which process."""
        self.tell("running", str(os.getpid()))

    def die(self, how: Callable[[], Any]) -> None:
        """Die, and say when."""
        self.run()
        self.tell("died", str(time.time()))
        how()

    def wait(self) -> None:
        """Say that it runs, and wait until it is told to go on: for most, that is never."""
        self.run()
        give_up = time.monotonic() + PATIENCE_S
        while not (FOLDER / f"{self.dag_id}.go").exists() and time.monotonic() < give_up:
            time.sleep(0.1)


def read_address_zero() -> None:
    """A segmentation fault of native code; Airflow's own handler for SIGSEGV cannot return from it."""
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


def raise_error(_try: Try) -> None:
    raise ValueError("no such airport")


def fail_once(attempt: Try) -> None:
    if attempt.number == 1:
        raise_error(attempt)


def skip(_try: Try) -> None:
    raise AirflowSkipException("nothing to do today")


def be_terminated(_try: Try) -> None:
    """SIGTERM to the task process: Airflow 3 calls on_kill, and the task goes on."""
    os.kill(os.getpid(), signal.SIGTERM)
    # Python handles it at one of its next steps.
    time.sleep(0.1)


def be_cleared(attempt: Try) -> None:
    if attempt.number == 1:
        attempt.wait()


def fork(_try: Try) -> None:
    child = os.fork()
    if child == 0:
        current_run().rows(read=5)
        os._exit(0)
    os.waitpid(child, 0)


def leave_threads_and_processes(_try: Try) -> None:
    for daemon in (True, False):
        threading.Thread(target=time.sleep, args=(PATIENCE_S,), daemon=daemon).start()
    nothing = subprocess.DEVNULL
    subprocess.Popen(["sleep", "20"], stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


def run_out_of_memory(attempt: Try) -> None:
    # Memory is seldom full at once: the sidecar has looked at it before.
    time.sleep(2)
    attempt.die(lambda: bytearray(b"x" * OOM_BYTES))


WORK: dict[str, Callable[[Try], Any]] = {
    "normal": Try.run,
    "exception": raise_error,
    "sys_exit": lambda _try: sys.exit(3),
    "execution_timeout": Try.wait,
    "retry": fail_once,
    "skip": skip,
    "sigterm": be_terminated,
    "sigkill": lambda attempt: attempt.die(lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "sigsegv": lambda attempt: attempt.die(read_address_zero),
    "exit_zero": lambda attempt: attempt.die(lambda: os._exit(0)),
    "exit_three": lambda attempt: attempt.die(lambda: os._exit(3)),
    "out_of_memory": run_out_of_memory,
    "sidecar_killed": Try.wait,
    "both_killed": Try.wait,
    "scheduler_killed": Try.wait,
    "marked_failed": Try.wait,
    "marked_success": Try.wait,
    "cleared": be_cleared,
    "dag_run_failed": Try.wait,
    "dag_run_timeout": Try.wait,
    "deferred": Try.run,
    "deferred_marked": Try.run,
    "deferred_killed": Try.run,
    "fork": fork,
    "left_behind": leave_threads_and_processes,
    "agent_down": Try.run,
    "host_restart": Try.run,
}
# The work of a deferred task after its trigger, and for how many seconds it is deferred. Airflow 3.3 fails a task whose
# trigger fires before the scheduler has heard of the end of the process that deferred it.
RESUMED: dict[str, tuple[float, Callable[[Try], Any]]] = {
    "deferred": (4, Try.run),
    "deferred_marked": (PATIENCE_S, Try.run),
    "deferred_killed": (4, lambda attempt: attempt.die(lambda: os.kill(os.getpid(), signal.SIGKILL))),
}


class Die(BaseOperator):
    """Does the work of a row."""

    def __init__(self, row: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.row = row

    def observed(self, _context: Any) -> AbstractContextManager[object]:
        """How the work is observed."""
        raise NotImplementedError

    def execute(self, context: Any) -> None:
        with self.observed(context):
            WORK[self.row](Try(context))
            if self.row in RESUMED:
                self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=RESUMED[self.row][0])), method_name="go_on")

    def go_on(self, context: Any, event: Any = None) -> None:
        with self.observed(context):
            RESUMED[self.row][1](Try(context))


class Ours(BatchModelMixin, Die):
    """A batch model."""

    def observed(self, _context: Any) -> AbstractContextManager[object]:
        self.batch.rows(read=1)
        return self.batch.stage("work")


class Ddtrace(Die):
    """A span of ddtrace."""

    def observed(self, context: Any) -> AbstractContextManager[object]:
        return plain.ddtrace(context)


class Otel(Die):
    """A span of OpenTelemetry."""

    def observed(self, context: Any) -> AbstractContextManager[object]:
        return plain.otel(context)


SUBJECTS: dict[str, tuple[type[Die], dict[str, Any]]] = {
    "ours": (Ours, {"model": MODEL}),
    "ddtrace": (Ddtrace, {}),
    "otel": (Otel, {}),
}
OF_TASK: dict[str, dict[str, Any]] = {
    "execution_timeout": {"execution_timeout": timedelta(seconds=4)},
    "retry": {"retries": 1, "retry_delay": timedelta(0)},
}
OF_DAG: dict[str, dict[str, Any]] = {"dag_run_timeout": {"dagrun_timeout": timedelta(seconds=15)}}


def wanted() -> list[tuple[str, str]]:
    """Return the rows and subjects to make DAGs of: all of them, or the one that this task process is for."""
    dag_id = get_parsing_context().dag_id
    return [tuple(dag_id.split("__"))] if dag_id else [(row, subject) for row in WORK for subject in SUBJECTS]


for row, subject in wanted():
    if row == "out_of_memory" and OOM_GROUP and get_parsing_context().task_id:
        # Before the task begins: as in a container, its sidecar is in the same group.
        Path(OOM_GROUP, subject, "cgroup.procs").write_text(str(os.getpid()))
    operator, arguments = SUBJECTS[subject]
    with DAG(f"{row}__{subject}", start_date=datetime(2024, 1, 1), schedule=None, **OF_DAG.get(row, {})):
        operator(task_id="work", row=row, **arguments, **OF_TASK.get(row, {}))
