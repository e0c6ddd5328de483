"""
Objectives of a model as a whole: how many of its runs succeed, and how old its newest success is.

Of each, one breach is open at a time: an episode, which ends when the objective is kept again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType

from batch_observability.ledger.records import PromiseRow
from batch_observability.model import SLA
from batch_observability.objective import format_duration
from batch_observability.sla.promises import Subject, model_key, nanoseconds
from batch_observability.sla.telling import AT_RISK, BROKEN, Cause, Teller

RATE, FRESHNESS = "success_rate", "freshness"
NOTHING: Mapping[str, PromiseRow] = MappingProxyType({})


@dataclass(frozen=True)
class Rate:
    """
    Runs of a model in a window that ended for good.

    Attributes:
        succeeded, failed: how many.
        newest_failure_ns: end of the newest that failed, None if none did.
    """

    succeeded: int
    failed: int
    newest_failure_ns: int | None

    @property
    def rate(self) -> float:
        """Successful runs over all, 0 to 1; 1 if there were none."""
        total = self.succeeded + self.failed
        return self.succeeded / total if total else 1.0

    def budget_used(self, target: float) -> float:
        """Return the failures that there were over those that a target allows; infinite if it allows none."""
        allowed = (1 - target) * (self.succeeded + self.failed)
        if not self.failed:
            return 0.0
        return self.failed / allowed if allowed else float("inf")


def of_model(subject: Subject) -> Subject:
    """Return what the promises of a model as a whole are made for."""
    return Subject(model=subject.model, source=subject.source, env=subject.env, resource="")


def tell_rate(
    teller: Teller,
    subject: Subject,
    sla: SLA,
    rate: Rate,
    now_ns: int,
    *,
    is_open: bool,
    known: Mapping[str, PromiseRow] = NOTHING,
) -> str:
    """
    Tell what has become of a success rate.

    Args:
        teller: by whom.
        subject: of the model.
        sla: of the model.
        rate: over its window, up to now.
        now_ns: now.
        is_open: whether it is told to be broken.
        known: what the ledger knows of causes, which need not be claimed to find that out; as far as it was asked.

    Returns:
        What was told: `breached`, `at_risk`, `recovered` or "".
    """
    if sla.success_rate is None:
        return ""
    target, failure_ns = float(sla.success_rate), rate.newest_failure_ns
    window = format_duration(sla.window) if isinstance(sla.window, timedelta) else str(sla.window)
    cause = Cause(
        key=model_key(RATE, subject.model["name"], failure_ns or 0),
        objective=RATE,
        promise=sla.objectives()[RATE],
        moment_ns=failure_ns or now_ns,
        reason=f"{rate.succeeded:,} of {rate.succeeded + rate.failed:,} runs in {window} succeeded, {rate.rate:.2%}",
        episode=f"{RATE}|{subject.model['name']}",
    )
    broken = rate.rate < target
    if is_open:
        return "" if broken else _recovered(teller, subject, cause, now_ns)
    if cause.key in known and (known[cause.key].breached_ns is not None or not broken):
        return ""
    if broken:
        return BROKEN if teller.promised(of_model(subject), BROKEN, cause) else ""
    if rate.failed and rate.budget_used(target) >= float(sla.warn_at):
        return AT_RISK if teller.promised(of_model(subject), AT_RISK, cause) else ""
    return ""


def tell_freshness(
    teller: Teller,
    subject: Subject,
    sla: SLA,
    newest_ns: int,
    now_ns: int,
    *,
    is_open: bool,
    known: Mapping[str, PromiseRow] = NOTHING,
) -> str:
    """
    Tell what has become of the age of the newest success; `newest_ns` is its end or, without one, when the model was
    first known. The rest is as for `tell_rate`.
    """
    if not isinstance(sla.freshness, timedelta):
        return ""
    allowed = nanoseconds(sla.freshness)
    age = now_ns - newest_ns
    cause = Cause(
        key=model_key(FRESHNESS, subject.model["name"], newest_ns),
        objective=FRESHNESS,
        promise=sla.objectives()[FRESHNESS],
        moment_ns=min(newest_ns + allowed, now_ns),
        deadline_ns=newest_ns + allowed,
        reason=f"the newest success is {format_duration(timedelta(seconds=max(age, 0) // 10**9))} old",
        episode=f"{FRESHNESS}|{subject.model['name']}",
    )
    if is_open:
        return "" if age > allowed else _recovered(teller, subject, cause, now_ns)
    if cause.key in known and (known[cause.key].breached_ns is not None or age <= allowed):
        return ""
    if age > allowed:
        return BROKEN if teller.promised(of_model(subject), BROKEN, cause) else ""
    if age >= allowed * float(sla.warn_at):
        return AT_RISK if teller.promised(of_model(subject), AT_RISK, replace(cause, moment_ns=now_ns)) else ""
    return ""


def _recovered(teller: Teller, subject: Subject, cause: Cause, now_ns: int) -> str:
    told = teller.recovered(of_model(subject), replace(cause, moment_ns=now_ns), before_ns=now_ns, own=False)
    return "recovered" if told else ""
