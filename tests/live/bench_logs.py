"""
What a log line costs: ours, structlog's own JSON renderer, and stdlib logging with a JSON formatter, in one run.

`python -m tests.live.bench_logs`. Ours has a run and a stage open, masks, and counts for flood control; the others do
none of that. Turns are interleaved, so that all three see the same machine; the best turn of each counts, and the
ratio of each round's neighbours is printed with its spread. Lines go to files.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from batch_observability.channel import Channel
from batch_observability.config import Settings
from batch_observability.logs import get_logger
from batch_observability.logs.configure import configure
from batch_observability.run import Run, set_current_run
from tests.unit.conftest import run_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LIMIT = 1.5
OURS, STRUCTLOG, STDLIB = "batch_observability", "structlog", "stdlib"


class JsonFormatter(logging.Formatter):
    """As most people write it: what structlog's line has."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns a record as JSON."""
        return json.dumps({
            "event": record.getMessage(), "level": record.levelname.lower(), "rows": record.rows, "path": record.path,
            "score": record.score, "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        })  # fmt: skip


def of_structlog(path: Path, stack: ExitStack) -> Any:
    """Returns a logger that is configured as structlog's page on performance says, with text lines."""
    return structlog.wrap_logger(
        structlog.WriteLogger(stack.enter_context(path.open("w", encoding="utf-8"))),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def of_stdlib(path: Path) -> logging.Logger:
    """Returns a logger with a handler and a formatter."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonFormatter())
    log = logging.Logger("bench", logging.INFO)  # noqa: LOG001 - beside the loggers of this process
    log.addHandler(handler)
    return log


def turn(log: Callable[[int], None], lines: int) -> float:
    """Returns microseconds a line."""
    gc.collect()
    began = time.perf_counter()
    for number in range(lines):
        log(number)
    return (time.perf_counter() - began) / lines * 1e6


def measure(rounds: int, lines: int) -> dict[str, list[float]]:
    """Returns microseconds a line, one number a round."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        path = "s3://bucket/flights/2013-02-01.parquet"
        structlogs = of_structlog(folder / STRUCTLOG, stack)
        stdlib = of_stdlib(folder / STDLIB)
        stack.callback(stdlib.handlers[0].close)
        configure(Settings(), file=folder / OURS)
        run = Run(run_context(), Channel(ours))
        set_current_run(run)
        stack.callback(set_current_run, None)
        mine = get_logger("bench")
        calls: dict[str, Callable[[int], None]] = {
            OURS: lambda n: mine.info("part loaded", rows=n, path=path, score=0.5),
            STRUCTLOG: lambda n: structlogs.info("part loaded", rows=n, path=path, score=0.5),
            STDLIB: lambda n: stdlib.info("part loaded", extra={"rows": n, "path": path, "score": 0.5}),
        }
        with run.stage("load"):
            for log in calls.values():
                turn(log, lines // 10)
            taken: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(rounds):
                for name, log in calls.items():
                    taken[name].append(turn(log, lines))
        for name in calls:
            written = sum(1 for line in (folder / name).open(encoding="utf-8") if json.loads(line))
            if written != rounds * lines + lines // 10:
                raise SystemExit(f"bench_logs: {name} wrote {written} lines")
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the costs; returns 1 if ours are above the limit."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.bench_logs", description="What a log line costs.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--lines", type=int, default=10_000)
    options = parser.parse_args(arguments)
    taken = measure(options.rounds, options.lines)
    print(f"{'':22}{'best':>8}{'median':>9}  microseconds a line, {options.rounds} rounds of {options.lines:,} lines")
    for name, values in taken.items():
        print(f"{name:22}{min(values):8.2f}{statistics.median(values):9.2f}")
    ratios = {}
    for name in (STRUCTLOG, STDLIB):
        of_rounds = sorted(a / b for a, b in zip(taken[OURS], taken[name], strict=True))
        ratios[name] = statistics.median(of_rounds)
        spread = f"{of_rounds[0]:.2f} to {of_rounds[-1]:.2f}"
        print(f"ours / {name}: {ratios[name]:.2f} (median of rounds; {spread}); best to best "
              f"{min(taken[OURS]) / min(taken[name]):.2f}")  # fmt: skip
    return int(ratios[STRUCTLOG] > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
