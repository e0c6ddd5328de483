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
    """The helper of the process `pid`; a forked child has none. Not `wanted` where Airflow's own tracing is on."""

    channel: Channel | None = None
    pid = 0
    wanted = True
    started = -_AGAIN_AFTER_S


def start_helper() -> Channel | None:
    """Start the helper of this process, if it has none; None if it is not to have one, or died a moment ago."""
    if _Helper.pid == os.getpid():
        if _Helper.channel is not None and not _Helper.channel.broken:
            return _Helper.channel
        if not _Helper.wanted or time.monotonic() - _Helper.started < _AGAIN_AFTER_S:
            return None
        if _Helper.channel is not None:
            _Helper.channel.close()
    settings = compat.settings()
    _Helper.pid, _Helper.started = os.getpid(), time.monotonic()
    _Helper.channel, _Helper.wanted = None, settings.dag_run_spans and not compat.airflow_tracing()
    if not _Helper.wanted:
        return None
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
        }
    )
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
