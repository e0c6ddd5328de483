"""
What a command writes, passed on as it comes: a thread for each stream, which waits where the command would wait.

When the command has ended, what it wrote is passed on and this process leaves; if others still hold its streams, as a
process in the background does, a forked child goes on until the last of them has ended.
"""

from __future__ import annotations

import os
import select
import sys
from _thread import allocate_lock, start_new_thread

from batch_observability.cron.bare import signal
from batch_observability.cron.streams import STDERR, let_go

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_observability.cron.streams import Pipe

_CHUNK = 1 << 20
_LOOKS_EACH_S = 60.0
_GONE = select.POLLERR | select.POLLNVAL


class Pump:
    """
    One pipe, passed on in a thread.

    Args:
        pipe: from the command to where its stream goes.
        listen: is shown each piece before it is passed on; it must not wait, and not keep it.
        last: no other command will write to where it goes.
    """

    def __init__(self, pipe: Pipe, listen: Callable[[memoryview], object], *, last: bool) -> None:
        self._pipe = pipe
        self._listen = listen
        self._last = last
        self._hushed, self._hush = os.pipe()
        self._buffer: memoryview | None = None
        self._ended = False
        # Held until it has stopped; `threading` takes long to load.
        self._running = allocate_lock()

    def start(self) -> None:
        """Begin; the command has its end of the pipe by now."""
        os.close(self._pipe.writes)
        self._running.acquire()
        start_new_thread(self._run_to_end, ())

    def hush(self) -> None:
        """Let it pass on what was written until now, and stop."""
        os.close(self._hush)

    def is_done(self, patience_s: float) -> bool:
        """Whether it has stopped; waited for so long at most."""
        if not self._running.acquire(timeout=patience_s):
            return False
        self._running.release()
        return True

    @property
    def open(self) -> bool:
        """Whether somebody may still write, once it has stopped."""
        return not self._ended

    def go_on(self) -> None:
        """Pass on what still comes until nobody can write any more."""
        # Nobody hushes it: this end is never closed.
        self._hushed, self._hush = os.pipe()
        self._listen = _deaf
        self._running.acquire()
        start_new_thread(self._run_to_end, ())

    def _run_to_end(self) -> None:
        try:
            self._run()
        finally:
            self._running.release()

    def _run(self) -> None:
        left = self._pass_on()
        while left > 0 and (passed := self._pass_piece(left)):
            left -= passed
        self._ended = self._ended or _is_closed(self._pipe.reads)
        if self._ended:
            os.close(self._pipe.reads)
            # Who reads it is to see its end now, not when this process ends.
            for stream in self._pipe.stands_for if self._last else ():
                let_go(stream)

    def _pass_on(self) -> int:
        """Pass on until the end, or until hushed; return how many bytes there are then."""
        reads, outlet = self._pipe.reads, self._pipe.outlet
        poll = select.poll()
        poll.register(reads, select.POLLIN)
        poll.register(outlet, 0)
        poll.register(self._hushed, select.POLLIN)
        while not self._ended:
            events = dict(poll.poll())
            if events.get(outlet, 0) & _GONE:
                # Now, not with the next piece: the command is to be told by its next write.
                self._ended = True
            elif events.get(reads, 0) == select.POLLHUP:
                self._ended = True
            elif self._hushed in events:
                return _unread(reads)
            elif reads in events:
                self._pass_piece(_CHUNK)
        return 0

    def _pass_piece(self, most: int) -> int:
        """Pass on what is there, up to so many bytes; return how many."""
        # Most jobs write nothing.
        buffer = self._buffer = self._buffer or memoryview(bytearray(_CHUNK))
        size = os.readv(self._pipe.reads, [buffer[:most]])
        piece = buffer[:size]
        if not size:
            self._ended = True
            return 0
        self._listen(piece)
        while piece:
            try:
                piece = piece[os.write(self._pipe.outlet, piece) :]
            except BlockingIOError:
                # Somebody else has made it so that it does not wait.
                poll = select.poll()
                poll.register(self._pipe.outlet, select.POLLOUT)
                poll.poll()
            except OSError:
                self._ended = True
                return 0
        return size


def leave_behind(pumps: list[Pump]) -> None:
    """Let a child pass on what others still write, so that this process may leave."""
    if not pumps or os.fork():
        return
    for number in signal.valid_signals():
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            # Not for SIGKILL.
            continue
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _keep_only({pump._pipe.reads for pump in pumps})  # noqa: SLF001  (one thing in two)
    for pump in pumps:
        pump.go_on()
    while not all(pump.is_done(_LOOKS_EACH_S) for pump in pumps):
        pass
    os._exit(0)


def _keep_only(kept: set[int]) -> None:
    """Close all but the standard streams and these."""
    below = STDERR
    for above in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(below + 1, above)
        below = above


def _is_closed(reads: int) -> bool:
    """Whether nothing is left in a pipe, and nobody can write to it."""
    poll = select.poll()
    poll.register(reads, select.POLLIN)
    return any(event & select.POLLHUP and not event & select.POLLIN for _, event in poll.poll(0))


def _deaf(_piece: memoryview) -> None:
    pass


def _unread(descriptor: int) -> int:
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)
