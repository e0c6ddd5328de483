"""
Start a sidecar from the observed process: quickly, and so that it is nobody's child.

The sidecar gets a session of its own, its descriptors and nothing else. It is started through a shell that ends at
once: a child of the observed process would keep user code waiting that waits for all of its children. Standard
library only.
"""

from __future__ import annotations

import _thread
import errno
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from batch_observability.channel import Channel
from batch_observability.config import Settings
from batch_observability.context import RunContext
from batch_observability.sidecar import journal
from batch_observability.usage import process_usage

log = logging.getLogger("batch_observability")

_MAIN = str(Path(__file__).with_name("__main__.py"))
_SHELL = "/bin/sh"
# The program runs in the background of a shell that has nothing else to do; a moment later, for while it boots it takes
# the processor from the start of tasks. What they say meanwhile waits in the socket.
_DETACH = '(sleep 0.05; exec "$@") &'
_SETTLED_WITHIN_S = 0.01
_STDIO = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_RDWR, 0) for descriptor in range(3)]


class Observer:
    """
    Who observes a run, seen from the run.

    Attributes:
        channel: to it.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._separate = True
        self._settled = threading.Event()

    @property
    def separate(self) -> bool:
        """
        Whether it is a process of its own; else it is a thread of this process, which must not leave before it has
        acknowledged the end. Known a moment after the start.
        """
        self._settled.wait(_SETTLED_WITHIN_S)
        return self._separate

    def settle(self, *, separate: bool) -> None:
        """Say what it is."""
        self._separate = separate
        self._settled.set()


def start_observer(context: RunContext, settings: dict[str, Any], *, airflow_tracing: bool = False) -> Observer:
    """
    Start the observer of a run that begins now in this process.

    Args:
        context: the run.
        settings: as `Settings.as_frame` gives them.
        airflow_tracing: Airflow sends spans of its own.
    """
    began_ns = time.time_ns() if context.resumed else context.start_ns
    chosen = Settings.from_frame(settings)
    announced = False
    try:
        announced = journal.begin(chosen.state_path, context, began_ns, chosen.max_stages)
    except OSError as error:
        log.debug("the journal of run %s cannot be written: %s", context.run_id, error)
    ours, theirs = socket.socketpair()
    observer = Observer(Channel(ours))
    observer.channel.send(
        {
            "t": "start",
            "ts": context.start_ns,
            "phase_ns": began_ns,
            "pid": os.getpid(),
            "usage": process_usage(),
            "context": asdict(context),
            "settings": settings,
            "airflow_tracing": airflow_tracing,
            "announced": announced,
            "path": sys.path,
        }
    )

    def observe_here(reason: object) -> None:
        observer.settle(separate=False)
        log.warning("the sidecar could not be started (%s): observing from a thread of the task", reason)
        threading.Thread(target=_observe, args=(theirs,), name="batchobs-observer", daemon=True).start()

    def shell_ended(exit_code: int) -> None:
        if exit_code:
            observe_here(f"{_SHELL} ended with {exit_code}")
        else:
            theirs.close()
            observer.settle(separate=True)

    # Last, for what is started competes for the processor.
    try:
        detach("sidecar", theirs, watch=os.getpid(), then=shell_ended)
    except OSError as error:
        observe_here(error)
    return observer


def detach(
    role: str, sock: socket.socket, *, watch: int | None = None, then: Callable[[int], None] = lambda _code: None
) -> None:
    """
    Start a process of ours that holds one end of a socket pair, as nobody's child.

    `os.posix_spawn` returns when the shell runs. `subprocess.Popen` would also wait until the shell has closed a pipe,
    and that is at the shell's next turn on a busy host.

    Args:
        role: what it is to do, `sidecar`, `helper` or `judge`.
        sock: its end of the pair.
        watch: process id that it is to watch: it gets a pidfd that is good whatever happens before it looks.
        then: is told the exit code of the shell, in a thread, a moment later.

    Raises:
        OSError: if it cannot be started.
    """
    descriptors = [sock.fileno()]
    if watch is not None:
        with suppress(OSError, AttributeError):  # not on macOS, nor before Linux 5.3
            descriptors.append(os.pidfd_open(watch))
    command = [_SHELL, "-c", _DETACH, "sh", sys.executable, "-I", _MAIN, role, *map(str, descriptors)]
    # Duplicated onto themselves, they stay open.
    actions = [*_STDIO, *((os.POSIX_SPAWN_DUP2, descriptor, descriptor) for descriptor in descriptors)]
    try:
        if not os.access(sys.executable, os.X_OK):
            raise FileNotFoundError(errno.ENOENT, "not to be executed", sys.executable)
        # Who waits for signals has blocked them; that is not to be inherited.
        how: dict[str, Any] = {"file_actions": actions, "setsid": True, "setsigmask": ()}
        shell = os.posix_spawn(_SHELL, command, os.environ, **how)
    finally:
        for descriptor in descriptors[1:]:
            os.close(descriptor)

    def reap() -> None:
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(shell, 0)[1])
        except ChildProcessError:  # user code that waits for any child was quicker
            code = 0
        then(code)

    # Not threading.Thread, whose start waits for the thread's first turn.
    _thread.start_new_thread(reap, ())


def _observe(sock: socket.socket) -> None:
    # What the loop needs beyond the standard library is not imported in a task that has a sidecar.
    from batch_observability.sidecar.loop import observe_thread

    observe_thread(sock)
