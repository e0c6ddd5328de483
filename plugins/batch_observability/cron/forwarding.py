"""
Signals between a job and whoever started it: what this process gets is passed on, and what ended the command ends us.
"""

from __future__ import annotations

import os
import sys
import time

from batch_observability.cron.bare import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# include/uapi/asm-generic/siginfo.h: from the terminal, whose whole group has it.
_SI_KERNEL = 0x80
_PR_SET_DUMPABLE = 4
# They end a process that does not expect them; who sends one wants it to end.
_ASKS_TO_END = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
_NEVER = frozenset({signal.SIGKILL, signal.SIGSTOP})


def block() -> frozenset[int]:
    """Block all signals, so that they can be waited for; return those that were blocked before."""
    return frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _NEVER))


def unblock(before: frozenset[int]) -> None:
    """Let signals do again what they did before `block`."""
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Ended:
    """How a command ended: its wait status, the signals that it was asked to end by, and what it took."""

    def __init__(self, status: int, asked: set[int], cpu_s: float, memory_peak: int) -> None:
        self.status = status
        self.asked = asked
        self.cpu_s = cpu_s
        self.memory_peak = memory_peak


class Watch:
    """
    Waits for a command, and passes signals on to it.

    Args:
        pid: of the command.
        shares_terminal: it stops and goes on together with this process, as a shell wants it.
    """

    def __init__(self, pid: int, *, shares_terminal: bool) -> None:
        self._pid = pid
        self._shares_terminal = shares_terminal
        self._asked: set[int] = set()
        self._status: int | None = None
        self._cpu_s, self._memory_peak = 0.0, 0
        self._cut = False

    def wait(self, until: float | None = None, also: Callable[[], bool] = lambda: True) -> Ended | None:
        """
        Wait for the end of the command; None if it has not come by then, on the monotonic clock.

        Args:
            until: when to give up; None for never.
            also: whether all is done that is to be done once the command has ended; it may wait for a moment.
        """
        expected = signal.valid_signals() - _NEVER
        while not (self._look() and also()):
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return None
            if self._status is not None:
                info = signal.sigtimedwait(expected, 0)
            else:
                info = signal.sigwaitinfo(expected) if left is None else signal.sigtimedwait(expected, left)
            if info is not None and info.si_signo != signal.SIGCHLD:
                self._pass_on(info)
            if self._cut:
                break
        assert self._status is not None
        return Ended(self._status, self._asked, self._cpu_s, self._memory_peak)

    def wait_for_ever(self, also: Callable[[], bool]) -> Ended:
        """Wait for the end of the command, however long it takes."""
        ended = self.wait(also=also)
        assert ended is not None
        return ended

    def _pass_on(self, info: signal.struct_siginfo) -> None:
        number = info.si_signo
        if number in _ASKS_TO_END:
            self._asked.add(number)
        # Its own are those of writes to a broken pipe.
        if info.si_pid == os.getpid():
            return
        if self._status is not None:
            # The command would still be writing, and would die of it.
            if number in _ASKS_TO_END:
                self._status, self._cut = int(number), True
            return
        # What the terminal sends, the command has already.
        if info.si_code != _SI_KERNEL:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, number)

    @property
    def ended(self) -> bool:
        """Whether the command has ended."""
        return self._status is not None

    def _look(self) -> bool:
        """Whether the command has ended; if it was stopped in a terminal, so is this process."""
        while self._status is None:
            pid, status, usage = os.wait4(self._pid, os.WNOHANG | os.WUNTRACED)
            if not pid:
                return False
            if not os.WIFSTOPPED(status):
                self._status = status
                self._cpu_s = usage.ru_utime + usage.ru_stime
                # That of this process too: it survives vfork(2) and exec.
                self._memory_peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            elif self._shares_terminal:
                os.kill(os.getpid(), signal.SIGSTOP)
        return True


def leave_as(status: int) -> NoReturn:
    """End this process as a command ended that has this wait status."""
    if not os.WIFSIGNALED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    from resource import RLIMIT_CORE, setrlimit

    # The core is the command's.
    with suppress(OSError, ValueError):
        setrlimit(RLIMIT_CORE, (0, 0))
    if os.WCOREDUMP(status):
        _leave_no_core()
    with suppress(OSError, ValueError):  # not for SIGKILL
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    # As a shell tells it, where the system does not let us die of it: as the first process of a container.
    os._exit(128 + number)


def _leave_no_core() -> None:
    """Where a program takes the cores, the limit does not hold (core(5))."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
