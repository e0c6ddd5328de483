"""
From an objective to a moment: when a run is due, when it is at risk, and by when its promise must be kept.

All moments are Unix times in nanoseconds. Nothing here asks a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from batch_observability import schema
from batch_observability.context import RunContext, metric_tags
from batch_observability.model import SLA
from batch_observability.objective import FinishBy

# They count from the due time, and so do not hold for a backfill: nobody waits for last year's run this morning.
FROM_DUE = ("start_within", "finish_by")
# They are judged by a clock; the others when the run has ended.
FROM_CLOCK = ("start_within", "finish_within", "finish_by")
_SCHEDULED, _BACKFILL = "scheduled", "backfill"
_DUE_SLOT = "due "
# Of a slot that nobody ran, nobody knows how many mapped instances it would have had.
NO_INSTANCE = -1
_MAX_KEY = 600


@dataclass(frozen=True)
class Deadline:
    """
    One promise of one run.

    Attributes:
        objective: name of the objective.
        promise: what it promises, as text.
        at_ns: it is broken after this moment.
        warn_ns: it is at risk from this moment on.
    """

    objective: str
    promise: str
    at_ns: int
    warn_ns: int


def sla_of(model: Mapping[str, Any]) -> SLA:
    """
    Return the SLA of a model as runs and ledger carry it.

    Raises:
        ModelError: if another version of this package wrote what this one cannot read.
    """
    sla = SLA(**{**model.get("objectives", {}), **model.get("terms", {})})
    sla.check(str(model.get("name", "")))
    return sla


def due_ns(run_type: str, run_after_ns: int, queued_ns: int | None = None) -> int:
    """
    Return when a DAG run is due: Airflow's `run_after` if it is scheduled or a backfill, else when it was queued.

    A run that is triggered for later is due then: Airflow queues it at once and lets it wait.
    """
    if run_type in (_SCHEDULED, _BACKFILL) or queued_ns is None:
        return run_after_ns
    return max(run_after_ns, queued_ns)


def slot_of(run_type: str, due: int, dag_run_id: str) -> str:
    """Return what tells one due run of a task from all others, also before its DAG run exists."""
    return f"{_DUE_SLOT}{due}" if run_type == _SCHEDULED else dag_run_id


def is_backfill(run_type: str) -> bool:
    """Whether a DAG run makes up for the past."""
    return run_type == _BACKFILL


@dataclass(frozen=True, kw_only=True)
class Subject:
    """
    What a promise is made for: one due run of one model, whether there is a process for it or not.

    Attributes:
        model: as runs carry it: name, version, service, owner, tier, runbook, objectives and terms as text.
        source: `airflow` or `cron`.
        resource: what runs, `<dag_id>.<task_id>` or `<job>`.
        map_index: `NO_INSTANCE` if the task is not mapped.
        slot: as `slot_of` gives it.
        clear_number: how often the DAG run was cleared.
        due_ns: when it is due, None if that is not known.
        backfill: it makes up for the past.
        run_id, trace_id, span_id: of the run, "" and 0 if there is none.
    """

    model: dict[str, Any]
    source: str
    env: str
    resource: str
    dag_id: str = ""
    task_id: str = ""
    job: str = ""
    dag_run_id: str = ""
    map_index: int = NO_INSTANCE
    slot: str = ""
    clear_number: int = 0
    due_ns: int | None = None
    backfill: bool = False
    run_id: str = ""
    trace_id: int = 0
    span_id: int = 0

    def key(self, objective: str) -> str:
        """Return the key of the cause if an objective is broken: the same whoever sees it."""
        place: tuple[str | int, ...] = (self.run_id,)
        if objective in FROM_CLOCK:
            place = (self.map_index, self.slot or self.run_id)
            # A run that was cleared has its whole time again; the wall clock has gone on.
            place += (self.clear_number,) if objective == "finish_within" else ()
        return _key(objective, self.resource, *place)

    @property
    def is_scheduled(self) -> bool:
        """Whether a schedule made it due, and nobody did."""
        return self.slot.startswith(_DUE_SLOT)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of its metrics."""
        of_source = {schema.TAG_DAG_ID: self.dag_id, schema.TAG_TASK_ID: self.task_id, schema.TAG_JOB: self.job}
        return metric_tags(self.model, self.env, self.source, of_source)


def subject_of(context: RunContext) -> Subject:
    """Return what the promises of a run are made for."""
    values = context.attributes
    return Subject(
        model=context.model,
        source=context.source,
        env=context.env,
        resource=context.resource,
        dag_id=context.tags.get(schema.TAG_DAG_ID, ""),
        task_id=context.tags.get(schema.TAG_TASK_ID, ""),
        job=context.tags.get(schema.TAG_JOB, ""),
        dag_run_id=str(values.get(schema.DAG_RUN_ID, "")),
        map_index=int(values.get(schema.MAP_INDEX, NO_INSTANCE)),
        slot=context.slot,
        clear_number=context.clear_number,
        due_ns=context.due_ns,
        backfill=context.backfill,
        run_id=context.run_id,
        trace_id=context.trace_id,
        span_id=context.span_id,
    )


def model_key(objective: str, model: str, since: int) -> str:
    """Return the key of a cause that concerns a model as a whole."""
    return _key(objective, model, since)


def _key(*parts: str | int) -> str:
    text = "|".join(map(str, parts))
    # Ids of Airflow may be 250 characters long each; what tells causes apart is at the end.
    return text if len(text) <= _MAX_KEY else f"{text[:_MAX_KEY]}|{sha256(text.encode('utf-8', 'replace')).hexdigest()}"


def deadlines(
    sla: SLA, *, due: int | None, start: int | None, backfill: bool = False, extended_s: float = 0.0
) -> dict[str, Deadline]:
    """
    Return the promises of a run that are judged by a clock, by objective.

    Args:
        sla: of its model.
        due: when the run is due, None if that is not known.
        start: when its first try began, None if it has not.
        backfill: it makes up for the past.
        extended_s: seconds that it was granted beyond what was promised.
    """
    promises = sla.objectives()
    extension = timedelta(seconds=extended_s)
    found: dict[str, Deadline] = {}

    def add(objective: str, since: int, at: int) -> None:
        warn = since + round(max(at - since, 0) * float(sla.warn_at))
        found[objective] = Deadline(objective, promises[objective], at, warn)

    holds = due is not None and (sla.judge_backfills or not backfill)
    if holds and due is not None and isinstance(sla.start_within, timedelta):
        add("start_within", due, due + nanoseconds(sla.start_within))
    if start is not None and isinstance(sla.finish_within, timedelta):
        add("finish_within", start, start + nanoseconds(sla.finish_within + extension))
    if holds and due is not None and isinstance(sla.finish_by, FinishBy):
        moment = sla.finish_by.on(datetime.fromtimestamp(due // 10**9, UTC))
        # In UTC: an aware time plus a duration is wall clock arithmetic in its own zone.
        add("finish_by", due, unix_ns(moment.astimezone(UTC) + extension))
    return found


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unix_ns(moment: datetime) -> int:
    """Return an aware time as Unix time in nanoseconds, exactly."""
    return nanoseconds(moment.astimezone(UTC) - _EPOCH)


def nanoseconds(duration: timedelta) -> int:
    """Return a duration in nanoseconds, exactly."""
    return duration // timedelta(microseconds=1) * 1000


def margin_s(at_ns: int, moment_ns: int) -> float:
    """Return the seconds that were left at a moment; negative is late."""
    return (at_ns - moment_ns) / 1e9
