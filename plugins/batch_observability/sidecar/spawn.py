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
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.util import spawnv_passfds
from pathlib import Path
from typing import Any

from batch_observability.channel import Channel
from batch_observability.run import RunContext, process_usage

log = logging.getLogger("batch_observability")

_MAIN = str(Path(__file__).with_name("__main__.py"))
_SHELL = "/bin/sh"
# The program runs in the background of a shell that has nothing else to do.
_DETACH = '"$@" </dev/null >/dev/null 2>&1 &'


def start_observer(
    context: RunContext, settings: dict[str, Any], *, airflow_tracing: bool = False
) -> tuple[Channel, bool]:
    """
    Start the observer of a run that begins now in this process.

    Args:
        context: the run.
        settings: as `Settings.as_frame` gives them.
        airflow_tracing: Airflow sends spans of its own.

    Returns:
        The channel to the observer, and whether it is a process of its own; if none could be started, it is a
        thread of this process, which must not leave before it has acknowledged the end.
    """
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    channel.send(
        {
            "t": "start",
            "ts": context.start_ns,
            "pid": os.getpid(),
            "usage": process_usage(),
            "context": asdict(context),
            "settings": settings,
            "airflow_tracing": airflow_tracing,
            "path": sys.path,
        }
    )
    # Last, for what is started competes for the processor.
    try:
        detach("sidecar", theirs, watch=os.getpid())
    except OSError as error:
        log.warning("the sidecar could not be started (%s): observing from a thread of the task", error)
        _start_thread(theirs)
        return channel, False
    theirs.close()
    return channel, True


def detach(role: str, sock: socket.socket, *, watch: int | None = None) -> None:
    """
    Start a process of ours that holds one end of a socket pair, as nobody's child.

    Args:
        role: what it is to do, `sidecar` or `helper`.
        sock: its end of the pair.
        watch: process id that it is to watch: it gets a pidfd that is good whatever happens before it looks.

    Raises:
        OSError: if it cannot be started.
    """
    for program in (_SHELL, sys.executable):
        if not os.access(program, os.X_OK):
            raise FileNotFoundError(errno.ENOENT, "not to be executed", program)
    descriptors = [sock.fileno()]
    if watch is not None:
        with suppress(OSError, AttributeError):  # not on macOS, nor before Linux 5.3
            descriptors.append(os.pidfd_open(watch))
    command = [_SHELL, "-c", _DETACH, "sh", sys.executable, "-I", _MAIN, role, *map(str, descriptors)]
    try:
        # subprocess.Popen also waits until the child has closed a pipe, and that is at the child's next turn: 13.9 ms
        # at the median with four busy processes on two cores, against 2.7 ms for this.
        shell = spawnv_passfds(os.fsencode(_SHELL), [os.fsencode(word) for word in command], descriptors)
    finally:
        for descriptor in descriptors[1:]:
            os.close(descriptor)
    # Not threading.Thread, whose start waits for the thread's first turn.
    _thread.start_new_thread(_reap, (shell,))


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):  # user code that waits for any child was quicker
        os.waitpid(pid, 0)


def _start_thread(sock: socket.socket) -> None:
    def observe() -> None:
        # What the loop needs beyond the standard library is not imported in a task that has a sidecar.
        from batch_observability.sidecar.loop import observe_thread

        observe_thread(sock)

    threading.Thread(target=observe, name="batchobs-observer", daemon=True).start()
