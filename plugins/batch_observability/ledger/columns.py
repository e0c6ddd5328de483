"""
Changes of the ledger as values of columns, as both databases take them: nothing may be lost for an odd value.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

from batch_observability.ids import hex_span_id, hex_trace_id
from batch_observability.ledger.records import BREACHED, Finished, Model, Promised, Run

_MAX = 2**63 - 1
_NOT_OF_RUNS = ("run", "stages", "measurements", "margins")
_NOT_OF_PROMISES = ("state", "time_ns", "token", "counts_from_due", "clear_number")
_OF_RUN = {"model_name": "name", "model_version": "version", "service": "service", "owner": "owner", "tier": "tier"}
_OF_PROMISE = {"model_name": "name", "version": "version", "service": "service", "owner": "owner", "tier": "tier"}


def of_run(run: Run) -> dict[str, Any]:
    """Return a run as columns of `runs`."""
    return {
        **{f.name: plain(getattr(run, f.name)) for f in fields(run) if f.name != "model"},
        **_of_model(run.model, _OF_RUN),
        "trace_id": hex_trace_id(run.trace_id),
        "span_id": hex_span_id(run.span_id),
    }


def of_ending(change: Finished) -> dict[str, Any]:
    """Return what an ending adds to the columns of `runs`."""
    return {f.name: plain(getattr(change, f.name)) for f in fields(change) if f.name not in _NOT_OF_RUNS}


def of_stages(change: Finished) -> list[dict[str, Any]]:
    """Return the stages of a run as rows of `stages`."""
    return [
        {
            **{f.name: plain(getattr(stage, f.name)) for f in fields(stage)},
            "run_id": text(change.run.run_id),
            "position": position,
            "span_id": hex_span_id(stage.span_id),
            "parent_id": hex_span_id(stage.parent_id),
        }
        for position, stage in enumerate(change.stages)
    ]


def of_measurements(change: Finished) -> list[dict[str, Any]]:
    """Return the measurements of a run as rows of `measurements`."""
    return [
        {
            **{f.name: plain(getattr(measurement, f.name)) for f in fields(measurement)},
            "run_id": text(change.run.run_id),
            "position": position,
        }
        for position, measurement in enumerate(change.measurements)
        # SQLite has no NaN.
        if math.isfinite(measurement.value)
    ]


def of_promise(change: Promised) -> dict[str, Any]:
    """Return a promise as columns of `promises`; only a broken one has an episode."""
    is_broken = change.state == BREACHED
    said = "breached" if is_broken else "at_risk"
    return {
        **{f.name: plain(getattr(change, f.name)) for f in fields(change) if f.name not in _NOT_OF_PROMISES},
        **_of_model(change.model, _OF_PROMISE),
        "episode": text(change.episode) if change.episode and is_broken else None,
        f"{said}_ns": whole(change.time_ns),
        f"{said}_token": text(change.token),
    }


def name_of(model: Model) -> str:
    """Return a model's name, as a column."""
    return text(str(model.get("name") or ""))


def definition(model: Model) -> str:
    """Return a model as a column."""
    return json.dumps(model, sort_keys=True)


def plain(value: Any) -> Any:
    """Return a value as both databases take it."""
    if isinstance(value, str):
        return text(value)
    return whole(value) if isinstance(value, int) else value


def text(value: str) -> str:
    """Return a text as both databases take it."""
    # PostgreSQL has no NUL in a text; half a surrogate pair is no UTF-8.
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def whole(value: int) -> int:
    """Return a whole number as both databases take it."""
    return min(max(int(value), -_MAX), _MAX)


def _of_model(model: Model, names: dict[str, str]) -> dict[str, str]:
    of_model = {column: text(str(model.get(name) or "")) for column, name in names.items()}
    return {**of_model, "model": definition(model)}
