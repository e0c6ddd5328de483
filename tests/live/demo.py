"""
Shows in a few minutes what the package does: `make demo`.

Starts Datadog's test agent, a DogStatsD listener and an Airflow on loopback, trains a model on real flights,
scores a fortnight of February 2013 (the blizzard of the 8th and 9th is in it), scores the day after it by a cron job,
and prints what arrived, read back from the agent: both in one table. Ends with 0 only if that matches what Airflow
says it ran, and what the cron job did.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as dt_time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.live import evidence
from tests.live.agent import REPOSITORY, DatadogAgent
from tests.live.airflow import Airflow
from tests.live.airflow_client import FINAL_STATES
from tests.live.demo_job import MODEL, promises, run_job
from tests.live.demo_table import table
from tests.live.dogstatsd import DogStatsDListener
from tests.live.picture import waterfall
from tests.live.processes import LiveError, Processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TRAINING, SCORING = "flight_delay_training", "flight_delay_scoring"
FIRST_DAY, CUTOFF = date(2013, 2, 1), date(2013, 1, 31)
BLIZZARD = (date(2013, 2, 8), date(2013, 2, 9))
OK, DIFFERENT, BROKEN, INTERRUPTED = 0, 1, 2, 130


class Progress:
    """Prints a line for each step, with the time since the start."""

    def __init__(self) -> None:
        """Starts the clock."""
        self._start = time.monotonic()

    def __call__(self, step: str) -> None:
        """Prints a step."""
        print(f"{time.monotonic() - self._start:6.1f} s  {step}", flush=True)


@dataclass(frozen=True)
class Stand:
    """The servers of the demo, and what is said to Airflow and to the cron job alike."""

    processes: Processes
    shared: Mapping[str, str]
    agent: DatadogAgent
    dogstatsd: DogStatsDListener
    airflow: Airflow


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.demo", description="Trains, scores, observes.")
    parser.add_argument("--serve", action="store_true", help="leave all servers running until Ctrl-C")
    parser.add_argument(
        "--days",
        type=_days,
        default=14,
        metavar="N",
        help="score the first N days of February 2013 (default 14)",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the blizzard's trace as an SVG")
    options = parser.parse_args(arguments)
    progress = Progress()
    code = OK
    try:
        with _stand(progress) as stand:
            _train(stand.airflow, progress)
            days = [FIRST_DAY + timedelta(days=n) for n in range(options.days + 1)]
            _score(stand.airflow, days[:-1], progress)
            job = _run_job(stand, days[-1], progress)
            code = _judge(stand, job, progress)
            if options.picture:
                _draw(stand, options.picture)
            if options.serve:
                _serve(stand)
    except LiveError as error:
        print(f"demo: {error}", file=sys.stderr)
        code = BROKEN
    except KeyboardInterrupt:
        code = INTERRUPTED
    progress("all servers are stopped" + (": interrupted" if code == INTERRUPTED else ""))
    return code


@contextlib.contextmanager
def _stand(progress: Progress) -> Iterator[Stand]:
    """Starts the agent, the DogStatsD listener and Airflow; ends them, Airflow first."""
    progress("starting Datadog's test agent, a DogStatsD listener and Airflow")
    with (
        Processes() as processes,
        DogStatsDListener() as dogstatsd,
        DatadogAgent(processes, web_ui=True) as agent,
    ):
        progress("Datadog's test agent ready")
        shared = {
            "BATCHOBS_STATE_DIR": str(processes.folder / "state"),
            "DD_ENV": "demo",
            "FLIGHT_DELAY_ARTIFACTS": str(processes.folder / "artifacts"),
        }
        environment = {
            **shared,
            # Only what is triggered here runs: Airflow would add a run for today.
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
            "DD_DOGSTATSD_URL": dogstatsd.url,
            "DD_TRACE_AGENT_URL": agent.apm_url,
        }
        # More is no use to Airflow's SQLite.
        parallelism = min(8, max(2, os.cpu_count() or 2))
        dags = REPOSITORY / "dags"
        with Airflow(processes, dags, environment=environment, parallelism=parallelism, report=progress) as airflow:
            try:
                yield Stand(processes, shared, agent, dogstatsd, airflow)
            finally:
                progress("stopping all servers")


def _train(airflow: Airflow, progress: Progress) -> None:
    for dag_id in (TRAINING, SCORING):
        airflow.wait_for_dag(dag_id)
    progress(f"training on the flights until {CUTOFF} ({TRAINING})")
    run_id = airflow.trigger(TRAINING, {"cutoff": str(CUTOFF)}, run_id=f"until_{CUTOFF}")
    if airflow.wait(TRAINING, run_id) != "success":
        log = airflow.log_file(TRAINING, run_id, airflow.task_instances(TRAINING, run_id)[0]["task_id"])
        raise LiveError(f"the training failed; its log:\n{log.read_text()}")
    progress("model trained")


def _score(airflow: Airflow, days: list[date], progress: Progress) -> None:
    """Triggers all days at once and reports each that ends."""
    progress(f"scoring {len(days)} days, one task for each airport ({SCORING})")
    # Airflow takes runs by their logical date: with one they end day by day, without one nearly all at the end.
    waiting = {
        airflow.trigger(SCORING, {"day": str(day)}, datetime.combine(day, dt_time(), UTC), f"day_{day}"): day
        for day in days
    }

    def all_ended() -> bool:
        airflow.check()
        for run in airflow.dag_runs(SCORING):
            if run["state"] in FINAL_STATES and (day := waiting.pop(run["dag_run_id"], None)):
                progress(f"{day} {run['state']} ({len(days) - len(waiting)} of {len(days)})")
        return not waiting

    wait_until(all_ended, "all days are scored", 60 + 30 * len(days), lambda: f"left {list(waiting)}", every=1.0)


def _run_job(stand: Stand, day: date, progress: Progress) -> evidence.Job:
    progress(f"scoring {day} by a cron job, with the model that Airflow trained (batchobs run --model {MODEL} -- ...)")
    job = run_job(stand.processes, stand.agent, stand.shared, day)
    progress(f"{day} scored in {job.duration_s:.1f} s")
    return job


def _judge(stand: Stand, job: evidence.Job, progress: Progress) -> int:
    """Prints what arrived and how it differs from what ran; waits for it, as signals come seconds after a run."""
    tried = evidence.attempts(stand.airflow, (TRAINING, SCORING))
    progress(f"reading back what arrived of {len(tried)} runs of Airflow, and one of cron")
    different: list[str] = []

    def arrived() -> bool:
        different[:] = [
            *evidence.differences(tried, stand.agent.traces(), stand.dogstatsd.metrics()),
            *evidence.job_differences(job, stand.agent.otlp_spans(), stand.agent.otlp_metrics()),
        ]
        return not different

    with contextlib.suppress(LiveError):
        wait_until(arrived, "all has arrived", 30, every=1.0)
    traces, metrics = stand.agent.traces(), stand.dogstatsd.metrics()
    progress("read back")
    spans, points = stand.agent.otlp_spans(), stand.agent.otlp_metrics()
    print("", *table(tried, traces, job, spans), sep="\n")
    print("\nBoth are in one ledger, and batchobs sla reads it (DAGs are overdue: their schedules are off here):")
    print(*promises(stand.processes, stand.shared), "", sep="\n")
    kinds = len({metric.name for metric in metrics})
    print(
        f"received: {len(traces)} traces, {sum(map(len, traces))} spans, {len(metrics)} values of {kinds} metrics, "
        f"{len(stand.dogstatsd.events())} events; by OTLP {len(spans)} spans, {len(points)} values of metrics"
    )
    different += [f"no DogStatsD: {line!r}" for line in stand.dogstatsd.malformed()]
    if not different:
        print(
            f"all {len(tried)} attempts that Airflow ran arrived, and the cron job's run, each exactly once", flush=True
        )
        return OK
    print(f"{len(different)} differences between what ran and what arrived:")
    print(*(f"  {line}" for line in different), sep="\n", flush=True)
    return DIFFERENT


def _draw(stand: Stand, file: Path) -> None:
    """Draws a day that the blizzard fell on."""
    days = {f"day_{day}": day for day in BLIZZARD}
    for trace in stand.agent.traces():
        runs = {span["meta"].get("airflow.dag_run.run_id") for span in trace}
        if day := next((day for name, day in days.items() if name in runs), None):
            file.write_text(waterfall(trace, f"{SCORING}, flights of {day}"), encoding="utf-8")
            return
    raise LiveError(f"no trace of {' or '.join(days)}: score more days")


def _serve(stand: Stand) -> None:
    print(f"\nAirflow:       {stand.airflow.url}")
    print(f"trace viewer:  {stand.agent.web_url}")
    print("Ctrl-C stops all servers", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    print()


def _days(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 28:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days from 1 to 28")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
