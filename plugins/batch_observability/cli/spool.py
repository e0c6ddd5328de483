"""
`batchobs spool`: what waits on this host, since when and why; and send it now.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from batch_observability import config
from batch_observability.cron.left_open import close_left_open
from batch_observability.export.deliver import Delivery
from batch_observability.export.replay import Replayed, replay
from batch_observability.export.spool import LEDGER, Spool, Waiting
from batch_observability.export.target import choose

_LEFT = _UNUSABLE = 1


def add_parser(commands: Any) -> None:
    """Add `spool` with its two commands; each sets `run`, which takes the options and returns the exit code."""
    spool = commands.add_parser(
        "spool",
        help="what waits on this host because nobody could take it: show it, send it",
        description="Signals, and changes of the ledger, that wait on this host because nobody could take them.",
    )
    actions = spool.add_subparsers(dest="action", required=True, metavar="COMMAND")
    status = actions.add_parser("status", help="say what waits, since when, and why")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.set_defaults(run=_command(_status))
    again = actions.add_parser("replay", help="send what waits; the exit code is 0 only if all of it was taken")
    again.add_argument("--json", action="store_true", help="print one JSON object")
    again.set_defaults(run=_command(_replay))


def _command(act: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        # What goes wrong is told by what we print.
        logging.getLogger("batch_observability").addHandler(logging.NullHandler())
        for name in ("ddtrace.internal.writer", "datadog.dogstatsd", "opentelemetry.exporter"):
            logging.getLogger(name).propagate = False
        try:
            return act(options)
        except OSError as error:
            print(f"batchobs: the spool cannot be read, {error}: be the user who owns it", file=sys.stderr)  # noqa: T201
            return _UNUSABLE

    return run


def _load() -> config.Settings:
    return config.load(section=lambda key: config.airflow_option(config.SECTION, key))


def _status(options: argparse.Namespace) -> int:
    settings = _load()
    spool = Spool(settings.state_path / "spool", settings.spool_max_mb, settings.spool_max_hours)
    waiting = spool.status()
    if options.json:
        _print(json.dumps({"folder": str(spool.folder), "waiting": [asdict(one) for one in waiting]}, indent=2))
    else:
        _print("\n".join([f"spool {spool.folder}", *_table(waiting)]))
    return 0


def _table(waiting: list[Waiting]) -> list[str]:
    if not waiting:
        return ["nothing waits"]
    lines = []
    for one in waiting:
        held = ", ".join(f"{count:,} {signal}" for signal, count in sorted(one.files.items())) or "nothing"
        lines.append(f"  {one.target:8} {held}; {one.size / 1e6:,.1f} MB, the oldest for {_age(one.since_ns)}")
        if one.broken:
            lines.append(f"           {one.broken:,} files that cannot be used (*.broken)")
        if one.files:
            lines.append(f"           {_reason(one)}")
    return lines


def _reason(one: Waiting) -> str:
    if one.reason:
        return f"because {one.reason}"
    if one.target == "spool":
        return "because no backend is configured; once one is, it goes there"
    return "being sent, or whoever sent it was ended: batchobs spool replay"


def _age(since_ns: int) -> str:
    seconds = max(time.time() - since_ns / 1e9, 0)
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def _replay(options: argparse.Namespace) -> int:
    settings = _load()
    tracing = (config.airflow_option("traces", "otel_on") or "").lower() in ("true", "t", "1")
    choice = choose(settings, os.environ, airflow_tracing=tracing)
    delivery = Delivery(settings, choice, patience_s=0)
    close_left_open(settings, delivery)
    done = replay(delivery)
    left = delivery.spool.status()
    if options.json:
        _print(json.dumps({**asdict(done), "waiting": [asdict(one) for one in left]}, indent=2))
    else:
        _print("\n".join(_told(done, left)))
    return _LEFT if any(one.files for one in left if one.target != "spool") else 0


def _told(done: Replayed, left: list[Waiting]) -> list[str]:
    names = {LEDGER: "changes of the ledger"}
    lines = [f"sent {count:,} {names.get(name, f'files to {name}')}" for name, count in sorted(done.sent.items())]
    if done.untold:
        lines.append(f"left out {done.untold:,} runs that were told already")
    lines += [f"dropped {count:,}: {reason}" for reason, count in sorted(done.dropped.items())]
    lines += [f"skipped: {line}" for line in done.unreadable]
    if any(one.files for one in left):
        lines += ["still waiting:", *_table([one for one in left if one.files])]
    return lines or ["nothing waited"]


def _print(text: str) -> None:
    print(text)  # noqa: T201  (the command's voice)
