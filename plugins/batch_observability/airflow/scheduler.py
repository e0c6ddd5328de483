"""
What Airflow's long-lived processes know: plain values, handed to a helper process. No network, no database.

The scheduler tells which DAG runs have ended and which tasks it gave up; the API server, what a person decided.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from datetime import datetime
from typing import Any

from batch_observability import config
from batch_observability.airflow import compat
from batch_observability.channel import Channel
from batch_observability.redact import redact_text
from batch_observability.schema import Outcome
from batch_observability.sidecar.spawn import detach

# A helper that died is replaced, but not in a loop.
_AGAIN_AFTER_S = 60.0
_TIMED_OUT = "timed_out"


class _Helper:
    """The helper of the process `pid`; a forked child has none."""

    channel: Channel | None = None
    pid = 0
    started = -_AGAIN_AFTER_S


def start_helper() -> Channel | None:
    """Start the helper of this process, if it has none; None if the last one died a moment ago."""
    if _Helper.pid == os.getpid():
        if _Helper.channel is not None and not _Helper.channel.broken:
            return _Helper.channel
        if time.monotonic() - _Helper.started < _AGAIN_AFTER_S:
            return None
        if _Helper.channel is not None:
            _Helper.channel.close()
    settings = compat.settings()
    _Helper.pid, _Helper.started, _Helper.channel = os.getpid(), time.monotonic(), None
    tracing = compat.airflow_tracing()
    ours, theirs = socket.socketpair()
    with theirs:
        detach("helper", theirs)
    channel = _Helper.channel = Channel(ours)
    channel.send(
        {
            "t": "helper",
            "settings": settings.as_frame(),
            "database": compat.database_url(),
            "path": sys.path,
            "env": config.environment(),
            "hosts": compat.host_names(),
            "airflow_tracing": tracing,
            # The second layer is the scheduler's: one for each is enough.
            "reconciles": compat.is_scheduler(),
        }
    )
    return channel


def dag_run_ended(dag_run: Any, message: str = "") -> None:
    """Hand over what Airflow has loaded of a DAG run that has ended."""
    channel = start_helper()
    if channel is None:
        return
    if message == _TIMED_OUT:
        # Its tasks are still running: Airflow stops them at their next heartbeat.
        place = {"dag_id": dag_run.dag_id, "dag_run_id": dag_run.run_id}
        _send_verdict(channel, Outcome.TIMED_OUT, "the DAG run took longer than its dagrun_timeout", **place)
    carrier = dag_run.context_carrier or {}
    channel.send(
        {
            "t": "dag_run",
            "dag_id": dag_run.dag_id,
            "run_id": dag_run.run_id,
            "state": _value(dag_run.state),
            "run_type": _value(dag_run.run_type),
            "traceparent": carrier.get("traceparent"),
            "begin_ns": _ns(dag_run.queued_at) or _ns(dag_run.start_date),
            "end_ns": _ns(dag_run.end_date) or time.time_ns(),
        }
    )


def set_by_a_person(task_instance: Any, state: str) -> None:
    """Hand over that somebody has set the state of a task: if it runs, Airflow will stop it."""
    channel = start_helper()
    if channel is not None:
        _send_verdict(channel, Outcome.CANCELLED, f"marked {state} by a user", run_id=str(task_instance.id))


def given_up(task_instance: Any, reason: str) -> None:
    """Hand over that the scheduler has given a running task up: no heartbeat, or its executor lost it."""
    channel = start_helper()
    if channel is not None:
        outcome = Outcome.LOST if "heartbeat" in reason.lower() else Outcome.KILLED
        _send_verdict(channel, outcome, " ".join(reason.split())[:1000], run_id=str(task_instance.id))


def _send_verdict(channel: Channel, outcome: Outcome, reason: str, **of: str) -> None:
    channel.send(
        {"t": "verdict", "outcome": outcome.value, "reason": redact_text(reason), "time_ns": time.time_ns(), **of}
    )


def _value(state: Any) -> str:
    return str(getattr(state, "value", state))


def _ns(moment: datetime | None) -> int | None:
    return int(moment.timestamp() * 1e9) if moment else None
