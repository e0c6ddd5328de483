"""The `batchobs` command: parses, calls, prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from batch_observability._version import __version__
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
    doctor = commands.add_parser(
        "doctor",
        help="say where signals go and why, and send one of each to prove it",
        description="Say which targets apply and why, and send one span, metric and log to each for real. "
        "The exit code is 0 only if every target took them.",
    )
    doctor.add_argument("--timeout", type=float, default=15.0, metavar="SECONDS", help="for each target (15)")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not 0 < options.timeout <= 3600:
        parser.error(f"--timeout is {options.timeout:g}: write a number of seconds above 0 and up to 3600")
    try:
        from batch_observability.cli.doctor import diagnose

        return diagnose(options.timeout, as_json=options.json)
    except ConfigError as error:
        print(f"batchobs: {error}", file=sys.stderr)  # noqa: T201  (the command's voice)
        return _USAGE_ERROR
