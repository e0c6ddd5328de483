"""
The promises of a run that has ended: judged, and what was broken or is kept again told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

from batch_observability.ledger.records import Margin
from batch_observability.ledger.store import LedgerError, Standing
from batch_observability.schema import Outcome
from batch_observability.sidecar.ending import Ending
from batch_observability.sidecar.observation import Observation
from batch_observability.sidecar.promises import Promises
from batch_observability.sla.judge import Judgement, Kept, judge, lateness
from batch_observability.sla.model_wide import FRESHNESS, RATE, tell_freshness, tell_rate
from batch_observability.sla.promises import FROM_CLOCK, FROM_DUE, margin_s, nanoseconds
from batch_observability.sla.telling import BROKEN, Cause

log = logging.getLogger("batch_observability.sidecar")

# How a run ends that counts for the success rate of its model.
_FINAL = frozenset({Outcome.SUCCESS, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.KILLED, Outcome.LOST})


def judge_run(
    promises: Promises, observation: Observation, ending: Ending, patience_s: float
) -> tuple[Kept, Standing | None]:
    """Judge a run that has ended; return what became of its promises, and what the ledger knows that matters to it."""
    sla, context = promises.sla, observation.context
    if not sla.objectives():
        return Kept(extended_s=observation.extended_s), None
    standing = promises.standing(patience_s)
    promises.look_back(standing)
    judgements = judge(
        sla,
        promises.deadlines(),
        outcome=ending.outcome,
        first_start_ns=promises.first_start_ns,
        start_ns=context.start_ns,
        end_ns=ending.end_ns,
        rows=observation.total_rows,
        first_try=context.is_first_try,
    )
    judgements = [_as_told(one, promises, standing, ending.end_ns) for one in judgements]
    since = [moment for moment in (context.declared_ns, standing.since_ns if standing else None) if moment is not None]
    if promises.subject.is_scheduled and not (since and context.due_ns and min(since) <= context.due_ns):
        # It was not known as a batch model when it was due.
        judgements = [one for one in judgements if one.objective not in FROM_DUE]
    final = ending.outcome in _FINAL and not (context.retries_left and ending.outcome is not Outcome.SUCCESS)
    counted = [RATE] if final and sla.success_rate is not None else []
    counted += [FRESHNESS] if ending.outcome is Outcome.SUCCESS and sla.freshness is not None else []
    margins = tuple(
        Margin(key=promises.subject.key(one.objective), margin_s=one.margin_s)
        for one in judgements
        if one.margin_s is not None
    )
    return Kept(tuple(judgements), margins, observation.extended_s, tuple(counted)), standing


def _as_told(judgement: Judgement, promises: Promises, standing: Standing | None, end_ns: int) -> Judgement:
    """Return a judgement as it stays: what was told to be broken is not kept by time that was granted afterwards."""
    _, broken_ns = (
        standing.told.get(promises.subject.key(judgement.objective), (None, None)) if standing else (None, None)
    )
    if broken_ns is None or not judgement.kept or judgement.objective not in FROM_CLOCK:
        return judgement
    left = margin_s(broken_ns, end_ns)
    reason = f"finished {lateness(left)}, and was granted time after that"
    return replace(judgement, kept=False, moment_ns=broken_ns, margin_s=left, deadline_ns=broken_ns, reason=reason)


def has_news(kept: Kept, standing: Standing | None) -> bool:
    """Whether there may be something to tell: something is broken, was broken before, or counts for a rate."""
    return any(not one.kept for one in kept.judgements) or RATE in kept.counted or bool(standing and standing.open)


def tell_judged(promises: Promises, kept: Kept, standing: Standing | None, ending: Ending, *, start_ns: int) -> None:
    """
    Tell what a run has broken, and what it keeps again.

    Args:
        promises: of the run.
        kept: as `judge_run` gave it.
        standing: the same.
        ending: of the run.
        start_ns: start of the run.
    """
    told = standing.told if standing else {}
    opened = {one.objective for one in standing.open} if standing else set()
    success = ending.outcome is Outcome.SUCCESS
    for one in kept.judgements:
        cause = _cause(promises, one)
        if one.kept:
            if one.objective in opened:
                promises.teller.recovered(
                    promises.subject, replace(cause, moment_ns=ending.end_ns), before_ns=start_ns, own=False
                )
            continue
        if not told.get(cause.key, (None, None))[1]:
            promises.declare(one.objective)
            promises.teller.promised(promises.subject, BROKEN, cause)
        if success and one.objective in FROM_CLOCK:
            # Late, but it is there.
            late = replace(cause, moment_ns=ending.end_ns)
            promises.teller.recovered(promises.subject, late, before_ns=0, own=True)
    _tell_model_wide(promises, kept, opened, ending.end_ns)


def _cause(promises: Promises, judgement: Judgement) -> Cause:
    return Cause(
        key=promises.subject.key(judgement.objective),
        objective=judgement.objective,
        promise=judgement.promise,
        moment_ns=judgement.moment_ns,
        deadline_ns=judgement.deadline_ns,
        reason=judgement.reason,
        margin_s=judgement.margin_s,
    )


def _tell_model_wide(promises: Promises, kept: Kept, opened: Collection[str], end_ns: int) -> None:
    sla, subject, now_ns = promises.sla, promises.subject, time.time_ns()
    if FRESHNESS in kept.counted and FRESHNESS in opened:
        tell_freshness(promises.teller, subject, sla, end_ns, now_ns, is_open=True)
    if RATE in kept.counted and isinstance(sla.window, timedelta):
        try:
            rate = promises.rate(now_ns - nanoseconds(sla.window))
        except LedgerError as error:
            log.warning("%s", error)
            return
        tell_rate(promises.teller, subject, sla, rate, now_ns, is_open=RATE in opened)
