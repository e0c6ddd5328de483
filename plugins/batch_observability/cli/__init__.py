"""The `batchobs` command."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Returns:
        The exit code: 0 if all is well, 1 if the answer is no, 2 for a mistake in what was asked.
    """
    try:
        if arguments is None and sys.argv[1:2] == ["run"]:
            # It is in the way of every job, and most jobs have run before.
            from batch_observability.cron.runner import run_again

            run_again(sys.argv[2:])
        from batch_observability.cli.commands import run_command

        return run_command(sys.argv[1:] if arguments is None else arguments)
    except ValueError as error:
        from batch_observability.config import ConfigError

        if not isinstance(error, ConfigError):
            raise
        print(f"batchobs: {error}", file=sys.stderr)  # noqa: T201  (the command's voice)
        return _USAGE_ERROR
