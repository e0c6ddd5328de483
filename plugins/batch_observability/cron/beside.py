"""
The process beside a command that observes it: started in a session of its own, and spoken to over a pipe.

It is there, or it is not: nothing that is said to it, and nothing that it fails with, keeps a job waiting.
"""

from __future__ import annotations

import os
import select
import sys
import time
from _thread import start_new_thread

from batch_observability.cron.bare import suppress
from batch_observability.cron.streams import inherited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ROLE = "job"
_MAIN = f"{os.path.dirname(os.path.dirname(__file__))}/sidecar/__main__.py"  # noqa: PTH120  (pathlib takes long to load)
_READS_WITHIN_S = 1.0
_NICE, _BEHIND = 5, 10
_STANDS_BACK_S, _ASKS = 3.0, 60


class Beside:
    """
    The process; if it cannot be started, it is as one that has ended.

    Args:
        shared: descriptors that it is to have.

    Attributes:
        pid: of the process, 0 for none.
        answers: number of the descriptor that it answers on.
    """

    def __init__(self, shared: Sequence[int]) -> None:
        self.pid = self.answers = 0
        self._pipe = self._answered = -1
        with suppress(OSError, NotImplementedError):
            hears, self._pipe = os.pipe()
            self._answered, self.answers = os.pipe()
            # Who is stopped keeps no job waiting.
            os.set_blocking(self._pipe, False)
            try:
                self.pid = _start([hears, self.answers, *shared])
            finally:
                os.close(hears)
                os.close(self.answers)

    @property
    def is_there(self) -> bool:
        """Whether it has not ended."""
        try:
            return bool(self.pid) and os.waitpid(self.pid, os.WNOHANG)[0] == 0 and not _is_dying(self.pid)
        except ChildProcessError:
            # Where ended children are ignored, this one has ended.
            return False

    def tell(self, line: str | bytes) -> None:
        """Write to it; what it has not read yet is usually far less than a pipe holds."""
        left = line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape")
        give_up = time.monotonic() + _READS_WITHIN_S
        with suppress(OSError):
            while left:
                try:
                    left = left[os.write(self._pipe, left) :]
                except BlockingIOError:
                    if time.monotonic() > give_up:
                        return
                    poll = select.poll()
                    poll.register(self._pipe, select.POLLOUT)
                    poll.poll(_READS_WITHIN_S * 1000)

    def leave(self, patience_s: float | None = None) -> None:
        """Say that no more comes; with a time, wait for its answer for so long at most."""
        self._pipe = _closed(self._pipe)
        if patience_s is not None and self._answered >= 0:
            poll = select.poll()
            poll.register(self._answered, select.POLLIN)
            poll.poll(patience_s * 1000)
        self._answered = _closed(self._answered)


def step_back() -> None:
    """
    Leave the processor for a moment to what starts now: the command, and other jobs that are due in the same minute.

    Where each session has a share of its own, it is that of the session which counts (sched(7)). Later this process has
    what others have: the clock of a run is not to be starved.
    """
    with suppress(OSError):
        os.nice(_NICE)
    if _set_share(_BEHIND):
        with suppress(RuntimeError):
            start_new_thread(_step_forward, ())


def _step_forward() -> None:
    time.sleep(_STANDS_BACK_S)
    for _ in range(_ASKS):
        if _set_share(0):
            return
        # It can be set so and so often in a second on a host.
        time.sleep(1)


def _set_share(nice: int) -> bool:
    try:
        with open("/proc/self/autogroup", "w", encoding="ascii") as file:  # noqa: PTH123  (pathlib takes long to load)
            file.write(str(nice))
    except OSError:
        return False
    return True


def _is_dying(pid: int) -> bool:
    """Whether the first thread of a process has ended: it cannot be waited for until all have, which takes a moment."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  (pathlib takes long to load)
            return file.read().rpartition(b")")[2].startswith(b" Z")
    except OSError:
        return False


def _closed(descriptor: int) -> int:
    if descriptor >= 0:
        os.close(descriptor)
    return -1


def _start(kept: Sequence[int]) -> int:
    """Start the process of an observer that has these descriptors, and none of the command's; return its process id."""
    streams = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_RDWR, 0) for descriptor in range(3)]
    # Duplicated onto themselves, they stay open.
    duplicated = [(os.POSIX_SPAWN_DUP2, descriptor, descriptor) for descriptor in kept]
    closed = [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in inherited()]
    words = [sys.executable, "-I", _MAIN, ROLE, *map(str, kept)]
    return os.posix_spawn(
        sys.executable, words, os.environ, file_actions=[*streams, *closed, *duplicated], setsid=True, setsigmask=()
    )
