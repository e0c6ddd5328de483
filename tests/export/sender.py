"""
Sends or delivers batches from a process of its own, as a sidecar does, and prints what came of it as JSON.

`python -m tests.export.sender`: ddtrace can be set up once in a process, and is to find the test's environment and not
that of pytest. Reads a pickled `Order`.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery
from batch_observability.export.replay import replay
from batch_observability.export.signals import Batch
from batch_observability.export.spool_file import BROKEN, LINES, SENDING, Entry, signal_of
from batch_observability.export.target import Choice, ExportError, make_target, taken_by


@dataclass(frozen=True)
class Order:
    """
    What to do with the batches, one after the other.

    With `settings` they are delivered to all targets, each tried once, else they are sent to the only one. Then what
    waits in the spool may be replayed, as another user if one is given; with `dies` the process is killed when it would
    remove the first file.
    """

    targets: tuple[str, ...]
    batches: tuple[Batch, ...]
    settings: Settings | None = None
    replays: bool = False
    dies: bool = False
    user: int = 0


def carry_out(order: Order) -> list[dict[str, Any]]:
    """Return for each batch: errors by target, signals that were not taken, seconds, and files at the safe moment."""
    if order.settings is None:
        target = make_target(order.targets[0], dict(os.environ), Settings())
        return [_send(target, batch) for batch in order.batches]
    if order.dies:
        Entry.remove = lambda _entry: os.kill(os.getpid(), signal.SIGKILL)
    delivery = Delivery(order.settings, Choice(order.targets, ()), patience_s=0)
    results = [_deliver(delivery, order.settings, batch) for batch in order.batches]
    if order.user:
        # Not before: this Python may be where that user cannot read.
        os.setgroups([])
        os.setgid(order.user)
        os.setuid(order.user)
    if order.replays:
        results.append(asdict(replay(delivery)) | {"left": waiting(order.settings.state_path)})
    return results


def _send(target: Any, batch: Batch) -> dict[str, Any]:
    began, error, signals = time.monotonic(), "", []
    try:
        target.send(batch.only(taken_by(target.name)))
    except ExportError as failure:
        error, signals = str(failure), sorted(failure.signals)
    return {"errors": {target.name: error}, "signals": signals, "seconds": time.monotonic() - began}


def _deliver(delivery: Delivery, settings: Settings, batch: Batch) -> dict[str, Any]:
    began, safe = time.monotonic(), []
    report = delivery.deliver(batch, on_safe=lambda _: safe.extend(waiting(settings.state_path)))
    return {
        "errors": report.targets,
        "seconds": time.monotonic() - began,
        "safe": safe,
        "left": waiting(settings.state_path),
    }


def waiting(state: Path) -> list[str]:
    """Return target and signal of every file that waits in the spool, such as `datadog.traces`."""
    files = [path for path in (state / "spool").glob("*/*") if path.suffix in (LINES, SENDING, BROKEN)]
    return sorted(f"{path.parent.name}.{signal_of(path)}" for path in files)


def main() -> None:
    """Carry out the order in the file; end without waiting for anybody, as a sidecar does."""
    measured = None
    if "COVERAGE_PROCESS_START" in os.environ:
        import coverage

        measured = coverage.process_startup()

    def ours(*_: object) -> None:
        """Stand for the handler that the process had."""

    signal.signal(signal.SIGTERM, ours)
    order = pickle.loads(sys.stdin.buffer.read())
    results = carry_out(order)
    kept = signal.getsignal(signal.SIGTERM) is ours
    print(json.dumps({"results": results, "sigterm_kept": kept, "ddtrace": "ddtrace.trace" in sys.modules}))
    sys.stdout.flush()
    if measured:
        measured.stop()
        measured.save()
    os._exit(0)


if __name__ == "__main__":
    main()
