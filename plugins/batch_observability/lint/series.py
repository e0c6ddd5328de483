"""
How many Datadog custom metrics the models of a catalog make in a day: counted before it is paid for.

Datadog counts each distinct combination of a metric's name and its tag values as one custom metric; a distribution as
five (count, sum, min, max, avg), and as ten where its percentiles are switched on. The host is one of these tags.
https://docs.datadoghq.com/account_management/billing/custom_metrics/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from batch_observability import schema
from batch_observability.lint.findings import Subject
from batch_observability.schema import Metric, MetricType
from batch_observability.sla.promises import FROM_CLOCK, FROM_DUE

_OF_DISTRIBUTION, _WITH_PERCENTILES = 5, 10
_OF_MODEL = ("success_rate", "freshness")
# Judged in seconds, before or after the promised ones.
_WITH_MARGIN = (*FROM_CLOCK, "min_duration")
# Of these a run is told to be at risk before they are broken.
_AT_RISK = (*FROM_CLOCK[1:], *_OF_MODEL)
# Nothing emits these in a day on which all is well with the package itself.
SILENT = (schema.ANOMALY_SCORE, schema.ANOMALY_DETECTED, schema.TELEMETRY_DROPPED)


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """
    What is not written in any catalog.

    Attributes:
        envs: environments that each model runs in.
        stages, measurements: of each run, where the code does not say.
        failing: share of tasks and jobs that fail on the day; those of Airflow, or with retries, are tried again.
        breaking: share of promises that are broken on the day, each at risk before.
        hosts: that run one task or job on the day.
        percentiles: those of distributions are switched on.
    """

    envs: tuple[str, ...] = ("prod",)
    stages: int = 5
    measurements: int = 1
    failing: float = 0.05
    breaking: float = 0.02
    hosts: int = 1
    percentiles: bool = False

    def words(self) -> list[str]:
        """Return it as lines of text."""
        per = _WITH_PERCENTILES if self.percentiles else _OF_DISTRIBUTION
        envs, hosts = f"{_number(len(self.envs), 'environment')} ({', '.join(self.envs)})", _number(self.hosts, "host")
        recorded = f"{_number(self.stages, 'stage')} and {_number(self.measurements, 'measurement')}"
        return [
            f"{envs}, {hosts} for a task or job",
            f"a distribution counts as {per}, a count or gauge as 1",
            f"each run tells rows, and {recorded} where the code does not name them",
            "a pattern is one task, where no DAG file has more",
            f"{self.failing:.1%} of tasks and jobs fail and are tried again",
            f"{self.breaking:.1%} of promises are broken",
        ]


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Projection:
    """
    Custom metrics of a day.

    Attributes:
        by_metric: by name of a metric.
        by_model: by name of a model.
        assumed: what is not written in any catalog.
    """

    by_metric: dict[str, float]
    by_model: dict[str, float]
    assumed: Assumed

    @property
    def total(self) -> int:
        """All of them."""
        return round(sum(self.by_metric.values()))


@dataclass(frozen=True)
class _Runner:
    """What runs a model: one task or one job."""

    model: Subject
    is_due: bool
    is_tried_again: bool


def project(subjects: Sequence[Subject], assumed: Assumed) -> Projection:
    """Return the custom metrics of models."""
    by_metric: Counter[str] = Counter()
    by_model: Counter[str] = Counter()
    seen: set[tuple[str, ...]] = set()
    for subject in subjects:
        model = subject.model
        # Tags of what two places declare alike are the same.
        who = (model.name, model.version, model.service, model.owner, subject.tier)
        found = list(_of_model(subject, assumed)) if who not in seen and not subject.is_described else []
        seen.add(who)
        for runner in _runners(subject, who, seen):
            found += _of_run(runner, assumed)
        for metric, combinations in found:
            number = combinations * _per(metric, assumed) * len(assumed.envs) * assumed.hosts
            by_metric[metric.name] += number  # type: ignore[assignment]  # a share of one
            by_model[model.name] += number  # type: ignore[assignment]  # a share of one
    return Projection({name: by_metric[name] for name in schema.METRICS}, dict(by_model), assumed)


def _per(metric: Metric, assumed: Assumed) -> int:
    if metric.type is not MetricType.DISTRIBUTION:
        return 1
    return _WITH_PERCENTILES if assumed.percentiles else _OF_DISTRIBUTION


def _runners(subject: Subject, who: tuple[str, ...], seen: set[tuple[str, ...]]) -> Iterator[_Runner]:
    """Yield what runs a model, each once: its tasks, as far as they are known, else one a pattern; and its job."""
    if subject.is_described:
        return
    tasks: Iterable[tuple[str, ...]] = subject.tasks
    if not subject.tasks:
        patterns = tuple((match.dag_id, match.task_id) for match in subject.match)
        tasks = patterns or (() if subject.schedule else ((subject.file, str(subject.line)),))
    for task in tasks:
        if (*who, *task) not in seen:
            seen.add((*who, *task))
            yield _Runner(subject, is_due=True, is_tried_again=True)
    if subject.schedule:
        yield _Runner(subject, is_due=True, is_tried_again=bool(subject.retries))


def _of_model(subject: Subject, assumed: Assumed) -> Iterator[tuple[Metric, float]]:
    """Yield metrics of the model as a whole, each with its number of combinations of tags."""
    promised = subject.model.objectives()
    if "freshness" in promised:
        yield schema.FRESHNESS, 1
    for objective in _OF_MODEL:
        if objective in promised:
            yield schema.SLA_BREACHED, assumed.breaking
            yield schema.SLA_AT_RISK, assumed.breaking


def _of_run(runner: _Runner, assumed: Assumed) -> Iterator[tuple[Metric, float]]:
    """Yield metrics of the runs of a task or job."""
    subject = runner.model
    promised = subject.model.objectives()
    outcomes = 1 + assumed.failing * (2 if runner.is_tried_again else 1)
    yield schema.RUN_STARTED, 1
    yield schema.RUN_FINISHED, outcomes
    yield schema.RUN_DURATION, outcomes
    if runner.is_due:
        yield schema.RUN_START_DELAY, 1
    stages, measurements = subject.stages, subject.measurements
    yield schema.STAGE_DURATION, assumed.stages if stages is None else len(stages)
    yield schema.METRIC_MEASUREMENT, assumed.measurements if measurements is None else len(measurements)
    for metric in (schema.METRIC_ROWS_READ, schema.METRIC_ROWS_WRITTEN, schema.METRIC_ROWS_REJECTED):
        yield metric, 1
    yield schema.METRIC_MEMORY_PEAK, 1
    yield schema.METRIC_CPU_TIME, 1
    of_run = [one for one in promised if one not in _OF_MODEL]
    yield schema.SLA_CHECKED, len(promised)
    yield schema.SLA_MARGIN, sum(one in _WITH_MARGIN for one in of_run)
    yield schema.SLA_BREACHED, assumed.breaking * len(of_run)
    yield schema.SLA_AT_RISK, assumed.breaking * sum(one in _AT_RISK for one in of_run)
    if any(one in FROM_DUE for one in of_run):
        yield schema.RUN_MISSED, assumed.breaking
