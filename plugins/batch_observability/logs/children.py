"""
Children that multiprocessing starts afresh, by `spawn` or `forkserver`, go on with the run of their parent.

A forked child inherits all there is. One that is started afresh gets the configuration of its parent's process object,
pickled with its own process object. In there sits a carrier: it takes along the run and its open stage, the socket to
the run's observer, and how to log. Whatever goes wrong with it, the child starts.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from batch_observability.config import Settings
from batch_observability.guard import log
from batch_observability.run import Run, current_run

# What a socket takes as one piece; of a longer line another process could write into the middle.
WHOLE_LINE_BYTES = 32_000

_KEY = "batch_observability"
_DRAIN_S = 0.5
# What a child prints when it ends is logged, and shipped, before.
_AFTER_LAST_WORDS = -1000
# What the child calls, whether or not it finds this package, or another version of it: it must start in any case.
_RESTORE = "(exec(source, scope), scope.get('carrier'))[1]"
_SOURCE = """
try:
    from batch_observability.logs.adopted import adopt
    carrier = adopt(packed, descriptors)
except BaseException:
    carrier = None
"""


class LogChannel(NamedTuple):
    """
    Where the children of a task log to: what they print goes to somebody who knows of no run.

    Attributes:
        descriptor: takes JSON lines, those of several processes in any order.
        settings: those of the task.
        level: of the root logger.
        levels: of other loggers of stdlib logging, by name.
        taken: names that fields of users must not have.
    """

    descriptor: int
    settings: Settings
    level: int
    levels: dict[str, int]
    taken: frozenset[str] = frozenset()


class _Carried(NamedTuple):
    log_channel: LogChannel | None
    log_identity: tuple[int, int] | None
    secrets: Callable[[], str]


_carried: _Carried | None = None


def carry(log_channel: LogChannel | None = None, secrets: Callable[[], str] = str) -> None:
    """
    Let children that are started from now on, and theirs, go on with the run that this process is in by then.

    Args:
        log_channel: where they log to; None: as this process does, if `configure_logging` was called.
        secrets: returns a regular expression of what is to be masked besides what looks like a secret; "" for nothing.
    """
    global _carried  # noqa: PLW0603  (a process is in one run at a time)
    _carried = _Carried(log_channel, _identity(log_channel.descriptor) if log_channel else None, secrets)
    if not CARRIER.is_told_of_forks:
        from multiprocessing import util

        CARRIER.is_told_of_forks = True
        util.register_after_fork(CARRIER, Carrier.begin)
    _of_this_process()[_KEY] = CARRIER


def carry_no_more() -> None:
    """Let children be on their own again; they log as this process does if `configure_logging` was called."""
    global _carried  # noqa: PLW0603
    _carried = None
    _of_this_process().pop(_KEY, None)
    if _configured() is not None:
        carry()


def _configured() -> Any:
    """Return how this process logs; None if nobody has configured that, for which nothing need be loaded."""
    configure = sys.modules.get("batch_observability.logs.configure")
    return None if configure is None else configure.configured()


def _of_this_process() -> dict[str, Any]:
    from multiprocessing import process

    configuration: dict[str, Any] = process.current_process()._config  # type: ignore[attr-defined]  # noqa: SLF001
    return configuration


class Carrier:
    """
    Stands in the configuration of a process object; what is pickled is all that there is to carry by then.

    Attributes:
        log: makes this process log as its parent does; None where that needs nothing.
        pid: of the process that `log` is for.
        is_told_of_forks: `begin` is called in every child that is forked, by a fork server as well.
    """

    def __init__(self) -> None:
        self.log: Callable[[], None] | None = None
        self.pid = 0
        self.is_told_of_forks = False

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            from multiprocessing import context

            if context.get_spawning_popen() is None or _carried is None:
                return dict, ()
            packed, descriptors = _packed(_carried)
            _share()
        except Exception as error:
            log.debug("a child of this process will not know of its run: %s", error)
            return dict, ()
        return eval, (_RESTORE, {"source": _SOURCE, "scope": {"packed": packed, "descriptors": descriptors}})

    def begin(self) -> None:
        """Log as the parent does, and see to it that what a child tells is told when it ends."""
        from multiprocessing import util

        util.Finalize(None, _drain, exitpriority=_AFTER_LAST_WORDS)
        if self.log is not None and self.pid == os.getpid():
            self.log()


CARRIER = Carrier()


def _drain() -> None:
    channel = current_run()._channel  # noqa: SLF001  (user code should not have it at hand)
    if channel is not None:
        channel.drain(_DRAIN_S)


_shared = False


def share_output() -> bool:
    """Whether this process has, or is, a child that writes where its parent writes."""
    return _shared


def _share() -> None:
    global _shared  # noqa: PLW0603
    _shared = True


os.register_at_fork(after_in_parent=_share, after_in_child=_share)


def _packed(carried: _Carried) -> tuple[bytes, dict[str, Any]]:
    """Return what is carried, and the descriptors that the child is to have."""
    from multiprocessing import reduction

    run = current_run()
    stage = run.current_stage
    told = {
        "context": run.context,
        "stage": (stage.name, stage.span_id) if stage else None,
        "secrets": carried.secrets(),
        "log_channel": carried.log_channel,
        "log": None if carried.log_channel else _configured(),
    }
    # By now: that something cannot be pickled must not be found out when the process object is.
    packed = pickle.dumps(told)
    numbers = {"frames": _frames_descriptor(run), "log": None}
    if carried.log_channel and _identity(carried.log_channel.descriptor) == carried.log_identity:
        numbers["log"] = carried.log_channel.descriptor
    return packed, {name: reduction.DupFd(number) for name, number in numbers.items() if number is not None}


def _frames_descriptor(run: Run) -> int | None:
    channel = run._channel  # noqa: SLF001
    if channel is None or channel.broken:
        return None
    number = channel._socket.fileno()  # noqa: SLF001
    return number if _identity(number) == channel._identity else None  # noqa: SLF001


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
