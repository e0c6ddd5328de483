"""
The observer's loop: frames, the death of the process, and a clock; then the ending, delivered.

The same loop runs as a process (the rule) and as a thread of the task (where no process could be started).
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from batch_observability import config
from batch_observability._version import __version__
from batch_observability.channel import ACK, Frame, FrameReader
from batch_observability.export.deliver import Delivery, log_problems_to, private_folder
from batch_observability.export.signals import Batch
from batch_observability.export.target import choose
from batch_observability.sidecar import ending
from batch_observability.sidecar.observation import Observation
from batch_observability.sidecar.process import ObservedProcess

log = logging.getLogger("batch_observability.sidecar")

_RECEIVE = 1 << 16
# The parent reaps within milliseconds; before that the system does not tell what the process died of.
_REAPED_WITHIN_S = 0.5
# Descriptors are closed a moment before a process is gone; longer than this, it went on without talking to us.
_DYING_S = 2.0
_POLL_S = 0.05
_EXITS_WITHIN_S = 0.3
# A long run is looked at less often: twenty times in each doubling of its length, at most every ten intervals.
_LOOKS = 20
_SLOWEST = 10


def observe_process(sock: socket.socket, pidfd: int | None) -> None:
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
        self._socket = sock
        self._pidfd = pidfd
        self._separate = separate
        self._reader = FrameReader()
        self._start_told = False
        self._stream_ended: float | None = None

    def run(self) -> None:
        """Observe until the end."""
        first = self._first_frames()
        if not first or first[0]["t"] != "start":
            return
        start, *more = first
        self._settings = config.Settings.from_frame(start["settings"])
        sys.path.extend(path for path in start["path"] if path not in sys.path)
        if self._separate:
            log_problems_to(self._settings.state_path / "logs")
        self._observation = Observation.begin(start, self._settings.max_stages)
        self._process = ObservedProcess(start["pid"], start["usage"], self._pidfd)
        self._resume()
        choice = choose(self._settings, os.environ, airflow_tracing=start["airflow_tracing"])
        self._delivery = Delivery(self._settings, choice)
        for frame in more:
            self._observation.add(frame)
        ended_ns = self._watch()
        if self._observation.paused_ns is not None:
            self._pause()
        else:
            self._finish(ended_ns)

    def _first_frames(self) -> list[Frame]:
        """Wait for the first frame; return it with what came along, or nothing if the stream ended before it."""
        while data := self._receive():
            if frames := list(self._reader.feed(data)):
                return frames
        return []

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE)
        except ConnectionError:
            return b""

    def _watch(self) -> int:
        """Take in frames until the last one, or until the process is gone; return when that was."""
        process, observation = self._process, self._observation
        self._socket.setblocking(False)
        began = time.monotonic()
        look_at = began + self._settings.sample_interval
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            if process.pidfd is not None:
                selector.register(process.pidfd, selectors.EVENT_READ)
            while not observation.ended and observation.paused_ns is None:
                patience = max(look_at - time.monotonic(), 0)
                ready = {
                    key.fd for key, _ in selector.select(min(patience, _POLL_S) if self._stream_ended else patience)
                }
                if process.pidfd in ready or (self._stream_ended and not process.alive):
                    died_ns = time.time_ns()
                    self._drain()
                    return died_ns
                if self._socket.fileno() in ready and not self._take():
                    # Death, told a moment before the pidfd tells it; or user code that closed all descriptors.
                    selector.unregister(self._socket)
                    self._stream_ended = time.monotonic()
                if time.monotonic() >= look_at:
                    self._look()
                    interval = max(self._settings.sample_interval, (time.monotonic() - began) / _LOOKS)
                    look_at = time.monotonic() + min(interval, _SLOWEST * self._settings.sample_interval)
        process.sample()
        ended_ns = time.time_ns()
        self._let_go()
        return ended_ns

    def _let_go(self) -> None:
        """
        Leave the processor to a process that is about to exit.

        Airflow's supervisor looks once when its child closes its files, and then at the next heartbeat only: whoever
        delays the child in between holds an executor slot for seconds.
        """
        if self._process.pidfd is None or (self._observation.ended or {}).get("wait", True):
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.pidfd, selectors.EVENT_READ)
            selector.select(_EXITS_WITHIN_S)

    def _take(self) -> bool:
        """Read what is there; False at the end of the stream."""
        try:
            data = self._receive()
        except BlockingIOError:
            return True
        for frame in self._reader.feed(data):
            self._observation.add(frame)
        return bool(data)

    def _drain(self) -> None:
        # What was written before the death is still there (FACTS: it survives SIGKILL).
        while True:
            try:
                data = self._receive()
            except BlockingIOError:
                return
            if not data:
                return
            for frame in self._reader.feed(data):
                self._observation.add(frame)

    def _look(self) -> None:
        self._process.sample()
        if not self._start_told and self._separate:
            self._start_told = True
            self._send_start()

    def _send_start(self) -> None:
        """Tell that the run has begun, from a child: what it imports to do so is gone with it."""
        if self._observation.phase > 1:
            return
        start = ending.started(self._observation.context)
        if not self._separate:
            self._delivery.deliver(start)
        elif not os.fork():
            with suppress(Exception):
                self._delivery.deliver(start)
            os._exit(0)

    def _finish(self, ended_ns: int) -> None:
        observation, process = self._observation, self._process
        observation.dropped += self._reader.broken
        if observation.ended:
            usage = observation.ended["usage"]
            process.add_usage(usage["cpu_s"], usage["memory_peak"])
            end = ending.told(observation, process.pid)
        else:
            death = process.death()
            give_up = time.monotonic() + _REAPED_WITHIN_S
            while not death.signal and death.exit_code is None and time.monotonic() < give_up:
                time.sleep(0.01)
                death = process.death()
            silent = self._stream_ended is not None and time.monotonic() - self._stream_ended > _DYING_S
            end = ending.found_dead(observation, process.pid, death, ended_ns, silent=silent)
        self._add_up()
        with_start = not self._start_told and observation.phase == 1
        self._deliver(ending.finished(observation, end, with_start=with_start))

    def _deliver(self, batch: Batch) -> None:
        # Where the container ends with the task, being on its disk is not enough while sending may still succeed.
        wait = bool((self._observation.ended or {}).get("wait"))
        self._delivery.deliver(batch, on_safe=(lambda: None) if wait else self._acknowledge)
        if wait:
            self._acknowledge()

    def _acknowledge(self) -> None:
        with suppress(OSError):
            self._socket.send(ACK)

    def _add_up(self) -> None:
        self._observation.cpu_s += self._process.cpu_s
        self._observation.memory_peak = max(self._observation.memory_peak, self._process.memory_peak)

    @property
    def _paused_file(self) -> Path:
        return self._settings.state_path / "paused" / f"{self._observation.context.run_id}.json"

    def _pause(self) -> None:
        """Keep the state of a run that is deferred or rescheduled for the sidecar of its next phase."""
        if not self._start_told:
            self._send_start()
        self._add_up()
        try:
            private_folder(self._paused_file.parent)
            descriptor = os.open(self._paused_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(self._observation.to_json())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            log.warning("%s cannot be written, the run goes on without its past: %s", self._paused_file, error)
        self._acknowledge()

    def _resume(self) -> None:
        """Go on from where an earlier phase of the run paused, if it did so on this host."""
        if not self._observation.context.resumed:
            return
        try:
            self._observation.resume(self._paused_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._observation.phase = 2
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._observation.phase = 2
            log.warning("%s cannot be used: %s", self._paused_file, error)
        self._paused_file.unlink(missing_ok=True)
