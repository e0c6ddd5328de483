"""Frames as an observed process sends them, and what the spool then holds, as plain values."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from batch_observability.config import Settings
from batch_observability.run import RunContext

if TYPE_CHECKING:
    from pathlib import Path

START_NS = 1_790_000_000_000_000_000
SECOND = 1_000_000_000
TRACE_ID, RUN_SPAN, PARENT, ORPHAN_PARENT = (0xA << 124) + 5, (1 << 63) + 7, 1001, 1002
MODEL = {
    "name": "churn",
    "version": "3",
    "service": "churn-service",
    "owner": "team-churn",
    "tier": "2",
    "runbook": "https://wiki.example.com/churn",
    "objectives": {"finish_within": "9999d", "min_rows": "0"},
}


def context(**changes: Any) -> RunContext:
    """Return a run of an Airflow task."""
    values = {
        "run_id": "0199-run",
        "source": "airflow",
        "resource": "dag.task",
        "model": MODEL,
        "tags": {"dag_id": "dag", "task_id": "task"},
        "trace_id": TRACE_ID,
        "span_id": RUN_SPAN,
        "parent_id": PARENT,
        "orphan_parent_id": PARENT,
        "attributes": {
            "airflow.dag_id": "dag",
            "airflow.task_id": "task",
            "airflow.dag_run.run_id": "manual__1",
            "airflow.task_instance.try_number": 1,
            "airflow.task_instance.map_index": -1,
        },
        "start_ns": START_NS,
        "env": "test",
    }
    return RunContext(**{**values, **changes})


def start(pid: int, state: Path, run: RunContext | None = None, **settings: Any) -> dict[str, Any]:
    """Return the first frame of a run, whose signals go to the spool; a resumed one begins its phase."""
    chosen = Settings(**{"export": ("spool",), "state_dir": str(state), "retry_for": 0.1, **settings})
    run = run or context()
    return {
        "t": "start",
        "ts": START_NS,
        "phase_ns": run.start_ns,
        "pid": pid,
        "usage": {"cpu_s": 0.0, "memory_peak": 1},
        "context": asdict(run),
        "settings": chosen.as_frame(),
        "airflow_tracing": False,
        "announced": False,
        "path": [],
    }


def at(seconds: float) -> int:
    """Return a Unix time in nanoseconds so many seconds after the start of the run."""
    return START_NS + round(seconds * SECOND)


def stage(number: int, name: str, seconds: float, parent: int = 0) -> dict[str, Any]:
    """Return the frame of a stage that begins."""
    return {"t": "stage", "ts": at(seconds), "id": number, "name": name, "parent": parent}


def stage_end(number: int, seconds: float, error: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the frame of a stage that ends."""
    return {"t": "stage_end", "ts": at(seconds), "id": number, "error": error}


def rows(pid: int, read: int = 0, written: int = 0, rejected: int = 0) -> dict[str, Any]:
    """Return a frame of totals of one process."""
    return {"t": "rows", "ts": at(1), "pid": pid, "read": read, "written": written, "rejected": rejected}


def end(
    outcome: str = "success", seconds: float = 10, error: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """Return the last frame of a run."""
    usage = {"cpu_s": 2.5, "memory_peak": 50_000_000}
    return {"t": "end", "ts": at(seconds), "outcome": outcome, "error": error, "usage": usage, **more}


def lines(*frames: dict[str, Any]) -> bytes:
    """Return frames as they go over the wire."""
    return b"".join(json.dumps(frame).encode() + b"\n" for frame in frames)


def spooled(state: Path, signal: str) -> list[dict[str, Any]]:
    """Return the spans, metrics or log records in the spool, flat; ids stay hex, `attributes` become a dict."""
    keys = {
        "traces": ("resourceSpans", "scopeSpans", "spans"),
        "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
        "logs": ("resourceLogs", "scopeLogs", "logRecords"),
        "events": ("resourceLogs", "scopeLogs", "logRecords"),
    }
    resources, scopes, items = keys[signal]
    return [
        {**item, "attributes": _plain(item.get("attributes", []))}
        for path in sorted((state / "spool").glob(f"*/*.{signal}.jsonl"))
        for resource in json.loads(path.read_text("utf-8"))[resources]
        for scope in resource[scopes]
        for item in scope[items]
    ]


def log_lines(state: Path, *, starts: bool = False) -> list[dict[str, Any]]:
    """Return the wide records of the log file: of what became of runs, or of their starts."""
    path = state / "logs" / "batch_models.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return [line for line in lines if (line["event"] == "batch model run started") == starts]


def _plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    def held(value: dict[str, Any]) -> Any:
        ((kind, inner),) = value.items()
        return {"intValue": int, "kvlistValue": lambda v: _plain(v["values"])}.get(kind, lambda v: v)(inner)

    return {attribute["key"]: held(attribute["value"]) for attribute in attributes}
