"""A ledger on each dialect: an SQLite file, and a database of a real PostgreSQL that is started once."""

from __future__ import annotations

import contextlib
import secrets

import pytest

from batch_observability.ledger.store import Ledger
from tests.live import postgres
from tests.live.processes import Processes

TIMEOUT_S = 10


@pytest.fixture(scope="package")
def server():
    """A real PostgreSQL."""
    if reason := postgres.missing():
        pytest.skip(reason)
    with Processes() as processes, postgres.PostgresServer(processes) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request):
    return request.param


@pytest.fixture
def url(request, dialect, tmp_path):
    """Address of a ledger that nobody has used."""
    if dialect == "sqlite":
        return f"sqlite:///{tmp_path / 'state' / 'ledger.db'}"
    # A schema is made at once; a database takes a second.
    schema = f"s{secrets.token_hex(6)}"
    server = request.getfixturevalue("server")
    server.run(f"CREATE SCHEMA {schema}")
    return f"{server.url}?options=-csearch_path%3D{schema}"


@pytest.fixture
def ledger(url):
    """A ledger with its tables."""
    with contextlib.closing(Ledger(url, TIMEOUT_S)) as opened:
        opened.migrate()
        yield opened


@pytest.fixture
def rows(ledger):
    """Return a function that returns what a statement finds in the ledger, as dicts."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    engine = create_engine(ledger._engine.url, poolclass=NullPool)

    def ask(statement):
        with engine.begin() as connection:
            found = connection.execute(text(statement))
            return [dict(row) for row in found.mappings()] if found.returns_rows else []

    return ask
