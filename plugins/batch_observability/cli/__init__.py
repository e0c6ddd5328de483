"""The `batchobs` command: parses, calls, prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from batch_observability._version import __version__
from batch_observability.cli import doctor, ledger, spool
from batch_observability.config import ConfigError

_USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Returns:
        The exit code: 0 if all is well, 1 if the answer is no, 2 for a mistake in what was asked.
    """
    parser = argparse.ArgumentParser(prog="batchobs", description="Batch models made observable.")
    parser.add_argument("--version", action="version", version=f"batchobs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for room in (doctor, ledger, spool):
        room.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except ConfigError as error:
        print(f"batchobs: {error}", file=sys.stderr)  # noqa: T201  (the command's voice)
        return _USAGE_ERROR
