"""
`batchobs watch`: look for promises that are broken again and again, tell those that nobody has told, and print what is.

It stands in for the helper of a scheduler where there is none, and may run beside it.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from batch_observability import config
from batch_observability.catalog import Catalog
from batch_observability.cli.catalogs import add_catalog, catalog_of
from batch_observability.cli.install_hint import install_hint
from batch_observability.cli.lookout import Lookout
from batch_observability.cli.options import load_settings
from batch_observability.cli.told import Told, of_change, of_row
from batch_observability.cli.words import one_line
from batch_observability.export.replay import replay
from batch_observability.ledger.records import Promised, PromiseRow, Recovered
from batch_observability.sla.telling import AT_RISK

_REPLAY_S = 30.0
# To count all runs of a window takes a second where there are a million. What breaks a rate is told by the run itself.
_RATES_S = 300.0


def add_parser(commands: Any) -> None:
    """Add `watch`; it sets `run`, which takes the options and returns the exit code."""
    watch = commands.add_parser(
        "watch",
        help="look for promises that are broken until it is stopped, and print what is told",
        description="Look for promises that are broken until it is stopped by SIGTERM or SIGINT, tell what nobody has "
        "told, print a line for each that is broken or kept again, whoever told it, or at risk, and send what waits "
        "in the spool.",
    )
    watch.add_argument(
        "--interval", type=_seconds, metavar="SECONDS", help="between two looks (BATCHOBS_CHECK_INTERVAL)"
    )
    add_catalog(watch, "which says when jobs are due")
    watch.add_argument("--install-hint", action="store_true", help="print what has check run each minute, and end")
    watch.add_argument("--json", action="store_true", help="print JSON objects, one a line")
    watch.set_defaults(run=_run)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number of seconds above 0 and below 86400, for example 20")
    return seconds


def _run(options: argparse.Namespace) -> int:
    if options.install_hint:
        print(install_hint(options.catalog or []), end="")  # noqa: T201  (the command's voice)
        return 0
    settings = load_settings()
    watch = _Watch(settings, catalog_of(options, settings), as_json=options.json)
    interval_s = options.interval or settings.check_interval
    with _stopped_by(signal.SIGTERM, signal.SIGINT) as stop:
        while not stop.is_set():
            began = time.monotonic()
            watch.look()
            stop.wait(max(began + interval_s - time.monotonic(), 0))
    return 0


@contextmanager
def _stopped_by(*signals: signal.Signals) -> Iterator[threading.Event]:
    """Give an event that the first of these signals sets; the second does what it did before."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in signals}

    def end(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in signals:
        signal.signal(number, end)
    try:
        yield stop
    finally:
        for number in signals:
            signal.signal(number, before[number])


class _Watch:
    def __init__(self, settings: config.Settings, catalog: Catalog, *, as_json: bool) -> None:
        self._settings = settings
        self._as_json = as_json
        self._lookout = Lookout(settings, self._told, gauges=True, catalog=catalog)
        # What was broken when it was looked at last; None before that.
        self._broken: dict[str, PromiseRow] | None = None
        self._next_rates = self._next_replay = time.monotonic()

    def look(self) -> None:
        """Look once, print what is new, and send what waits if that is due."""
        from batch_observability.ledger.store import LedgerError

        if self._lookout.is_blank:
            return
        problems = self._lookout.problems
        try:
            self._replay()
            self._look()
        except LedgerError as error:
            problems.say(str(error))
        except BrokenPipeError:
            raise
        except Exception as error:
            # It is to be there for the next look.
            problems.say(f"a look failed, {type(error).__name__}: {error}: please report it")

    def _replay(self) -> None:
        now = time.monotonic()
        if self._next_replay <= now:
            self._next_replay = now + self._settings.reconcile_interval
            with self._lookout.problems.heard():
                replay(self._lookout.delivery, _REPLAY_S)

    def _look(self) -> None:
        ledger, now = self._lookout.delivery.ledger, time.monotonic()
        if self._broken is None:
            self._broken = {row.key: row for row in ledger.open_promises()}
        rates = self._next_rates <= now
        complete = self._lookout.look(rates=rates)
        self._next_rates = now + _RATES_S if rates and complete else self._next_rates
        broken = {row.key: row for row in ledger.open_promises()}
        gone = ledger.promises_of(self._broken.keys() - broken.keys()).values()
        fresh = [row for key, row in broken.items() if key not in self._broken]
        self._broken = broken
        for row in sorted([*fresh, *gone], key=lambda row: row.recovered_ns or row.breached_ns or 0):
            self._print(of_row(row))
        if complete:
            self._lookout.problems.over()

    def _told(self, change: Promised | Recovered) -> None:
        # What is broken or kept again is found in the ledger, whoever told it.
        if isinstance(change, Promised) and change.state == AT_RISK:
            self._print(of_change(change, {}))

    def _print(self, told: Told) -> None:
        text = json.dumps(told.as_json()) if self._as_json else "  ".join(map(one_line, told.cells(time.time_ns())))
        print(text, flush=True)  # noqa: T201  (the command's voice)
