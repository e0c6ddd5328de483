"""
A promise that is at risk, broken or kept again, as signals and as a change of the ledger: told once, by who claims it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from batch_observability import schema
from batch_observability.export.deliver import Delivery
from batch_observability.export.signals import Batch, Event, LogRecord, Point
from batch_observability.ids import hex_trace_id
from batch_observability.ledger.records import Extended, Promised, Recovered
from batch_observability.objective import format_duration
from batch_observability.sla.promises import FROM_DUE, NO_INSTANCE, Subject
from batch_observability.usage import host_name

AT_RISK, BROKEN = "at_risk", "breached"
_LEVELS = {AT_RISK: "warning", BROKEN: "error"}
_EVENTS = {AT_RISK: schema.AT_RISK_EVENT, BROKEN: schema.BREACHED_EVENT}


@dataclass(frozen=True, kw_only=True)
class Cause:
    """
    Why a promise is at risk or broken.

    Attributes:
        key: the same whoever sees it.
        objective, promise: name, and what it promises as text.
        moment_ns: since when, as Unix time in nanoseconds.
        deadline_ns: by when it is to be kept, None if it is not judged by a clock.
        reason: what is known, in a few words.
        margin_s: seconds that were left in the end, negative if it is late; None while that is open.
        missed: nobody has begun what was due.
        episode: of an objective of the whole model, of which one breach is open at a time; else "".
    """

    key: str
    objective: str
    promise: str
    moment_ns: int
    deadline_ns: int | None = None
    reason: str = ""
    margin_s: float | None = None
    missed: bool = False
    episode: str = ""


class Teller:
    """
    Tells what becomes of promises.

    Args:
        delivery: where to.
        told_by: who sees it: `sidecar`, `helper`, `check` or `deadline`.
        must_claim: what the ledger cannot be asked about is left for later.
    """

    def __init__(self, delivery: Delivery, told_by: str, *, must_claim: bool) -> None:
        self._delivery = delivery
        self._told_by = told_by
        self._must_claim = must_claim
        # Why the ledger could not be asked, "" if it always could.
        self.refused = ""
        self._said = 0

    def promised(self, subject: Subject, state: str, cause: Cause) -> bool:
        """Tell that a promise is at risk or broken; return whether it was this that told it."""
        change = Promised(
            key=cause.key,
            state=state,
            objective=cause.objective,
            promise=cause.promise,
            **_place(subject),
            run_id=subject.run_id,
            due_ns=subject.due_ns,
            deadline_ns=cause.deadline_ns,
            time_ns=cause.moment_ns,
            told_by=self._told_by,
            token=self._token(),
            reason=cause.reason,
            missed=cause.missed,
            margin_s=cause.margin_s,
            episode=cause.episode,
            # Who makes a run due by hand knows of it.
            counts_from_due=cause.objective in FROM_DUE and subject.is_scheduled,
            clear_number=subject.clear_number if cause.objective == "finish_within" else None,
        )
        tags = {**subject.tags, schema.TAG_OBJECTIVE: cause.objective}
        points = [Point(schema.SLA_AT_RISK, 1, tags)]
        events: tuple[Event, ...] = ()
        if state == BROKEN:
            points = [Point(schema.SLA_BREACHED, 1, tags)]
            if not cause.episode:
                # Those of a model as a whole are checked with each run of it.
                points.append(Point(schema.SLA_CHECKED, 1, tags))
            events = (_event(subject, cause.objective, _broken_title(subject, cause), _broken_text(subject, cause)),)
            if cause.missed:
                points.append(Point(schema.RUN_MISSED, 1, subject.tags))
        record = _record(subject, _LEVELS[state], _EVENTS[state], cause)
        batch = self._batch(subject, f"{state}-{cause.key}", tuple(points), (record,), events)
        return self._deliver(batch, change)

    def recovered(self, subject: Subject, cause: Cause, *, before_ns: int, own: bool) -> bool:
        """
        Tell that a promise is kept again: by a run that came later than the breach or, late, by the run that broke it.

        Args:
            subject: what keeps it.
            cause: the objective, and what is known now.
            before_ns: breaches from before this moment are over.
            own: that of the same cause is over too.
        """
        change = Recovered(
            model_name=subject.model["name"],
            objective=cause.objective,
            resource="" if cause.episode else subject.resource,
            before_ns=before_ns,
            key=cause.key if own else "",
            time_ns=cause.moment_ns,
            token=self._token(),
            reason=cause.reason,
        )
        title = f"Batch model {subject.model['name']} keeps {cause.objective} {cause.promise} again"
        text = "\n".join([f"{subject.resource or subject.model['name']}: {cause.reason}.", *_whose(subject)])
        event = _event(subject, cause.objective, title, text, "success")
        record = _record(subject, "info", schema.RECOVERED_EVENT, cause)
        batch = self._batch(subject, f"recovered-{cause.key}", (), (record,), (event,))
        return self._deliver(batch, change)

    def _deliver(self, batch: Batch, change: Promised | Recovered) -> bool:
        report = self._delivery.deliver(batch, change, must_claim=self._must_claim)
        self.refused = self.refused or report.ledger
        return report.told

    def extended(self, subject: Subject, change: Extended, reason: str) -> None:
        """Tell that a run was granted time."""
        words = f"{format_duration(timedelta(seconds=change.total_s))} in all{f': {reason}' if reason else ''}"
        cause = Cause(key=subject.run_id, objective="", promise="", moment_ns=time.time_ns(), reason=words)
        record = _record(subject, "warning", schema.EXTENDED_EVENT, cause)
        self._delivery.deliver(self._batch(subject, f"extended-{subject.run_id}", (), (record,), ()), change)

    def _token(self) -> str:
        self._said += 1
        return f"{host_name()}-{os.getpid()}-{time.time_ns()}-{self._said}"

    @staticmethod
    def _batch(subject: Subject, name: str, points: Any, logs: Any, events: Any) -> Batch:
        model = subject.model
        short = f"{name.partition('|')[0]}-{sha256(name.encode('utf-8', 'replace')).hexdigest()[:16]}"
        return Batch(model["service"], model["version"], subject.env, short, points=points, logs=logs, events=events)


def _place(subject: Subject) -> dict[str, Any]:
    names = ("model", "source", "env", "resource", "dag_id", "task_id", "job", "dag_run_id", "map_index")
    return {name: getattr(subject, name) for name in names}


def _broken_title(subject: Subject, cause: Cause) -> str:
    if cause.missed:
        return f"Batch model {subject.model['name']} was not run: {cause.objective} {cause.promise} is broken"
    return f"Batch model {subject.model['name']} broke {cause.objective} {cause.promise}"


def _broken_text(subject: Subject, cause: Cause) -> str:
    lines = [f"{subject.resource or subject.model['name']}: {cause.reason or 'its time is over'}."]
    if subject.due_ns is not None:
        lines.append(f"Due {clock(subject.due_ns)}.")
    if cause.deadline_ns is not None:
        lines.append(f"Promised for {clock(cause.deadline_ns)}.")
    return "\n".join([*lines, *_whose(subject)])


def _whose(subject: Subject) -> list[str]:
    lines = []
    if subject.trace_id:
        lines.append(f"Trace {hex_trace_id(subject.trace_id)}.")
    if subject.model.get("owner"):
        lines.append(f"Owner: {subject.model['owner']}.")
    if subject.model.get("runbook"):
        lines.append(f"Runbook: {subject.model['runbook']}")
    return lines


def _event(subject: Subject, objective: str, title: str, text: str, alert_type: str = "error") -> Event:
    return Event(
        title=title,
        text=text,
        alert_type=alert_type,
        aggregation_key=f"{subject.model['name']}:{objective}",
        tags={**subject.tags, schema.TAG_OBJECTIVE: objective},
        time_ns=time.time_ns(),
    )


def _record(subject: Subject, level: str, event: str, cause: Cause) -> LogRecord:
    model = subject.model
    fields: dict[str, Any] = {
        schema.LOG_SERVICE: model["service"],
        schema.LOG_ENV: subject.env,
        schema.LOG_VERSION: model["version"],
        schema.LOG_MODEL_NAME: model["name"],
        schema.LOG_RUN_ID: subject.run_id,
        schema.DAG_ID: subject.dag_id,
        schema.TASK_ID: subject.task_id,
        schema.DAG_RUN_ID: subject.dag_run_id,
        schema.LOG_OBJECTIVE: cause.objective,
        schema.LOG_PROMISE: cause.promise,
        schema.LOG_REASON: cause.reason,
        schema.LOG_DUE: clock(subject.due_ns) if subject.due_ns is not None else "",
        schema.LOG_DEADLINE: clock(cause.deadline_ns) if cause.deadline_ns is not None else "",
    }
    if subject.map_index != NO_INSTANCE:
        fields[schema.MAP_INDEX] = subject.map_index
    if subject.trace_id:
        fields |= {schema.LOG_TRACE_ID: hex_trace_id(subject.trace_id), schema.LOG_SPAN_ID: str(subject.span_id)}
    known = {name: value for name, value in fields.items() if value != ""}
    return LogRecord(time.time_ns(), level, event, subject.trace_id, subject.span_id, known)


def clock(moment_ns: int) -> str:
    """Return a moment as RFC 3339, in UTC, to the second."""
    return f"{datetime.fromtimestamp(moment_ns // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"
