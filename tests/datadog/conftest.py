"""A Datadog on a loopback port, and what is done with it."""

from __future__ import annotations

import pytest

from batch_observability.datadog.access import access
from batch_observability.datadog.apply import apply, destroy
from batch_observability.datadog.connection import Api
from batch_observability.datadog.plan import REMOVE, existing, planned, removals
from batch_observability.datadog.render import Options, rendered
from batch_observability.model import SLA
from tests.datadog.catalogs import SUPPLY, catalog, entry
from tests.datadog.server import Datadog

SLA_OF_CHURN = SLA(finish_by="06:30 Europe/London", min_duration="2m", freshness="26h")
CHURN = entry("churn-score", service="churn", tier=1, schedule="10 3 * * *", sla=SLA_OF_CHURN)
DEMAND = entry("demand", service="demand", owner=SUPPLY)


def resources(*entries, **options):
    """Return what is rendered of models."""
    return rendered(catalog(*(entries or (CHURN, DEMAND))), Options(**options))


class Session:
    """What one command does: reads, plans and applies with a connection of its own; nothing waits for real."""

    def __init__(self, datadog: Datadog) -> None:
        self.waited: list[float] = []
        self.api = Api(access(datadog.environ, "datadoghq.com", datadog.url), wait=self.waited.append)
        self.steps: list = []

    def apply(self, wanted, *, prune=False):
        return apply(self.api, wanted, existing(self.api), prune=prune, tell=self.steps.append)

    def destroy(self):
        return destroy(self.api, removals(existing(self.api)).of(REMOVE), tell=self.steps.append)

    def plan(self, wanted):
        return planned(wanted, existing(self.api))


@pytest.fixture
def datadog():
    """A Datadog whose every request and answer must be as described."""
    with Datadog() as started:
        yield started
    assert started.wrong == []


@pytest.fixture
def session(datadog):
    """Return a function that begins another session with it."""
    return lambda: Session(datadog)
