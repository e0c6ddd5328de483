"""What a forked child logs to a file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch_observability.config import Settings
from batch_observability.logs.configure import configure


def logged_by_child(file: Path, action: Callable[[], Any]) -> list[dict[str, Any]]:
    """Let a forked child do something; return the records that it wrote."""
    configure(Settings(), logging.INFO, file=file)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
