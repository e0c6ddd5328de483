"""
What an exit status says of a run: its outcome, and what went wrong, with the last lines that the command wrote.
"""

from __future__ import annotations

import os
import re
import signal
from typing import NamedTuple

from batch_observability.schema import Outcome

_RAISED = re.compile(r"^([A-Za-z_][\w.]*): (.+)$|^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit))$")
_TRACEBACK = "Traceback (most recent call last):"


class Verdict(NamedTuple):
    """Outcome, and the error's type and message; both "" if there is none."""

    outcome: Outcome
    kind: str = ""
    message: str = ""


def judge(status: int, asked: frozenset[int], *, timed_out: str = "", retries: bool = False, tail: str = "") -> Verdict:
    """
    Judge how a command ended.

    Args:
        status: its wait status.
        asked: signals that somebody asked it to end by.
        timed_out: how long it was allowed to take, if it was ended for that.
        retries: it is tried again if it failed.
        tail: the last lines that it wrote.
    """
    if timed_out:
        outcome = Outcome.RETRYING if retries else Outcome.TIMED_OUT
        return Verdict(outcome, "TimedOut", f"not done after {timed_out}: {_how(status)}")
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return Verdict(Outcome.SUCCESS)
    number = _signal_of(status)
    if number in asked:
        return Verdict(Outcome.CANCELLED, "Cancelled", f"asked to end by {_name(number)}: {_how(status)}")
    if os.WIFSIGNALED(status):
        return Verdict(Outcome.RETRYING if retries else Outcome.KILLED, _name(number), _how(status))
    kind, message = _raised(tail)
    told = f"{message} ({_how(status)})" if message else _how(status)
    return Verdict(Outcome.RETRYING if retries else Outcome.FAILED, kind or "ExitCode", told)


def _signal_of(status: int) -> int:
    """Return the signal that a command died of, or that it says so of; 0 for none."""
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    # As shells tell it, and programs that tidy up first.
    return max(os.WEXITSTATUS(status) - 128, 0)


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        core = ", core dumped" if os.WCOREDUMP(status) else ""
        return f"signal {_name(os.WTERMSIG(status))}{core}"
    return f"exit code {os.WEXITSTATUS(status)}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _raised(tail: str) -> tuple[str, str]:
    """Return type and message of the error that a Python program ended with, as it printed them."""
    if _TRACEBACK not in tail:
        return "", ""
    for line in reversed(tail.splitlines()):
        if match := _RAISED.match(line):
            return match[1] or match[3], match[2] or match[3]
    return "", ""
