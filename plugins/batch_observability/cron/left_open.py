"""
Runs of cron jobs on this host that are open though nobody is left who would tell how they ended: they are closed by
whoever comes next, the observer of another job, `batchobs check`, `watch` or `spool replay`.

What was told on disk is told now: how the command ended, if `batchobs run` saw that, and what it wrote.
"""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress
from typing import Any

from batch_observability.config import Settings
from batch_observability.cron.attempt import SOURCE
from batch_observability.cron.job_log import JobLog
from batch_observability.cron.output import Kept
from batch_observability.cron.verdict import Facts, ended_by, ended_unseen
from batch_observability.export.deliver import Delivery
from batch_observability.export.signals import Error
from batch_observability.export.target import choose
from batch_observability.schema import Outcome
from batch_observability.sidecar.closing import close_run
from batch_observability.sidecar.ending import Ending
from batch_observability.sidecar.journal import ENDED, OUTPUT, Entry, Journal, run_ids
from batch_observability.sidecar.observation import Observation, restore
from batch_observability.sidecar.promises import promises_of

log = logging.getLogger("batch_observability.sidecar")

_UNSEEN = "its process and its observer were killed: nobody has seen how it ended"
_ASKED_WITHIN_S = 5.0


def close_left_open(settings: Settings, delivery: Delivery | None = None) -> list[str]:
    """
    Close what is left open on this host; return the ids of the runs that this has told.

    Args:
        settings: of this host.
        delivery: where to; by default where the settings say.
    """
    closed = []
    for run_id in list(run_ids(settings.state_path)):
        journal = Journal(settings.state_path, run_id)
        try:
            found = _left_open(journal)
            if found is not None:
                delivery = delivery or Delivery(settings, choose(settings, os.environ, airflow_tracing=False))
                if _close(settings, delivery, journal, *found):
                    closed.append(run_id)
        except Exception:
            # It stays, for who comes after the mistake is mended.
            log.warning("run %s cannot be closed", run_id, exc_info=True)
        finally:
            journal.release()
    return closed


def _left_open(journal: Journal) -> tuple[Entry, Observation] | None:
    """Take the journal of a run that nobody will tell the end of; None if it is not one."""
    try:
        entry = journal.take()
        if entry is None or entry.observation["context"]["source"] != SOURCE or not entry.process_gone:
            return None
        return entry, restore(entry.observation)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.debug("%s cannot be used: %s", journal.path, error)
        return None


def _close(settings: Settings, delivery: Delivery, journal: Journal, entry: Entry, observation: Observation) -> bool:
    run_id = observation.context.run_id
    if delivery.spool.holds_change_of(run_id):
        # Its observer has told it, to the disk of this host.
        journal.remove()
        return False
    heard_ns = journal.path.stat().st_mtime_ns
    facts = _facts(journal)
    tail = _write_lines(settings, journal, observation, facts)
    frame = ended_unseen(_UNSEEN, tail, heard_ns) if facts is None else ended_by(facts)
    usage = frame["usage"]
    observation.cpu_s = max(observation.cpu_s, usage["cpu_s"])
    observation.memory_peak = max(observation.memory_peak, usage["memory_peak"])
    if event := frame.get("event"):
        observation.add({"t": "event", "ts": frame["ts"], "text": event, "stage": 0})
    report = close_run(
        observation,
        _ending(frame, entry.pid),
        promises_of(observation, delivery, "check", pid=entry.pid, host=entry.host),
        delivery,
        host=entry.host,
        token=f"{run_id}-{time.time_ns()}",
        closed_by="reader",
        with_start=not entry.start_told,
        patience_s=_ASKED_WITHIN_S,
        must_claim=True,
    )
    if not report.ledger:
        journal.remove()
    return report.told


def _facts(journal: Journal) -> Facts | None:
    """Return how the command ended, if `batchobs run` has seen it."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said, _, tail = journal.path.with_suffix(ENDED).read_bytes().partition(b"\n")
        return Facts(json.loads(said), tail)
    return None


def _write_lines(settings: Settings, journal: Journal, observation: Observation, facts: Facts | None) -> bytes:
    """Make log lines of what the command wrote, as far as that was not done; return what it wrote last."""
    kept = Kept(os.fspath(journal.path.with_suffix(OUTPUT)))
    lines = JobLog(observation.context, settings, None)
    for piece in kept.pieces():
        lines.take(piece)
    lines.end(facts.missed if facts else 0)
    return kept.tail


def _ending(frame: dict[str, Any], pid: int) -> Ending:
    error = Error(**frame["error"]) if frame["error"] else None
    return Ending(Outcome(frame["outcome"]), frame["ts"], pid, error)
