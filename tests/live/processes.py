"""
Starts processes for a live test, and makes sure that none of them outlives it.

A server starts children of its own: Airflow's scheduler forks workers, these fork tasks, and a task leaves a
sidecar behind in a session of its own. So a process counts as ours if it is in the session of one that we started,
or if it carries the family's mark in its environment. (One of the two is not enough: `setproctitle` overwrites what
/proc/PID/environ shows, and a sidecar leaves the session.)
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import FrameType

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
FAMILY = "LIVE_TEST_FAMILY"
# What a developer's shell may hold and a server of ours must not see. Without bytecode files each start of Airflow
# compiles it anew: four components then take 40 s instead of 10 s.
FOREIGN = (
    *("AIRFLOW_", "BATCHOBS_", "DD_", "DATADOG_", "OTEL_", "OPENLINEAGE_", "FLIGHT_DELAY_", "TRACEPARENT"),
    "PYTHONDONTWRITEBYTECODE",
)


class LiveError(Exception):
    """A live server did not do what it should; the message says what was seen."""


def wait_until(
    condition: Callable[[], T | None],
    what: str,
    timeout: float,
    seen: Callable[[], object] | None = None,
    every: float = 0.2,
) -> T:
    """
    Returns the first true value of `condition`; raises LiveError after `timeout` seconds.

    `what` names the condition in that error ("Airflow is healthy"), and `seen()` adds what was there instead.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            instead = f"; seen: {seen()}" if seen else ""
            raise LiveError(f"waited {timeout:g} s until {what}, in vain{instead}")
        time.sleep(every)


def free_ports(count: int) -> list[int]:
    """
    Returns different TCP ports of 127.0.0.1 that nobody listens on.

    They lie below the range that systems take outgoing connections from, so that none slips in before the server
    binds its port.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


@contextlib.contextmanager
def _on_signals(handler: Callable[[int, FrameType | None], object] | signal.Handlers, *numbers: int) -> Iterator[None]:
    """Handles these signals so inside of the block, if it is in the main thread: elsewhere Python cannot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def uninterrupted() -> AbstractContextManager[None]:
    """Ignores Ctrl-C, SIGTERM and SIGHUP inside of the block: a second Ctrl-C must not stop the cleaning up."""
    return _on_signals(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


class Process:
    """One started process: its name, its pid and its log file."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], cwd: Path, log: Path) -> None:
        """Starts `command` in a session of its own; its output goes to the file `log`."""
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def alive(self) -> bool:
        """Returns whether it still runs, without reaping it: its pid stays taken until its session is swept."""
        return _alive(psutil.Process(self.pid)) if self._popen.returncode is None else False

    def tail(self, lines: int = 20) -> str:
        """Returns the last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def check(self) -> None:
        """Raises LiveError with the end of its log if it has ended."""
        if not self.alive():
            code = self._popen.wait()
            raise LiveError(f"{self.name} ended with exit code {code}; its log ends with:\n{self.tail()}")

    def wait(self, timeout: float) -> None:
        """Waits for its end; raises LiveError if that comes too late or with an exit code other than 0."""
        wait_until(lambda: not self.alive(), f"{self.name} ends", timeout, self.tail, every=0.05)
        if self._popen.wait() != 0:
            self.check()

    def reap(self) -> None:
        """Takes the exit status of an ended process."""
        self._popen.wait()


class Processes:
    """
    All processes of one live test, with its temporary folder: a context manager that leaves nothing behind.

    At the end what was started gets SIGTERM, after `grace` seconds all descendants SIGKILL, and the folder goes.
    """

    def __init__(self, folder: Path | None = None, grace: float = 8.0) -> None:
        """Works in `folder`, which is then the caller's to remove, or else in a temporary one."""
        self._own = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="batchobs-live-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._grace = grace
        self._mark = secrets.token_hex(8)
        self._started: list[Process] = []
        self._signals = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Makes SIGTERM and a closed terminal end the block as Ctrl-C does; by default they would end it without us."""
        self._signals.enter_context(_on_signals(_interrupt, signal.SIGTERM, signal.SIGHUP))
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Ends all processes and removes the folder."""
        with self._signals, uninterrupted():
            self.stop()
            if self._own:
                shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Returns this process's environment without what would reconfigure a server, plus `extra`."""
        scratch = self.folder / "tmp"
        scratch.mkdir(exist_ok=True)
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(FOREIGN) and not key.lower().endswith("_proxy")
        }
        return kept | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(scratch), FAMILY: self._mark} | dict(extra or {})

    def start(
        self,
        name: str,
        command: Sequence[str],
        extra: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Process:
        """Starts `command`; its output goes to `<folder>/<name>.log`."""
        log = self.folder / f"{name}.log"
        try:
            process = Process(name, command, self.environment(extra), cwd or self.folder, log)
        except OSError as error:
            raise LiveError(f"{name} cannot be started: {error}") from error
        self._started.append(process)
        return process

    def check(self) -> None:
        """Raises LiveError if a process has ended that is still wanted."""
        for process in self._started:
            process.check()

    def stop(self, *wanted: Process, grace: float | None = None) -> None:
        """Ends the given processes with all their children, or without arguments the whole family."""
        grace = self._grace if grace is None else grace
        ending = list(wanted) or self._started
        for process in ending:
            if process.alive():
                os.kill(process.pid, signal.SIGTERM)
        sessions = {process.pid for process in ending}
        survivors = _gone(lambda: self._members(sessions, marked=not wanted), grace)
        while survivors:
            for survivor in survivors:
                with contextlib.suppress(psutil.NoSuchProcess):
                    survivor.kill()
            survivors = _gone(lambda: self._members(sessions, marked=not wanted), 1.0)
        for process in ending:
            process.reap()
        self._started = [process for process in self._started if process not in ending]

    def survivors(self) -> list[psutil.Process]:
        """Returns every living process of the family: those started here and all their descendants."""
        return self._members({process.pid for process in self._started}, marked=True)

    def listening(self) -> set[tuple[str, int]]:
        """Returns address and port of every TCP socket on which the family listens."""
        found: set[tuple[str, int]] = set()
        for process in self.survivors():
            with contextlib.suppress(psutil.Error):
                found |= {
                    (connection.laddr.ip, connection.laddr.port)
                    for connection in process.net_connections(kind="tcp")
                    if connection.status == psutil.CONN_LISTEN
                }
        return found

    def _members(self, sessions: set[int], *, marked: bool) -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter()
            if _alive(process) and (_session(process) in sessions or (marked and _mark(process) == self._mark))
        ]


def _gone(members: Callable[[], list[psutil.Process]], timeout: float) -> list[psutil.Process]:
    """Waits until there are no members any more; returns those that there still are."""
    deadline = time.monotonic() + timeout
    while (left := members()) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.1)
    return left


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _mark(process: psutil.Process) -> str | None:
    if process.pid == os.getpid():
        return None
    try:
        return process.environ().get(FAMILY)
    except (psutil.Error, OSError):
        return None


def is_over(process: psutil.Process) -> bool:
    """Whether a process has ended with all its threads: a zombie whose last one still ends has its descriptors open."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE and len(list(Path(f"/proc/{process.pid}/task").iterdir())) <= 1
    except (psutil.NoSuchProcess, OSError):
        return True
