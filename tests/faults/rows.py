"""
The table: one row a way to die, and what is promised of it. The work of each is in `dags/deaths.py`, by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SUBJECTS = ("ours", "ddtrace", "otel")


class Act(StrEnum):
    """What the test does to a task that runs."""

    MARK_FAILED = "mark the task failed"
    MARK_SUCCESS = "mark the task as a success"
    MARK_DEFERRED = "mark the task failed while it is deferred"
    CLEAR = "clear the task"
    FAIL_DAG_RUN = "mark the DAG run failed"
    KILL_SIDECAR = "kill the sidecar"
    KILL_BOTH = "kill the task and its sidecar"


class Scene(StrEnum):
    """When a row is played: most side by side, those that take something away from all others alone."""

    TOGETHER = "together"
    SCHEDULER_KILLED = "scheduler killed"
    AGENT_DOWN = "agent down"
    HOST_RESTARTED = "host restarted"


@dataclass(frozen=True)
class Row:
    """
    One way to die.

    Attributes:
        title: in the table.
        outcomes: that are promised, of one try after the other.
        act: what the test does to it.
        error: `error.type` of the last try's span, where it is more than the outcome says.
        only_ours: it is about a part that the others do not have.
    """

    name: str
    title: str
    outcomes: tuple[str, ...] = ("success",)
    act: Act | None = None
    error: str = ""
    scene: Scene = Scene.TOGETHER
    only_ours: bool = False


ROWS = (
    Row("normal", "ends well"),
    Row("exception", "exception", ("failed",), error="ValueError"),
    Row("sys_exit", "`sys.exit(3)`", ("failed",), error="SystemExit"),
    Row("execution_timeout", "execution timeout", ("timed_out",)),
    Row("dag_run_timeout", "DAG run timeout", ("timed_out",)),
    Row("retry", "retry, then success", ("retrying", "success")),
    Row("skip", "skipped", ("skipped",)),
    Row("sigterm", "SIGTERM (Airflow lets it go on)"),
    Row("sigkill", "SIGKILL", ("killed",), error="SIGKILL"),
    Row("sigsegv", "SIGSEGV", ("killed",), error="SIGSEGV"),
    Row("exit_zero", "`os._exit(0)`", ("killed",), error="ProcessExit"),
    Row("exit_three", "`os._exit(3)`", ("killed",), error="ProcessExit"),
    Row("out_of_memory", "out of memory (cgroup)", ("killed",), error="OutOfMemory"),
    Row("sidecar_killed", "sidecar killed", act=Act.KILL_SIDECAR, only_ours=True),
    Row("both_killed", "task and sidecar killed", ("killed",), Act.KILL_BOTH, only_ours=True),
    Row("scheduler_killed", "scheduler killed and restarted", scene=Scene.SCHEDULER_KILLED),
    Row("marked_failed", "marked failed by a user", ("cancelled",), Act.MARK_FAILED),
    Row("marked_success", "marked success by a user", ("cancelled",), Act.MARK_SUCCESS),
    Row("cleared", "cleared while running", ("cancelled", "success"), Act.CLEAR),
    Row("dag_run_failed", "DAG run marked failed", ("cancelled",), Act.FAIL_DAG_RUN),
    Row("deferred", "deferred, then success"),
    Row("deferred_marked", "marked failed while deferred", ("cancelled",), Act.MARK_DEFERRED),
    Row("deferred_killed", "deferred, then SIGKILL", ("killed",), error="SIGKILL"),
    Row("fork", "fork in user code"),
    Row("left_behind", "threads and processes left behind"),
    Row("agent_down", "Agent down, back later", scene=Scene.AGENT_DOWN),
    Row("host_restart", "host restarted, spool full", scene=Scene.HOST_RESTARTED),
)
