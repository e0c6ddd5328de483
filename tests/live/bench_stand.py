"""
What a benchmark runs on: an Airflow without a scheduler, and an executor of its own for every variant.

The API server, the database, the executors with their workers, supervisors and task processes are Airflow's own.
What the scheduler would do, queueing task instances, is done before; so between two samples nothing else runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.live import rest
from tests.live.agent import DatadogAgent
from tests.live.airflow import Airflow
from tests.live.bench_peers import LineageSink, silent_agent
from tests.live.bench_samples import Sample, sample
from tests.live.bench_sidecar import cpu_s, sidecars
from tests.live.dogstatsd import DogStatsDListener
from tests.live.processes import LOOPBACK, LiveError, Process, Processes, free_ports, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HERE = Path(__file__).parent
BASELINE, OBSERVED, OPENLINEAGE, DDTRACE, DDTRACE_RC_OFF = VARIANTS = (
    "baseline",
    "observed",
    "openlineage",
    "ddtrace",
    "ddtrace-rc-off",
)
# The executor that runs observed tasks against Agents in different states, and several at once.
MANY = "observed-many"
PARALLEL = 4
HEALTHY, REFUSED, SILENT = AGENTS = ("healthy", "refused", "silent")

_OURS, _LINEAGE = "airflow_batch_observability", "apache_airflow_providers_openlineage"
# Installed, but not to be found by the Airflow of that variant: as if it were not installed.
_HIDDEN = {OBSERVED: (_LINEAGE,), OPENLINEAGE: (_OURS,)}
_ENDS_WITHIN_S = 60.0


class Stand:
    """The servers, the executors, and the runs that wait for them."""

    def __init__(self, processes: Processes, agent: DatadogAgent, lineage: LineageSink) -> None:
        """Binds the socket on which executors, supervisors and task processes tell what they measured."""
        self.processes = processes
        self.agent = agent
        self.lineage = lineage
        # What Airflow found in each executor: proof that a variant has its listeners and no others.
        self.listeners: dict[str, list[str]] = {}
        self._queued: dict[str, Any] = {}
        self._executors: dict[str, Process] = {}
        self._results = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._results.bind(str(processes.folder / "results"))
        self._results.settimeout(1.0)

    def run(self, executor: str, *run_ids: str) -> list[Sample]:
        """Runs queued tasks at once on an executor, after the sidecars of the runs before have become quiet."""
        self.settle()
        self.begin(executor, *run_ids)
        return self.end(executor, *run_ids)

    def begin(self, executor: str, *run_ids: str) -> None:
        """Hands queued tasks to an executor."""
        workloads = [self._queued.pop(run_id) for run_id in run_ids]
        self._results.sendto(json.dumps(workloads).encode(), self._commands(executor))

    def end(
        self, executor: str, *run_ids: str, meanwhile: Callable[[], None] = lambda: None, every: float = 1.0
    ) -> list[Sample]:
        """Waits for the end of runs, and calls `meanwhile` every so many seconds until then."""
        told: dict[str, dict[str, Any]] = {run_id: {} for run_id in run_ids}
        deadline = time.monotonic() + _ENDS_WITHIN_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._results, selectors.EVENT_READ)
            while any(not {"supervised", "exited"} <= messages.keys() for messages in told.values()):
                for key, _events in selector.select(every):
                    if key.fileobj is self._results:
                        message = self._receive()
                        told[message["run_id"]][message.pop("kind")] = message
                        if "pid" in message:
                            selector.register(os.pidfd_open(message["pid"]), selectors.EVENT_READ, message["run_id"])
                    else:
                        told[key.data]["exited"] = time.perf_counter()
                        selector.unregister(key.fileobj)
                        os.close(key.fd)
                meanwhile()
                if time.monotonic() > deadline:
                    raise LiveError(f"{run_ids} did not end on {executor}:\n{self._executors[executor].tail()}")
        for messages in told.values():
            if messages["supervised"]["exit_code"] != 0 or "task" not in messages:
                raise LiveError(f"a task failed on {executor}: {messages}\n{self._executors[executor].tail(60)}")
        return [sample(**messages) for messages in told.values()]

    def settle(self) -> None:
        """Waits until no sidecar uses the processor any more; one whose Agent is silent stays for half a minute."""
        seen: list[dict[int, float]] = []

        def quiet() -> bool:
            seen.append({one.pid: cpu_s(one) for one in sidecars(self.processes)})
            return not seen[-1] or (len(seen) > 2 and seen[-1] == seen[-2] == seen[-3])

        wait_until(quiet, "sidecars are quiet", 30, lambda: seen[-3:], every=0.1)

    def start_executors(self, environments: Mapping[str, Mapping[str, str]]) -> None:
        """Starts all executors at once; waits until each has loaded Airflow and its plugins."""
        for name, environment in environments.items():
            command = [sys.executable, "-P", str(HERE / "bench_worker.py")]
            if environment["BENCH_VARIANT"] in (DDTRACE, DDTRACE_RC_OFF):
                command = [str(Path(sys.executable).with_name("ddtrace-run")), *command]
            results = str(self.processes.folder / "results")
            own = {"BENCH_NAME": name, "BENCH_COMMANDS": self._commands(name), "BENCH_RESULTS": results}
            self._executors[name] = self.processes.start(f"executor-{name}", command, {**environment, **own})

        def ready() -> bool:
            for executor in self._executors.values():
                executor.check()
            with contextlib.suppress(TimeoutError):
                message = self._receive()
                self.listeners[message["name"]] = message["listeners"]
            return len(self.listeners) == len(environments)

        def tails() -> str:
            return "".join(f"\n--- {name}\n{executor.tail(8)}" for name, executor in self._executors.items())

        wait_until(ready, "executors are ready", _ENDS_WITHIN_S, tails)

    def queue(self, plan: Sequence[tuple[str, str]], environment: Mapping[str, str]) -> None:
        """Queues the task of each (DAG id, run id) of the plan."""
        wanted, queued = self.processes.folder / "plan.json", self.processes.folder / "queued.json"
        wanted.write_text(json.dumps(plan))
        command = [sys.executable, "-P", str(HERE / "bench_queue.py"), str(wanted), str(queued)]
        self.processes.start("queue", command, environment).wait(120)
        self._queued = json.loads(queued.read_text())

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._results.recv(1 << 16))
        return message

    def _commands(self, executor: str) -> str:
        return str(self.processes.folder / f"{executor}.commands")


@contextlib.contextmanager
def stand(plan: Sequence[tuple[str, str]], report: Callable[[str], None]) -> Iterator[Stand]:
    """Starts all servers and executors with the tasks of a plan queued; ends them."""
    with (
        Processes() as processes,
        DogStatsDListener() as dogstatsd,
        DatadogAgent(processes) as agent,
        LineageSink() as lineage,
        silent_agent() as silent,
    ):
        report("Datadog's test agent ready")
        dags = processes.folder / "dags"
        dags.mkdir()
        shutil.copy(HERE / "bench_dag.py", dags)
        # Not entered: this Airflow is an API server and executors only.
        airflow = Airflow(processes, dags, environment={"AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "3600"})
        closed = f"http://{LOOPBACK}:{free_ports(1)[0]}", f"udp://{LOOPBACK}:{free_ports(1)[0]}"
        addresses = dict(zip(AGENTS, ((agent.apm_url, dogstatsd.url), closed, silent), strict=True))
        agents = {
            state: {"DD_TRACE_AGENT_URL": traces, "DD_DOGSTATSD_URL": metrics}
            for state, (traces, metrics) in addresses.items()
        }
        common = airflow.environment | agents[HEALTHY] | {"BENCH_AGENTS": json.dumps(agents), "DD_ENV": "benchmark"}
        common |= {
            "AIRFLOW__OPENLINEAGE__NAMESPACE": "benchmark",
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "http", "url": lineage.url}),
            "BATCHOBS_STATE_DIR": str(processes.folder / "state"),
        }
        environments = {name: _environment(common, name, 1) for name in VARIANTS}
        environments[MANY] = _environment(common, OBSERVED, PARALLEL)
        bench = Stand(processes, agent, lineage)
        processes.start(
            "db-migrate", [sys.executable, "-m", "airflow", "db", "migrate"], environments[BASELINE], airflow.home
        ).wait(120)
        report("database ready")
        server = processes.start(
            "api-server", [sys.executable, "-m", "airflow", "api-server"], airflow.environment, airflow.home
        )
        bench.queue(plan, environments[BASELINE])
        report(f"{len(plan)} tasks queued")
        bench.start_executors(environments)

        def answers() -> bool:
            server.check()
            with contextlib.suppress(OSError):
                return bool(rest.call(f"{airflow.url}/execution/health", timeout=60))
            return False

        wait_until(answers, "the API server answers", 120, server.tail)
        report("API server and executors ready")
        yield bench


def _environment(common: Mapping[str, str], variant: str, parallelism: int) -> dict[str, str]:
    return {
        **common,
        # ddtrace in a forked worker waits before each fork for its thread of remote configuration (4.16).
        **({"DD_REMOTE_CONFIGURATION_ENABLED": "false"} if variant == DDTRACE_RC_OFF else {}),
        "DD_SERVICE": variant,
        "BENCH_HIDDEN": " ".join(_HIDDEN.get(variant, (_OURS, _LINEAGE))),
        "BENCH_PARALLELISM": str(parallelism),
        "BENCH_VARIANT": variant,
    }
