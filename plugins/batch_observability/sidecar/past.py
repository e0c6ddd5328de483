"""
What was known of a run before this sidecar: by an earlier phase of it, or by a sidecar that was lost.
"""

from __future__ import annotations

import json
import logging

from batch_observability.ledger.store import Ledger, LedgerError
from batch_observability.sidecar.journal import Journal
from batch_observability.sidecar.observation import Observation

log = logging.getLogger("batch_observability.sidecar")

# The scheduler's helper may just be looking at it.
_PATIENCE_S = 1.0
# A sidecar that was told lets go when it next looks, which on a busy host may be while it loads something.
_TOLD_PATIENCE_S = 5.0


def recall(journal: Journal, ledger: Ledger, observation: Observation, *, announced: bool = False) -> bool:
    """
    Go on with a run from its journal on this host or, if it paused on another, from what the ledger has.

    Args:
        journal: of the run.
        ledger: where it may be known.
        observation: of the run, which has just begun in this process.
        announced: whoever has the journal was told that this process comes.

    Returns:
        Whether its start has been told.
    """
    run_id = observation.context.run_id
    try:
        entry = journal.take(_TOLD_PATIENCE_S if announced else _PATIENCE_S)
        if entry is not None:
            observation.resume(entry.observation)
            return entry.start_told
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("the journal of run %s cannot be used: %s", run_id, error)
    finally:
        if announced:
            journal.arrive()
    if not observation.context.resumed:
        return False
    observation.phase = 2
    try:
        if state := ledger.paused_state(run_id):
            observation.resume(json.loads(state))
    except (LedgerError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("what the ledger knows of run %s cannot be used: %s", run_id, error)
    return True
