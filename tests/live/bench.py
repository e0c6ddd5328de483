"""
Measures what observing costs a task, beside its neighbours, in one paired run: `make bench`.

Real task processes of Airflow's LocalExecutor run the same task without any plugin, as a batch model of ours, with
the OpenLineage provider, and under ddtrace, in turns. Then our hooks with an Agent in different states, and our
sidecar. Prints tables and writes them to docs/benchmarks.md. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import psutil

from tests.live import bench_report
from tests.live.agent import REPOSITORY
from tests.live.bench_sidecar import SidecarUse, SidecarWatch, adopting
from tests.live.bench_stand import (
    AGENTS,
    DDTRACE,
    DDTRACE_RC_OFF,
    HEALTHY,
    MANY,
    OBSERVED,
    OPENLINEAGE,
    PARALLEL,
    VARIANTS,
    Stand,
    stand,
)
from tests.live.processes import LiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.live.bench_samples import Sample

PAGE = REPOSITORY / "docs" / "benchmarks.md"
TRIVIAL, STAGES, TWO_SECONDS = "trivial", "stages", "two_seconds"
OK, BROKEN, INTERRUPTED = 0, 2, 130


@dataclass(frozen=True)
class Counts:
    """How many samples of each kind are taken."""

    rounds: int = 15
    hooks: int = 20
    at_once: int = 5
    sidecars: int = 5
    warm_up: int = 1


QUICK = Counts(rounds=3, hooks=3, at_once=1, sidecars=2)


@dataclass
class Measured:
    """
    All samples.

    Attributes:
        tasks: by task and variant, one for each round.
        hooks: by the state of the Agent.
        at_once: of observed tasks that started at the same moment.
        sidecars: what each used, with the sample of its run.
        arrived: what the receivers got, against what was sent.
        listeners: what Airflow had loaded in each variant.
        load: of the machine, before anything was started.
    """

    tasks: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    hooks: dict[str, list[Sample]] = field(default_factory=dict)
    at_once: list[Sample] = field(default_factory=list)
    sidecars: list[tuple[Sample, SidecarUse]] = field(default_factory=list)
    arrived: dict[str, str] = field(default_factory=dict)
    listeners: dict[str, list[str]] = field(default_factory=dict)
    load: float = 0.0


class Progress:
    """Prints a line for each step, with the time since the start."""

    def __init__(self) -> None:
        """Starts the clock."""
        self._start = time.monotonic()

    def __call__(self, step: str) -> None:
        """Prints a step."""
        print(f"{time.monotonic() - self._start:6.1f} s  {step}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.bench", description="What observing costs.")
    parser.add_argument("--quick", action="store_true", help="few samples, to try it out; writes no page")
    options = parser.parse_args(arguments)
    counts = QUICK if options.quick else Counts()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    progress = Progress()
    measured = Measured(load=psutil.getloadavg()[0])
    try:
        progress(f"starting the servers; load of the machine {measured.load:.1f}")
        with stand(list(_plan(counts)), progress) as servers:
            _measure(servers, counts, measured, progress)
            progress("stopping all servers")
    except LiveError as error:
        print(f"bench: {error}", file=sys.stderr)
        return BROKEN
    except KeyboardInterrupt:
        print("bench: interrupted; all servers are stopped", file=sys.stderr)
        return INTERRUPTED
    page = bench_report.page(measured)
    print(f"\n{page}", flush=True)
    if not options.quick:
        PAGE.write_text(page, encoding="utf-8")
        progress(f"done; written to {PAGE.relative_to(REPOSITORY)}")
    return OK


def _plan(counts: Counts) -> Iterator[tuple[str, str]]:
    """Yields DAG id and run id of every run that there will be."""
    for variant in VARIANTS:
        for task in (TRIVIAL, STAGES):
            for number in range(-counts.warm_up, counts.rounds):
                yield f"bench_{task}", _run_id(task, variant, number)
    for state in AGENTS:
        for number in range(counts.hooks):
            yield f"bench_{TRIVIAL}", _run_id(state, number)
    for number in range(-PARALLEL * counts.warm_up, PARALLEL * counts.at_once):
        yield f"bench_{STAGES}", _run_id(HEALTHY, "at_once", number)
    for number in range(counts.sidecars):
        yield f"bench_{TWO_SECONDS}", _run_id(TWO_SECONDS, number)


def _run_id(*parts: object) -> str:
    """Returns a run id; for the executor of many it begins with the state of the Agent."""
    return "-".join(map(str, parts))


def _measure(servers: Stand, counts: Counts, measured: Measured, progress: Progress) -> None:
    measured.listeners = servers.listeners
    for number in range(-counts.warm_up, 0):
        for task in (TRIVIAL, STAGES):
            for variant in VARIANTS:
                servers.run(variant, _run_id(task, variant, number))
        # Each of its workers takes one.
        servers.run(MANY, *_at_once(number))
    progress("warm")
    for task in (TRIVIAL, STAGES):
        taken = measured.tasks[task] = {variant: [] for variant in VARIANTS}
        for number in range(counts.rounds):
            for variant in VARIANTS:
                taken[variant] += servers.run(variant, _run_id(task, variant, number))
            if (number + 1) % 5 == 0 or number + 1 == counts.rounds:
                progress(f"task {task}: {number + 1} of {counts.rounds} rounds of {len(VARIANTS)} variants")
    _measure_sidecars(servers, counts, measured)
    progress(f"sidecar: {counts.sidecars} runs of 2 s")
    measured.hooks = {state: [] for state in AGENTS}
    for number in range(counts.hooks):
        for state in AGENTS:
            measured.hooks[state] += servers.run(MANY, _run_id(state, number))
        if (number + 1) % 5 == 0 or number + 1 == counts.hooks:
            progress(f"hooks: {number + 1} of {counts.hooks} with the Agent {', '.join(AGENTS)}")
    for number in range(counts.at_once):
        measured.at_once += servers.run(MANY, *_at_once(number))
    progress(f"hooks: {counts.at_once} times {PARALLEL} tasks at once")
    servers.settle()
    measured.arrived = _arrived(servers, counts)


def _at_once(number: int) -> list[str]:
    return [_run_id(HEALTHY, "at_once", PARALLEL * number + part) for part in range(PARALLEL)]


def _measure_sidecars(servers: Stand, counts: Counts, measured: Measured) -> None:
    for number in range(counts.sidecars):
        servers.settle()
        watch, run_id = SidecarWatch(servers.processes), _run_id(TWO_SECONDS, number)
        with adopting():
            servers.begin(OBSERVED, run_id)
            (sample,) = servers.end(OBSERVED, run_id, meanwhile=watch.look, every=0.005)
            measured.sidecars.append((sample, watch.finish()))


def _arrived(servers: Stand, counts: Counts) -> dict[str, str]:
    """Says what the receivers have got: a variant that sent nothing would be a cheap one."""
    spans = Counter((span["name"], span["service"]) for span in servers.agent.spans())
    each = 2 * (counts.rounds + counts.warm_up)
    observed = each + counts.sidecars + counts.hooks + PARALLEL * (counts.at_once + counts.warm_up)
    return {
        OBSERVED: f"{spans['batch_model.run', 'benchmark']} run spans of {observed} runs with a healthy Agent",
        OPENLINEAGE: f"{servers.lineage.events} events of {each} runs",
        **{traced: f"{spans['task.run', traced]} task spans of {each} runs" for traced in (DDTRACE, DDTRACE_RC_OFF)},
    }


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
