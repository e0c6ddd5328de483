"""
Where this command is, for those who call it with no PATH of their own: cron and systemd.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from batch_observability.config import ConfigError

NAME = "batchobs"


def own_path() -> str:
    """
    Return the path of this command.

    Raises:
        ConfigError: if it has letters that mean something to cron, systemd or a shell.
    """
    path = str(Path(sys.executable).with_name(NAME))
    if not re.fullmatch(r"[A-Za-z0-9_./+@-]+", path, re.ASCII):
        raise ConfigError(f"{path!r} cannot be written into a crontab: install {NAME} where there are no such letters")
    return path
