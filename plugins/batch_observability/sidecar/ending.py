"""
How a run ended: what it told, or what it died of, or what somebody said who knows better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from batch_observability import schema
from batch_observability.export.signals import Error
from batch_observability.schema import Outcome
from batch_observability.sidecar.observation import Observation
from batch_observability.sidecar.process import Death

OUT_OF_MEMORY = "OutOfMemory"
_ERROR_TYPES = {
    Outcome.CANCELLED: "Cancelled",
    Outcome.TIMED_OUT: "TimedOut",
    Outcome.LOST: "Lost",
    Outcome.KILLED: "Killed",
}
# A busy host kills a little late.
_KILLED_LATE_S = 3.0


@dataclass(frozen=True)
class Ending:
    """Outcome, end as Unix time in nanoseconds, and what went wrong, of a run with this process id."""

    outcome: Outcome
    end_ns: int
    pid: int
    error: Error | None = None
    death: Death | None = None


def told(observation: Observation, pid: int) -> Ending:
    """Return the ending that the run told in its last frame."""
    frame = observation.ended or {}
    error = Error(**frame["error"]) if frame.get("error") else None
    return Ending(Outcome(frame["outcome"]), frame["ts"], pid, error)


def found_dead(
    observation: Observation, pid: int, death: Death, end_ns: int, *, silent: bool, out_of_memory: str = ""
) -> Ending:
    """
    Return the ending of a run whose process is gone without a last frame.

    `silent` says that the run had stopped talking before its process ended, so that an exit says nothing.
    `out_of_memory` says what the system's out-of-memory killer found, "" if it was not that.
    """
    stage = observation.innermost_open_stage
    where = f" in stage {stage.name}" if stage else ""
    if out_of_memory:
        error = Error(OUT_OF_MEMORY, f"killed by the out-of-memory killer{where}: {out_of_memory}")
    elif _was_stopped(observation, death, end_ns):
        error = Error(
            "Cancelled", f"stopped{where} by Airflow, which no longer wanted it: cleared, or its state was set"
        )
        return Ending(Outcome.CANCELLED, end_ns, pid, error, death)
    elif death.signal:
        error = Error(death.signal, f"killed by {death.signal}{where}")
    elif death.exit_code is not None:
        error = Error("ProcessExit", f"the process left with exit code {death.exit_code}{where}, without an outcome")
    else:
        error = Error("ProcessDied", f"the process ended{where} without an outcome; this system does not tell why")
    outcome = Outcome.LOST if silent and not death.signal else Outcome.KILLED
    return Ending(outcome, end_ns, pid, error, death)


def _was_stopped(observation: Observation, death: Death, end_ns: int) -> bool:
    """Whether the process was asked to end, and was killed as long after that as who asks so does."""
    asked = observation.asked_to_end
    if asked is None or death.signal != "SIGKILL":
        return False
    return bool(-0.5 <= (end_ns - asked["ts"]) / 1e9 - asked["killed_after_s"] <= _KILLED_LATE_S)


def judged(observation: Observation, ending: Ending, outcome: str, reason: str) -> Ending:
    """Return the ending with what somebody who knows better said of it beforehand."""
    known = Outcome(outcome)
    firsthand = ending.death and (ending.death.signal or ending.death.exit_code is not None)
    if known in (Outcome.LOST, Outcome.KILLED) and firsthand:
        return ending
    stage = observation.innermost_open_stage
    error = Error(_ERROR_TYPES.get(known, "Error"), f"{reason}{f' (in stage {stage.name})' if stage else ''}")
    return replace(ending, outcome=known, error=error if known in schema.ERRORS else None)
