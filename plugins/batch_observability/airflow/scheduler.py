"""
The scheduler's side: plain values of a DAG run that has ended, handed to a helper process. No network, no database.
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
from batch_observability.sidecar.spawn import detach

# A helper that died is replaced, but not in a loop.
_AGAIN_AFTER_S = 60.0


class _Helper:
    """The helper of this process; `pid` is whose it is, for a forked child has none."""

    channel: Channel | None = None
    pid = 0
    started = -_AGAIN_AFTER_S


def start_helper() -> Channel | None:
    """Start the helper of this process, if it has none; None if one could not be started a moment ago."""
    alive = _Helper.channel is not None and not _Helper.channel.broken and _Helper.pid == os.getpid()
    if alive:
        return _Helper.channel
    if _Helper.pid == os.getpid() and time.monotonic() - _Helper.started < _AGAIN_AFTER_S:
        return None
    if not compat.settings().dag_run_spans or compat.airflow_tracing():
        return None
    _Helper.pid, _Helper.started = os.getpid(), time.monotonic()
    ours, theirs = socket.socketpair()
    with theirs:
        detach("helper", theirs)
    channel = Channel(ours)
    channel.send(
        {
            "t": "helper",
            "settings": compat.settings().as_frame(),
            "database": compat.database_url(),
            "path": sys.path,
            "env": config.environment(),
        }
    )
    _Helper.channel = channel
    return channel


def dag_run_ended(dag_run: Any) -> None:
    """Hand over what Airflow has loaded of a DAG run that has ended."""
    channel = start_helper()
    if channel is None:
        return
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


def _value(state: Any) -> str:
    return str(getattr(state, "value", state))


def _ns(moment: datetime | None) -> int | None:
    return int(moment.timestamp() * 1e9) if moment else None
