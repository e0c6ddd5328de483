"""What `batchobs` can be asked for: parses, calls, prints."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from batch_observability._version import __version__

# A module each; only that of what is asked for is loaded, for `run` is in the way of every job.
_COMMANDS = (
    "catalog",
    "check",
    "crontab",
    "datadog",
    "doctor",
    "ledger",
    "lint",
    "models",
    "run",
    "sla",
    "spool",
    "watch",
)
_USAGE_ERROR = 2
_NOT_READ = 1


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        self.exit(_USAGE_ERROR, f"{self.prog}: {message} ({self.prog} --help says what there is)\n")


def run_command(given: Sequence[str]) -> int:
    """Run what is asked for; return the exit code."""
    parser = _Parser(prog="batchobs", description="Batch models made observable.")
    parser.add_argument("--version", action="version", version=f"batchobs {__version__}")
    commands = parser.add_subparsers(prog="batchobs", dest="command", required=True, metavar="COMMAND")
    for name in given[:1] if given[:1] and given[0] in _COMMANDS else _COMMANDS:
        import_module(f"{__package__}.{name}").add_parser(commands)
    options = parser.parse_args(list(given))
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads it has seen enough, as `head` has. Nothing is left for the interpreter to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOT_READ
    return code
