"""A host with a ledger, whose signals stay in its spool, where they are read back."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery
from batch_observability.export.target import Choice
from batch_observability.ledger.store import Ledger
from tests.airflow.spooled import attributes
from tests.live import DogStatsDListener
from tests.sidecar.frames import log_lines, spooled
from tests.sidecar.ledger_rows import ledger, rows

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory):
    """Return the file of a ledger without runs."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    Ledger(f"sqlite:///{path}", 10.0).migrate()
    return path


@dataclass
class Host:
    """What was told on a host, and what its ledger has."""

    state: Path
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = ledger(self.state)

    def settings(self, **values: Any) -> Settings:
        return Settings(**{"export": ("spool",), "state_dir": str(self.state), "reconcile_after": 15.0, **values})

    def delivery(self, *targets: str, **values: Any) -> Delivery:
        return Delivery(self.settings(**values), Choice(targets or ("spool",), ()), 0)

    def counted(self, name: str, **tags: str) -> float:
        """Return how often something was counted, with these tags."""
        return sum(value for value, found in self.points(name) if tags.items() <= found.items())

    def points(self, name: str) -> list[tuple[float, dict[str, Any]]]:
        """Return value and tags of each point of a metric."""
        return [
            (point.get("asDouble", int(point.get("asInt", 0))), attributes(point))
            for metric in spooled(self.state, "metrics")
            if metric["name"] == f"batch_model.{name}"
            for kind in ("sum", "gauge")
            for point in metric.get(kind, {}).get("dataPoints", [])
        ]

    def events(self) -> list[dict[str, Any]]:
        """Return the events, with their title as `title` and their text as `text`."""
        return [{**one["attributes"], "body": one["body"]["stringValue"]} for one in spooled(self.state, "events")]

    def records(self) -> list[dict[str, Any]]:
        """Return the log records as an Agent reads them."""
        return log_lines(self.state)

    def promises(self) -> list[dict[str, Any]]:
        """Return the rows of the ledger."""
        return sorted(rows(self.state, "promises"), key=lambda row: row["key"])

    def waiting(self) -> list[str]:
        """Return the changes that wait for the ledger."""
        return [path.name for path in (self.state / "spool" / "ledger").glob("*.jsonl")]


@pytest.fixture
def dogstatsd(monkeypatch):
    """A DogStatsD intake, where the target `datadog` sends metrics."""
    # The target sets what ddtrace is to read.
    monkeypatch.setattr(os, "environ", {**os.environ})
    with DogStatsDListener() as listener:
        os.environ["DD_DOGSTATSD_URL"] = listener.url
        yield listener


@pytest.fixture
def host(tmp_path, empty_ledger):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    shutil.copy(empty_ledger, state / "ledger.db")
    return Host(state)
