"""
What has somebody look for missed jobs on a host: a systemd unit with its timer, or a line of a crontab.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable
from pathlib import Path

from batch_observability.cli.own_path import own_path

# What the command reads; values may be secrets and are not repeated.
_OURS = ("BATCHOBS_", "DD_", "OTEL_", "AIRFLOW")

_HINT = """\
# With systemd: write these two files, then run
#   systemctl daemon-reload && systemctl enable --now batchobs-check.timer

# /etc/systemd/system/batchobs-check.service
[Unit]
Description=Look for batch models that broke a promise or did not run

[Service]
Type=oneshot
User={user}
{environment}ExecStart={command}
# 1 says that something is broken, and not that this is.
SuccessExitStatus=1

# /etc/systemd/system/batchobs-check.timer
[Unit]
Description=Look for batch models each minute

[Timer]
OnCalendar=minutely
AccuracySec=1s

[Install]
WantedBy=timers.target

# With cron: add this line with crontab -e as {user}{variables}
* * * * * {command} >/dev/null 2>&1
"""


def install_hint(catalog: Iterable[Path]) -> str:
    """Return what is to be written where."""
    names = sorted(name for name in os.environ if name.startswith(_OURS))
    listed = ", ".join(names)
    file = "/etc/batchobs/environment"
    return _HINT.format(
        user=getpass.getuser(),
        command=" ".join([f"{own_path()} check", *(f"--catalog {path.absolute()}" for path in catalog)]),
        environment=f"# With a line NAME=value for each of {listed}.\nEnvironmentFile={file}\n" if names else "",
        variables=f", below a line NAME=value for each of\n# {listed}" if names else "",
    )
