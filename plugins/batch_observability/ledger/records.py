"""
What is told to the ledger, as plain values: a run has started, paused, will end, has ended;
a promise is at risk, broken, kept again.

A change that cannot be written at once waits in the spool as a line of JSON and is told again later, by whoever finds
it; so each of these can be written as JSON values, and be read back by another version of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batch_observability.ledger.plain import Model, Record, short
from batch_observability.ledger.promises import (
    AT_RISK,
    BREACHED,
    Declared,
    ModelStanding,
    OpenPromise,
    Promised,
    PromiseRow,
    Recovered,
    Standing,
)

__all__ = [
    "AT_RISK",
    "BREACHED",
    "Change",
    "Declared",
    "Extended",
    "Finished",
    "Margin",
    "Measurement",
    "Model",
    "ModelStanding",
    "OpenPromise",
    "OpenRun",
    "Paused",
    "PromiseRow",
    "Promised",
    "Recovered",
    "Run",
    "Stage",
    "Standing",
    "Started",
    "Verdict",
    "decode",
    "encode",
]


@dataclass(frozen=True, kw_only=True)
class Run(Record):
    """
    One attempt of one batch model. Times are Unix times in nanoseconds; "" and None where something is not known.

    Attributes:
        run_id: Airflow's task instance id, or a UUID.
        source: `airflow` or `cron`.
        resource: what the run is a run of, `<dag_id>.<task_id>` or `<job>`.
        model: name, version, service, owner, tier, runbook and objectives of the model, as text.
        map_index: -1 if the task is not mapped.
        try_number: from 1; 0 if there are no tries.
        clear_number: how often the task was cleared before.
        trace_id, span_id: of the run span.
    """

    run_id: str
    source: str
    resource: str
    env: str
    model: Model
    dag_id: str = ""
    task_id: str = ""
    job: str = ""
    dag_run_id: str = ""
    map_index: int = -1
    try_number: int = 0
    clear_number: int = 0
    trace_id: int
    span_id: int
    host: str = ""
    pid: int = 0
    due_ns: int | None = None
    start_ns: int


@dataclass(frozen=True, kw_only=True)
class Stage(Record):
    """A stage of a run that has ended; `parent_id` is the run's span or an outer stage's."""

    span_id: int
    parent_id: int
    name: str
    start_ns: int
    end_ns: int
    error_type: str = ""


@dataclass(frozen=True, kw_only=True)
class Measurement(Record):
    """A number that a run recorded."""

    name: str
    value: float
    unit: str = ""
    time_ns: int = 0


@dataclass(frozen=True, kw_only=True)
class Margin(Record):
    """What was left in the end of the time that a promise gives, by its key; negative is late."""

    key: str
    margin_s: float


@dataclass(frozen=True, kw_only=True)
class Started(Record):
    """A run has begun. `context` is what a second layer needs to tell the ending; kept while the run is open."""

    run: Run
    context: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Paused(Record):
    """A run was deferred or rescheduled. `state` is the observation as JSON text: another host may go on with it."""

    run: Run
    state: str
    paused_ns: int


@dataclass(frozen=True, kw_only=True)
class Verdict(Record):
    """Why a run will end, by somebody who knows: of one run, or (`run_id` "") of all open runs of a DAG run."""

    outcome: str
    reason: str
    time_ns: int
    run_id: str = ""
    dag_id: str = ""
    dag_run_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Extended(Record):
    """A run was granted time beyond its promises, `total_s` seconds in all until now."""

    run: Run
    total_s: float


@dataclass(frozen=True, kw_only=True)
class Finished(Record):
    """
    A run has ended.

    Attributes:
        token: of this telling of the ending; the same when it is told again.
        closed_by: `sidecar` or `scheduler`.
        stage: innermost stage that the run was in when it failed.
        memory_peak, memory_limit: bytes.
        waiting_s: seconds that the run was deferred or rescheduled.
        dropped: frames that the run had to drop.
        kept: the objectives that it kept, bit i is `objective.OBJECTIVES[i]`.
        extended_s: seconds that it was granted beyond its promises.
        margins: what was left in the end of promises that were told before.
    """

    run: Run
    end_ns: int
    outcome: str
    token: str
    closed_by: str
    error_type: str = ""
    error_message: str = ""
    stage: str = ""
    signal: str = ""
    exit_code: int | None = None
    rows_read: int | None = None
    rows_written: int | None = None
    rows_rejected: int | None = None
    memory_peak: int = 0
    memory_limit: int | None = None
    cpu_s: float = 0.0
    waiting_s: float = 0.0
    dropped: int = 0
    stages: tuple[Stage, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    kept: int = 0
    extended_s: float = 0.0
    margins: tuple[Margin, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run that has no outcome yet, with all that may help to tell one; `state` is "" if it never paused."""

    run: Run
    context: dict[str, Any]
    paused_ns: int | None
    state: str


Change = Started | Paused | Verdict | Finished | Promised | Recovered | Extended | Declared
_KINDS: dict[str, type[Change]] = {
    "started": Started,
    "paused": Paused,
    "verdict": Verdict,
    "finished": Finished,
    "promised": Promised,
    "recovered": Recovered,
    "extended": Extended,
    "declared": Declared,
}


def encode(change: Change) -> dict[str, Any]:
    """Return a change as values that JSON has, with its kind."""
    kind = next(kind for kind, known in _KINDS.items() if isinstance(change, known))
    return {"kind": kind, **change.to_json()}


def decode(values: object) -> Change:
    """
    Read what `encode` wrote.

    Raises:
        ValueError: in one line, if it is none.
    """
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"no change of the ledger: its kind is {short(kind)}, not one of {', '.join(_KINDS)}")
    return _KINDS[kind].from_json(values)
