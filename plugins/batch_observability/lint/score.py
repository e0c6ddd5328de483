"""
How well the models of each owner are described: a number from 0 to 100.

Each model begins with 100 and loses 25 for each error and 10 for each warning that is about it, down to 0; an owner has
the mean of its models. Notes cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from batch_observability.lint.findings import Finding, Severity, Subject

COSTS = {Severity.ERROR: 25, Severity.WARNING: 10, Severity.NOTE: 0}
NOBODY = "(nobody)"


@dataclass(frozen=True)
class Score:
    """What an owner has: a score, and how many models, errors and warnings it is made of."""

    owner: str
    score: int
    models: int
    errors: int
    warnings: int


def scores(subjects: Iterable[Subject], findings: Iterable[Finding]) -> list[Score]:
    """Return the score of each owner, the lowest first; of all together with the owner ""."""
    owners: dict[str, str] = {}
    for subject in subjects:
        name, owner = subject.model.name, subject.model.owner.strip()
        # Of a model that is written twice, the place that names an owner counts.
        owners[name] = owners.get(name, "") or owner
    left = dict.fromkeys(owners, 100)
    errors: dict[str, int] = dict.fromkeys(owners, 0)
    warnings: dict[str, int] = dict.fromkeys(owners, 0)
    for one in findings:
        if one.model in owners:
            left[one.model] = max(left[one.model] - COSTS[one.severity], 0)
            errors[one.model] += one.severity is Severity.ERROR
            warnings[one.model] += one.severity is Severity.WARNING

    def of(owner: str, names: list[str]) -> Score:
        mean = round(sum(left[name] for name in names) / len(names))
        return Score(owner, mean, len(names), sum(errors[name] for name in names), sum(warnings[n] for n in names))

    by_owner: dict[str, list[str]] = {}
    for name, owner in owners.items():
        by_owner.setdefault(owner or NOBODY, []).append(name)
    found = sorted((of(*pair) for pair in by_owner.items()), key=lambda one: (one.score, one.owner))
    return [*found, of("", list(owners))] if owners else []
