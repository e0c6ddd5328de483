"""
What has become of the promises of a run that has ended. Plain values in, plain values out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from batch_observability.ledger.records import Margin
from batch_observability.model import SLA
from batch_observability.objective import OBJECTIVES, format_duration
from batch_observability.schema import Outcome
from batch_observability.sla.promises import FROM_CLOCK, Deadline, margin_s, nanoseconds


@dataclass(frozen=True)
class Judgement:
    """
    One objective of one run.

    Attributes:
        objective: its name.
        promise: what it promises, as text.
        kept: whether it was.
        moment_ns: when that was decided: the deadline of a promise that was broken, else the end of the run.
        margin_s: seconds that were left, negative if it is late; None if it is not about time.
        deadline_ns: by when it was to be kept, None if it is not judged by a clock.
        reason: what was seen, in a few words.
    """

    objective: str
    promise: str
    kept: bool
    moment_ns: int
    margin_s: float | None
    deadline_ns: int | None
    reason: str


@dataclass(frozen=True)
class Kept:
    """
    What became of the promises of a run.

    Attributes:
        judgements: of its own objectives.
        margins: of those about time, by the key of their cause.
        extended_s: seconds that this try was granted.
        counted: objectives of the model as a whole that this run counts for.
    """

    judgements: tuple[Judgement, ...] = ()
    margins: tuple[Margin, ...] = ()
    extended_s: float = 0.0
    counted: tuple[str, ...] = ()

    @property
    def mask(self) -> int:
        """The objectives that were kept, as bits in the order of `OBJECTIVES`."""
        return sum(1 << OBJECTIVES.index(one.objective) for one in self.judgements if one.kept)


NOTHING_PROMISED = Kept()


def judge(
    sla: SLA,
    deadlines: Mapping[str, Deadline],
    *,
    outcome: Outcome,
    first_start_ns: int,
    start_ns: int,
    end_ns: int,
    rows: Mapping[str, int] | None,
    first_try: bool,
) -> list[Judgement]:
    """
    Judge a run that has ended.

    Only a success finishes: of a run that failed, promises to finish are broken once their time is over, which is told
    by who watches the clock. A run that was skipped had nothing to keep.

    Args:
        sla: of its model.
        deadlines: as `promises.deadlines` gives them.
        outcome: how it ended.
        first_start_ns: when its first try began.
        start_ns: start of this try.
        end_ns: its end.
        rows: read, written and rejected; None if it never said.
        first_try: whether this is the first try.
    """
    if outcome is Outcome.SKIPPED:
        return []
    judged: list[Judgement] = []

    def by_clock(objective: str, moment_ns: int, verb: str) -> None:
        if deadline := deadlines.get(objective):
            left = margin_s(deadline.at_ns, moment_ns)
            words = f"{verb} {lateness(left)}"
            decided = end_ns if left >= 0 else deadline.at_ns
            judged.append(Judgement(objective, deadline.promise, left >= 0, decided, left, deadline.at_ns, words))

    if first_try:
        by_clock("start_within", first_start_ns, "started")
    if outcome is not Outcome.SUCCESS:
        overdue = [one for one in FROM_CLOCK[1:] if one in deadlines and deadlines[one].at_ns < end_ns]
        for objective in overdue:
            by_clock(objective, end_ns, f"not finished: {outcome.value}")
        return judged
    by_clock("finish_within", end_ns, "finished")
    by_clock("finish_by", end_ns, "finished")
    promises = sla.objectives()

    def by_value(objective: str, *, kept: bool, reason: str, left: float | None = None) -> None:
        judged.append(Judgement(objective, promises[objective], kept, end_ns, left, None, reason))

    if isinstance(sla.min_duration, timedelta):
        spare = (end_ns - start_ns - nanoseconds(sla.min_duration)) / 1e9
        took = format_duration(timedelta(microseconds=max(end_ns - start_ns, 0) // 1000))
        by_value("min_duration", kept=spare >= 0, reason=f"took {took}", left=spare)
    written, read, rejected = ((rows or {}).get(name, 0) for name in ("written", "read", "rejected"))
    if sla.min_rows is not None:
        said = f"wrote {written:,} rows" if rows is not None else "never said how many rows it wrote"
        by_value("min_rows", kept=written >= int(sla.min_rows), reason=said)
    if sla.max_rejected_ratio is not None:
        # Of nothing, nothing can have been rejected.
        ratio = rejected / read if read else float(rejected > 0)
        said = f"rejected {rejected:,} of {read:,} rows"
        by_value("max_rejected_ratio", kept=ratio <= float(sla.max_rejected_ratio), reason=said)
    return judged


def lateness(left_s: float) -> str:
    """Return how much time was left, or how late it is, in words."""
    distance = format_duration(timedelta(seconds=round(abs(left_s)) or round(abs(left_s), 3)))
    return f"{distance} late" if left_s < 0 else f"{distance} before its time"
