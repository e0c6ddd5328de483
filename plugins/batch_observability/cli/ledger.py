"""
`batchobs ledger`: make or update the tables of the ledger, say what is in it, delete what is old.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batch_observability import config
from batch_observability.objective import ModelError, format_duration, parse_duration

if TYPE_CHECKING:
    from batch_observability.ledger.store import Ledger

_UNUSABLE = 1


def add_parser(commands: Any) -> None:
    """Add `ledger` with its three commands; each sets `run`, which takes the options and returns the exit code."""
    ledger = commands.add_parser(
        "ledger",
        help="the database of runs: make its tables, say what is in it, delete what is old",
        description="The database of runs, which BATCHOBS_LEDGER_URL names; by default a file in the state folder.",
    )
    actions = ledger.add_subparsers(dest="action", required=True, metavar="COMMAND")
    migrate = actions.add_parser("migrate", help="make its tables, or bring them up to date with this version")
    migrate.set_defaults(run=_command(_migrate))
    info = actions.add_parser("info", help="say where it is and what is in it")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(run=_command(_info))
    prune = actions.add_parser(
        "prune", help="delete runs that ended long ago, with their stages, measurements and breaches"
    )
    prune.add_argument(
        "--keep", type=_duration, required=True, metavar="DURATION", help="what ended within it stays, for example 400d"
    )
    prune.set_defaults(run=_command(_prune))


def _duration(text: str) -> Any:
    try:
        return parse_duration(text)
    except ModelError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is {error}") from None


def _command(act: Callable[[Ledger, argparse.Namespace], str]) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        from batch_observability.ledger.store import Ledger, LedgerError

        settings = config.load(section=lambda key: config.airflow_option(config.SECTION, key))
        ledger = Ledger(settings.ledger, settings.ledger_timeout)
        try:
            print(act(ledger, options))  # noqa: T201  (the command's voice)
        except LedgerError as error:
            print(f"batchobs: {error}", file=sys.stderr)  # noqa: T201
            return _UNUSABLE
        return 0

    return run


def _migrate(ledger: Ledger, _options: argparse.Namespace) -> str:
    return f"schema revision: {ledger.migrate()}"


def _info(ledger: Ledger, options: argparse.Namespace) -> str:
    info = ledger.info()
    if options.json:
        return json.dumps(info, indent=2)
    lines = [
        f"ledger   {info['where']}",
        f"dialect  {info['dialect']}, schema revision {info['revision']}",
        f"size     {info['size'] / 1e6:,.1f} MB",
        f"runs     {info['runs']:,}, {info['open']:,} of them open",
        f"breaches {info['breaches']:,}, {info['open_breaches']:,} of them open",
    ]
    if info["runs"]:
        lines += [f"oldest   {_clock(info['oldest_ns'])}", f"newest   {_clock(info['newest_ns'])}"]
    lines += [f"  {outcome:10} {count:,}" for outcome, count in info["outcomes"].items()]
    return "\n".join(lines)


def _clock(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _prune(ledger: Ledger, options: argparse.Namespace) -> str:
    count = ledger.prune(options.keep)
    return f"deleted {count:,} runs that ended more than {format_duration(options.keep)} ago"
