"""
What is told to the ledger of promises, and what it knows of them: who claimed a cause first, and what is still open.

A promise is one objective of one model for one cause. The cause has a key, the same whoever sees it; of all who claim a
key at once exactly one is told that it is the first, and that one tells it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from batch_observability.ledger.plain import Model, Record

AT_RISK = "at_risk"
BREACHED = "breached"


@dataclass(frozen=True, kw_only=True)
class Promised(Record):
    """
    An objective is at risk or breached, by somebody who saw it and wants to be the one that tells it.

    Attributes:
        key: of the cause.
        state: `at_risk` or `breached`.
        promise: what was promised, as text: `20m`.
        job: of a cron job, whose `dag_id` and `task_id` are "".
        map_index: -1 if the task is not mapped, or of a slot that nobody ran.
        run_id: "" where there is no run.
        time_ns: when the promise was broken or became at risk.
        told_by: `sidecar`, `helper`, `deadline` or `check`.
        token: of this telling; the same when it is told again.
        missed: nobody ran.
        episode: what only one breach may be open of at a time; "" if each cause stands for itself.
        counts_from_due: it holds only if the task was known when it was due.
        margin_s: seconds that were left in the end, negative if it is late; None while that is open.
        clear_number: of `finish_within`, which a cleared task is promised again; None if any run that kept it counts.
    """

    key: str
    state: str
    objective: str
    promise: str
    model: Model
    source: str
    env: str
    resource: str
    dag_id: str = ""
    task_id: str = ""
    job: str = ""
    dag_run_id: str = ""
    map_index: int = -1
    run_id: str = ""
    due_ns: int | None = None
    deadline_ns: int | None = None
    time_ns: int
    told_by: str
    token: str
    reason: str = ""
    missed: bool = False
    episode: str = ""
    counts_from_due: bool = False
    clear_number: int | None = None
    margin_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recovered(Record):
    """
    A model keeps an objective again: what was breached before `before_ns`, and the cause `key`, is no longer open.

    Attributes:
        resource: "" if of all resources of the model.
        token: of this telling; the same when it is told again.
    """

    model_name: str
    objective: str
    resource: str = ""
    before_ns: int
    key: str = ""
    time_ns: int
    token: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Declared(Record):
    """
    A task (or cron job: `dag_id` "" and its name as `task_id`) is a batch model, whether it ever ran or not.

    Attributes:
        since_ns: when it was first known.
        schedule: in words, "" if there is none or it is not known.
        next_due_ns: when it is due next.
        state: why it will not run, such as `paused`; "" if it will.
    """

    dag_id: str
    task_id: str
    source: str
    model: Model
    since_ns: int
    schedule: str = ""
    next_due_ns: int | None = None
    state: str = ""


@dataclass(frozen=True, kw_only=True)
class PromiseRow:
    """What the ledger knows of a cause; it was only at risk while `breached_ns` is None."""

    key: str
    model_name: str
    objective: str
    promise: str
    source: str
    env: str
    service: str
    version: str
    owner: str
    tier: str
    resource: str
    dag_id: str
    task_id: str
    job: str
    dag_run_id: str
    map_index: int
    run_id: str
    due_ns: int | None
    deadline_ns: int | None
    at_risk_ns: int | None
    at_risk_token: str | None
    breached_ns: int | None
    breached_token: str | None
    told_by: str
    reason: str
    missed: bool
    margin_s: float | None
    recovered_ns: int | None
    recovered_token: str | None
    episode: str | None
    model: Model


@dataclass(frozen=True, kw_only=True)
class OpenPromise:
    """A breach that has not recovered."""

    key: str
    objective: str
    breached_ns: int


@dataclass(frozen=True, kw_only=True)
class Standing:
    """
    What a run must know of before it to judge itself.

    Attributes:
        since_ns: when its task was first known.
        first_start_ns: start of its first try, after the last clear.
        extended_s: seconds granted to it and to the tries before.
        told: by key, when its causes were told to be at risk and breached.
        open: breaches of its model that it may recover.
    """

    since_ns: int | None
    first_start_ns: int | None
    extended_s: float
    told: dict[str, tuple[int | None, int | None]]
    open: list[OpenPromise]


@dataclass(frozen=True, kw_only=True)
class ModelStanding:
    """
    How a model kept what it promised, over a window.

    Attributes:
        definition: of its newest run, or as it was declared.
        kept, broken: judgements by objective.
        succeeded, failed: runs that ended for good in the window; `recent_` in the end of it.
        last_outcome: None if the newest run is open, or if there is none.
        next_due_ns: of that one of its tasks in Airflow that is due first.
        state: why its tasks will not run, "" if they will.
        open: breaches that have not recovered, newest first; whenever they were.
    """

    name: str
    definition: dict[str, Any]
    kept: dict[str, int] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    succeeded: int = 0
    failed: int = 0
    recent_succeeded: int = 0
    recent_failed: int = 0
    open_runs: int = 0
    last_start_ns: int | None = None
    last_outcome: str | None = None
    last_success_ns: int | None = None
    next_due_ns: int | None = None
    state: str = ""
    open: list[PromiseRow] = field(default_factory=list)
