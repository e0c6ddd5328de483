"""
What is told to the ledger, as plain values: a run has started, paused, will end, has ended.

A change that cannot be written at once waits in the spool as a line of JSON and is told again later, by whoever finds
it; so each of these can be written as JSON values, and be read back by another version of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

Model = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Record:
    """Fields that are plain values, lists of records or records."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as values that JSON has."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """
        Read what `to_json` wrote; fields that this version does not know are passed over.

        Raises:
            ValueError: naming the field, in one line.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{cls.__name__} is {type(values).__name__}: not an object")  # noqa: TRY004  (one class of error to the reader)
        known = {}
        for f in fields(cls):
            if f.name in values:
                known[f.name] = _read(f"{cls.__name__}.{f.name}", str(f.type), values[f.name])
            elif f.default is MISSING:
                raise ValueError(f"{cls.__name__} has no {f.name}")
        return cls(**known)


@dataclass(frozen=True, kw_only=True)
class Run(_Record):
    """
    One attempt of one batch model. Times are Unix times in nanoseconds; "" and None where something is not known.

    Attributes:
        run_id: Airflow's task instance id, or a UUID.
        source: `airflow` or `cron`.
        resource: what the run is a run of, `<dag_id>.<task_id>` or `<job>`.
        model: name, version, service, owner, tier, runbook and objectives of the model, as text.
        map_index: -1 if the task is not mapped.
        try_number: from 1; 0 if there are no tries.
        trace_id, span_id: of the run span.
    """

    run_id: str
    source: str
    resource: str
    env: str
    model: Model
    dag_id: str = ""
    task_id: str = ""
    job: str = ""
    dag_run_id: str = ""
    map_index: int = -1
    try_number: int = 0
    trace_id: int
    span_id: int
    host: str = ""
    pid: int = 0
    due_ns: int | None = None
    start_ns: int


@dataclass(frozen=True, kw_only=True)
class Stage(_Record):
    """A stage of a run that has ended; `parent_id` is the run's span or an outer stage's."""

    span_id: int
    parent_id: int
    name: str
    start_ns: int
    end_ns: int
    error_type: str = ""


@dataclass(frozen=True, kw_only=True)
class Measurement(_Record):
    """A number that a run recorded."""

    name: str
    value: float
    unit: str = ""
    time_ns: int = 0


@dataclass(frozen=True, kw_only=True)
class Started(_Record):
    """A run has begun. `context` is what a second layer needs to tell the ending; kept while the run is open."""

    run: Run
    context: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Paused(_Record):
    """A run was deferred or rescheduled. `state` is the observation as JSON text: another host may go on with it."""

    run: Run
    state: str
    paused_ns: int


@dataclass(frozen=True, kw_only=True)
class Verdict(_Record):
    """Why a run will end, by somebody who knows: of one run, or (`run_id` "") of all open runs of a DAG run."""

    outcome: str
    reason: str
    time_ns: int
    run_id: str = ""
    dag_id: str = ""
    dag_run_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Finished(_Record):
    """
    A run has ended.

    Attributes:
        token: of this telling of the ending; the same when it is told again.
        closed_by: `sidecar` or `scheduler`.
        stage: innermost stage that the run was in when it failed.
        memory_peak, memory_limit: bytes.
        waiting_s: seconds that the run was deferred or rescheduled.
        dropped: frames that the run had to drop.
    """

    run: Run
    end_ns: int
    outcome: str
    token: str
    closed_by: str
    error_type: str = ""
    error_message: str = ""
    stage: str = ""
    signal: str = ""
    exit_code: int | None = None
    rows_read: int | None = None
    rows_written: int | None = None
    rows_rejected: int | None = None
    memory_peak: int = 0
    memory_limit: int | None = None
    cpu_s: float = 0.0
    waiting_s: float = 0.0
    dropped: int = 0
    stages: tuple[Stage, ...] = ()
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run that has no outcome yet, with all that may help to tell one; `state` is "" if it never paused."""

    run: Run
    context: dict[str, Any]
    paused_ns: int | None
    state: str


Change = Started | Paused | Verdict | Finished
_KINDS: dict[str, type[Change]] = {
    "started": Started,
    "paused": Paused,
    "verdict": Verdict,
    "finished": Finished,
}


def encode(change: Change) -> dict[str, Any]:
    """Return a change as values that JSON has, with its kind."""
    kind = next(kind for kind, known in _KINDS.items() if isinstance(change, known))
    return {"kind": kind, **change.to_json()}


def decode(values: object) -> Change:
    """
    Read what `encode` wrote.

    Raises:
        ValueError: in one line, if it is none.
    """
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"no change of the ledger: its kind is {_short(kind)}, not one of {', '.join(_KINDS)}")
    return _KINDS[kind].from_json(values)


def _plain(value: Any) -> Any:
    if isinstance(value, _Record):
        return value.to_json()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _read(place: str, kind: str, value: Any) -> Any:
    if kind.endswith(" | None"):
        return None if value is None else _read(place, kind.removesuffix(" | None"), value)
    if kind.startswith("tuple["):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{place} is {_short(value)}: not a list")
        return tuple(_NESTED[kind].from_json(item) for item in value)
    if kind in _NESTED:
        return _NESTED[kind].from_json(value)
    fits, name = _PLAIN[kind]
    if not fits(value):
        raise ValueError(f"{place} is {_short(value)}: not {name}")
    return float(value) if kind == "float" else value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _is_number(value: object) -> bool:
    # Above 2**1023 a whole number is too large for a float.
    return isinstance(value, float) or (isinstance(value, int) and _is_whole(value) and abs(value) < 2**1023)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# By the text of a field's annotation.
_PLAIN: dict[str, tuple[Callable[[object], bool], str]] = {
    "str": (lambda value: isinstance(value, str), "a text"),
    "int": (_is_whole, "a whole number"),
    "float": (_is_number, "a number"),
    "Model": (lambda value: isinstance(value, dict), "an object"),
    "dict[str, Any]": (lambda value: isinstance(value, dict), "an object"),
}
_NESTED: dict[str, type[_Record]] = {
    "Run": Run,
    "tuple[Stage, ...]": Stage,
    "tuple[Measurement, ...]": Measurement,
}
