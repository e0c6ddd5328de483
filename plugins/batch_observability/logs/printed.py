"""
What a process prints, as records: the lines of stdout and stderr go through a logger, and so find their trace.

For processes whose output somebody else makes into records, who knows of no run: tasks of Airflow, whose supervisor
does, and their children. A terminal and a cron job's output stay what they are.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from batch_observability.redact import MASK, PrivateKeyLines

_STREAMS = (("stdout", logging.INFO), ("stderr", logging.ERROR))
# After what user code wants to do when its process ends, and print.
_LAST = -100

_standing_in: weakref.WeakSet[_PrintedLines] = weakref.WeakSet()


def record_printed_lines(logger: Callable[[str], Any]) -> None:
    """
    Make records of what this process prints, until it ends; a second call does nothing.

    Args:
        logger: makes a logger with a method `log(level, text)` from a name: `task.stdout` or `task.stderr`.
    """
    for name, level in _STREAMS:
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _PrintedLines):
            printed = _PrintedLines(stream, logger(f"task.{name}"), level)
            setattr(sys, name, printed)
            _standing_in.add(printed)
            _at_exit(printed)


def _at_exit(printed: _PrintedLines) -> None:
    from multiprocessing import util

    atexit.register(printed.finish)
    # Children of multiprocessing leave by `os._exit`, without atexit.
    util.Finalize(None, printed.finish, exitpriority=_LAST)
    util.register_after_fork(printed, _at_exit_of_child)


def _at_exit_of_child(printed: _PrintedLines) -> None:
    from multiprocessing import util

    util.Finalize(None, printed.finish, exitpriority=_LAST)


class _PrintedLines:
    """Stands in for stdout or stderr: whole lines become records, all else is the stream's."""

    def __init__(self, stream: Any, logger: Any, level: int) -> None:
        self._stream = stream
        self._logger = logger
        self._level = level
        self.start_afresh()

    def start_afresh(self) -> None:
        """Begin in a forked child: a line that the parent has begun is the parent's."""
        # `print` writes a line and its end one by one: other threads may print between the two.
        self._thread = threading.local()
        # By identity; of threads that have ended as well.
        self._unfinished: dict[int, list[str]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Make a record of each line that is whole now."""
        if not isinstance(text, str):
            # It says what is wrong in its own words.
            return int(self._stream.write(text))
        begun: list[str] | None = getattr(self._thread, "begun", None)
        if begun is None:
            begun = self._thread.begun = []
        begun.append(text)
        if "\n" in text:
            *lines, rest = "".join(begun).split("\n")
            # Before they are logged: a handler may print.
            begun[:] = [rest] if rest else []
            self._log(lines)
        if begun:
            self._unfinished[id(begun)] = begun
        else:
            self._unfinished.pop(id(begun), None)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def finish(self) -> None:
        """
        Make a record of a last line that nobody ended.

        Not when it is flushed: a progress bar is, many times a second.
        """
        unfinished, self._unfinished = self._unfinished, {}
        for begun in unfinished.values():
            rest, begun[:] = "".join(begun), []
            self._log([rest])

    def _log(self, lines: list[str]) -> None:
        key_lines = getattr(self._thread, "key_lines", None)
        if key_lines is None:
            key_lines = self._thread.key_lines = PrivateKeyLines()
        for line in lines:
            # The lines of a key come as records of their own.
            shown = MASK if key_lines.holds(line) else line.rstrip()
            if shown:
                self._record(shown)

    def _record(self, line: str) -> None:
        if getattr(self._thread, "logging", False):
            # What logs a line prints, as `logging` does of its own errors: not to be logged again, and again.
            self._stream.write(line + "\n")
            return
        self._thread.logging = True
        try:
            self._logger.log(self._level, line)
        except Exception:
            # `print` does not fail of what a logger dislikes.
            self._stream.write(line + "\n")
        finally:
            self._thread.logging = False


def _after_fork_in_child() -> None:
    for printed in list(_standing_in):
        printed.start_afresh()


os.register_at_fork(after_in_child=_after_fork_in_child)
