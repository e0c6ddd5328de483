"""
A process that is observed, without Airflow: `python -m tests.sidecar.observed <scenario> <options as JSON>`.

It begins and ends a run as the Airflow adapter does, and in between dies, forks, waits or closes descriptors as user
code may. What it has to tell goes line by line, as JSON, to the file that the option `told` names.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch_observability import config, current_run
from batch_observability.channel import Channel
from batch_observability.logs.shipping import ship
from batch_observability.run import Run, RunContext, set_current_run
from batch_observability.sidecar import spawn
from batch_observability.usage import process_usage

CHILD_BYTES = 150_000_000
BUSY_BEFORE_S, BUSY_DURING_S = 0.6, 0.2
_HOLDS = f"import sys; block = bytearray(b'x' * {CHILD_BYTES}); print('ready', flush=True); sys.stdin.read()"


class Observed:
    """The run of this process."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._settings = config.load()
        self._context: RunContext | None = None
        self.channel: Channel | None = None
        self.observer: spawn.Observer | None = None

    @property
    def separate(self) -> bool:
        """Whether the observer is a process of its own, as far as is known by now."""
        return self.observer is not None and self.observer.separate

    def tell(self, **values: Any) -> None:
        """Tell the test something that it cannot see."""
        with Path(self._options["told"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def begin(self) -> Run:
        """Begin to be observed."""
        service = self._options["service"]
        self._context = context = RunContext(
            run_id=service,
            source="cron",
            resource="observed",
            model={
                "name": "observed",
                "version": "1",
                "service": service,
                "owner": "",
                "tier": "3",
                "objectives": self._options.get("objectives", {}),
                "terms": self._options.get("terms", {}),
            },
            tags={"job": "observed"},
            due_ns=self._options.get("due_ns"),
            trace_id=self._options["trace_id"],
            span_id=self._options["trace_id"] >> 64,
            resumed=self._options.get("resumed", False),
            env=config.environment(),
        )
        began = time.monotonic()
        self.observer = spawn.start_observer(context, self._settings.as_frame())
        self.channel = self.observer.channel
        self.tell(begin_s=time.monotonic() - began, separate=self.separate)
        run = Run(context, self.channel, reobserve=self._reobserve)
        set_current_run(run)
        return run

    def _reobserve(self) -> Channel:
        self.observer = spawn.start_observer(self._context, self._settings.as_frame())
        self.channel = self.observer.channel
        return self.channel

    def end(self, outcome: str = "success", error: BaseException | None = None) -> None:
        """End the run with an outcome."""
        self._close("end", outcome=outcome, error=current_run().describe(error), wait=not self.separate)

    def pause(self) -> None:
        """Leave the run for another process to go on with."""
        self._close("pause")
        self.channel.wait_acknowledged(20)

    def _close(self, kind: str, **values: Any) -> None:
        began = time.monotonic()
        current_run().tell(kind, usage=process_usage(), dropped=self.channel.dropped, **values)
        channel = self.channel
        channel.drain(0.01)
        self.tell(end_s=time.monotonic() - began)
        if not self.separate:
            self.tell(acknowledged=channel.wait_acknowledged(30))


def succeed(observed: Observed) -> None:
    with observed.begin().stage("load"):
        current_run().rows(read=100, written=90, rejected=10)
        current_run().measure("mae", 1.5, "minute")
    observed.end()


def fail(observed: Observed) -> None:
    try:
        with observed.begin().stage("load"):
            current_run().rows(read=100)
            raise ValueError("no such airport")
    except ValueError as error:
        observed.end("failed", error)
    sys.exit(1)


def die(observed: Observed, how: Callable[[], Any]) -> None:
    run = observed.begin()
    run.rows(read=100)
    with run.stage("load"), run.stage("parse"):
        run.rows(read=11)
        how()
        # SIGTERM comes a moment after it was sent.
        signal.pause()


def kill_itself(number: int) -> None:
    os.kill(os.getpid(), number)


def die_at_once(observed: Observed) -> None:
    observed.begin()
    kill_itself(signal.SIGKILL)


def die_at_once_with_all_of_its_group(observed: Observed) -> None:
    observed.begin()
    os.killpg(0, signal.SIGTERM)
    signal.pause()


def close_all_descriptors(observed: Observed) -> None:
    run = observed.begin()
    run.rows(read=111)
    with run.stage("load"), run.stage("parse"):
        os.closerange(3, 4096)
        # Without ever leaving the stage, or another word: the process ends as if it had gone well.
        os._exit(0)


def open_sockets_where_ours_were(observed: Observed) -> None:
    run = observed.begin()
    os.closerange(3, 4096)
    pairs = [socket.socketpair() for _ in range(8)]
    run.rows(read=1000)
    run.event("this must not go to anybody else")
    got = b""
    for pair in pairs:
        for end in pair:
            end.setblocking(False)
            try:
                got += end.recv(4096)
            except BlockingIOError:
                continue
    observed.tell(got=got.decode())


def leave_a_child_behind(observed: Observed) -> None:
    run = observed.begin()
    run.rows(read=100)
    receiver, sender = os.pipe()
    with run.stage("load"), run.stage("parse"):
        if os.fork() == 0:
            current_run().rows(read=11)
            os.write(sender, b"x")
            sys.stdin.read()
            os._exit(0)
        os.read(receiver, 1)
        kill_itself(signal.SIGKILL)


def hold(observed: Observed) -> None:
    """Have descriptors that children inherit, and wait for the test."""
    with socket.create_server(("127.0.0.1", 0)) as listening, Path(__file__).open("rb") as file:
        for held in (listening, file):
            os.set_inheritable(held.fileno(), True)
        observed.begin()
        observed.tell(held=[listening.fileno(), file.fileno()])
        sys.stdin.read()
        observed.end()


def wait_for_children(observed: Observed) -> None:
    """Wait for all children, as user code may: first those that there are, then until there are none."""
    observed.begin()
    observed.tell(ready=True)
    sys.stdin.read()
    own = os.fork()
    if own == 0:
        os._exit(0)
    reaped, began = [], time.monotonic()
    try:
        while True:
            reaped.append(os.wait()[0])
    except ChildProcessError:
        observed.tell(own=own, reaped=reaped, wait_s=time.monotonic() - began)
    observed.end()


def have_a_large_child(observed: Observed) -> None:
    observed.begin()
    child = subprocess.Popen([sys.executable, "-c", _HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    observed.end()
    # The observer looks a last time before it acknowledges the end.
    observed.channel.wait_acknowledged(30)
    child.communicate()


def be_busy(observed: Observed) -> None:
    def work(seconds: float) -> None:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    work(BUSY_BEFORE_S)
    observed.begin()
    work(BUSY_DURING_S)
    observed.end()


def pause(observed: Observed) -> None:
    with observed.begin().stage("ask"):
        current_run().rows(read=5)
    observed.pause()


def go_on(observed: Observed) -> None:
    with observed.begin().stage("take"):
        current_run().rows(read=7, written=3)
    observed.end()


def step(observed: Observed) -> None:
    """Do a stage for each line of stdin, in a stage around all of them."""
    with observed.begin().stage("all"):
        for number, _ in enumerate(sys.stdin, 1):
            with current_run().stage(f"step {number}"):
                current_run().rows(read=1)
            observed.tell(step=number)
    observed.end()


def close_all_and_go_on(observed: Observed) -> None:
    """Close all descriptors, as a program may that makes itself a daemon, and go on with the run."""
    run = observed.begin()
    run.rows(read=100)
    with run.stage("load"):
        sys.stdin.readline()
        os.closerange(3, 4096)
    with run.stage("score"):
        run.rows(read=11)
        observed.tell(went_on=True)
        sys.stdin.readline()
    observed.end()


def hold_the_interpreter(observed: Observed) -> None:
    """Be in native code that keeps the interpreter's lock, for as long as told on stdin."""
    with observed.begin().stage("native"):
        seconds = float(sys.stdin.readline())
        observed.tell(held=True)
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    observed.end()


def extend(observed: Observed) -> None:
    """Grant itself what is told on stdin, line by line."""
    run = observed.begin()
    for line in sys.stdin:
        run.extend_sla(line.strip(), reason="a large month")
        observed.tell(extended=line.strip())
    observed.end()


def log_lines(observed: Observed) -> None:
    """Ship as many lines as each line of stdin says, in a stage."""
    run, shipped = observed.begin(), 0
    with run.stage("score") as stage:
        for text in sys.stdin:
            for _ in range(int(text)):
                ship(
                    {
                        **run.log_fields(),
                        "level": "warning",
                        "logger": "my.module",
                        "event": f"line {shipped}",
                        "n": shipped,
                    }
                )
                shipped += 1
            observed.tell(shipped=shipped, span_id=stage.span_id)
    observed.end()


def refuse_to_end(observed: Observed) -> None:
    """Tell that it was asked to end, as the adapter does, and do not."""
    run = observed.begin()
    signal.signal(signal.SIGTERM, lambda *_: run.tell("asked_to_end", killed_after_s=0.5))
    with run.stage("load"):
        observed.tell(ready=True)
        sys.stdin.read()


def without_a_process(observed: Observed) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    os.posix_spawn = fail
    succeed(observed)


def without_a_shell(observed: Observed) -> None:
    spawn._SHELL = "/nonexistent/sh"
    succeed(observed)


def with_a_shell_that_cannot_fork(observed: Observed) -> None:
    spawn._DETACH = "exit 2"
    succeed(observed)


SCENARIOS: dict[str, Callable[[Observed], None]] = {
    "succeeds": succeed,
    "fails": fail,
    "SIGKILL": lambda observed: die(observed, lambda: kill_itself(signal.SIGKILL)),
    "SIGTERM": lambda observed: die(observed, lambda: kill_itself(signal.SIGTERM)),
    "segfault": lambda observed: die(observed, lambda: ctypes.string_at(0)),
    "os._exit(0)": lambda observed: die(observed, lambda: os._exit(0)),
    "os._exit(3)": lambda observed: die(observed, lambda: os._exit(3)),
    "killed at once": die_at_once,
    "group ended at once": die_at_once_with_all_of_its_group,
    "closes all descriptors": close_all_descriptors,
    "opens sockets": open_sockets_where_ours_were,
    "leaves a child": leave_a_child_behind,
    "holds": hold,
    "waits": wait_for_children,
    "large child": have_a_large_child,
    "busy": be_busy,
    "pauses": pause,
    "goes on": go_on,
    "steps": step,
    "closes all descriptors and goes on": close_all_and_go_on,
    "logs": log_lines,
    "refuses to end": refuse_to_end,
    "holds the interpreter": hold_the_interpreter,
    "extends": extend,
    "no process": without_a_process,
    "no shell": without_a_shell,
    "shell cannot fork": with_a_shell_that_cannot_fork,
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Observed(json.loads(sys.argv[2])))
