"""
Start a sidecar from the observed process: quickly, and so that it is nobody's child.

The sidecar gets a session of its own, one descriptor and nothing else. It is started through a shell that ends at
once: a child of the observed process would keep user code waiting that waits for all of its children. Standard
library only.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from batch_observability.channel import Channel
from batch_observability.run import RunContext, process_usage

log = logging.getLogger("batch_observability")

_MAIN = str(Path(__file__).with_name("__main__.py"))
# The program runs in the background of a shell that has nothing else to do.
_DETACH = '"$@" &'


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
    separate = True
    try:
        detach("sidecar", theirs, watch=os.getpid())
    except OSError as error:
        separate = False
        log.warning("the sidecar could not be started (%s): observing from a thread of the task", error)
        _start_thread(theirs)
    else:
        theirs.close()
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
            "path": sys.path if separate else [],
        }
    )
    return channel, separate


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
    descriptors = [sock.fileno()]
    if watch is not None:
        with suppress(OSError, AttributeError):  # not on macOS, nor before Linux 5.3
            descriptors.append(os.pidfd_open(watch))
    command = [sys.executable, "-I", _MAIN, role, *map(str, descriptors)]
    try:
        with subprocess.Popen(  # noqa: S603  (our own interpreter and file)
            ["/bin/sh", "-c", _DETACH, "sh", *command],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        ):
            pass
    finally:
        for descriptor in descriptors[1:]:
            os.close(descriptor)


def _start_thread(sock: socket.socket) -> None:
    def observe() -> None:
        # What the loop needs beyond the standard library is not imported in a task that has a sidecar.
        from batch_observability.sidecar.loop import observe_thread

        observe_thread(sock)

    threading.Thread(target=observe, name="batchobs-observer", daemon=True).start()
