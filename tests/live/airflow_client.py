"""
Asks a running Airflow over its REST API, as a user's browser would.

Apart from `tests.live.airflow`, which starts one: what a test asks has nothing to do with how servers start.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from tests.live import rest
from tests.live.processes import LiveError, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

Json = dict[str, Any]

FINAL_STATES = frozenset({"success", "failed"})


class AirflowClient:
    """An Airflow that answers at `url` and keeps its logs below `home`."""

    def __init__(self, url: str, home: Path) -> None:
        """Asks nothing yet."""
        self.url = url
        self.home = home
        self._token = ""

    def check(self) -> None:
        """Raises LiveError if Airflow is known to be gone; waiting for it asks this each time."""

    def api(self, path: str, method: str = "GET", body: object = None) -> Any:
        """Calls `/api/v2/<path>` as an administrator and returns the decoded answer; raises RestError."""
        if not self._token:
            self._token = rest.call(f"{self.url}/auth/token")["access_token"]
        try:
            return rest.call(f"{self.url}/api/v2/{path}", method, body, {"Authorization": f"Bearer {self._token}"})
        except OSError as error:
            self.check()
            raise LiveError(f"Airflow does not answer {method} {path}: {error}") from error

    def import_errors(self) -> list[Json]:
        """Returns Airflow's import errors of DAG files: `filename`, `stack_trace`."""
        return self._list("importErrors", "import_errors")

    def wait_for_dag(self, dag_id: str, timeout: float = 60) -> Json:
        """Returns the DAG as soon as Airflow knows it; raises LiveError with the import errors, if any."""

        def known() -> Json | None:
            self.check()
            try:
                dag: Json = self.api(f"dags/{rest.quoted(dag_id)}")
            except rest.RestError as error:
                if error.status != 404:
                    raise
            else:
                return dag
            for broken in self.import_errors():
                raise LiveError(f"{broken['filename']} cannot be imported:\n{broken['stack_trace']}")
            return None

        return wait_until(known, f"Airflow knows DAG {dag_id}", timeout)

    def pause(self, dag_id: str) -> None:
        """Pauses a DAG."""
        self.api(f"dags/{rest.quoted(dag_id)}", "PATCH", {"is_paused": True})

    def unpause(self, dag_id: str) -> None:
        """Unpauses a DAG."""
        self.api(f"dags/{rest.quoted(dag_id)}", "PATCH", {"is_paused": False})

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        logical_date: datetime | None = None,
        run_id: str | None = None,
    ) -> str:
        """Starts a DAG run and returns its run id."""
        body = {"conf": dict(conf or {}), "logical_date": logical_date.isoformat() if logical_date else None}
        run = self.api(f"dags/{rest.quoted(dag_id)}/dagRuns", "POST", body | ({"dag_run_id": run_id} if run_id else {}))
        return str(run["dag_run_id"])

    def dag_run(self, dag_id: str, run_id: str) -> Json:
        """Returns a DAG run as the REST API describes it."""
        run: Json = self.api(_run_path(dag_id, run_id))
        return run

    def dag_runs(self, dag_id: str) -> list[Json]:
        """Returns all runs of a DAG by run id, whoever started them."""
        return sorted(self._list(f"dags/{rest.quoted(dag_id)}/dagRuns", "dag_runs"), key=lambda run: run["dag_run_id"])

    def wait(self, dag_id: str, run_id: str, timeout: float = 120) -> str:
        """Returns the final state of a DAG run: success or failed."""
        seen: Json = {}

        def final() -> str | None:
            self.check()
            seen.update(self.dag_run(dag_id, run_id))
            return seen["state"] if seen["state"] in FINAL_STATES else None

        def states() -> str:
            instances = self.task_instances(dag_id, run_id)
            return f"{seen.get('state')}, " + ", ".join(
                f"{ti['task_id']}[{ti['map_index']}] {ti['state']}" for ti in instances
            )

        return wait_until(final, f"DAG run {dag_id} {run_id} ends", timeout, states, every=0.5)

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """Returns the task instances of a DAG run, in their latest try, by task id and map index."""
        instances = self._list(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances")
        return sorted(instances, key=lambda ti: (ti["task_id"], ti["map_index"]))

    def task_tries(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[Json]:
        """Returns all tries of a task instance, the first one first."""
        index = f"/{map_index}" if map_index >= 0 else ""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{rest.quoted(task_id)}{index}/tries"
        return sorted(self.api(path)["task_instances"], key=lambda ti: ti["try_number"])

    def log_file(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int = 1) -> Path:
        """Returns the path of the log that Airflow keeps of one try of a task."""
        mapped = [f"map_index={map_index}"] if map_index >= 0 else []
        parts = [
            f"dag_id={dag_id}",
            f"run_id={run_id}",
            f"task_id={task_id}",
            *mapped,
            f"attempt={try_number}.log",
        ]
        return self.home.joinpath("logs", *parts)

    def log_lines(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int = 1) -> list[Json]:
        """Returns the lines of that log, parsed; a line that is no JSON object as {"event": line}."""
        path = self.log_file(dag_id, run_id, task_id, map_index, try_number)
        return [_log_line(line) for line in path.read_text().splitlines() if line.strip()]

    def _list(self, path: str, key: str) -> list[Json]:
        """Returns all pages of a list of the API."""
        items: list[Json] = []
        while True:
            page = self.api(f"{path}?limit=100&offset={len(items)}")
            items += page[key]
            if not page[key] or len(items) >= page["total_entries"]:
                return items


def _run_path(dag_id: str, run_id: str) -> str:
    return f"dags/{rest.quoted(dag_id)}/dagRuns/{rest.quoted(run_id)}"


def _log_line(line: str) -> Json:
    with contextlib.suppress(ValueError):
        parsed = json.loads(line)
        if isinstance(parsed, dict):
            return parsed
    return {"event": line}
