"""
What a process died of that ended without a word, from what the system and the ledger know of it.
"""

from __future__ import annotations

import logging
import time

from batch_observability.ledger.store import Ledger, LedgerError
from batch_observability.sidecar.ending import OUT_OF_MEMORY, Ending, found_dead, judged
from batch_observability.sidecar.memory import MemoryLimit
from batch_observability.sidecar.observation import Observation
from batch_observability.sidecar.process import ObservedProcess

log = logging.getLogger("batch_observability.sidecar")

# The parent reaps within milliseconds; before that the system does not tell what the process died of.
_REAPED_WITHIN_S = 0.5


def autopsy(
    observation: Observation, process: ObservedProcess, memory: MemoryLimit, ended_ns: int, *, silent: bool
) -> Ending:
    """
    Find what a process died of.

    `silent` says that the run had stopped talking before its process ended, so that an exit says nothing.
    """
    # At once: the group may be removed with its last process.
    by_oom = memory.killed_by_oom()
    peak = memory.peak() if by_oom else None
    death = process.death()
    give_up = time.monotonic() + _REAPED_WITHIN_S
    while not death.signal and death.exit_code is None and time.monotonic() < give_up:
        time.sleep(0.01)
        death = process.death()
    found = ""
    if by_oom and death.signal == "SIGKILL":
        # It may have grown since it was last looked at.
        process.add_usage(0, peak or 0)
        limit = f"{memory.limit / 1e6:.0f} MB" if memory.limit else "that of the host"
        found = f"memory peak {max(process.memory_peak, observation.memory_peak) / 1e6:.0f} MB, limit {limit}"
    return found_dead(observation, process.pid, death, ended_ns, silent=silent, out_of_memory=found)


def hear_verdict(ledger: Ledger, observation: Observation, end: Ending) -> Ending:
    """Ask the ledger whether somebody has said why the run would end, if it was made to."""
    made_to = end.death is not None and not (end.error and end.error.type == OUT_OF_MEMORY)
    if not made_to and observation.asked_to_end is None:
        return end
    try:
        verdict = ledger.verdict(observation.context.run_id)
    except LedgerError as error:
        log.warning("%s", error)
        return end
    return judged(observation, end, verdict.outcome, verdict.reason) if verdict else end
