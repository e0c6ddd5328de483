"""
The helper process of a scheduler or API server: what these must not wait for, as long as they live.

It turns DAG runs that have ended into spans, sends what waits in the spool of this host, and closes the runs that
nobody has told the end of.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from batch_observability.airflow import registry
from batch_observability.airflow.attempt import SOURCE
from batch_observability.airflow.dag_run_spans import dag_run_signals
from batch_observability.airflow.expected import expected
from batch_observability.airflow.reconcile import Reconciler
from batch_observability.airflow.records import Records
from batch_observability.airflow.registry import Declared
from batch_observability.channel import Frame, FrameReader
from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery
from batch_observability.export.log_file import log_problems_to
from batch_observability.export.replay import replay
from batch_observability.export.target import choose
from batch_observability.ledger import records as ledger
from batch_observability.ledger.records import Verdict
from batch_observability.sla.watch import Expected, Watcher

log = logging.getLogger("batch_observability.helper")

_REPLAY_S = 30.0
_TICK = "tick"
# DAG runs that ended before that are looked at for promises that go on only.
_LOOK_BACK = timedelta(days=1)
# To count all runs of a window takes a second where there are a million. What breaks a rate is told by the run itself.
_RATES_S = 300.0
# A run that has just begun may not be in the ledger yet when something is said of its DAG run.
_AGAIN_AFTER_S = 3.0


def help_scheduler(sock: socket.socket) -> None:
    """Serve one scheduler or API server until it is gone."""
    reader = FrameReader()
    frames = _frames(sock, reader)
    begin = next((frame for frame in frames if frame["t"] != _TICK), None)
    if begin is None or begin["t"] != "helper":
        return
    sys.path.extend(path for path in begin["path"] if path not in sys.path)
    settings = Settings.from_frame(begin["settings"])
    log_problems_to(settings.state_path / "logs")
    helper = _Helper(begin, settings)
    for frame in frames:
        helper.take(frame)
    helper.finish()


def _frames(sock: socket.socket, reader: FrameReader) -> Iterator[Frame]:
    """Yield frames, and one of our own each second, so that there is time for what is due."""
    while True:
        if not select.select([sock], [], [], 1.0)[0]:
            yield {"t": _TICK}
            continue
        try:
            data = sock.recv(1 << 16)
        except ConnectionError:
            return
        if not data:
            return
        yield from reader.feed(data)


class _Helper:
    def __init__(self, begin: Frame, settings: Settings) -> None:
        self._settings = settings
        self._env = begin["env"]
        self._reconciles = begin["reconciles"]
        self._records = Records(begin["database"])
        self._spans = settings.dag_run_spans and not begin["airflow_tracing"]
        # Asked once and kept: a backend that comes later is found by the next helper. What fails is tried again with
        # the spool.
        choice = choose(settings, os.environ, airflow_tracing=begin["airflow_tracing"])
        self._delivery = Delivery(settings, choice, patience_s=0)
        self._reconciler = Reconciler(
            settings, self._delivery, self._records, begin["hosts"], self._env, task_spans=self._spans
        )
        self._watcher = Watcher(settings, self._delivery, "helper", self._env, self._expected)
        self._next_look = self._next_check = self._next_rates = time.monotonic()
        # DAG runs that have ended, and when to look at them.
        self._ended: list[tuple[float, tuple[str, str]]] = []
        self._verdicts: list[tuple[float, Verdict]] = []

    def take(self, frame: Frame) -> None:
        """Do what a frame asks for, and what is due."""
        try:
            if frame["t"] == "dag_run":
                self._dag_run_ended(frame)
            elif frame["t"] == "verdict":
                self._hear(Verdict(**{key: value for key, value in frame.items() if key != "t"}))
            self._do_what_is_due()
        except Exception:
            log.warning("%s of %s is not told", frame["t"], frame.get("dag_id") or frame.get("run_id"), exc_info=True)

    def finish(self) -> None:
        """Say what was to be said a second time."""
        for _, verdict in self._verdicts:
            self._record(verdict)

    def _dag_run_ended(self, frame: Frame) -> None:
        rows = self._records.tries(frame["dag_id"], frame["run_id"])
        if self._spans:
            self._delivery.deliver(dag_run_signals(frame, rows, self._settings.airflow_service, self._env))
        if self._reconciles:
            # Its sidecars are to have the first word.
            self._ended.append((time.monotonic() + self._settings.reconcile_after, (frame["dag_id"], frame["run_id"])))

    def _hear(self, verdict: Verdict) -> None:
        self._record(verdict)
        if not verdict.run_id:
            self._verdicts.append((time.monotonic() + _AGAIN_AFTER_S, verdict))

    def _record(self, verdict: Verdict) -> None:
        self._delivery.record(f"verdict-{verdict.run_id or verdict.dag_run_id}", verdict)

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        for due, verdict in [one for one in self._verdicts if one[0] <= now]:
            self._verdicts.remove((due, verdict))
            self._record(verdict)
        ended = [dag_run for due, dag_run in self._ended if due <= now]
        if self._reconciles and (ended or self._next_look <= now):
            self._next_look = now + self._settings.reconcile_interval
            replay(self._delivery, _REPLAY_S)
            answered = self._reconciler.run(ended) is not None
            later = [one for one in self._ended if one[0] > now]
            self._ended = later if answered else [*later, *((self._next_look, dag_run) for dag_run in ended)]
        if self._reconciles and self._next_check <= now:
            self._next_check = now + self._settings.check_interval
            self._watcher.look(rates=self._next_rates <= now)
            self._next_rates = now + _RATES_S if self._next_rates <= now else self._next_rates

    def _expected(self) -> tuple[list[Expected], list[ledger.Declared]] | None:
        # What was written down on another host is known once it has run.
        ran = {task: Declared(*one) for task, one in self._delivery.ledger.known_tasks(SOURCE).items()}
        models = {**ran, **registry.declared(self._settings.state_path)}
        now = datetime.now(UTC)
        return expected(self._records, models, self._env, now, now - _LOOK_BACK)
