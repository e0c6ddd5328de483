"""
How models stand: what the ledger has counted, as shares, budgets and one word for the state of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from batch_observability.cli.words import rough
from batch_observability.cron.expected import next_due
from batch_observability.cron.known import KnownJob
from batch_observability.ledger.records import ModelStanding, PromiseRow
from batch_observability.model import SLA
from batch_observability.objective import OBJECTIVES, ModelError, format_duration
from batch_observability.schema import Outcome
from batch_observability.sla.model_wide import FRESHNESS, RATE, Rate
from batch_observability.sla.promises import FROM_CLOCK, Subject, nanoseconds, sla_of, slot_of

if TYPE_CHECKING:
    from batch_observability.ledger.store import Ledger

# The part of the window that the burn rate is taken over.
_RECENT = 30
# A moment after it is due nobody has begun what is due, and nobody is late.
_DUE_NOW_NS = 60 * 10**9


@dataclass(frozen=True)
class Judged:
    """How often an objective was kept and broken in the window."""

    kept: int
    broken: int

    @property
    def attainment(self) -> float | None:
        """Kept over all, 0 to 1; None if nothing was judged."""
        total = self.kept + self.broken
        return self.kept / total if total else None

    @property
    def text(self) -> str:
        """The same as a percentage, rounded down: it is 100 only if nothing was broken."""
        total = self.kept + self.broken
        return f"{self.kept * 10_000 // total / 100:.2f}%" if total else "-"


@dataclass(frozen=True)
class Line:
    """
    What is shown of one model.

    Attributes:
        judged: by objective: all that it promises, and what it promised in the window.
        budget_left: share of the failures that its success rate allows which is left, below 0 if there were more;
            None if it promises none; -inf if none is allowed and there was one.
        burn_rate: failures in the end of the window over those allowed: from 1 on the budget does not last.
        state: one of a few words; `words` say what it is about.
    """

    standing: ModelStanding
    judged: dict[str, Judged]
    budget_left: float | None
    burn_rate: float | None
    overdue: bool
    state: str
    words: str

    @property
    def total(self) -> Judged:
        """Of all objectives together."""
        return Judged(sum(one.kept for one in self.judged.values()), sum(one.broken for one in self.judged.values()))

    @property
    def worst(self) -> str:
        """The objective with the lowest attainment, "" if all were always kept."""
        broken = {name: one.kept / (one.kept + one.broken) for name, one in self.judged.items() if one.broken}
        return min(broken, key=broken.__getitem__, default="")


def lines_of(
    ledger: Ledger, jobs: Mapping[str, KnownJob], since_ns: int, now_ns: int, *, model: str = "", owner: str = ""
) -> list[Line]:
    """
    Return how models stand, by name; all, or the model or those of the owner that is given.

    Args:
        ledger: what has happened.
        jobs: that are due on this host.
        since_ns: beginning of the window,
        now_ns: and its end.
        model: name of the one to return.
        owner: whose to return.

    Raises:
        LedgerError: if the ledger cannot be asked.
    """
    recent_ns = now_ns - (now_ns - since_ns) // _RECENT
    standings = ledger.attainment(since_ns, recent_ns, model=model, owner=owner)
    at_risk = _at_risk(ledger, standings)
    due = next_due(ledger, jobs, {one.name: one.last_start_ns for one in standings})
    standings = [
        replace(one, next_due_ns=min(due[one.name], one.next_due_ns or due[one.name])) if one.name in due else one
        for one in standings
    ]
    return [_line(one, at_risk.get(one.name), now_ns) for one in standings]


def _at_risk(ledger: Ledger, standings: Iterable[ModelStanding]) -> dict[str, PromiseRow]:
    """Return by model a promise of a run that goes on which is told to be at risk, and is not broken."""
    running = {one.name for one in standings if one.open_runs}
    keys: set[str] = set()
    for source in ("airflow", "cron") if running else ():
        for run in (one.run for one in ledger.open_runs(source)):
            if run.model.get("name") not in running:
                continue
            # Which of the two names it depends on how it was triggered, which the ledger does not say.
            for slot in {slot_of("scheduled", run.due_ns or 0, ""), run.dag_run_id}:
                names = ("source", "env", "resource", "map_index", "clear_number", "run_id", "model")
                subject = Subject(**{name: getattr(run, name) for name in names}, slot=slot)
                keys |= {subject.key(objective) for objective in FROM_CLOCK}
    rows = ledger.promises_of(keys).values() if keys else ()
    return {row.model_name: row for row in rows if row.at_risk_ns is not None and row.breached_ns is None}


def _line(standing: ModelStanding, at_risk: PromiseRow | None, now_ns: int) -> Line:
    definition = standing.definition
    sla = _sla(json.dumps([definition.get("objectives", {}), definition.get("terms", {})]))
    budget_left, burn_rate = _budget(standing, sla)
    state, words = _state(standing, sla, at_risk, now_ns)
    overdue = standing.next_due_ns is not None and now_ns - standing.next_due_ns > _DUE_NOW_NS
    return Line(standing, _judged(standing), budget_left, burn_rate, overdue, state, words)


@cache
def _sla(written: str) -> SLA:
    """Return the SLA that the ledger has as text; one that promises nothing if another version wrote it."""
    objectives, terms = json.loads(written)
    try:
        return sla_of({"objectives": objectives, "terms": terms})
    except (ModelError, TypeError):
        return SLA()


def _judged(standing: ModelStanding) -> dict[str, Judged]:
    promised = standing.definition.get("objectives", {})
    found = {}
    for name in OBJECTIVES:
        one = Judged(standing.kept.get(name, 0), standing.broken.get(name, 0))
        if name == RATE:
            # Every run that ended for good counts for it.
            one = Judged(standing.succeeded, standing.failed) if name in promised else Judged(0, 0)
        elif name == FRESHNESS:
            # It is kept from one success to the next, or broken once before that.
            one = Judged(max(standing.succeeded - one.broken, 0) if name in promised else 0, one.broken)
        if name in promised or one.kept or one.broken:
            found[name] = one
    return found


def _budget(standing: ModelStanding, sla: SLA) -> tuple[float | None, float | None]:
    """Return what is left of the error budget, and how fast it goes; None if there is none."""
    if sla.success_rate is None:
        return None, None
    rates = (
        Rate(standing.succeeded, standing.failed, None),
        Rate(standing.recent_succeeded, standing.recent_failed, None),
    )
    used, burn_rate = (rate.budget_used(float(sla.success_rate)) for rate in rates)
    # What is left over by the arithmetic of floats is nothing.
    return round(1 - used, 9) + 0.0, burn_rate


def _state(standing: ModelStanding, sla: SLA, at_risk: PromiseRow | None, now_ns: int) -> tuple[str, str]:
    """Return how a model stands, in one of a few words, and what that is about."""
    if standing.open:
        newest, more = standing.open[0], len(standing.open) - 1
        words = f"{newest.objective} {newest.promise}, {rough(now_ns - (newest.breached_ns or 0))} ago"
        also = [f"and {more} more"] if more else []
        return "breached", " ".join([words, *also, *([f"({standing.state})"] if standing.state else [])])
    age_state, age_words = _age(standing, sla, now_ns)
    if age_state == "breached":
        return age_state, age_words
    if standing.state:
        return standing.state, "it will not run"
    if at_risk is not None:
        left = f", {rough(at_risk.deadline_ns - now_ns)} left" if at_risk.deadline_ns is not None else ""
        return "at risk", f"{at_risk.objective} {at_risk.promise}{left}"
    if age_state:
        return age_state, age_words
    if standing.last_start_ns is None:
        return "never ran", "it is declared"
    since = f"{rough(now_ns - standing.last_start_ns)} ago"
    if standing.open_runs:
        return "running", f"{standing.open_runs:,} open, the newest run started {since}"
    if standing.last_outcome in (Outcome.SUCCESS, Outcome.SKIPPED):
        return "ok", f"last run {standing.last_outcome}, started {since}"
    return "failed", f"last run {standing.last_outcome}, started {since}"


def _age(standing: ModelStanding, sla: SLA, now_ns: int) -> tuple[str, str]:
    """Return the state of a model by the age of its newest success, which nobody may have told yet."""
    if not isinstance(sla.freshness, timedelta) or standing.last_success_ns is None:
        return "", ""
    age, allowed = now_ns - standing.last_success_ns, nanoseconds(sla.freshness)
    words = f"{FRESHNESS} {format_duration(sla.freshness)}: the newest success is {rough(age)} old"
    return ("breached" if age > allowed else "at risk" if age >= allowed * float(sla.warn_at) else ""), words
