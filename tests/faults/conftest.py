"""The one Airflow of this folder, and the page that its tests write."""

from __future__ import annotations

import pytest

from tests.faults.page import Page
from tests.faults.playground import playground

_PAGE = pytest.StashKey[Page]()


def pytest_configure(config):
    config.stash[_PAGE] = Page()


@pytest.fixture(scope="session")
def page(request):
    """Tables that a test adds go to the terminal, and to docs/table-of-deaths.md once all are there."""
    return request.config.stash[_PAGE]


@pytest.fixture(scope="session")
def ground():
    with playground() as running:
        yield running


def pytest_terminal_summary(terminalreporter, config):
    text = config.stash[_PAGE].text()
    if text:
        terminalreporter.section("table of deaths")
        terminalreporter.write_line(text)


def pytest_sessionfinish(session):
    session.config.stash[_PAGE].write()
