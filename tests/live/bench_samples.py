"""What one run of a task cost, and the statistics of many."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Sample:
    """
    One run of a task; times in seconds, memory in bytes.

    Attributes:
        wall: from the start of the supervisor to the end of the task process.
        cpu: of the task process with its children, and of its supervisor for this task.
        memory_peak: resident in the task process, with what it shares with its parent.
        phases: what `wall` consists of: fork; startup (plugins, DAG file); run (start hook, task, report of its
            state); finalize (links, end hook); exit.
        hooks: start and end, in the task process, all listeners together; empty where there are none.
        noticed: how long after the end of the task process its supervisor went on.
        ended: the moment of the end of the task's code, by `time.perf_counter`.
    """

    wall: float
    cpu: float
    memory_peak: int
    phases: dict[str, float]
    hooks: dict[str, float]
    noticed: float
    ended: float


def sample(process: dict[str, Any], task: dict[str, Any], supervised: dict[str, Any], exited: float) -> Sample:
    """Puts together what the task process and the supervisor of a run have told, and when the process was gone."""
    return Sample(
        wall=exited - supervised["began"],
        cpu=supervised["task_cpu"] + supervised["supervisor_cpu"],
        memory_peak=task["memory_peak"],
        phases={"fork": process["began"] - supervised["began"], **task["phases"], "exit": exited - task["ended"]},
        hooks=task["hooks"],
        noticed=supervised["ended"] - exited,
        ended=task["ended"],
    )


@dataclass(frozen=True)
class Spread:
    """The quantiles of some values."""

    count: int
    least: float
    p25: float
    median: float
    p75: float
    p95: float
    most: float


def spread(values: Iterable[float]) -> Spread:
    """Returns the quantiles of at least two values, interpolated between the nearest ones."""
    ordered = sorted(values)
    percentiles = statistics.quantiles(ordered, n=100, method="inclusive")
    return Spread(
        count=len(ordered),
        least=ordered[0],
        p25=percentiles[24],
        median=statistics.median(ordered),
        p75=percentiles[74],
        p95=percentiles[94],
        most=ordered[-1],
    )
