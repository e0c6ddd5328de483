"""
What an exit status says of a run: its outcome, and what went wrong, with the last lines that the command wrote.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from batch_observability.cron.output import last_lines
from batch_observability.redact import redact_text
from batch_observability.schema import Outcome

_RAISED = re.compile(r"^([A-Za-z_][\w.]*): (.+)$|^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit))$")
_TRACEBACK = "Traceback (most recent call last):"


class Verdict(NamedTuple):
    """Outcome, and the error's type and message; both "" if there is none."""

    outcome: Outcome
    kind: str = ""
    message: str = ""


class Facts:
    """
    How a command ended, as `batchobs run` says it: with a wait status, or without having run.

    Args:
        said: what it says.
        tail: what the command wrote last.
    """

    def __init__(self, said: Mapping[str, Any], tail: bytes = b"") -> None:
        self.end_ns = int(said["end_ns"])
        self.status: int | None = said.get("status")
        self.asked = frozenset(said.get("asked", ()))
        self.timed_out = str(said.get("timed_out", ""))
        self.retries = bool(said.get("retries"))
        self.missed = int(said.get("missed", 0))
        self.sizes: list[int] = said.get("sizes", [])
        self.event = str(said.get("event", ""))
        self.usage = {"cpu_s": said.get("cpu_s", 0.0), "memory_peak": said.get("memory_peak", 0)}
        self.tail = last_lines(tail)
        self._said = said

    @property
    def verdict(self) -> Verdict:
        """What they say of the run."""
        if self.status is None:
            return Verdict(Outcome(self._said["outcome"]), str(self._said["kind"]), str(self._said["message"]))
        return judge(self.status, self.asked, timed_out=self.timed_out, retries=self.retries, tail=self.tail)


def ended_by(facts: Facts) -> dict[str, Any]:
    """Return what the last frame of a run says that ended so."""
    verdict = facts.verdict
    return {
        "ts": facts.end_ns,
        "outcome": verdict.outcome.value,
        "error": _error(verdict, facts.tail) if verdict.kind else None,
        "usage": facts.usage,
        "event": facts.event,
    }


def ended_unseen(why: str, tail: bytes = b"", end_ns: int | None = None) -> dict[str, Any]:
    """Return what the last frame of a run says whose end nobody has seen."""
    verdict = Verdict(Outcome.LOST, "Lost", why)
    return {
        "ts": end_ns or time.time_ns(),
        "outcome": verdict.outcome.value,
        "error": _error(verdict, last_lines(tail)),
        "usage": {"cpu_s": 0.0, "memory_peak": 0},
    }


def _error(verdict: Verdict, tail: str) -> dict[str, str]:
    return {"type": verdict.kind, "message": redact_text(verdict.message), "stack": redact_text(tail)}


def judge(
    status: int, asked: Collection[int], *, timed_out: str = "", retries: bool = False, tail: str = ""
) -> Verdict:
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
