"""
A command started as a shell would start it: its own process, with what this process was given and nothing of ours.
"""

from __future__ import annotations

import errno
import os

from batch_observability.cron.bare import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from batch_observability.cron.streams import Streams

NOT_FOUND, NOT_EXECUTABLE = 127, 126
# What Python has made of them at its start; what they were is not known.
_PYTHONS = tuple(getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name))
_SHELL = "/bin/sh"


class NotStartedError(Exception):
    """A command cannot be started; `status` is what a shell then exits with."""

    def __init__(self, command: str, error: OSError) -> None:
        self.status = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
        super().__init__(f"{command}: {error.strerror}")


class Launch:
    """
    How to start it.

    Args:
        words, environment: of the command.
        streams: what stands in for its standard streams.
        blocked: signals that it is to have blocked.
        leads: `group` or `session` if it is to be the first of a new one, else "".
    """

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        streams: Streams,
        blocked: frozenset[int],
        leads: str,
    ) -> None:
        self.words = words
        self.environment = environment
        self.streams = streams
        self.blocked = blocked
        self.leads = leads


def leads_what() -> str:
    """Return what a command is to be the first of, as it would be in the place of this process."""
    if os.getpgrp() != os.getpid():
        return ""
    try:
        # In a group of its own it would be in the background of a terminal, in a session it would have none.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return "session" if os.getsid(0) == os.getpid() else "group"
    return ""


def launch(how: Launch) -> int:
    """
    Start a command; return its process id.

    Raises:
        NotStartedError: if there is no such command, or it cannot be executed.
    """
    if not how.words[0]:
        raise NotStartedError("''", OSError(errno.ENOENT, os.strerror(errno.ENOENT)))
    start = _fork if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN else _spawn
    try:
        try:
            return start(how)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
        # A script that does not say what runs it: the same as execvp(3) does, and so every shell, `nice` and `env`.
        script = how.words[0] if "/" in how.words[0] else _find(how.words[0])
        words = (_SHELL, script, *how.words[1:])
        return start(Launch(words, how.environment, how.streams, how.blocked, how.leads))
    except OSError as error:
        raise NotStartedError(how.words[0], error) from None


def _find(name: str) -> str:
    for folder in os.get_exec_path():
        if os.access(path := f"{folder or '.'}/{name}", os.X_OK):
            return path
    return name


def _spawn(how: Launch) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, pipe.writes, stream) for pipe in how.streams.pipes for stream in pipe.stands_for]
    first = {"group": {"setpgroup": 0}, "session": {"setsid": True}}.get(how.leads, {})
    return os.posix_spawnp(
        how.words[0],
        list(how.words),
        how.environment,
        file_actions=actions,
        setsigmask=how.blocked,
        setsigdef=_PYTHONS,
        **first,  # type: ignore[arg-type]
    )


def _fork(how: Launch) -> int:
    """
    Start it where ended children are to be ignored: the command inherits that, and we must not have it.

    What it then fails with is told through a pipe that a successful start closes.
    """
    reads, writes = os.pipe()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if not pid:
        _become(how, writes)
    os.close(writes)
    told = os.read(reads, 16)
    os.close(reads)
    if told:
        os.waitpid(pid, 0)
        raise OSError(int(told), os.strerror(int(told)))
    return pid


def _become(how: Launch, problems: int) -> NoReturn:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for number in _PYTHONS:
            signal.signal(number, signal.SIG_DFL)
        if how.leads == "group":
            os.setpgid(0, 0)
        elif how.leads:
            os.setsid()
        for pipe in how.streams.pipes:
            for stream in pipe.stands_for:
                os.dup2(pipe.writes, stream)
        signal.pthread_sigmask(signal.SIG_SETMASK, how.blocked)
        os.execvpe(how.words[0], list(how.words), how.environment)  # noqa: S606  (never a shell)
    except OSError as error:
        os.write(problems, str(error.errno).encode())
    finally:
        os._exit(NOT_EXECUTABLE)
