"""
A run is closed: its promises judged, its signals and its row delivered, and what it broke told. The same for whoever
tells the end of a run: its sidecar, or the scheduler's helper.
"""

from __future__ import annotations

from collections.abc import Callable

from batch_observability.export.deliver import Delivery, Report
from batch_observability.sidecar import row, telling
from batch_observability.sidecar.ending import Ending
from batch_observability.sidecar.kept import has_news, judge_run, tell_judged
from batch_observability.sidecar.observation import Observation
from batch_observability.sidecar.promises import Promises


def close_run(
    observation: Observation,
    end: Ending,
    promises: Promises,
    delivery: Delivery,
    *,
    host: str,
    token: str,
    closed_by: str,
    with_start: bool,
    patience_s: float,
    on_safe: Callable[[bool], None] = lambda _safe: None,
    must_claim: bool = False,
    apart: Callable[[Callable[[], object]], object] | None = None,
) -> Report:
    """
    Deliver the ending of a run, and what became of its promises.

    Args:
        observation: of the run.
        end: how it ended.
        promises: of the run.
        delivery: where to.
        host: of its process.
        token: the same each time that this ending is told.
        closed_by: `sidecar` or `scheduler`.
        with_start: its start has not been told yet.
        patience_s: how long the ledger may take to say what it knows, before anything is on disk.
        on_safe: as for `Delivery.deliver`.
        must_claim: as for `Delivery.deliver`.
        apart: does something beside this process, so that what is broken need not wait for what takes long to send.
    """
    kept, standing = judge_run(promises, observation, end, patience_s)
    batch = telling.finished(observation, end, kept, host=host, with_start=with_start)
    change = row.finished(observation, end, kept, host=host, token=token, closed_by=closed_by)

    def tell() -> None:
        tell_judged(promises, kept, standing, end, start_ns=observation.context.start_ns)

    def tell_apart() -> None:
        if apart is not None and has_news(kept, standing):
            apart(tell)

    report = delivery.deliver(batch, change, on_safe=on_safe, must_claim=must_claim, on_told=tell_apart)
    if report.told and apart is None:
        tell()
    return report
