"""
What was told of a promise: as a line for people, and as values for JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from batch_observability.cli.words import rough
from batch_observability.ledger.records import Promised, PromiseRow, Recovered
from batch_observability.sla.promises import NO_INSTANCE
from batch_observability.sla.telling import BROKEN, clock

RECOVERED = "recovered"
_OF_CAUSE = ("objective", "promise", "reason", "missed", "told_by", "key", "run_id", "due_ns", "deadline_ns")
_OF_PLACE = ("env", "resource", "dag_id", "task_id", "job", "dag_run_id", "map_index")


@dataclass(frozen=True, kw_only=True)
class Told:
    """
    What was told of a promise of a model.

    Attributes:
        event: `breached`, `at_risk` or `recovered`.
        since_ns: when it was broken, became at risk or was kept again.
        missed: nobody has begun what was due.
    """

    event: str
    model: str
    owner: str
    tier: str
    objective: str
    promise: str
    reason: str
    missed: bool = False
    told_by: str = ""
    key: str = ""
    env: str = ""
    resource: str = ""
    dag_id: str = ""
    task_id: str = ""
    job: str = ""
    dag_run_id: str = ""
    map_index: int = NO_INSTANCE
    run_id: str = ""
    due_ns: int | None = None
    deadline_ns: int | None = None
    since_ns: int
    margin_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as values that JSON has; moments are text."""
        values = asdict(self)
        moments = {name: values.pop(name) for name in ("due_ns", "deadline_ns", "since_ns")}
        times = {name.removesuffix("_ns"): None if at is None else clock(at) for name, at in moments.items()}
        return {**values, **times}

    def cells(self, now_ns: int) -> list[str]:
        """Return it in words, part by part."""
        missed = "missed" if self.missed and self.event == BROKEN else self.event.replace("_", " ")
        where = self.resource if self.map_index == NO_INSTANCE else f"{self.resource}[{self.map_index}]"
        return [
            missed,
            self.model,
            where or "-",
            f"{self.objective} {self.promise}",
            self.reason or "its time is over",
            f"due {clock(self.due_ns)}" if self.due_ns is not None else "due -",
            f"owner {self.owner or '-'}",
            f"since {clock(self.since_ns)} ({rough(now_ns - self.since_ns)} ago)",
        ]


def of_row(row: PromiseRow) -> Told:
    """Return what the ledger knows of a promise that was broken, and may have recovered."""
    recovered = row.recovered_ns is not None
    return Told(
        event=RECOVERED if recovered else BROKEN,
        model=row.model_name,
        owner=row.owner,
        tier=row.tier,
        since_ns=(row.recovered_ns if recovered else row.breached_ns) or 0,
        margin_s=row.margin_s,
        **{name: getattr(row, name) for name in (*_OF_CAUSE, *_OF_PLACE)},
    )


def of_change(change: Promised | Recovered, owners: Mapping[str, str]) -> Told:
    """Return what this process told; `owners` are those of models."""
    if isinstance(change, Promised):
        return Told(
            event=change.state,
            model=str(change.model.get("name", "")),
            owner=str(change.model.get("owner", "")),
            tier=str(change.model.get("tier", "")),
            since_ns=change.time_ns,
            **{name: getattr(change, name) for name in (*_OF_CAUSE, *_OF_PLACE)},
        )
    return Told(
        event=RECOVERED,
        model=change.model_name,
        owner=owners.get(change.model_name, ""),
        tier="",
        objective=change.objective,
        promise="",
        reason=change.reason,
        resource=change.resource,
        since_ns=change.time_ns,
    )
