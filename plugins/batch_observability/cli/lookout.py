"""
A look for promises that are broken, telling those that nobody has told: for `batchobs check` and `batchobs watch`.

What is due comes from Airflow's database, where there is an Airflow; it is not imported. Of cron jobs it comes from
their schedules: those that are known on this host, and those that other hosts have told the ledger.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from batch_observability import config
from batch_observability.airflow import registry
from batch_observability.airflow.attempt import SOURCE
from batch_observability.airflow.expected import expected
from batch_observability.airflow.records import Records
from batch_observability.airflow.registry import Declared
from batch_observability.catalog import Catalog
from batch_observability.cli.options import is_blank
from batch_observability.cli.words import one_line
from batch_observability.cron import declaring, known
from batch_observability.cron.expected import expected as expected_of_cron
from batch_observability.cron.left_open import close_left_open
from batch_observability.export.deliver import Delivery, Report
from batch_observability.export.replay import replay
from batch_observability.export.signals import Batch
from batch_observability.export.spool import LEDGER
from batch_observability.export.target import Choice, choose
from batch_observability.ledger import records as ledger
from batch_observability.ledger.address import shown
from batch_observability.ledger.records import Change, Promised, Recovered
from batch_observability.sidecar.journal import run_ids
from batch_observability.sla.promises import FROM_CLOCK
from batch_observability.sla.watch import Expected, Watcher

# DAG runs that ended before that are looked at for promises that go on only.
_LOOK_BACK = timedelta(days=1)
_REPLAY_S = 10.0
_CONN = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
# What these complain of is told in our words.
_MUTED = ("ddtrace.internal.writer", "datadog.dogstatsd", "opentelemetry.exporter")

OnTold = Callable[[Promised | Recovered], None]


class Lookout:
    """
    Looks for promises that are broken.

    Args:
        settings: of this process.
        on_told: is given what this told, as it is told.
        gauges: also send how old results are, which is worth something from who looks again and again.
        catalog: says of jobs when they are due, besides the jobs themselves.

    Raises:
        ConfigError: if Airflow says where its database is in a way that is not read here.
    """

    def __init__(
        self, settings: config.Settings, on_told: OnTold, *, gauges: bool, catalog: Catalog | None = None
    ) -> None:
        self._settings = settings
        self._catalog = catalog or Catalog()
        self._database = airflow_database()
        self._records = Records(self._database)
        tracing = (config.airflow_option("traces", "otel_on") or "").lower() in ("true", "t", "1")
        choice = choose(settings, os.environ, airflow_tracing=tracing)
        self._gauges = gauges
        self.delivery = _Heard(settings, choice, on_told)
        self._watcher = Watcher(settings, self.delivery, "check", config.environment(), self._expected)
        self.problems = Problems()
        self._due: list[Expected] = []
        self._has_asked_airflow = True

    @property
    def is_blank(self) -> bool:
        """Whether nothing has run here and nothing is declared: then there is no ledger, and none is made."""
        state = self._settings.state_path
        declared = registry.declared(state) or known.known(state) or self._catalog.scheduled()
        return is_blank(self._settings) and not declared and not any(run_ids(state))

    def look(self, *, rates: bool = True) -> bool:
        """Look once; return whether all could be asked that had to be. What could not is said on stderr."""
        self.delivery.unclaimed.clear()
        self.delivery.unsent.clear()
        with self.problems.heard():
            self._close_what_is_left()
            complete = self._watcher.look(rates=rates, gauges=self._gauges).complete
        for problem in (*self.delivery.unclaimed, *self.delivery.unsent):
            self.problems.say(problem)
        # What could not be claimed was not told either.
        return complete and self._has_asked_airflow and not self.delivery.unclaimed

    def _close_what_is_left(self) -> None:
        """Tell what those who were to tell it were killed over: it counts for what is looked at."""
        close_left_open(self._settings, self.delivery)
        if self.delivery.spool.paths(LEDGER):
            replay(self.delivery, _REPLAY_S)

    def still_due(self) -> set[str]:
        """Return the keys of all promises of what the last look found due and not done."""
        return {one.key(objective) for one in self._due if not one.settled for objective in FROM_CLOCK}

    def _expected(self) -> tuple[list[Expected], list[ledger.Declared]]:
        due, declared = self._expected_of_cron()
        of_airflow = self._expected_of_airflow()
        # What is known of cron jobs is not kept back for an Airflow that does not answer.
        self._has_asked_airflow = of_airflow is not None
        more, news = of_airflow or ([], [])
        self._due = [*due, *more]
        return self._due, [*declared, *news]

    def _expected_of_cron(self) -> tuple[list[Expected], list[ledger.Declared]]:
        state = self._settings.state_path
        try:
            declaring.note_catalog(state, self._catalog)
        except OSError as error:
            self.problems.say(f"jobs of the catalog cannot be written down: {error}; mend the folder")
        return expected_of_cron(self.delivery.ledger, known.known(state), config.environment(), datetime.now(UTC))

    def _expected_of_airflow(self) -> tuple[list[Expected], list[ledger.Declared]] | None:
        if not self._database:
            return [], []
        # What was written down on another host is known once it has run.
        ran = {task: Declared(*one) for task, one in self.delivery.ledger.known_tasks(SOURCE).items()}
        models = {**ran, **registry.declared(self._settings.state_path)}
        if not models:
            return [], []
        now, found = datetime.now(UTC), None
        if not _is_missing(self._database):
            found = expected(self._records, models, config.environment(), now, now - _LOOK_BACK)
        if found is None:
            remedy = f"start it, install its driver, or set {_CONN} to where it is"
            self.problems.say(f"Airflow's database {shown(self._database)} cannot be asked: {remedy}")
            return None
        return found


class _Heard(Delivery):
    """
    A delivery that says what it told first.

    Attributes:
        unclaimed: why the ledger could not be asked whether something is to be told.
        unsent: what waits in the spool, and why.
    """

    def __init__(self, settings: config.Settings, choice: Choice, on_told: OnTold) -> None:
        super().__init__(settings, choice, patience_s=0)
        self._on_told = on_told
        self.unclaimed: list[str] = []
        self.unsent: list[str] = []

    def deliver(
        self,
        batch: Batch,
        change: Change | None = None,
        on_safe: Callable[[bool], None] = lambda _safe: None,
        **options: Any,
    ) -> Report:
        """Deliver a batch, as `Delivery` does."""
        report = super().deliver(batch, change, on_safe, **options)
        self.unclaimed += [report.ledger] if report.ledger else []
        self.unsent += [f"{problem}; it waits in the spool" for problem in report.targets.values() if problem]
        if report.told and isinstance(change, Promised | Recovered):
            self._on_told(change)
        return report


class Problems(logging.Handler):
    """What goes wrong, said on stderr in one line each, once until it is over."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def say(self, problem: str) -> None:
        """Say what is wrong, if that is news."""
        if problem not in self._said:
            self._said.add(problem)
            print(f"batchobs: {one_line(problem)}", file=sys.stderr, flush=True)  # noqa: T201  (the command's voice)

    def over(self) -> None:
        """Note that nothing is wrong any more."""
        self._said.clear()

    def emit(self, record: logging.LogRecord) -> None:
        """Say what was logged."""
        self.say(record.getMessage())

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Say what is logged of promises meanwhile; what is logged of the rest is told otherwise."""
        for name in _MUTED:
            logging.getLogger(name).propagate = False
        ours = ((logging.getLogger("batch_observability"), logging.NullHandler()), (_sla_log(), self))
        for logger, handler in ours:
            logger.addHandler(handler)
        try:
            yield
        finally:
            for logger, handler in ours:
                logger.removeHandler(handler)


def _sla_log() -> logging.Logger:
    return logging.getLogger("batch_observability.sla")


def airflow_database() -> str:
    """
    Return the URL of Airflow's database, with its password; "" where there is no Airflow.

    Raises:
        ConfigError: if only a command or a secrets backend knows it.
    """
    if url := config.airflow_option("database", "sql_alchemy_conn"):
        # As Airflow does (configuration, expand_env_var).
        return os.path.expandvars(os.path.expanduser(url))  # noqa: PTH111  (a URL, not a path)
    for option in ("sql_alchemy_conn_cmd", "sql_alchemy_conn_secret"):
        if config.airflow_option("database", option):
            raise config.ConfigError(f"option [database] {option} of Airflow is not read by batchobs: set {_CONN}")
    path = Path(f"{os.environ.get('AIRFLOW_HOME') or '~/airflow'}/airflow.db").expanduser()
    return f"sqlite:///{path}" if path.exists() else ""


def _is_missing(url: str) -> bool:
    """Whether it names a file that is not there, which SQLite would make."""
    scheme, _, path = url.partition(":///")
    return scheme.startswith("sqlite") and not Path(path.partition("?")[0]).exists()
