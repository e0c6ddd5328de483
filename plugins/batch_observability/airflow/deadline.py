"""
Airflow's own deadlines as a third look at promises, for DAG runs that exist and hang: the scheduler sees that the time
is over, and the triggerer calls us, however full the executor is.

The triggerer runs the code of many, without Airflow's database. There only the states of tasks are asked for, by the
interface that triggers have for that; what follows is for a process of ours (judge.py), with ledger and targets.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

from batch_observability import config
from batch_observability.airflow import compat
from batch_observability.airflow.declared import model_of
from batch_observability.channel import Channel, Frame
from batch_observability.config import Settings
from batch_observability.guard import report
from batch_observability.sidecar.spawn import detach

_CALLBACK = f"{__name__}.judge_dag_run"
# Who runs what is promised has the first word, and a moment more than the second layer gives them.
_MARGIN_S = 1.0
_STATES_WITHIN_S = 30.0
_SENT_WITHIN_S = 5.0
_KEPT_FOR_S = 60.0
_MAX_WAITING = 2000
_WAITING = frozenset({None, "scheduled", "queued", "upstream_failed"})


# --- In the DAG processor --------------------------------------------------------------------------------------------


def attach(dag: Any) -> None:
    """
    Attach deadlines to a DAG that has none, for the models in it that promise to start in time.

    Not for those that only promise to finish in time: that counts from their start, so what hangs before it has broken
    nothing.
    """
    if dag.deadline:
        return
    models = (model for task in dag.tasks if (model := model_of(task)) is not None)
    promised = {model.sla.start_within for model in models if model.sla is not None}
    alerts = [_alert(within) for within in sorted(one for one in promised if isinstance(one, timedelta))]
    if alerts and None not in alerts:
        dag.deadline = alerts


def _alert(within: timedelta) -> Any:
    """Return a deadline alert; None if this Airflow has none."""
    try:
        from airflow.sdk.definitions.callback import AsyncCallback
        from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
        from airflow.serialization.decoders import decode_deadline_alert
        from airflow.serialization.encoders import encode_deadline_alert
    except ImportError:
        return None
    alert = DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, within, AsyncCallback(_CALLBACK))
    with suppress(ImportError):
        from airflow.sdk.definitions.deadline import VariableInterval  # noqa: F401  (from 3.3 on)

        # As a timedelta, Airflow 3.3 could not clear the DAG run any more (apache/airflow#70368). Seconds are what all
        # versions before it kept and all can read.
        alert.interval = within.total_seconds()
        alert.name = "batch models start in time"
    # What Airflow cannot keep is to fail here, where the DAG is not the worse for it.
    decode_deadline_alert(encode_deadline_alert(alert))
    return alert


# --- In the triggerer ------------------------------------------------------------------------------------------------


async def judge_dag_run(context: dict[str, Any]) -> str:
    """Have judged what of a DAG run still waits; say in a few words what was done. Called by Airflow."""
    try:
        return await _judge(context["dag_run"])
    except Exception as error:
        report("judge_dag_run", error)
        return "not judged"


async def _judge(dag_run: dict[str, Any]) -> str:
    settings = await asyncio.to_thread(compat.settings)
    await asyncio.sleep(settings.reconcile_after + _MARGIN_S)
    states = await asyncio.wait_for(_states(dag_run["dag_id"], dag_run["dag_run_id"]), _STATES_WITHIN_S)
    waiting = {name: state for name, state in sorted(states.items()) if state in _WAITING}
    if not waiting:
        return "no task waits"
    few = dict(list(waiting.items())[:_MAX_WAITING])
    await asyncio.to_thread(_judges.send, settings, {"t": "deadline", "dag_run": dag_run, "waiting": few})
    asyncio.get_running_loop().call_later(_KEPT_FOR_S, _judges.close_if_idle)
    return f"{len(waiting)} tasks wait"


async def _states(dag_id: str, run_id: str) -> dict[str, str | None]:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from asgiref.sync import sync_to_async

    states = await sync_to_async(RuntimeTaskInstance.get_task_states)(dag_id=dag_id, run_ids=[run_id])
    found: dict[str, str | None] = states.get(run_id, {})
    return found


class _Judges:
    """The process of ours that judges for this one: one at a time, for a thousand DAG runs may wait at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: Channel | None = None
        self._sent = 0.0

    def send(self, settings: Settings, frame: Frame) -> None:
        """Hand over a DAG run; wait a moment if many are."""
        with self._lock:
            if self._channel is None or self._channel.broken:
                self._channel = _start(settings)
            self._channel.send(frame)
            self._channel.drain(_SENT_WITHIN_S)
            self._sent = time.monotonic()

    def close_if_idle(self) -> None:
        """Let the process go if nothing was handed over for a while; it does what it has and ends."""
        with self._lock:
            if self._channel is not None and time.monotonic() - self._sent >= _KEPT_FOR_S:
                self._channel.close()
                self._channel = None


_judges = _Judges()


def _start(settings: Settings) -> Channel:
    ours, theirs = socket.socketpair()
    with theirs:
        detach("judge", theirs)
    channel = Channel(ours)
    channel.send(
        {
            "t": "judge",
            "settings": settings.as_frame(),
            "path": sys.path,
            "env": config.environment(),
            "airflow_tracing": compat.airflow_tracing(),
        }
    )
    return channel
