"""
What a model must say of itself, by its tier. The more it matters, the more must be known before it fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batch_observability.lint.findings import Complaint, Severity, Subject

_IN_TIME = ("finish_by", "finish_within")
_RELIABLE = ("success_rate", "freshness")


@dataclass(frozen=True, kw_only=True)
class Demand:
    """
    What is demanded of the models of a tier.

    Attributes:
        runbook: how bad it is to have none, None if that is well.
        oncall: whether its owner must say who is called.
        objectives: one of each group must be promised.
        severity: how bad it is if one is not.
    """

    runbook: Severity | None = None
    oncall: bool = False
    objectives: tuple[tuple[str, ...], ...] = ()
    severity: Severity = Severity.ERROR


DEMANDS = {
    "1": Demand(runbook=Severity.ERROR, oncall=True, objectives=(_IN_TIME, _RELIABLE)),
    "2": Demand(runbook=Severity.WARNING, objectives=((*_IN_TIME, *_RELIABLE),), severity=Severity.WARNING),
}
# Every other tier, a number or a label.
OTHERWISE = Demand()


def missing_owner(subject: Subject) -> Iterator[Complaint]:
    """Somebody answers for every model."""
    if not subject.model.owner.strip() and "owner" not in subject.unknown:
        yield Complaint(text=f"model {subject.model.name!r} has no owner", subject=subject, key="owner")


def missing_tier(subject: Subject) -> Iterator[Complaint]:
    """Somebody has thought about how much it matters."""
    if "tier" not in subject.given | subject.unknown:
        text = f"model {subject.model.name!r} says no tier, and is taken for one of tier {subject.tier}"
        yield Complaint(text=text, subject=subject, key="tier")


def missing_runbook(subject: Subject) -> Iterator[Complaint]:
    """Who is called knows what to do."""
    severity = _demand(subject).runbook
    if severity and not subject.model.runbook.strip() and "runbook" not in subject.unknown:
        text = f"model {subject.model.name!r} of tier {subject.tier} has no runbook"
        yield Complaint(text=text, subject=subject, key="runbook", severity=severity)


def missing_objectives(subject: Subject) -> Iterator[Complaint]:
    """What matters promises something that can be judged."""
    if "sla" in subject.unknown:
        return
    demand, sla = _demand(subject), subject.model.sla
    for group in demand.objectives:
        # Asked at each parse of a DAG: to write the objectives out as text takes long.
        if sla is None or all(getattr(sla, name) is None for name in group):
            yield Complaint(
                text=f"model {subject.model.name!r} of tier {subject.tier} promises none of {', '.join(group)}",
                subject=subject,
                key="sla",
                severity=demand.severity,
                remedy=f"add one of {', '.join(group)} to its sla, for example {EXAMPLES[group[0]]}",
            )


def missing_oncall(subject: Subject) -> Iterator[Complaint]:
    """Where it matters most, a page finds somebody."""
    team = subject.model.owner.strip()
    known = {"owner", "oncall"}.isdisjoint(subject.unknown)
    reachable = subject.owner is not None and subject.owner.oncall.strip()
    if _demand(subject).oncall and team and known and not reachable:
        text = f"owner {team!r} of model {subject.model.name!r}, tier {subject.tier}, has no on-call handle"
        yield Complaint(text=text, subject=subject, key="owner")


EXAMPLES = {"finish_by": "finish_by: 06:30 Europe/London", "success_rate": "success_rate: 99%"}


def _demand(subject: Subject) -> Demand:
    # Of a model whose tier is computed nothing is demanded that only some tiers must have.
    return OTHERWISE if "tier" in subject.unknown else DEMANDS.get(subject.tier, OTHERWISE)
