"""Logging of this process, set up as by `configure_logging` and put back, and what it wrote."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from batch_observability.config import Settings
from batch_observability.logs import children
from batch_observability.logs import configure as configuring
from batch_observability.logs.correlation import follow
from batch_observability.logs.logger import set_level
from batch_observability.run import Run, set_current_run
from tests.unit.conftest import ends, run_context, wire

__all__ = ["ends", "wire"]


@dataclass
class Written:
    """What was written, as text and as records."""

    stream: io.StringIO = field(default_factory=io.StringIO)

    def text(self) -> str:
        """Return all that was written since the last call."""
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return text

    def records(self) -> list[dict[str, Any]]:
        """Return what the lines since the last call hold: each a JSON object, as RFC 8259 has it."""
        *lines, rest = self.text().split("\n")
        assert rest == ""
        return [json.loads(line, parse_constant=pytest.fail) for line in lines]

    def record(self) -> dict[str, Any]:
        """Return the one record."""
        (record,) = self.records()
        return record


@pytest.fixture
def logging_put_back(monkeypatch):
    """What a process has for its logging is what it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # A test that ran Airflow in this process has left its configuration.
    theirs = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    for name in ("_lines", "_file", "_configured"):
        monkeypatch.setattr(configuring, name, None)
    yield
    configuring.finish()
    configuring._configured = None
    if configuring._file is not None:
        # Else it is complained of when it is collected: in a line of whatever test that happens in.
        configuring._file.close()
        configuring._file = None
    children.carry_no_more()
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level
    root.setLevel(level)
    structlog.reset_defaults()
    if theirs is not None:
        structlog.configure(**theirs)
    structlog.contextvars.clear_contextvars()
    set_level(0)


@pytest.fixture
def configured(logging_put_back):
    """Configures logging with settings and whatever else; returns what will be written."""

    def configure(level: int = logging.INFO, **changes: Any) -> Written:
        written = Written()
        how = {name: changes.pop(name) for name in ("format", "known") if name in changes}
        configuring.configure(Settings(**changes), level, stream=written.stream, **how)
        return written

    return configure


@pytest.fixture
def written(configured) -> Written:
    """Logging is configured; what is written."""
    return configured()


@pytest.fixture
def run():
    """A run that nobody observes."""
    opened = Run(run_context())
    set_current_run(opened)
    yield opened
    set_current_run(None)
    follow(None)
