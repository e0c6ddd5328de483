"""
The observer's loop: frames, the death of the process, and a clock; then the ending, delivered.

The same loop runs as a process (the rule) and as a thread of the task (where no process could be started).
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from batch_observability import config
from batch_observability._version import __version__
from batch_observability.export.deliver import Delivery
from batch_observability.export.log_file import log_problems_to
from batch_observability.export.target import choose
from batch_observability.sidecar import ending, row, telling
from batch_observability.sidecar.apart import Apart
from batch_observability.sidecar.autopsy import autopsy, hear_verdict
from batch_observability.sidecar.closing import close_run
from batch_observability.sidecar.intake import Intake
from batch_observability.sidecar.journal import Entry, Journal, tidy
from batch_observability.sidecar.memory import MemoryLimit
from batch_observability.sidecar.observation import Observation
from batch_observability.sidecar.past import recall
from batch_observability.sidecar.process import ObservedProcess
from batch_observability.sidecar.promises import promises_of
from batch_observability.sidecar.shipping import Shipping
from batch_observability.usage import birth, host_name

log = logging.getLogger("batch_observability.sidecar")

# Descriptors are closed a moment before a process is gone; longer than this, it went on without talking to us.
_OUTLIVED_S, _DYING_S = 0.2, 2.0
_POLL_S = 0.05
_EXITS_WITHIN_S = 0.3
# A long run is looked at less often: twenty times in each doubling of its length, at most every ten intervals.
_LOOKS, _SLOWEST = 20, 10
# The ledger, before an ending is on disk: who waits for that does so for two seconds.
_ASKED_WITHIN_S = 1.0
# What starts a process may move it into a control group a moment later.
_YOUNG_S, _GLANCE_S = 10.0, 0.25


def observe_process(sock: socket.socket, pidfd: int | None = None) -> None:
    """Observe as a process of its own, until the run has ended and its signals are delivered."""
    # Children of ours that send the start are reaped by nobody.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        _Observer(sock, pidfd, separate=True).run()
    except Exception:
        # Where the package was changed below a running scheduler, task and sidecar do not speak one language.
        log_problems_to(config.load(on_error=lambda _error: None).state_path / "logs")
        log.exception("a run is not told: was the package upgraded (this is %s)? Restart Airflow", __version__)


def observe_thread(sock: socket.socket) -> None:
    """Observe from a thread of the observed process."""
    try:
        _Observer(sock, None, separate=False).run()
    except Exception:
        log.warning("observing failed, the task is not affected", exc_info=True)


class _Observer:
    """One run, from its start frame to its ending."""

    def __init__(self, sock: socket.socket, pidfd: int | None, *, separate: bool) -> None:
        self._intake = Intake(sock)
        self._pidfd = pidfd
        self._separate = separate
        self._start_told = False
        self._stream_ended: float | None = None
        self._let_go_of_journal = self._replaced = False

    def run(self) -> None:
        """Observe until the end."""
        first = self._intake.first()
        if not first or first[0]["t"] != "start":
            return
        start, *more = first
        self._settings = config.Settings.from_frame(start["settings"])
        sys.path.extend(path for path in start["path"] if path not in sys.path)
        if self._separate:
            log_problems_to(self._settings.state_path / "logs")
        self._observation = Observation.begin(start, self._settings.max_stages)
        self._process = ObservedProcess(start["pid"], start["usage"], self._pidfd)
        self._memory = MemoryLimit(start["pid"])
        self._birth = start.get("birth") or birth(start["pid"])
        self._tellers = start.get("tellers", [])
        self._journal = Journal(self._settings.state_path, self._observation.context.run_id)
        choice = choose(self._settings, os.environ, airflow_tracing=start["airflow_tracing"])
        self._delivery = Delivery(self._settings, choice)
        self._apart = Apart(self._journal, self._intake, forks=self._separate)
        self._shipping = Shipping(self._observation, self._delivery, self._apart)
        ledger = self._delivery.ledger
        self._start_told = recall(self._journal, ledger, self._observation, announced=start["announced"])
        for frame in more:
            self._shipping.add(frame)
        pid, host = self._process.pid, host_name()
        self._promises = promises_of(self._observation, self._delivery, "sidecar", pid=pid, host=host)
        if late := self._promises.begin():
            self._tell_start(lambda: self._promises.tell(late))
        self._keep()
        ended_ns = self._watch()
        if self._journal.awaited:
            self._keep()
            self._let_go_of_journal = self._journal.kept
        if self._let_go_of_journal and self._is_replaced():
            return
        if self._observation.paused_ns is not None:
            self._pause()
        else:
            self._finish(ended_ns)

    def _keep(self, *, paused: bool = False) -> None:
        """Keep what is known on disk: if this process is killed, somebody else tells the run."""
        observation = self._observation
        state = observation.state()
        state["cpu_s"] += self._process.cpu_s
        state["memory_peak"] = max(observation.memory_peak, self._process.memory_peak)
        entry = Entry(state, self._process.pid, self._birth, host_name(), self._start_told, paused, self._tellers)
        self._journal.keep(entry)

    def _watch(self) -> int:
        """Take in frames until the last one, or until the process is gone; return when that was."""
        process, observation = self._process, self._observation
        began = time.monotonic()
        look_at = began + self._settings.sample_interval
        with selectors.DefaultSelector() as selector:
            selector.register(self._intake.descriptor, selectors.EVENT_READ)
            if process.pidfd is not None:
                selector.register(process.pidfd, selectors.EVENT_READ)
            while not observation.ended and observation.paused_ns is None and not self._replaced:
                patience = max(look_at - time.monotonic(), 0)
                if time.monotonic() - began < _YOUNG_S:
                    patience = min(patience, _GLANCE_S)
                patience = min(patience, self._promises.patience_s(), self._shipping.patience_s())
                patience = min(patience, _POLL_S if self._stream_ended else patience)
                ready = {key.fd for key, _ in selector.select(patience)}
                self._memory.follow()
                if process.pidfd in ready or (self._stream_ended and not process.alive):
                    died_ns = time.time_ns()
                    self._intake.drain(self._shipping.add)
                    return died_ns
                if self._intake.descriptor in ready and not self._intake.take(self._shipping.add):
                    # Death, told a moment before the pidfd tells it; or user code that closed all descriptors.
                    selector.unregister(self._intake.descriptor)
                    self._stream_ended = time.monotonic()
                if self._stream_ended and not self._let_go_of_journal and process.alive and self._outlived():
                    self._keep()
                    self._journal.release()
                    self._let_go_of_journal = self._journal.kept
                self._ring()
                self._shipping.look()
                if time.monotonic() >= look_at:
                    self._look()
                    interval = max(self._settings.sample_interval, (time.monotonic() - began) / _LOOKS)
                    look_at = time.monotonic() + min(interval, _SLOWEST * self._settings.sample_interval)
        ended_ns = time.time_ns()
        if "psutil" in sys.modules:
            process.sample()
        self._let_go()
        if process.alive:
            process.sample()
        return ended_ns

    def _is_replaced(self) -> bool:
        """Whether the run found nobody to talk to and started another sidecar: that one tells it."""
        self._replaced = self._replaced or self._journal.hand_over()
        return self._replaced

    def _outlived(self) -> bool:
        """Whether the process goes on without talking to us."""
        return time.monotonic() - (self._stream_ended or 0.0) > _OUTLIVED_S

    def _let_go(self) -> None:
        """Leave the processor to a process that is about to exit: its executor slot is held until it has."""
        if self._process.pidfd is not None and not (self._observation.ended or {}).get("wait", True):
            self._intake.linger(self._process.pidfd, _EXITS_WITHIN_S, self._shipping.add_late)
        self._intake.drain(self._shipping.add_late)

    def _look(self) -> None:
        self._process.sample()
        self._memory.look()
        if not self._start_told and self._separate:
            self._tell_start()
        if not self._let_go_of_journal:
            self._keep()
        elif not self._is_replaced():
            self._journal.release()

    def _tell_start(self, then: Callable[[], object] = lambda: None) -> None:
        """Tell that the run has begun, if nobody has; then something else of it."""
        context, told = self._observation.context, self._start_told
        self._start_told = True
        batch, change = telling.started(context), row.started(context, self._process.pid, host_name())

        def tell() -> None:
            if not told:
                self._delivery.deliver(batch, change)
            then()

        self._apart(tell)

    def _ring(self) -> None:
        """Tell of promises that are at risk or broken by now."""
        if self._promises.patience_s():
            return
        # The run may have ended in time, and this process be late to hear it.
        self._intake.drain(self._shipping.add)
        if not self._observation.ended:
            due, granted = self._promises.due()
            if due or granted:
                self._tell_start(lambda: self._promises.tell(due, granted=granted))

    def _finish(self, ended_ns: int) -> None:
        observation, process = self._observation, self._process
        observation.dropped += self._intake.broken
        self._shipping.finish()
        end = self._told() if observation.ended else None
        if end is None:
            silent = self._stream_ended is not None and time.monotonic() - self._stream_ended > _DYING_S
            end = autopsy(observation, process, self._memory, ended_ns, silent=silent)
        end = hear_verdict(self._delivery.ledger, observation, end)
        if observation.phase > 1:
            observation.close_phase(end.end_ns if observation.ended else None)
        observation.cpu_s += process.cpu_s
        observation.memory_peak = max(observation.memory_peak, process.memory_peak)
        observation.memory_limit = self._memory.limit
        host = host_name()
        # Where the container ends with the task, being on its disk is not enough while sending may still succeed.
        wait = bool((observation.ended or {}).get("wait"))

        def safe(on_disk: bool) -> None:
            if on_disk:
                self._journal.remove()
            if not wait:
                self._acknowledge()

        report = close_run(
            observation,
            end,
            self._promises,
            self._delivery,
            host=host,
            token=f"{host}-{os.getpid()}-{ended_ns}",
            closed_by="sidecar",
            with_start=not self._start_told,
            patience_s=_ASKED_WITHIN_S,
            on_safe=safe,
            apart=None if wait else self._apart,
        )
        if not self._separate and self._shipping.used:
            # There is nobody else to do it, and the task does not wait for ever.
            self._shipping.send_rest()
        if wait:
            self._acknowledge()
        self._journal.remove()
        if self._separate and self._shipping.may_send_rest(report):
            self._shipping.send_rest()
            tidy(self._settings.state_path, self._settings.spool_max_hours * 3600)

    def _told(self) -> ending.Ending:
        usage = (self._observation.ended or {})["usage"]
        self._process.add_usage(usage["cpu_s"], usage["memory_peak"])
        return ending.told(self._observation, self._process.pid)

    def _acknowledge(self) -> None:
        with suppress(OSError):
            self._intake.acknowledge()

    def _pause(self) -> None:
        """Keep the state of a run that is deferred or rescheduled for the sidecar of its next phase."""
        observation = self._observation
        self._shipping.finish()
        if not self._start_told:
            self._tell_start()
        observation.cpu_s += self._process.cpu_s
        observation.memory_peak = max(observation.memory_peak, self._process.memory_peak)
        self._process.cpu_s = 0.0
        self._keep(paused=True)
        self._journal.release()
        self._acknowledge()
        state = json.dumps(observation.state())
        change = row.paused(observation, self._process.pid, host_name(), state)
        self._delivery.record(f"{observation.context.run_id}-paused", change)
        if self._shipping.used:
            self._shipping.send_rest()
