"""What a forked child logs to a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch_observability.config import Settings
from batch_observability.logs.configure import configure
from tests.forked import in_child


def logged_by_child(file: Path, action: Callable[[], Any]) -> list[dict[str, Any]]:
    """Let a forked child do something; return the records that it wrote."""
    configure(Settings(), logging.INFO, file=file)
    in_child(action)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
