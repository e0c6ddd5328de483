"""
The observer of a command that `batchobs run` has started: a process beside it that tells its end, whoever dies.

`batchobs run` says what it knows on a pipe. If that ends without an ending, `batchobs run` was killed: then the
command, which goes on, is this process's to wait for. The standard observer tells what is told here, as of all runs.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from batch_observability.channel import Channel
from batch_observability.config import Settings
from batch_observability.context import RunContext, context_of
from batch_observability.cron.attempt import due_of, settings_of
from batch_observability.cron.capture import TAIL_BYTES
from batch_observability.cron.gateway import Gateway, sweep
from batch_observability.cron.job_log import JobLog
from batch_observability.cron.left_open import close_left_open
from batch_observability.cron.orphan import Orphan
from batch_observability.cron.output import Follower, Kept, Piece
from batch_observability.cron.schedule import ScheduleError
from batch_observability.cron.telling import OUTPUT, RUNS
from batch_observability.cron.verdict import Facts, ended_by, ended_unseen
from batch_observability.export.log_file import log_problems_to
from batch_observability.guard import guarded
from batch_observability.sidecar.loop import observe_process

_CHUNK = 1 << 16
_LOOKS_EACH_S = 0.5
_DRAIN_S = 5.0


def witness(descriptors: Sequence[int]) -> None:
    """Observe a command, as `batchobs run` says on the first of the descriptors; close what others left open."""
    told = _Told(descriptors[0])
    start = told.wait_for("context")
    if start is None:
        return
    settings = replace(settings_of(), state_dir=start["state"])
    log_problems_to(settings.state_path / "logs")
    _Witness(start, told, settings).run()
    close_left_open(settings)


class _Told:
    """
    What `batchobs run` says: JSON, one object a line, and after the ending what the command wrote last.

    Attributes:
        over: nobody will say any more.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._data = b""
        self._said: dict[str, Any] = {}
        self.over = False

    def read(self) -> None:
        """Take in what is there, or wait for it."""
        piece = os.read(self.descriptor, _CHUNK)
        self._data += piece
        self.over = not piece

    def wait_for(self, key: str) -> dict[str, Any] | None:
        """Return the first line that has a key; None if none comes."""
        while True:
            while "end_ns" not in self._said and b"\n" in self._data:
                line, _, self._data = self._data.partition(b"\n")
                self._said |= json.loads(line)
            if key in self._said or self.over:
                return self._said if key in self._said else None
            self.read()

    @property
    def ending(self) -> Facts | None:
        """How the command ended, if that was said."""
        said = self.wait_for("end_ns") if self.over else None
        return None if said is None else Facts(said, self._data)


class _Witness:
    """One run, from its start to its end."""

    def __init__(self, start: dict[str, Any], told: _Told, settings: Settings) -> None:
        self._start = start
        self._told = told
        self._settings = settings
        self._context = self._due(context_of(start["context"]))
        ours, self._theirs = socket.socketpair()
        self._channel = Channel(ours)
        most = start["capture_bytes"]
        self._kept = Kept(f"{settings.state_dir}/{RUNS}/{self._context.run_id}{OUTPUT}")
        self._followers = [Follower(number, stream, begins, most) for number, stream, begins in start["followed"]]
        self._log = JobLog(self._context, settings, self._channel if settings.ship_logs else None)
        self._gateway: Gateway | None = None
        self._orphan: Orphan | None = None

    def _due(self, context: RunContext) -> RunContext:
        """Return the context with when it was due."""
        state, schedule, zone = self._settings.state_path, self._start["schedule"], self._start["timezone"]
        try:
            due = due_of(state, context.model, schedule, zone, start_ns=context.start_ns)
        except ScheduleError:
            # It could be read when the job was made ready.
            return context
        return replace(context, model=due.model, due_ns=due.due_ns, slot=due.slot, declared_ns=due.since_ns)

    def run(self) -> None:
        """Observe until the end is told."""
        # What it runs is said a moment after it runs; a job that is skipped runs nothing.
        said = self._told.wait_for("command")
        pid, born = said["command"] if said else self._start["parent"]
        self._orphan = Orphan(pid, born, self._start["pipes"]) if said else None
        self._channel.send(
            {
                "t": "start",
                "ts": self._context.start_ns,
                "phase_ns": self._context.start_ns,
                "pid": pid,
                "birth": born,
                "tellers": [self._start["parent"]],
                "usage": {"cpu_s": 0.0, "memory_peak": 0},
                "context": asdict(self._context),
                "settings": self._settings.as_frame(),
                "airflow_tracing": False,
                "announced": False,
                "path": self._start["path"],
            }
        )
        if self._start["listener"] is not None:
            self._gateway = Gateway(self._start["listener"], self._start["channel"], self._channel)
            sweep(self._gateway.path.parent)
        attending = threading.Thread(target=self._attend, name="batchobs-attend", daemon=True)
        attending.start()
        observe_process(self._theirs)

    @guarded(None)
    def _attend(self) -> None:
        """Wait for the end, and see to it that it is told."""
        try:
            self._wait()
        except Exception:
            # The standard observer is to find out itself.
            self._channel.close()
            raise

    def _wait(self) -> None:
        """Wait for the end, and hand on what is written until then."""
        while not self._told.over:
            if select.select([self._told.descriptor], [], [], _LOOKS_EACH_S)[0]:
                self._told.read()
            self._take_output()
        facts = self._told.ending
        if facts is None:
            self._go_on_alone()
        else:
            self._take_output(facts)
            self._log.end(facts.missed + sum(one.missed for one in self._followers))
            self._end(ended_by(facts))

    @guarded(None)
    def _take_output(self, facts: Facts | None = None) -> None:
        for piece in self._kept.pieces():
            self._log.take(piece)
        sizes = facts.sizes if facts else []
        for number, follower in enumerate(self._followers):
            follower.look(self._hear, sizes[number] if number < len(sizes) else None)

    def _hear(self, stream: str, data: bytes) -> None:
        self._log.take(Piece(stream, time.time_ns(), data, gap=False))

    def _go_on_alone(self) -> None:
        """Wait for a command whose parent was killed, and tell what can be known of its end."""
        tail = self._kept.tail

        def hear(stream: str, data: bytes) -> None:
            nonlocal tail
            tail = (tail + data)[-TAIL_BYTES:]
            self._hear(stream, data)

        if self._orphan is None:
            self._end(ended_unseen("batchobs run was killed when it was about to start its command"))
            return
        if self._orphan.alive:
            text = "batchobs run was killed; the command goes on"
            self._channel.send({"t": "event", "ts": time.time_ns(), "text": text, "stage": 0})
        status = self._orphan.wait(hear)
        end_ns = time.time_ns()
        self._take_output()
        self._log.end(sum(one.missed for one in self._followers))
        if status is None:
            why = "batchobs run was killed, and then its command ended: this system does not tell how"
            self._end(ended_unseen(why, tail))
        else:
            self._end(ended_by(Facts({"end_ns": end_ns, "status": status}, tail)))

    def _end(self, frame: dict[str, Any]) -> None:
        if self._gateway is not None:
            self._gateway.close()
        if event := frame.pop("event", ""):
            self._channel.send({"t": "event", "ts": frame["ts"], "text": event, "stage": 0})
        waits = self._start["waits"]
        self._channel.send({"t": "end", "wait": waits, "dropped": self._channel.dropped, **frame})
        self._channel.drain(_DRAIN_S)
        if waits and self._channel.wait_acknowledged(self._settings.wait_timeout):
            with suppress(OSError):
                os.write(self._start["answers"], b"told\n")
