"""
An Airflow of this process's own: a home in a temporary folder, and signals that go to the spool, read back by tests.

Airflow reads its home when it is imported. This file is imported before any test of the folder, and so comes first.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import shutil
import tempfile
from pathlib import Path

import pytest

_FOREIGN = ("AIRFLOW_", "BATCHOBS_", "DD_", "OTEL_", "TRACEPARENT")
_HOME = Path(tempfile.mkdtemp(prefix="batchobs-airflow-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)


def _import_airflow() -> None:
    for folder in ("dags", "plugins"):
        (_HOME / folder).mkdir()
    (_HOME / "airflow.cfg").write_text(
        f"[core]\n"
        f"dags_folder = {_HOME}/dags\n"
        f"plugins_folder = {_HOME}/plugins\n"
        f"load_examples = False\n"
        f"hostname_callable = socket.gethostname\n"
        f"[database]\n"
        f"sql_alchemy_conn = sqlite:///{_HOME}/airflow.db\n"
        f"load_default_connections = False\n"
        f"[usage_data_collection]\n"
        f"enabled = False\n"
    )
    outside = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_FOREIGN)}
    os.environ["AIRFLOW_HOME"] = str(_HOME)
    try:
        import airflow  # noqa: F401  (it reads its settings now)
    finally:
        # Tests of other folders, in the same process, have nothing to do with this home.
        del os.environ["AIRFLOW_HOME"]
        os.environ.update(outside)


_import_airflow()


@functools.cache
def _ledger() -> Path:
    """A ledger for all tests that do not look at theirs."""
    from batch_observability.ledger.store import Ledger

    path = _HOME / "ledger.db"
    Ledger(f"sqlite:///{path}", 10.0).migrate()
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """A clean environment: nothing of the developer's, all signals to a spool below `tmp_path`, at once."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW_HOME", str(_HOME))
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("BATCHOBS_EXPORT", "spool")
    # The end of a task waits until its signals are on disk: what a test reads then is all there is.
    monkeypatch.setenv("BATCHOBS_WAIT_AT_END", "always")
    monkeypatch.setenv("BATCHOBS_WAIT_TIMEOUT", "60")
    # To make a ledger takes a sidecar as long as all the rest.
    monkeypatch.setenv("BATCHOBS_LEDGER_URL", f"sqlite:///{_ledger()}")


@pytest.fixture
def state(tmp_path):
    """The folder that the environment names."""
    return tmp_path / "state"


@pytest.fixture(scope="session")
def database():
    """Airflow's database in its home, migrated once."""
    from airflow.utils.db import initdb

    initdb()
    return f"sqlite:///{_HOME}/airflow.db"


@pytest.fixture(autouse=True)
def no_helper_is_left():
    """Ends the helper of this process with its test: the next test has another state folder."""
    yield
    from batch_observability.airflow.scheduler import _Helper

    if _Helper.channel is not None:
        _Helper.channel.close()
    _Helper.channel, _Helper.pid, _Helper.started = None, 0, -1e9


@pytest.fixture
def run_dag(database):
    """Runs a DAG to its end by `dag.test()`; returns the DAG run."""
    from tests.airflow.dag_test import run

    return run


@pytest.fixture(autouse=True)
def own_logger():
    """Puts our logger back as it was: the helper and the sidecar, run in this process, make it write to a file."""
    logger = logging.getLogger("batch_observability")
    handlers, propagate = logger.handlers[:], logger.propagate
    yield
    for handler in logger.handlers:
        if handler not in handlers:
            handler.close()
    logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture
def outside_pytest(monkeypatch):
    """The guard as users have it: nothing escapes, and each place is told once."""
    monkeypatch.delenv("PYTEST_VERSION", raising=False)
    monkeypatch.setattr("batch_observability.guard._told", set())
